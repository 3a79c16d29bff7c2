import { CommonFeatures, DeviceType, type VirtioError } from '@virtio/core';
import { FakeDevice, FakeInterrupts, FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { F, frame, MAC, NetModel, type ModelOptions, QEMU, SPLIT } from '../test/net-model.ts';
import { NetControl, type NetOptions, VirtioNet } from './index.ts';

const code = (name: string): Error => expect.objectContaining({ code: name }) as Error;

/** A driver on a model. */
function setUp(model: ModelOptions = {}, options: NetOptions = {}) {
  const device = new NetModel(model);
  const net = new VirtioNet(device.transport, device.device.hal, options);
  return { model: device, net };
}

function clean({ model, net }: ReturnType<typeof setUp>): void {
  net[Symbol.dispose]();
  model.device.assertClean();
}

const turns = async (count = 20): Promise<void> => {
  for (let i = 0; i < count; i += 1) await Promise.resolve();
};

describe.each(ringVariants)('VirtioNet on a ring that is $name', ({ features }) => {
  // Rings in order tell no lengths of the buffers of a batch, so each delivery is a batch of its own here.
  const offered = (QEMU & ~SPLIT) | features;

  it('sends and receives, many times around the ring, in all three forms', async () => {
    const made = setUp({ features: offered });
    const { model, net } = made;
    for (let n = 0; n < 60; n += 1) {
      const sent = frame(60 + n * 20, n);
      if (n % 3 === 0) await net.send(sent);
      else if (n % 3 === 1) net.sendSync(sent);
      else expect(net.trySend(sent)).toBe(true);
      await net.flush();
      expect(model.sent.at(-1)?.frame).toEqual(sent);
      const came = frame(61 + n * 20, n + 1);
      expect(model.deliver(came)).toBe(true);
      using packet = n % 3 === 0 ? await net.receive() : n % 3 === 1 ? net.receiveSync() : net.tryReceive();
      expect(packet?.data).toEqual(came);
      expect(packet?.header).toEqual({ dataValid: false });
    }
    expect(model.sent).toHaveLength(60);
    clean(made);
  });

  it('puts packets together that are spread over several buffers [5.1.9.4]', () => {
    const made = setUp({ features: offered, queueSize: 8 }, { bufferSize: 256 });
    const { model, net } = made;
    for (const length of [0, 1, 243, 244, 245, 500, 501, 1514, 2000 - 12]) {
      expect(net.tryReceive()).toBeUndefined();
      expect(model.deliver(frame(length, length))).toBe(true);
      using packet = net.tryReceive();
      expect(packet?.length).toBe(length);
      expect(packet?.pieces).toBe(Math.max(1, Math.ceil((length + 12) / 256)));
      expect(packet?.copy()).toEqual(frame(length, length));
    }
    expect(net.tryReceive()).toBeUndefined();
    expect(net.dropped).toBe(0);
    clean(made);
  });
});

describe('receiving', () => {
  it('lends packets to a handler, with the memory that they lie in', () => {
    const made = setUp();
    const { model, net } = made;
    for (let n = 0; n < 5; n += 1) model.deliver(frame(100 + n, n));
    const lengths: number[] = [];
    let kept: { readonly data: Uint8Array } | undefined;
    const count = net.poll((packet) => {
      lengths.push(packet.length);
      expect(packet.bytes.subarray(packet.offset, packet.offset + packet.length)).toEqual(
        frame(packet.length, packet.length - 100),
      );
      kept = packet;
    });
    expect([count, lengths]).toEqual([5, [100, 101, 102, 103, 104]]);
    expect(() => kept?.data).toThrow(code('INVALID_PARAM'));
    expect(net.poll(() => undefined)).toBe(0);
    clean(made);
  });

  it('stands handlers that throw, receive, reset and dispose', () => {
    const made = setUp({}, { bufferSize: 256 });
    const { model, net } = made;
    const three = (): void => {
      for (let n = 0; n < 3; n += 1) expect(model.deliver(frame(300 + n, n))).toBe(true);
    };
    three();
    expect(() =>
      net.poll(() => {
        throw new Error('the handler');
      }),
    ).toThrow('the handler');
    // The other two are still there, the first is gone and its buffers are back.
    const seen: number[] = [];
    net.poll((packet) => {
      seen.push(packet.length);
      using inner = net.tryReceive();
      if (inner !== undefined) seen.push(inner.length);
      expect(packet.copy()).toEqual(frame(301, 1));
    });
    expect(seen).toEqual([301, 302]);
    three();
    expect(
      net.poll((packet) => {
        net.reset();
        expect(() => packet.data).toThrow(code('DEVICE_RESET'));
      }),
    ).toBe(1);
    for (let n = 0; n < 40; n += 1) {
      expect(model.deliver(frame(700, n))).toBe(true);
      expect(net.poll((packet) => expect(packet.copy()).toEqual(frame(700, n)))).toBe(1);
    }
    three();
    net.poll(() => {
      net[Symbol.dispose]();
    });
    expect(() => net.tryReceive()).toThrow(code('DISPOSED'));
    model.device.assertClean();
  });

  it('waits until a packet comes, and is not confused by others who wait', async () => {
    const made = setUp();
    const { model, net } = made;
    const waiting = [net.receive(), net.receive(), net.receive()];
    const controller = new AbortController();
    const given = net.receive({ signal: controller.signal });
    controller.abort();
    await expect(given).rejects.toThrow(code('ABORTED'));
    for (let n = 0; n < 3; n += 1) {
      model.deliver(frame(60, n));
      await turns();
    }
    const packets = await Promise.all(waiting);
    expect(packets.map((packet) => packet.copy())).toEqual([frame(60, 0), frame(60, 1), frame(60, 2)]);
    for (const packet of packets) packet.release();
    expect(model.transport.interrupts?.holds).toBe(0);
    clean(made);
  });

  it('goes on when buffers ran out and came back [5.1.9.3]', () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    const held = [];
    for (let n = 0; n < 4; n += 1) {
      expect(model.deliver(frame(60, n))).toBe(true);
      held.push(net.tryReceive());
    }
    expect(model.deliver(frame(60, 4))).toBe(false);
    for (const packet of held) packet?.release();
    // Somebody who spins never gives the turn back, so looking is enough for the device to get the buffers.
    expect(net.tryReceive()).toBeUndefined();
    for (let n = 0; n < 20; n += 1) {
      expect(model.deliver(frame(60, n))).toBe(true);
      net.tryReceive()?.release();
    }
    clean(made);
  });

  it('gives packets one by one, and takes each back when the next is asked for', async () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    const seen: number[] = [];
    const reading = (async () => {
      for await (const packet of net) {
        seen.push(packet.length);
        if (seen.length === 50) break;
      }
    })();
    for (let n = 0; n < 50; n += 1) {
      expect(model.deliver(frame(60 + n))).toBe(true);
      await turns();
    }
    await reading;
    expect(seen).toEqual(Array.from({ length: 50 }, (_, n) => 60 + n));
    clean(made);
  });

  it('gives back a packet once, whoever does it, and none of another turn', () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    model.deliver(frame(60, 1));
    const packet = net.tryReceive();
    packet?.release();
    packet?.release();
    model.deliver(frame(60, 2));
    const next = net.tryReceive();
    packet?.[Symbol.dispose]();
    expect(next?.copy()).toEqual(frame(60, 2));
    expect(() => packet?.header).toThrow(code('INVALID_PARAM'));
    net.reset();
    expect(next?.isHeld).toBe(false);
    next?.release();
    for (let n = 0; n < 8; n += 1) {
      expect(model.deliver(frame(61, n))).toBe(true);
      net.tryReceive()?.release();
    }
    clean(made);
  });

  it('keeps no packet and no buffer beyond the driver, and says so', () => {
    const made = setUp();
    const { model, net } = made;
    model.deliver(frame(60));
    const packet = net.tryReceive();
    const buffer = net.takeBuffer();
    net[Symbol.dispose]();
    expect(packet?.isHeld).toBe(false);
    for (const use of [
      () => packet?.data,
      () => packet?.bytes,
      () => packet?.header,
      () => packet?.copy(),
      () => packet?.copyTo(new Uint8Array(100)),
      () => {
        buffer?.send(60);
      },
    ]) {
      expect(use).toThrow(code('DISPOSED'));
    }
    packet?.release();
    buffer?.[Symbol.dispose]();
    clean(made);
  });

  it('gives back no piece of a packet that was reset inside the notification of another piece', () => {
    const interrupts = new FakeInterrupts({ synchronous: true });
    const made = setUp({ features: QEMU & ~SPLIT, interrupts, queueSize: 8 }, { bufferSize: 256 });
    const { model, net } = made;
    expect(model.deliver(frame(1400, 1))).toBe(true);
    const packet = net.tryReceive();
    let notified = 0;
    model.device.onNotify = () => {
      notified += 1;
      if (notified === 1) model.setLink(false);
    };
    net.on('link', () => {
      net.reset();
    });
    packet?.release();
    expect(notified).toBeGreaterThan(1);
    for (let n = 0; n < 20; n += 1) {
      expect(model.deliver(frame(1400, n))).toBe(true);
      using next = net.tryReceive();
      expect(next?.copy()).toEqual(frame(1400, n));
    }
    clean(made);
  });

  it('counts packets of several pairs when a handler ends the driver', () => {
    const made = setUp({ features: QEMU | F.MQ, maxPairs: 2 }, { queuePairs: 2 });
    const { model, net } = made;
    net.controlSync(NetControl.setQueuePairs(2));
    for (const pair of [0, 1]) expect(model.deliver(frame(60), { pair })).toBe(true);
    const end = (): void => {
      net[Symbol.dispose]();
    };
    expect(net.poll(end)).toBe(1);
    expect(() => net.poll(end)).toThrow(code('DISPOSED'));
    model.device.assertClean();
  });

  it('takes no packet for who has cancelled, even in the turn in which it comes', async () => {
    const made = setUp({ interrupts: new FakeInterrupts({ synchronous: true }) });
    const { model, net } = made;
    const controller = new AbortController();
    const { signal } = controller;
    const receiving = net.receive({ signal });
    const reader = net.readable(ReadableStream<Uint8Array>).getReader();
    const reading = reader.read();
    await turns();
    expect(model.deliver(frame(60))).toBe(true);
    controller.abort();
    void reader.cancel();
    await expect(receiving).rejects.toThrow(code('ABORTED'));
    expect((await reading).done).toBe(true);
    await expect(net.receive({ signal })).rejects.toThrow(code('ABORTED'));
    using packet = await net.receive();
    expect(packet.copy()).toEqual(frame(60));
    clean(made);
  });

  it.each(['packets', 'readable'] as const)(
    'lets other work have its turn while the device never stops sending (%s)',
    async (form) => {
      const interrupts = new FakeInterrupts();
      interrupts.defer = (callback) => void setImmediate(callback);
      const made = setUp({ interrupts });
      const { model, net } = made;
      // What is seen here is what the driver does by itself; real interrupts come between turns of the event loop.
      interrupts.masked = true;
      const flood = { isOn: true };
      const fill = (): void => {
        while (flood.isOn && model.deliver(frame(60)));
      };
      model.device.onNotify = fill;
      fill();
      const most = 30_000;
      const receiving = (async () => {
        const reader = net.readable(ReadableStream<Uint8Array>).getReader();
        let count = 0;
        while (flood.isOn && count < most) {
          if (form === 'readable') await reader.read();
          else (await net.receive()).release();
          count += 1;
        }
        return count;
      })();
      await new Promise((resolve) => setTimeout(resolve, 1));
      flood.isOn = false;
      // Without turns for other work, all would have come first.
      expect(await receiving).toBeLessThan(most);
      clean(made);
    },
  );

  it('copies to where it is told, if there is room', () => {
    const made = setUp();
    made.model.deliver(frame(100, 3));
    using packet = made.net.tryReceive();
    const target = new Uint8Array(110);
    expect(packet?.copyTo(target, 10)).toBe(100);
    expect(target.subarray(10)).toEqual(frame(100, 3));
    expect(() => packet?.copyTo(target, 11)).toThrow(code('INVALID_PARAM'));
    clean(made);
  });

  it('makes streams of both directions', async () => {
    const made = setUp();
    const { model, net } = made;
    for (let n = 0; n < 5; n += 1) model.deliver(frame(60 + n, n));
    const reader = net.readable(ReadableStream<Uint8Array>).getReader();
    for (let n = 0; n < 5; n += 1) expect((await reader.read()).value).toEqual(frame(60 + n, n));
    const pending = reader.read();
    await reader.cancel();
    expect((await pending).done).toBe(true);
    const writer = net.writable(WritableStream<Uint8Array>).getWriter();
    for (let n = 0; n < 40; n += 1) await writer.write(frame(60 + n, n));
    await writer.close();
    expect(model.sent.map((packet) => packet.frame)).toEqual(
      Array.from({ length: 40 }, (_, n) => frame(60 + n, n)),
    );
    clean(made);
  });
});

describe('a WritableStream that is aborted while it ends', () => {
  it('waits no longer for a device that sends nothing', async () => {
    const made = setUp();
    const { model, net } = made;
    model.throttled = true;
    const writer = net.writable(WritableStream<Uint8Array>).getWriter();
    await writer.write(frame(60));
    const ending = expect(writer.close()).rejects.toMatchObject({ code: 'ABORTED' });
    await turns();
    expect(model.transport.interrupts?.holds).toBe(1);
    await writer.abort().catch(() => undefined);
    await ending;
    expect(model.transport.interrupts?.holds).toBe(0);
    clean(made);
  });
});

describe('a device that lies about packets', () => {
  const lies: readonly (readonly [string, (model: NetModel) => void, number])[] = [
    ['num_buffers is 0', (model) => model.deliver(frame(60), { header: { numBuffers: 0 } }), 1],
    ['num_buffers is more than came', (model) => model.deliver(frame(60), { header: { numBuffers: 3 } }), 1],
    [
      'num_buffers is more than came of full buffers',
      (model) => model.deliver(frame(256 - 12), { header: { numBuffers: 2 } }),
      1,
    ],
    [
      'num_buffers is more than there are buffers',
      (model) => model.deliver(frame(60), { header: { numBuffers: 65_535 } }),
      1,
    ],
    ['the used length is below the header', (model) => model.deliver(frame(0), { usedLength: 11 }), 1],
    ['the used length is 0', (model) => model.deliver(frame(60), { usedLength: 0 }), 1],
    [
      'gso_type was not negotiated',
      (model) => model.deliver(frame(60), { header: { gsoType: 1, gsoSize: 9 } }),
      1,
    ],
  ];

  it.each(lies)(
    'throws the packet away, gives its buffers back and stays in step: %s',
    async (name, lie, dropped) => {
      const made = setUp({ queueSize: 8 }, { bufferSize: 256 });
      const { model, net } = made;
      const quirks: string[] = [];
      net.on('quirk', ({ message }) => quirks.push(message));
      for (let n = 0; n < 30; n += 1) {
        lie(model);
        // One that is good comes at once behind it; behind a full buffer it would be taken for the rest.
        if (name.endsWith('of full buffers')) expect(net.tryReceive()).toBeUndefined();
        expect(model.deliver(frame(60 + n, n))).toBe(true);
        using packet = net.tryReceive();
        expect(packet?.copy()).toEqual(frame(60 + n, n));
        expect(net.tryReceive()).toBeUndefined();
      }
      expect(net.dropped).toBe(30 * dropped);
      expect(net.quirks).toBe(30 * dropped);
      await Promise.resolve();
      expect(quirks).toHaveLength(30 * dropped);
      expect(net.failure).toBeUndefined();
      clean(made);
    },
  );

  it('does not take a count for one packet to be that of the next', () => {
    const made = setUp({ queueSize: 8 }, { bufferSize: 256 });
    const { model, net } = made;
    // A head that is full, a second piece that is not, and a count of three.
    model.deliver(frame(400), { header: { numBuffers: 3 } });
    model.deliver(frame(60, 9));
    using packet = net.tryReceive();
    expect(packet?.copy()).toEqual(frame(60, 9));
    expect(net.dropped).toBe(1);
    clean(made);
  });

  it('takes a used length beyond the buffer for the whole buffer', () => {
    const made = setUp({}, { bufferSize: 256 });
    made.model.deliver(frame(60), { usedLength: 257 });
    expect(made.net.tryReceive()?.length).toBe(256 - 12);
    expect(made.net.quirks).toBe(1);
    clean(made);
  });

  it('fails the driver when a buffer is used that the device does not have', async () => {
    const { model, net } = setUp({}, { bufferSize: 256 });
    const waiting = net.receive();
    model.device.queue(0).forceUsed(999, 60);
    model.transport.interrupts?.fireQueue(0);
    await expect(waiting).rejects.toThrow(code('DEVICE_MISBEHAVED'));
    expect(net.failure?.code).toBe('DEVICE_MISBEHAVED');
    expect(() => net.tryReceive()).toThrow(code('DEVICE_MISBEHAVED'));
    expect(() => net.trySend(frame(60))).toThrow(code('DEVICE_MISBEHAVED'));
    net.reset();
    expect(model.deliver(frame(60, 5))).toBe(true);
    expect(net.tryReceive()?.copy()).toEqual(frame(60, 5));
    net[Symbol.dispose]();
    model.device.hal.assertClean();
  });

  it('ends, though the device could fill buffers for ever', () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    model.device.onNotify = (queue) => {
      if (queue === 0) while (model.deliver(frame(60), { header: { numBuffers: 0 } }));
    };
    model.deliver(frame(60), { header: { numBuffers: 0 } });
    for (let n = 0; n < 10; n += 1) expect(net.tryReceive()).toBeUndefined();
    expect(net.poll(() => undefined)).toBe(0);
    model.device.onNotify = undefined;
    clean(made);
  });

  it.each([0, 12, 65_535])('ignores num_buffers %d without mergeable buffers [5.1.9.4.1]', (numBuffers) => {
    const made = setUp({ features: QEMU & ~F.MRG_RXBUF });
    made.model.deliver(frame(60, 2), { header: { numBuffers } });
    expect(made.net.tryReceive()?.copy()).toEqual(frame(60, 2));
    clean(made);
  });
});

describe('headers of received packets [5.1.9.4.2]', () => {
  const OFFLOADS =
    F.GUEST_CSUM | F.GUEST_TSO4 | F.GUEST_TSO6 | F.GUEST_ECN | F.GUEST_UFO | F.GUEST_USO4 | F.GUEST_USO6;

  it('accepts receive offloads only when asked to, and those that need others only with them [5.1.3.1]', () => {
    const features = QEMU | OFFLOADS;
    expect(setUp({ features }).net.features.has('GUEST_CSUM')).toBe(false);
    const all = setUp({ features }, { receiveOffloads: true }).net.features;
    expect(all.has('GUEST_TSO4') && all.has('GUEST_USO6') && all.has('GUEST_CSUM')).toBe(true);
    const alone = setUp({ features }, { receiveOffloads: ['GUEST_TSO4', 'GUEST_ECN'] }).net.features;
    expect([alone.has('GUEST_TSO4'), alone.has('GUEST_ECN')]).toEqual([false, false]);
  });

  it('tells checksums, segments and hashes by names', () => {
    const features = QEMU | OFFLOADS | F.CSUM | F.HOST_TSO4 | F.RSC_EXT | F.HASH_REPORT;
    const made = setUp({ features }, { receiveOffloads: true });
    const { model, net } = made;
    const deliver = (header: Parameters<NetModel['deliver']>[1], length = 200) => {
      model.deliver(frame(length), header ?? {});
      using packet = net.tryReceive();
      return packet?.header;
    };
    expect(net.headerSize).toBe(20);
    expect(deliver({ header: { flags: 2 } })).toEqual({ dataValid: true });
    expect(deliver({ header: { flags: 1, csumStart: 34, csumOffset: 16 } })).toEqual({
      dataValid: false,
      checksum: { start: 34, offset: 16 },
    });
    expect(
      deliver(
        { header: { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 0x81, gsoSize: 1448, hdrLen: 54 } },
        5000,
      ),
    ).toEqual({
      dataValid: false,
      checksum: { start: 34, offset: 16 },
      gso: { type: 'TCPV4', size: 1448, headerLength: 54, ecn: true },
    });
    // hdr_len beyond the packet is not handed on as it is; csum_start is no checksum with RSC_INFO.
    expect(
      deliver({ header: { flags: 4, csumStart: 7, csumOffset: 2, gsoType: 4, gsoSize: 1440, hdrLen: 9999 } }),
    ).toEqual({
      dataValid: false,
      gso: { type: 'TCPV6', size: 1440, headerLength: 200, ecn: false },
      coalesced: { segments: 7, duplicateAcks: 2 },
    });
    expect(deliver({ header: { hashValue: 0xdeadbeef, hashReport: 2 } })).toEqual({
      dataValid: false,
      hash: { value: 0xdeadbeef, report: 'TCPv4' },
    });
    expect(deliver({ header: { hashValue: 1, hashReport: 77 } })).toEqual({ dataValid: false });
    expect(net.dropped).toBe(0);
    clean(made);
  });

  it.each([
    ['a checksum behind the end', { flags: 1, csumStart: 190, csumOffset: 9 }],
    ['gso_size 0', { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 1, gsoSize: 0 }],
    ['an unknown gso_type', { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 2, gsoSize: 1 }],
    ['a tunnel', { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 0x21, gsoSize: 1 }],
  ])('throws away a packet with %s', (_name, header) => {
    const made = setUp({ features: QEMU | OFFLOADS }, { receiveOffloads: true });
    made.model.deliver(frame(200), { header });
    expect(made.net.tryReceive()).toBeUndefined();
    expect(made.net.dropped).toBe(1);
    clean(made);
  });

  it('believes nothing of a checksum without GUEST_CSUM', () => {
    const made = setUp();
    made.model.deliver(frame(60), { header: { flags: 7, csumStart: 9999 } });
    using packet = made.net.tryReceive();
    expect(packet?.header).toEqual({ dataValid: false });
  });

  it('takes large packets, in one buffer without mergeable ones [5.1.9.3.1]', () => {
    for (const features of [QEMU | OFFLOADS, (QEMU | OFFLOADS) & ~F.MRG_RXBUF]) {
      const made = setUp({ features, queueSize: 64 }, { receiveOffloads: true });
      const header = { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 1, gsoSize: 1448, hdrLen: 54 };
      expect(made.model.deliver(frame(65_589), { header })).toBe(true);
      expect(made.net.tryReceive()?.copy()).toEqual(frame(65_589));
      clean(made);
    }
  });

  it('switches receive offloads by name [5.1.9.5.9]', async () => {
    const made = setUp({ features: QEMU | OFFLOADS }, { receiveOffloads: ['GUEST_CSUM', 'GUEST_TSO4'] });
    await made.net.control(NetControl.setReceiveOffloads(['GUEST_TSO4', 'GUEST_CSUM']));
    expect(made.model.offloads).toBe(F.GUEST_CSUM | F.GUEST_TSO4);
    await made.net.control(NetControl.setReceiveOffloads([]));
    expect(made.model.offloads).toBe(0n);
    await expect(made.net.control(NetControl.setReceiveOffloads(['GUEST_UFO']))).rejects.toThrow(
      code('UNSUPPORTED'),
    );
    clean(made);
  });
});

describe('sending', () => {
  it('puts header and packet in one descriptor, and tells the device once of a batch [5.1.9.2]', () => {
    const made = setUp({ queueSize: 32 });
    const { model, net } = made;
    model.device.notifications.length = 0;
    const frames = Array.from({ length: 10 }, (_, n) => frame(60 + n, n));
    expect(net.trySendAll(frames)).toBe(10);
    expect(model.device.notifications.filter(({ queue }) => queue === 1)).toHaveLength(1);
    expect(model.sent.map(({ pieces }) => pieces)).toEqual(frames.map(({ length }) => [12 + length]));
    for (const one of frames) expect(net.trySend(one, { kick: false })).toBe(true);
    expect(model.sent).toHaveLength(10);
    net.kick();
    expect(model.sent.map((packet) => packet.frame)).toEqual([...frames, ...frames]);
    clean(made);
  });

  it('sends empty packets, and those of a byte', async () => {
    const made = setUp();
    for (const length of [0, 1, 14]) await made.net.send(frame(length));
    await made.net.flush();
    expect(made.model.sent.map((packet) => packet.frame.length)).toEqual([0, 1, 14]);
    clean(made);
  });

  it('takes buffers back without interrupts, and stops when all are with the device', () => {
    const made = setUp({ queueSize: 4, interrupts: false });
    const { model, net } = made;
    for (let n = 0; n < 40; n += 1) expect(net.trySend(frame(60, n))).toBe(true);
    net.flushSync();
    model.throttled = true;
    for (let n = 0; n < 4; n += 1) expect(net.trySend(frame(61, n))).toBe(true);
    expect(net.canSend).toBe(false);
    expect(net.trySend(frame(62))).toBe(false);
    expect(net.trySendAll([frame(62), frame(63)])).toBe(0);
    expect(net.takeBuffer()).toBeUndefined();
    expect(() => net.sendSync(frame(62), { timeoutMs: 1 })).toThrow(code('NOT_READY'));
    expect(() => net.flushSync({ timeoutMs: 1 })).toThrow(code('NOT_READY'));
    model.unthrottle();
    expect(net.canSend).toBe(true);
    net.sendSync(frame(64));
    net.flushSync();
    expect(model.sent.slice(40).map((packet) => packet.frame.length)).toEqual([61, 61, 61, 61, 64]);
    clean(made);
  });

  it('lets packets wait for room in their order, and those leave that are cancelled', async () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    model.throttled = true;
    const controller = new AbortController();
    const sends = Array.from({ length: 12 }, (_, n) =>
      net.send(frame(60 + n, n), n === 6 ? { signal: controller.signal } : {}),
    );
    const cancelled = expect(sends[6]).rejects.toThrow(code('ABORTED'));
    await turns();
    expect(net.trySend(frame(99))).toBe(false);
    controller.abort();
    await cancelled;
    model.unthrottle();
    await Promise.all(sends.filter((_, n) => n !== 6));
    await net.flush();
    expect(model.sent.map((packet) => packet.frame.length)).toEqual(
      [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11].map((n) => 60 + n),
    );
    expect(model.transport.interrupts?.holds).toBe(0);
    clean(made);
  });

  it.each(['calls its listener at once', 'throws'])(
    'sends nothing for a signal of the caller’s own that %s, and goes on',
    async (how) => {
      const made = setUp({ queueSize: 4 });
      const { model, net } = made;
      model.throttled = true;
      const signal = {
        aborted: false,
        addEventListener: (_type: string, listener: () => void) => {
          if (how === 'throws') throw new RangeError('no listeners here');
          listener();
        },
        removeEventListener: () => undefined,
      };
      const sends = Array.from({ length: 8 }, (_, n) =>
        net.send(frame(60 + n, n), n === 6 ? { signal } : {}),
      );
      await expect(sends[6]).rejects.toThrow(how === 'throws' ? RangeError : code('ABORTED'));
      model.unthrottle();
      await Promise.all(sends.filter((_, n) => n !== 6));
      await net.flush();
      expect(model.sent.map((packet) => packet.frame.length)).toEqual([60, 61, 62, 63, 64, 65, 67]);
      expect(model.transport.interrupts?.holds).toBe(0);
      clean(made);
    },
  );

  it('flushes what was sent before, though others send all the time', async () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    model.throttled = true;
    const sends = Array.from({ length: 6 }, (_, n) => net.send(frame(60, n)));
    const flushed = vi.fn();
    const flushing = net.flush().then(flushed);
    const isFlushed = (): boolean => flushed.mock.calls.length > 0;
    const more = (async () => {
      for (let n = 0; n < 100 && !isFlushed(); n += 1) await net.send(frame(70, n));
    })();
    await turns();
    let used = 0;
    for (; used < 100 && !isFlushed(); used += 1) {
      model.device.queues[1]?.ring?.chains[0]?.complete();
      await turns(60);
    }
    expect(used).toBe(6);
    model.unthrottle();
    model.throttled = false;
    await Promise.all([...sends, flushing, more]);
    net.flushSync();
    clean(made);
  });

  it('builds packets in its own memory, and takes buffers back that were not sent', () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    for (let n = 0; n < 10; n += 1) {
      using buffer = net.takeBuffer();
      buffer?.data.set(frame(100, n));
      if (n % 2 === 0) buffer?.send(100);
    }
    expect(model.sent.map((packet) => packet.frame)).toEqual([0, 2, 4, 6, 8].map((n) => frame(100, n)));
    const buffer = net.takeBuffer();
    expect(() => buffer?.send(net.maxSendLength + 1)).toThrow(code('INVALID_PARAM'));
    buffer?.send(20);
    expect(() => buffer?.send(20)).toThrow(code('INVALID_PARAM'));
    const stale = net.takeBuffer();
    net.reset();
    expect(() => stale?.send(20)).toThrow(code('DEVICE_RESET'));
    stale?.[Symbol.dispose]();
    for (let n = 0; n < 8; n += 1) expect(net.trySend(frame(60))).toBe(true);
    clean(made);
  });

  it('refuses what is too long for the MTU, a VLAN tag apart [5.1.4.2]', () => {
    const made = setUp({ features: QEMU | F.MTU, mtu: 1400 });
    const { net, model } = made;
    expect(net.mtu).toBe(1400);
    expect(net.trySend(frame(1414))).toBe(true);
    expect(() => net.trySend(frame(1415))).toThrow(code('INVALID_PARAM'));
    const tagged = frame(1418);
    tagged.set([0x81, 0x00], 12);
    expect(net.trySend(tagged)).toBe(true);
    expect(() => net.trySend(frame(9000))).toThrow(code('INVALID_PARAM'));
    expect(model.sent).toHaveLength(2);
    clean(made);
  });

  it('lets the device complete checksums and cut packets [5.1.9.2]', () => {
    const features = QEMU | F.CSUM | F.HOST_TSO4 | F.HOST_TSO6 | F.HOST_ECN | F.HOST_USO | F.HOST_UFO | F.MTU;
    const made = setUp({ features }, { transmitBufferSize: 20_000 });
    const { model, net } = made;
    const checksum = { start: 34, offset: 16 };
    net.trySend(frame(100), { header: { checksum } });
    for (const type of ['TCPV4', 'TCPV6', 'UDP', 'UDP_L4'] as const) {
      net.trySend(frame(10_000), {
        header: { checksum, gso: { type, size: 1448, headerLength: 54, ecn: type.startsWith('TCP') } },
      });
    }
    net.trySend(frame(100));
    expect(
      model.sent.map(({ header }) => [header.flags, header.gsoType, header.gsoSize, header.hdrLen]),
    ).toEqual([[1, 0, 0, 0], ...[0x81, 0x84, 3, 5].map((type) => [1, type, 1448, 54]), [0, 0, 0, 0]]);
    expect(model.sent[0]?.header).toMatchObject({ csumStart: 34, csumOffset: 16, numBuffers: 0 });
    for (const type of ['UDP', 'UDP_L4'] as const) {
      const header = { checksum, gso: { type, size: 1448, headerLength: 54, ecn: true } };
      expect(() => net.trySend(frame(10_000), { header })).toThrow(code('INVALID_PARAM'));
    }
    clean(made);
  });

  it('refuses headers that make no sense, or need what was not negotiated, and sends nothing', () => {
    const features = QEMU | F.CSUM | F.HOST_TSO4 | F.GUEST_HDRLEN;
    const made = setUp({ features });
    const { net } = made;
    const gso = { type: 'TCPV4', size: 1448, headerLength: 54 } as const;
    const checksum = { start: 34, offset: 16 };
    const attempt = (header: NonNullable<Parameters<VirtioNet['trySend']>[1]>['header'] & object) => () =>
      net.trySend(frame(100), { header });
    expect(attempt({ gso })).toThrow(code('INVALID_PARAM'));
    expect(attempt({ checksum: { start: 90, offset: 9 } })).toThrow(code('INVALID_PARAM'));
    expect(attempt({ checksum: { start: -1, offset: 9 } })).toThrow(code('INVALID_PARAM'));
    expect(attempt({ checksum, gso: { ...gso, size: 0 } })).toThrow(code('INVALID_PARAM'));
    expect(attempt({ checksum, gso: { ...gso, headerLength: 101 } })).toThrow(code('INVALID_PARAM'));
    // With GUEST_HDRLEN the length is exact, so it lies behind the start of the transport header.
    expect(attempt({ checksum, gso: { ...gso, headerLength: 34 } })).toThrow(code('INVALID_PARAM'));
    expect(attempt({ checksum, gso: { ...gso, ecn: true } })).toThrow(code('UNSUPPORTED'));
    expect(attempt({ checksum, gso: { ...gso, type: 'TCPV6' } })).toThrow(code('UNSUPPORTED'));
    expect(attempt({ checksum, gso: { ...gso, type: 'NONE' as 'TCPV4' } })).toThrow(code('INVALID_PARAM'));
    const plain = setUp().net;
    expect(() => plain.trySend(frame(100), { header: { checksum } })).toThrow(code('UNSUPPORTED'));
    expect(made.model.sent).toEqual([]);
    for (let n = 0; n < 20; n += 1) expect(net.trySend(frame(60))).toBe(true);
    clean(made);
  });

  it('keeps its buffers when the memory of a packet is gone', async () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    const gone = frame(60);
    gone.buffer.transfer();
    for (let n = 0; n < 5; n += 1) expect(() => net.trySend(gone)).toThrow(code('INVALID_PARAM'));
    model.throttled = true;
    for (let n = 0; n < 4; n += 1) expect(net.trySend(frame(60, n))).toBe(true);
    const late = frame(70);
    const sending = net.send(late);
    late.buffer.transfer();
    model.unthrottle();
    await expect(sending).rejects.toThrow(code('INVALID_PARAM'));
    for (let n = 0; n < 8; n += 1) await net.send(frame(80, n));
    expect(model.sent).toHaveLength(12);
    clean(made);
  });

  it('does not give back a buffer that was sent and is another caller’s by now', () => {
    const interrupts = new FakeInterrupts({ synchronous: true });
    const made = setUp({ features: QEMU & ~SPLIT, interrupts, queueSize: 4 });
    const { net } = made;
    const buffer = net.takeBuffer();
    let taken = 0;
    net.on('used', () => {
      while (net.takeBuffer() !== undefined) taken += 1;
      buffer?.[Symbol.dispose]();
    });
    buffer?.send(60);
    expect(taken).toBe(4);
    expect(net.takeBuffer()).toBeUndefined();
    clean(made);
  });

  it('tells an error of a header from memory that is gone, and keeps the buffer', () => {
    const { net } = setUp({ queueSize: 4 });
    for (let n = 0; n < 5; n += 1) {
      expect(() => net.trySend(frame(60), { header: null as unknown as object })).toThrow(TypeError);
    }
    expect(net.trySend(frame(60))).toBe(true);
  });

  it('refuses what is no packet', () => {
    const { net } = setUp();
    expect(() => net.trySend([1, 2] as unknown as Uint8Array)).toThrow(code('INVALID_PARAM'));
    expect(() => net.trySend(frame(60), { pair: 1 })).toThrow(code('INVALID_PARAM'));
    expect(() => net.tryReceive(1)).toThrow(code('INVALID_PARAM'));
  });
});

describe('configuration', () => {
  it('refuses to do without what is no feature, and says which there are', () => {
    expect(() => setUp({}, { without: ['CSUMM' as 'CSUM'] })).toThrow(
      /without "CSUMM", which is not a feature that can be left out; these are CSUM, .*, MRG_RXBUF, .*, EVENT_IDX, /,
    );
    expect(() => setUp({}, { without: 'CSUM' as unknown as [] })).toThrow(code('INVALID_PARAM'));
  });

  it('reads address, MTU, link, speed and duplex [5.1.4]', () => {
    const features = QEMU | F.MTU | F.SPEED_DUPLEX;
    const { net } = setUp({ features, mtu: 9000, speed: 25_000, duplex: 1, linkUp: false });
    expect(Array.from(net.macAddress)).toEqual(MAC);
    expect(net.mtu).toBe(9000);
    expect(net.link).toEqual({ up: false, speed: 25_000, duplex: 'full' });
  });

  it('reads nothing without its feature, and takes the link to be up [5.1.4.2]', () => {
    const device = new FakeDevice({ type: DeviceType.Network, queues: [4, 4], features: SPLIT });
    using net = new VirtioNet(new FakeTransport(device), device.hal);
    expect(net.link).toEqual({ up: true, speed: undefined, duplex: undefined });
    expect(net.mtu).toBe(1500);
    const mac = net.macAddress;
    expect([(mac[0] ?? 0) & 3, mac.length]).toEqual([2, 6]);
    expect([net.maxQueuePairs, net.queuePairs]).toEqual([1, 1]);
  });

  it.each([
    ['zeros', [0, 0, 0, 0, 0, 0]],
    ['a multicast address', [1, 0, 0x5e, 0, 0, 1]],
  ])('uses a local address where the device has %s', (_name, mac) => {
    const { net } = setUp({ mac }, { macAddress: '02:00:00:00:00:07' });
    expect(Array.from(net.macAddress)).toEqual([2, 0, 0, 0, 0, 7]);
    expect(net.quirks).toBe(1);
  });

  it('does not believe an MTU below 68, nor a number of pairs of 0 [5.1.4.1]', () => {
    const features = QEMU | F.MTU | F.MQ;
    const { net } = setUp({ features, mtu: 67, maxPairs: 1 });
    expect([net.mtu, net.quirks]).toEqual([1500, 1]);
    const model = new NetModel({ features: QEMU | F.MQ });
    new DataView(model.device.config.buffer).setUint16(8, 0, true);
    using other = new VirtioNet(model.transport, model.device.hal, { queuePairs: 4 });
    expect([other.maxQueuePairs, other.queuePairs, other.quirks]).toEqual([1, 1, 1]);
  });

  it('treats speeds and duplexes beyond those of the specification as unknown [5.1.4.2]', () => {
    const features = QEMU | F.SPEED_DUPLEX;
    for (const [speed, duplex] of [
      [0x80000000, 2],
      [0xffffffff, 0xff],
    ]) {
      expect(setUp({ features, speed: speed as number, duplex: duplex as number }).net.link).toEqual({
        up: true,
        speed: undefined,
        duplex: undefined,
      });
    }
    expect(setUp({ features, speed: 0x7fffffff, duplex: 0 }).net.link).toMatchObject({
      speed: 0x7fffffff,
      duplex: 'half',
    });
  });

  it('tells when the link goes down and up, and reads speed and duplex anew [5.1.4.2]', async () => {
    const made = setUp({ features: QEMU | F.SPEED_DUPLEX });
    const { model, net } = made;
    const links: unknown[] = [];
    net.on('link', (link) => links.push(link));
    model.setLink(false);
    await turns();
    model.setLink(false);
    await turns();
    model.device.changeConfig((config) => config.setUint32(12, 10, true));
    await turns();
    model.setLink(true);
    await turns();
    expect(links).toEqual([
      { up: false, speed: 1000, duplex: 'full' },
      { up: false, speed: 10, duplex: 'full' },
      { up: true, speed: 10, duplex: 'full' },
    ]);
    expect(net.link).toEqual(links[2]);
    clean(made);
  });

  it.each(['split', 'packed'])(
    'notifies a device that stopped asking for that while the link was down (%s)',
    async (ring) => {
      const packed = ring === 'packed' ? CommonFeatures.set('RING_PACKED').bits : 0n;
      const made = setUp({ features: (QEMU & ~SPLIT) | packed, queueSize: 4 });
      const { model, net } = made;
      model.setLink(false);
      model.device.queue(1).suppressNotifications();
      await net.send(frame(60, 1));
      await turns();
      expect(model.sent).toEqual([]);
      model.setLink(true);
      await turns();
      expect(model.sent.map((packet) => packet.frame)).toEqual([frame(60, 1)]);
      clean(made);
    },
  );

  it('tells last what is true, if the link goes down again inside the notification for its return', () => {
    const interrupts = new FakeInterrupts({ synchronous: true });
    const made = setUp({ features: QEMU & ~SPLIT, interrupts, queueSize: 4 });
    const { model, net } = made;
    model.throttled = true;
    expect(net.trySend(frame(60))).toBe(true);
    model.setLink(false);
    const seen: boolean[] = [];
    net.on('link', ({ up }) => seen.push(up));
    net.on('used', () => {
      net.pollEvents();
    });
    model.device.onNotify = () => {
      model.setLink(false);
      model.device.queues[1]?.ring?.chains[0]?.complete();
    };
    model.setLink(true);
    expect(net.link.up).toBe(false);
    expect(seen.at(-1)).toBe(false);
    clean(made);
  });

  it('hears of the link by pollEvents, too', () => {
    const made = setUp({ interrupts: false });
    const listener = vi.fn();
    made.net.on('link', listener);
    made.model.setLink(false);
    made.net.pollEvents();
    expect(listener).toHaveBeenCalledOnce();
    clean(made);
  });

  it('stands a listener that resets or disposes the driver', async () => {
    const made = setUp();
    const stop = made.net.on('link', () => {
      made.net.reset();
    });
    made.model.announce();
    made.model.setLink(false);
    await turns();
    expect(made.net.link.up).toBe(false);
    expect(made.model.acknowledged).toBe(1);
    stop();
    made.net.on('link', () => {
      made.net[Symbol.dispose]();
    });
    made.model.setLink(true);
    await turns();
    made.model.device.assertClean();
  });
});

describe('negotiation', () => {
  it('accepts nothing that it does not implement [2.2.1]', () => {
    const { model, net } = setUp({ features: (1n << 71n) - 1n, maxPairs: 1 });
    for (const name of [
      'GSO',
      'GUEST_RSC4',
      'STANDBY',
      'RSS_CONTEXT',
      'HOST_UDP_TUNNEL_GSO',
      'IPSEC',
    ] as const) {
      expect(net.features.has(name)).toBe(false);
    }
    expect(model.device.accepted & F.GUEST_CSUM).toBe(0n);
  });

  it.each([
    [F.CTRL_VQ, ['CTRL_RX', 'CTRL_VLAN', 'MQ', 'RSS', 'HASH_REPORT', 'GUEST_ANNOUNCE', 'NOTF_COAL']],
    [F.CSUM, ['HOST_TSO4', 'HOST_TSO6', 'HOST_UFO', 'HOST_USO', 'HOST_ECN']],
    [F.HOST_TSO4 | F.HOST_TSO6, ['HOST_ECN']],
    [F.RSS | F.HASH_REPORT, ['HASH_TUNNEL']],
  ] as const)('accepts no feature without those that it needs [5.1.3.1] (%#)', (missing, without) => {
    const { net } = setUp({ features: ((1n << 64n) - 1n) & ~missing });
    for (const name of without) expect(net.features.has(name)).toBe(false);
  });

  it('goes without features by name', () => {
    const { net } = setUp({}, { without: ['CTRL_VLAN', 'EVENT_IDX'] });
    expect([net.features.has('CTRL_VLAN'), net.features.has('EVENT_IDX')]).toEqual([false, false]);
    expect(() => setUp({}, { without: ['NONSENSE' as 'MAC'] })).toThrow(code('INVALID_PARAM'));
    expect(() => setUp({}, { receiveOffloads: ['MAC' as 'GUEST_CSUM'] })).toThrow(code('INVALID_PARAM'));
  });

  it.each([
    [{ bufferSize: 11 }],
    [{ bufferSize: 64, buffers: 4 }],
    [{ buffers: 0 }],
    [{ queuePairs: 0 }],
    [{ transmitBufferSize: 13 }],
    [{ transmitBuffers: 0 }],
    [{ macAddress: '01:00:00:00:00:00' }],
    [{ macAddress: 'nonsense' }],
  ])('refuses options that make no sense: %o', (options) => {
    const model = new NetModel();
    expect(() => new VirtioNet(model.transport, model.device.hal, options)).toThrow(code('INVALID_PARAM'));
    model.device.assertClean();
    // The transport is free again.
    new VirtioNet(model.transport, model.device.hal)[Symbol.dispose]();
  });

  it.each(['queueSize', 'buffers', 'transmitBuffers', 'bufferSize', 'transmitBufferSize', 'queuePairs'])(
    'names the option %s if it is no possible number',
    (name) => {
      for (const value of [NaN, -1, 0, 0.5, Infinity, 2 ** 32, '5']) {
        const error: unknown = (() => {
          try {
            return setUp({}, { [name]: value });
          } catch (thrown) {
            return thrown;
          }
        })();
        expect(error).toMatchObject({ code: 'INVALID_PARAM' });
        expect((error as Error).message).toContain(` ${name} is `);
      }
    },
  );

  it.each(['without', 'receiveOffloads'])('refuses a name in place of an array of names as %s', (name) => {
    for (const value of ['GUEST_CSUM', 5, {}, null]) {
      expect(() => setUp({}, { [name]: value })).toThrow(code('INVALID_PARAM'));
    }
  });

  it('needs large buffers where packets cannot be spread [5.1.9.3.1]', () => {
    const features = QEMU & ~F.MRG_RXBUF;
    expect(() => setUp({ features }, { bufferSize: 1525 })).toThrow(code('INVALID_PARAM'));
    expect(setUp({ features }, { bufferSize: 1600 }).net.headerSize).toBe(12);
    // Each holds a packet of the MTU.
    const large = { features: features | F.MTU, mtu: 9000 };
    expect(() => setUp(large, { bufferSize: 9025 })).toThrow(code('INVALID_PARAM'));
    expect(setUp(large, { bufferSize: 9026 }).net.mtu).toBe(9000);
  });

  it('refuses devices of another type', () => {
    const device = new FakeDevice({ type: DeviceType.Block });
    expect(() => new VirtioNet(new FakeTransport(device), device.hal)).toThrow(code('INVALID_PARAM'));
  });

  it.each([
    ['with ANY_LAYOUT', CommonFeatures.set('ANY_LAYOUT', 'INDIRECT_DESC').bits, 10, 1],
    ['without', CommonFeatures.set('INDIRECT_DESC').bits, 10, 2],
    ['without, nor indirect descriptors', 0n, 10, 2],
    ['with mergeable buffers', F.MRG_RXBUF | CommonFeatures.set('ANY_LAYOUT').bits, 12, 1],
  ])('serves a legacy device %s [5.1.9.1, 5.1.9.8]', (_name, extra, size, parts) => {
    const features = F.MAC | F.STATUS | F.CTRL_VQ | F.CTRL_RX | extra;
    const made = setUp({ features, legacy: true, queueSize: 8 });
    const { model, net } = made;
    expect(net.headerSize).toBe(size);
    for (let n = 0; n < 30; n += 1) {
      net.sendSync(frame(60 + n, n));
      expect(model.deliver(frame(70 + n, n))).toBe(true);
      using packet = net.tryReceive();
      expect(packet?.copy()).toEqual(frame(70 + n, n));
    }
    expect(model.sent.map((packet) => packet.frame)).toEqual(
      Array.from({ length: 30 }, (_, n) => frame(60 + n, n)),
    );
    expect(model.sent.map(({ pieces }) => pieces.length)).toEqual(Array.from({ length: 30 }, () => parts));
    net.controlSync(NetControl.setPromiscuous(false));
    expect(model.promiscuous).toBe(false);
    net.controlSync(NetControl.setMacTable({ unicast: ['02:00:00:00:00:01'] }));
    // The head, the data, of a MAC table in two parts, and the ack [5.1.9.8].
    expect(model.framing).toEqual([
      [2, 1, 1],
      [2, 10, 4, 1],
    ]);
    clean(made);
  });
});

describe('trouble', () => {
  it('ends all waits at a reset, and goes on [2.4]', async () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    model.throttled = true;
    const lost = [net.receive(), net.receive()].map((wait) =>
      expect(wait).rejects.toThrow(code('DEVICE_RESET')),
    );
    const sends = Array.from({ length: 6 }, (_, n) => net.send(frame(60, n)));
    for (const send of sends.slice(4)) lost.push(expect(send).rejects.toThrow(code('DEVICE_RESET')));
    await turns();
    net.reset();
    await Promise.all(lost);
    model.throttled = false;
    await net.send(frame(60, 9));
    await net.flush();
    expect(model.sent.map((packet) => packet.frame)).toEqual([frame(60, 9)]);
    expect(model.deliver(frame(60, 1))).toBe(true);
    expect((await net.receive()).copy()).toEqual(frame(60, 1));
    clean(made);
  });

  it('resets queues alone [2.6.1]', () => {
    const features = QEMU | CommonFeatures.set('RING_RESET').bits;
    const made = setUp({ features, queueSize: 4 });
    const { model, net } = made;
    model.deliver(frame(60));
    const held = net.tryReceive();
    const buffer = net.takeBuffer();
    net.resetQueue(0);
    net.resetQueue(1);
    expect(held?.isHeld).toBe(false);
    held?.release();
    expect(() => buffer?.send(20)).toThrow(code('DEVICE_RESET'));
    for (let n = 0; n < 10; n += 1) {
      expect(model.deliver(frame(60, n))).toBe(true);
      expect(net.tryReceive(0)?.copy()).toEqual(frame(60, n));
      net.resetQueue(0);
      net.sendSync(frame(60, n));
    }
    clean(made);
  });

  it('tells of a device that was unplugged, once, and ends all waits', async () => {
    const { model, net } = setUp({ queueSize: 4 });
    const failures: VirtioError[] = [];
    net.on('failure', (error) => failures.push(error));
    model.throttled = true;
    const sends = Array.from({ length: 5 }, () => net.send(frame(60)));
    const gone = [net.receive(), sends[4], net.flush()].map((wait) =>
      expect(wait).rejects.toThrow(code('DEVICE_REMOVED')),
    );
    await turns();
    model.device.remove();
    await Promise.all(gone);
    expect(failures).toHaveLength(1);
    net[Symbol.dispose]();
    model.device.hal.assertClean();
  });

  it('is clean after each failure of memory while it is set up', () => {
    for (let after = 0; after < 12; after += 1) {
      const model = new NetModel();
      model.device.hal.failAlloc({ after });
      try {
        new VirtioNet(model.transport, model.device.hal)[Symbol.dispose]();
      } catch (error) {
        expect(error).toMatchObject({ code: 'DMA_ERROR' });
      }
      model.device.assertClean();
    }
  });

  it('refuses promises without interrupts before anything is sent', async () => {
    const { model, net } = setUp({ interrupts: false });
    await expect(net.send(frame(60))).rejects.toThrow(code('UNSUPPORTED'));
    await expect(net.receive()).rejects.toThrow(code('UNSUPPORTED'));
    await expect(net.flush()).rejects.toThrow(code('UNSUPPORTED'));
    await expect(net.control(NetControl.setPromiscuous(true))).rejects.toThrow(code('UNSUPPORTED'));
    expect([model.sent, model.commands]).toEqual([[], []]);
  });
});
