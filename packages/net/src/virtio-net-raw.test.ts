import { CommonFeatures } from '@virtio/core';
import { ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { F, frame, NetModel, type ModelOptions, QEMU, SPLIT } from '../test/net-model.ts';
import { NetControl, type RawNetOptions, VirtioNetRaw } from './index.ts';

const code = (name: string): Error => expect.objectContaining({ code: name }) as Error;

function setUp(options: ModelOptions = {}, rawOptions: RawNetOptions = {}) {
  const model = new NetModel(options);
  const net = new VirtioNetRaw(model.transport, model.device.hal, rawOptions);
  return { model, net };
}

function clean({ model, net }: ReturnType<typeof setUp>): void {
  net[Symbol.dispose]();
  model.device.assertClean();
}

const withHeader = (net: VirtioNetRaw, packet: Uint8Array): Uint8Array => {
  const buffer = new Uint8Array(net.headerSize + packet.length);
  buffer.set(packet, net.fillBufferHeader(buffer));
  return buffer;
};

const turns = async (count = 20): Promise<void> => {
  for (let i = 0; i < count; i += 1) await Promise.resolve();
};

describe.each(ringVariants)('VirtioNetRaw on a ring that is $name', ({ features }) => {
  it('sends and receives in buffers of the caller, with promises and tokens', async () => {
    const made = setUp({ features: (QEMU & ~SPLIT) | features });
    const { model, net } = made;
    expect(net.features.has('MRG_RXBUF')).toBe(false);
    for (let n = 0; n < 40; n += 1) {
      const packet = frame(n * 30, n);
      const buffer = new Uint8Array(net.minReceiveBuffer);
      let length: number;
      if (n % 2 === 0) {
        await net.send(packet);
        const receiving = net.receive(buffer);
        await turns();
        model.deliver(packet);
        length = await receiving;
      } else {
        const token = net.transmitBegin(withHeader(net, packet));
        expect(net.pollTransmit()).toBe(token);
        expect(net.transmitComplete(token)).toBe(12 + packet.length);
        const receiving = net.receiveBegin(buffer);
        expect(net.pollReceive()).toBe(-1);
        expect(() => net.receiveComplete(receiving)).toThrow(code('NOT_READY'));
        model.deliver(packet);
        expect(net.pollReceive()).toBe(receiving);
        length = net.receiveComplete(receiving);
      }
      expect(buffer.subarray(12, 12 + length)).toEqual(packet);
      expect(net.readBufferHeader(buffer, length)).toEqual({ dataValid: false });
      expect(model.sent.at(-1)?.frame).toEqual(packet);
    }
    clean(made);
  });

  it('sends and receives, spinning', () => {
    const made = setUp({ features: (QEMU & ~SPLIT) | features });
    const { model, net } = made;
    let packet = frame(0);
    model.device.handle(0, (chain) => {
      chain.write([...new Uint8Array(12), ...packet]);
    });
    const buffer = new Uint8Array(net.minReceiveBuffer);
    for (let n = 0; n < 40; n += 1) {
      packet = frame(n * 30, n);
      net.sendSync(packet, { timeoutMs: 2000 });
      expect(model.sent.at(-1)?.frame).toEqual(packet);
      expect(net.receiveSync(buffer, { timeoutMs: 2000 })).toBe(packet.length);
      expect(buffer.subarray(12, 12 + packet.length)).toEqual(packet);
    }
    clean(made);
  });
});

describe('VirtioNetRaw', () => {
  it('tells whether there is room, and sends batches with one notification', () => {
    const made = setUp({ queueSize: 4, features: F.MAC });
    const { model, net } = made;
    model.throttled = true;
    model.device.notifications.length = 0;
    const tokens = Array.from({ length: 4 }, (_, n) =>
      net.transmitBegin(withHeader(net, frame(60, n)), { kick: false }),
    );
    expect(net.canSend).toBe(false);
    expect(() => net.transmitBegin(withHeader(net, frame(60)))).toThrow(code('QUEUE_FULL'));
    expect(() => net.sendSync(frame(60))).toThrow(code('QUEUE_FULL'));
    net.kick();
    expect(model.device.notifications.map(({ queue }) => queue)).toEqual([1]);
    expect(net.pollTransmit()).toBe(-1);
    model.unthrottle();
    expect(net.canSend).toBe(true);
    expect(tokens.map(() => net.pollTransmit())).toEqual(tokens);
    for (const token of tokens) expect(net.transmitComplete(token)).toBe(72);
    expect(() => net.transmitComplete(tokens[0] as number)).toThrow(code('WRONG_TOKEN'));
    clean(made);
  });

  it('uses buffers in DMA memory as they are', () => {
    const made = setUp();
    const { model, net } = made;
    const region = model.device.hal.dmaAlloc(1, 'both', false);
    const buffer = region.bytes.subarray(0, 2000);
    buffer.set(frame(100), net.fillBufferHeader(buffer));
    const sending = net.transmitBegin(buffer.subarray(0, 112));
    net.transmitComplete(sending);
    expect(model.sent[0]?.frame).toEqual(frame(100));
    const receiving = net.receiveBegin(buffer);
    model.deliver(frame(99, 4));
    expect(net.receiveComplete(receiving)).toBe(99);
    expect(buffer.subarray(12, 111)).toEqual(frame(99, 4));
    model.device.hal.dmaDealloc(region, false);
    clean(made);
  });

  it('refuses buffers that are too short, before anything is sent [5.1.9.3.1]', async () => {
    const made = setUp();
    const { net } = made;
    expect(net.minReceiveBuffer).toBe(1526);
    expect(() => net.receiveBegin(new Uint8Array(1525))).toThrow(code('INVALID_PARAM'));
    await expect(net.receive(new Uint8Array(0))).rejects.toThrow(code('INVALID_PARAM'));
    expect(() => net.transmitBegin(new Uint8Array(11))).toThrow(code('INVALID_PARAM'));
    expect(() => net.fillBufferHeader(new Uint8Array(11))).toThrow(code('INVALID_PARAM'));
    expect(() => net.readBufferHeader(new Uint8Array(20), 9)).toThrow(code('INVALID_PARAM'));
    expect(() => net.transmitBegin('x' as unknown as Uint8Array)).toThrow(code('INVALID_PARAM'));
    clean(made);
  });

  it('needs 1534 bytes with a hash report, and 65,601 where large packets may come [5.1.9.3.1]', () => {
    const features = QEMU | F.HASH_REPORT | F.GUEST_CSUM | F.GUEST_TSO4;
    expect(setUp({ features }).net.minReceiveBuffer).toBe(1534);
    expect(setUp({ features }, { receiveOffloads: true }).net.minReceiveBuffer).toBe(65_609);
    expect(
      setUp({ features: features & ~F.HASH_REPORT }, { receiveOffloads: ['GUEST_CSUM', 'GUEST_TSO4'] }).net
        .minReceiveBuffer,
    ).toBe(65_601);
  });

  it('needs room for a packet of the MTU that the device has [5.1.4.2]', () => {
    const made = setUp({ features: QEMU | F.MTU, mtu: 9000 });
    expect(made.net.minReceiveBuffer).toBe(12 + 9000 + 14);
    expect(() => made.net.receiveBegin(new Uint8Array(9025))).toThrow(code('INVALID_PARAM'));
    made.net.receiveCancel(made.net.receiveBegin(new Uint8Array(9026)));
    expect(setUp({ features: QEMU | F.MTU, mtu: 1000 }).net.minReceiveBuffer).toBe(1526);
  });

  it('refuses what is beyond the MTU, unless the device cuts it [5.1.4.2]', () => {
    const features = QEMU | F.MTU | F.CSUM | F.HOST_TSO4;
    const made = setUp({ features, mtu: 1000 });
    const { model, net } = made;
    const header = {
      checksum: { start: 34, offset: 16 },
      gso: { type: 'TCPV4', size: 900, headerLength: 54 },
    } as const;
    expect(() => net.sendSync(frame(1015))).toThrow(code('INVALID_PARAM'));
    expect(() => net.transmitBegin(withHeader(net, frame(1015)))).toThrow(code('INVALID_PARAM'));
    net.sendSync(frame(5000), { header });
    const buffer = withHeader(net, frame(6000));
    net.fillBufferHeader(buffer, header);
    net.transmitComplete(net.transmitBegin(buffer));
    expect(model.sent.map((packet) => packet.frame.length)).toEqual([5000, 6000]);
    clean(made);
  });

  it('gives an error for a buffer that was used for less than a header, and for no other', () => {
    const made = setUp();
    const { model, net } = made;
    const buffers = [0, 1].map(() => new Uint8Array(1526));
    const tokens = buffers.map((buffer) => net.receiveBegin(buffer));
    model.deliver(frame(60), { usedLength: 11 });
    model.deliver(frame(60, 2));
    expect(() => net.receiveComplete(tokens[0] as number)).toThrow(code('DEVICE_MISBEHAVED'));
    expect(buffers[0]?.every((byte) => byte === 0)).toBe(true);
    expect(net.receiveComplete(tokens[1] as number)).toBe(60);
    expect(buffers[1]?.subarray(12, 72)).toEqual(frame(60, 2));
    expect(net.failure).toBeUndefined();
    clean(made);
  });

  it('judges the header of a packet when it is read', () => {
    const made = setUp();
    const buffer = new Uint8Array(1526);
    const token = made.net.receiveBegin(buffer);
    made.model.deliver(frame(60), { header: { gsoType: 1, gsoSize: 5 } });
    const length = made.net.receiveComplete(token);
    expect(() => made.net.readBufferHeader(buffer, length)).toThrow(code('DEVICE_MISBEHAVED'));
    clean(made);
  });

  it('lets a caller give up, and gives what comes to nobody', async () => {
    const made = setUp();
    const { model, net } = made;
    const buffer = new Uint8Array(1526);
    const controller = new AbortController();
    const given = net.receive(buffer, { signal: controller.signal });
    await turns();
    controller.abort();
    await expect(given).rejects.toThrow(code('ABORTED'));
    const token = net.receiveBegin(new Uint8Array(1526));
    model.deliver(frame(60, 1));
    expect(net.pollReceive()).toBe(-1);
    expect(buffer.every((byte) => byte === 0)).toBe(true);
    net.receiveCancel(token);
    model.deliver(frame(60, 2));
    expect(net.pollReceive()).toBe(-1);
    expect(() => net.receiveSync(new Uint8Array(1526), { timeoutMs: 1 })).toThrow(code('NOT_READY'));
    clean(made);
  });

  it('makes tokens void at a reset', () => {
    const made = setUp();
    const { model, net } = made;
    const receiving = net.receiveBegin(new Uint8Array(1526));
    model.throttled = true;
    const sending = net.transmitBegin(withHeader(net, frame(60)));
    net.reset();
    expect(() => net.receiveComplete(receiving)).toThrow(code('WRONG_TOKEN'));
    expect(() => net.transmitComplete(sending)).toThrow(code('WRONG_TOKEN'));
    clean(made);
  });

  it('keeps tokens of several pairs apart', async () => {
    const made = setUp({ features: QEMU | F.MQ, maxPairs: 3 }, { queuePairs: 3 });
    const { model, net } = made;
    await net.control(NetControl.setQueuePairs(3));
    const tokens = [0, 1, 2].map((pair) => net.receiveBegin(new Uint8Array(1526), { pair }));
    expect(new Set(tokens).size).toBe(3);
    for (const pair of [2, 0, 1]) {
      model.deliver(frame(60 + pair, pair), { pair });
      expect(net.pollReceive()).toBe(tokens[pair]);
      expect(net.receiveComplete(tokens[pair] as number)).toBe(60 + pair);
      await net.send(frame(60, pair), { pair });
      expect(net.canSendOn(pair)).toBe(true);
    }
    expect(model.sent.map(({ pair }) => pair)).toEqual([2, 0, 1]);
    // Nor is one of a direction taken for one of the other.
    const receiving = net.receiveBegin(new Uint8Array(1526));
    expect(() => net.transmitComplete(receiving)).toThrow(code('WRONG_TOKEN'));
    expect(() => net.receiveComplete(77)).toThrow(code('WRONG_TOKEN'));
    expect(() => net.receiveComplete(-1)).toThrow(code('WRONG_TOKEN'));
    expect(() => net.receiveBegin(new Uint8Array(1526), { pair: 3 })).toThrow(code('INVALID_PARAM'));
    clean(made);
  });

  it('polls all pairs in turn', async () => {
    const made = setUp({ features: QEMU | F.MQ, maxPairs: 2 }, { queuePairs: 2 });
    const { model, net } = made;
    await net.control(NetControl.setQueuePairs(2));
    const give = (pair: number): number => net.receiveBegin(new Uint8Array(1526), { pair });
    const other = give(1);
    model.deliver(frame(60), { pair: 1 });
    // The first pair has another packet whenever it is asked.
    const found: number[] = [];
    for (let n = 0; n < 4; n += 1) {
      give(0);
      model.deliver(frame(60));
      found.push(net.pollReceive());
    }
    expect(found).toContain(other);
    clean(made);
  });

  it.each([
    ['with ANY_LAYOUT', CommonFeatures.set('ANY_LAYOUT').bits, 1],
    ['without', 0n, 2],
  ])('serves a legacy device %s [5.1.9.1]', (_name, features, parts) => {
    const made = setUp({ features: F.MAC | features, legacy: true });
    const { model, net } = made;
    expect(net.headerSize).toBe(10);
    net.transmitComplete(net.transmitBegin(withHeader(net, frame(60, 3))));
    expect([model.sent[0]?.frame, model.sent[0]?.pieces.length]).toEqual([frame(60, 3), parts]);
    const buffer = new Uint8Array(1600);
    const token = net.receiveBegin(buffer);
    model.deliver(frame(61, 2));
    expect(net.receiveComplete(token)).toBe(61);
    expect(buffer.subarray(10, 71)).toEqual(frame(61, 2));
    clean(made);
  });
});

describe('pairs that end [5.1.9.5.6.1]', () => {
  it('get nothing that waited for room, nor follow the command that ends them', async () => {
    const made = setUp({ features: QEMU | F.MQ, maxPairs: 4, queueSize: 4 }, { queuePairs: 4 });
    const { model, net } = made;
    await net.control(NetControl.setQueuePairs(4));
    net.transmitBegin(withHeader(net, frame(60)), { pair: 1, kick: false });
    model.throttled = true;
    const sends = Array.from({ length: 6 }, () => net.send(frame(61), { pair: 3 }));
    for (const sent of sends) sent.catch(() => undefined);
    await turns();
    const before = sends.length - 1;
    net.controlSync(NetControl.setQueuePairs(1));
    net.kick();
    model.unthrottle();
    await expect(sends[before]).rejects.toThrow(code('INVALID_PARAM'));
    expect(model.sent.map(({ pair }) => pair).includes(1)).toBe(true);
    await net.send(frame(62));
    clean(made);
  });
});
