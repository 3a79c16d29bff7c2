import { VirtioError } from '@virtio/core';
import { DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { bytes, FakePeer, GUEST, turns } from '../test/fake-peer.ts';
import { VirtioSocket, VsockConnectionManager, VsockHeader, VsockOp, VsockType } from './index.ts';

const STREAM = 1n;
const SEQPACKET = 2n;
const NO_IMPLIED_STREAM = 4n;

/** A device whose packets a test takes by hand. */
function raw(): { device: FakeDevice; driver: VirtioSocket } {
  const config = new Uint8Array(8);
  config[0] = GUEST;
  const device = new FakeDevice({ type: DeviceType.Socket, config, queues: [4, 4, 4] });
  const driver = new VirtioSocket(new FakeTransport(device), device.hal, { bufferSize: 64 });
  return { device, driver };
}

const headerTo = (port: number): VsockHeader =>
  Object.assign(new VsockHeader(), {
    dstCid: 2,
    dstPort: port,
    srcPort: 5,
    type: VsockType.STREAM,
    op: VsockOp.RW,
  });

describe('the device', () => {
  it('tells the CID of the guest [5.10.4]', () => {
    const peer = new FakePeer();
    expect(peer.driver.guestCid).toBe(GUEST);
    expect(peer.sockets.guestCid).toBe(GUEST);
    peer.end();
  });

  it.each([0n, 1n, 2n, 0xffffffffn, 0x1_0000_0003n])(
    'is refused with the reserved CID %s [5.10.4]',
    (cid) => {
      expect(() => new FakePeer({ cid })).toThrow(
        expect.objectContaining({ code: 'INVALID_DEVICE' }) as Error,
      );
    },
  );

  it('has stream sockets if it offers nothing, and not if it says that they are not implied [5.10.3.1]', () => {
    const types = (features: bigint): boolean[] => {
      const peer = new FakePeer({ features });
      const supported = [peer.driver.supports(1), peer.driver.supports(2), peer.driver.supports(3)];
      peer.end();
      return supported;
    };
    expect(types(0n)).toEqual([true, false, false]);
    expect(types(STREAM)).toEqual([true, false, false]);
    expect(types(SEQPACKET)).toEqual([true, true, false]);
    expect(types(STREAM | SEQPACKET | NO_IMPLIED_STREAM)).toEqual([true, true, false]);
    expect(types(SEQPACKET | NO_IMPLIED_STREAM)).toEqual([false, true, false]);
  });

  it('is offered its own features back [5.10.3.1]', () => {
    const peer = new FakePeer({ features: STREAM | SEQPACKET | NO_IMPLIED_STREAM });
    expect(peer.driver.features.names()).toEqual(
      expect.arrayContaining(['STREAM', 'SEQPACKET', 'NO_IMPLIED_STREAM']),
    );
    peer.end();
  });

  it.each([
    { bufferSize: 63 },
    { bufferSize: 65_581 },
    { buffers: 1 },
    { buffers: 1.5 },
    { bufferSize: NaN },
  ])('refuses the options %o', (driver) => {
    expect(() => new FakePeer({ driver })).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }) as Error,
    );
  });
});

describe('packets without a manager', () => {
  it('are sent with the guest’s CID as their source [5.10.6.4.1]', () => {
    const { device, driver } = raw();
    const header = Object.assign(headerTo(7), { srcCid: 99, bufAlloc: 1, fwdCnt: 2, flags: 3 });
    expect(driver.trySend(header, bytes(20))).toBe(true);
    const chain = device.queue(1).pop();
    const sent = chain?.header();
    expect(chain?.readable).toBe(64);
    expect([0, 4, 8, 12, 16, 20, 24].map((at) => sent?.getUint32(at, true))).toEqual([
      GUEST,
      0,
      2,
      0,
      5,
      7,
      20,
    ]);
    expect([28, 30].map((at) => sent?.getUint16(at, true))).toEqual([1, 5]);
    expect([32, 36, 40].map((at) => sent?.getUint32(at, true))).toEqual([3, 1, 2]);
    expect(() => driver.trySend(header, bytes(21))).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }) as Error,
    );
    chain?.complete();
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('wait for room in three forms', async () => {
    const { device, driver } = raw();
    for (let n = 0; n < 4; n += 1) expect(driver.trySend(headerTo(n))).toBe(true);
    expect(driver.trySend(headerTo(4))).toBe(false);
    expect(driver.room).toBe(0);
    let sent = false;
    const sending = driver.send(headerTo(4)).then(() => (sent = true));
    await turns();
    expect(sent).toBe(false);
    device.queue(1).pop()?.complete();
    await sending;
    expect(() => driver.sendSync(headerTo(5), undefined, { timeoutMs: 1 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }) as Error,
    );
    device.queue(1).pop()?.complete();
    driver.sendSync(headerTo(5));
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('are polled, each once', async () => {
    const { device, driver } = raw();
    const got: [number, number[]][] = [];
    const take = (): number => driver.poll((header, data) => got.push([header.srcPort, [...data]]));
    expect(take()).toBe(0);
    const packet = (port: number, data: number[]): number[] => {
      const whole = new Uint8Array(44 + data.length);
      const view = new DataView(whole.buffer);
      view.setUint32(16, port, true);
      view.setUint32(24, data.length, true);
      whole.set(data, 44);
      return [...whole];
    };
    const waiting = driver.waitForPacket();
    await turns();
    // More than there are buffers, over all.
    for (let n = 0; n < 10; n += 1) {
      expect(device.send(0, packet(n, [n, n]))).toBe(true);
      if (n === 0) await waiting;
      driver.waitForPacketSync();
      expect(take()).toBe(1);
    }
    expect(got).toEqual(Array.from({ length: 10 }, (_, n) => [n, [n, n]]));
    driver[Symbol.dispose]();
    device.assertClean();
  });

  describe('in handlers that', () => {
    /** A driver that has received packets from the ports 0, 1, 2 and 3. */
    const received = (): ReturnType<typeof raw> & { send: (port: number) => boolean } => {
      const made = raw();
      const send = (port: number): boolean => {
        const header = new Uint8Array(44);
        header.set([2], 0);
        header.set([GUEST], 8);
        header.set([port], 16);
        header.set([1, 0, 5], 28);
        return made.device.send(0, header);
      };
      for (let port = 0; port < 4; port += 1) expect(send(port)).toBe(true);
      return { ...made, send };
    };

    it('poll get the next packets, and each keeps its header', () => {
      const { device, driver, send } = received();
      const seen: string[] = [];
      driver.poll((outer) => {
        const before = outer.srcPort;
        driver.poll((inner) => seen.push(`${inner.srcPort} in ${before}`), 1);
        seen.push(`${before} ${outer.srcPort}`);
      });
      expect(seen).toEqual(['1 in 0', '0 0', '3 in 2', '2 2']);
      for (let port = 0; port < 4; port += 1) expect(send(port)).toBe(true);
      expect(driver.poll(() => undefined)).toBe(4);
      expect(driver.failure).toBeUndefined();
      driver[Symbol.dispose]();
      device.assertClean();
    });

    it('throw end the call; their packet was handled, and the buffers go back', () => {
      const { device, driver, send } = received();
      const seen: number[] = [];
      const take = ({ srcPort }: Readonly<VsockHeader>): void => {
        seen.push(srcPort);
        if (srcPort === 1) throw new Error('the handler');
      };
      expect(() => driver.poll(take)).toThrow('the handler');
      expect(send(7)).toBe(true);
      expect(send(8)).toBe(true);
      expect(driver.poll(take)).toBe(4);
      expect(seen).toEqual([0, 1, 2, 3, 7, 8]);
      driver[Symbol.dispose]();
      device.assertClean();
    });

    it('make a connection manager leave it all other packets', () => {
      const { device, driver } = received();
      const seen: number[] = [];
      expect(
        driver.poll(({ srcPort }) => {
          seen.push(srcPort);
          new VsockConnectionManager(driver);
        }),
      ).toBe(1);
      expect(seen).toEqual([0]);
      const refused = [1, 2, 3].map(() => device.queue(1).pop()?.bytes().slice(20, 32));
      expect(refused.map((header) => [header?.[0], header?.[10]])).toEqual(
        [1, 2, 3].map((port) => [port, 3]),
      );
      expect(driver.poll(() => seen.push(-1))).toBe(0);
      driver[Symbol.dispose]();
      device.assertClean();
    });
  });

  it.each([NaN, -1, 0.5, 2 ** 64, '2'])('are not polled %s at a time', (most) => {
    const { driver } = raw();
    expect(() => driver.poll(() => undefined, most as number)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }) as Error,
    );
  });

  it('that are nobody’s stay with the device until somebody polls', () => {
    const { device, driver } = raw();
    const header = new Uint8Array(44);
    let sent = 0;
    while (device.send(0, header)) {
      sent += 1;
      driver.pollEvents();
    }
    expect(sent).toBe(4);
    expect(driver.poll(() => undefined)).toBe(4);
    expect(device.send(0, header)).toBe(true);
    driver[Symbol.dispose]();
    device.assertClean();
  });
});

describe('a device that lies', () => {
  it('about lengths costs it the packet, and is counted', async () => {
    const { device, driver } = raw();
    let packets = 0;
    const poll = (): number => driver.poll(() => (packets += 1));
    const quirks: string[] = [];
    driver.on('quirk', ({ message }) => quirks.push(message));
    const header = new Uint8Array(44);
    device.queue(0).pop()?.write(header).complete(43);
    device.queue(0).pop()?.write(header).complete(0);
    new DataView(header.buffer).setUint32(24, 1, true);
    device.queue(0).pop()?.write(header).complete();
    new DataView(header.buffer).setUint32(24, 0xffff_ffff, true);
    device.queue(0).pop()?.write(header).complete();
    expect(poll()).toBe(4);
    expect(packets).toBe(0);
    await Promise.resolve();
    expect(quirks).toHaveLength(4);
    expect(driver.quirks).toBe(4);
    // All buffers are with the device again, and hold no old header.
    expect(device.queue(0).pop()?.complete(44)).toBeDefined();
    driver.poll(({ op, dstPort, len }) => {
      packets += 1;
      expect([op, dstPort, len]).toEqual([0, 0, 0]);
    });
    expect(packets).toBe(1);
    driver[Symbol.dispose]();
    device.assertClean();
  });

  it('about the ring fails the driver', () => {
    const { device, driver } = raw();
    device.queue(0).forceUsed(77, 44);
    driver.pollEvents();
    expect(driver.failure).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    expect(() => driver.trySend(headerTo(1))).toThrow(VirtioError);
    expect(() => driver.poll(() => undefined)).toThrow(VirtioError);
    driver[Symbol.dispose]();
  });
});

describe('a handler', () => {
  it.each(['reset', 'dispose'] as const)('may %s the driver while it looks at a packet', (what) => {
    const { device, driver } = raw();
    for (let n = 0; n < 3; n += 1) device.send(0, new Uint8Array(44));
    let calls = 0;
    driver.poll(() => {
      calls += 1;
      if (what === 'reset') driver.reset();
      else driver[Symbol.dispose]();
    });
    expect(calls).toBe(1);
    if (what === 'reset') expect(device.send(0, new Uint8Array(44))).toBe(true);
    driver[Symbol.dispose]();
    device.assertClean();
  });
});
