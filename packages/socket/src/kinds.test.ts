/** What has bitten other drivers of sockets: packets that are nothing much, that come late, twice, together or in another order. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { type Connected, connected as connect, FAR } from '../test/connected.ts';
import { bytes, FakePeer, turns } from '../test/fake-peer.ts';
import { type VsockConnection, VsockConnectionManager } from './index.ts';

const peers: FakePeer[] = [];
const connected = (options?: Parameters<typeof connect>[0]): Connected => {
  const made = connect(options);
  peers.push(made.peer);
  return made;
};
const alone = (): FakePeer => {
  const peer = new FakePeer();
  peers.push(peer);
  return peer;
};
afterEach(() => {
  for (const peer of peers.splice(0)) peer.end();
});

describe('packets without data', () => {
  it('are no end and no data: RW of length 0, CREDIT_UPDATE', async () => {
    const { near, far } = connected();
    const reading = near.readChunk();
    far.say('RW');
    far.say('CREDIT_UPDATE');
    await turns();
    expect(near.available).toBe(0);
    expect(near.atEnd).toBe(false);
    far.write([7]);
    expect(await reading).toEqual(Uint8Array.of(7));
    expect(near.receiveCredit).toBe(4096);
  });

  it('many times over cost nothing and change nothing', () => {
    const { near, far, peer } = connected();
    for (let n = 0; n < 1000; n += 1) far.say('RW');
    expect(near.isEstablished).toBe(true);
    expect(far.creditUpdates).toBe(0);
    expect(peer.driver.quirks).toBe(0);
  });
});

describe('a buffer', () => {
  it('with more than one packet is taken for the first', async () => {
    const { near, far, peer } = connected();
    const inner = new Uint8Array(44 + 5);
    inner.set([5, 0], 30);
    far.say('RW', { data: inner, len: 3 });
    expect(await near.readChunk()).toEqual(inner.slice(0, 3));
    expect(near.available).toBe(0);
    expect(peer.driver.quirks).toBe(1);
  });
});

describe('RST', () => {
  it('is answered by nothing, however many come, for whomever', () => {
    const peer = alone();
    for (let n = 0; n < 1000; n += 1) peer.send({ op: 'RST', srcPort: n, dstPort: 80, type: n % 4 });
    expect(peer.packets).toEqual([]);
  });

  it('of both sides at once ends it once, and neither answers', () => {
    const { near, far, peer, program } = connected();
    peer.deaf = true;
    near.abort();
    far.say('RST');
    peer.deaf = false;
    peer.listen();
    expect(near.end).toBe('aborted');
    expect(program.strayResets).toBe(1);
    expect(peer.sockets.size).toBe(0);
  });

  it('in place of an answer refuses; the answer that follows belongs to nobody', async () => {
    const peer = alone();
    const connecting = peer.sockets.connect(FAR, { localPort: 9 });
    peer.send({ op: 'RST', srcPort: FAR.port, dstPort: 9 });
    peer.send({ op: 'RESPONSE', srcPort: FAR.port, dstPort: 9 });
    await expect(connecting).rejects.toMatchObject({ code: 'SOCKET_REFUSED' });
    expect(peer.ops()).toEqual(['REQUEST', 'RST']);
  });

  it('of a caller that gave up reaches a peer that had just accepted', async () => {
    const peer = alone();
    const stop = new AbortController();
    const connecting = peer.sockets.connect(FAR, { localPort: 9, signal: stop.signal });
    stop.abort();
    await expect(connecting).rejects.toMatchObject({ code: 'ABORTED' });
    peer.send({ op: 'RESPONSE', srcPort: FAR.port, dstPort: 9 });
    peer.send({ op: 'RW', srcPort: FAR.port, dstPort: 9, data: bytes(3) });
    expect(peer.ops()).toEqual(['REQUEST', 'RST', 'RST', 'RST']);
    expect(peer.sockets.size).toBe(0);
  });
});

describe('a lie about the tx queue, found', () => {
  /** The tx queue is full, a packet of `near` is due, and the device has used a buffer that it does not have. */
  const lied = (): Connected & { readonly next: VsockConnection } => {
    const made = connected({ driver: { buffers: 2 }, lazy: true });
    const { peer, near } = made;
    peer.deaf = true;
    near.updateCredit();
    near.updateCredit();
    const next = peer.sockets.submitConnect({ cid: 2, port: 7 });
    expect(peer.driver.room).toBe(0);
    peer.device.queue(1).forceUsed(999, 0);
    return { ...made, next };
  };

  it('when a time limit is over, is no error of the timer', () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    try {
      const expired: (() => void)[] = [];
      const timers = {
        setTimeout: (callback: () => void) => expired.push(callback),
        clearTimeout: () => undefined,
      };
      const peer = new FakePeer({ driver: { buffers: 2 }, manager: { timers } });
      peers.push(peer);
      peer.deaf = true;
      const asked = [1, 2].map((port) => peer.sockets.submitConnect({ cid: 2, port }));
      peer.device.queue(1).forceUsed(999, 0);
      vi.setSystemTime(Date.now() + 60_000);
      for (const expire of expired) expire();
      expect(peer.driver.failure?.code).toBe('DEVICE_MISBEHAVED');
      expect(asked.map(({ end }) => end)).toEqual(['timed-out', 'transport-reset']);
    } finally {
      vi.useRealTimers();
    }
  });

  it('after a wait for room, is told to the writer, and no other error is left for nobody to catch', async () => {
    const { peer, near } = connected({ driver: { buffers: 2 }, lazy: true, bufAlloc: 65_536 });
    peer.deaf = true;
    const writing = near.write(bytes(5000));
    for (const port of [7, 8]) peer.sockets.submitConnect({ cid: 2, port });
    const queue = peer.device.queue(1);
    const failed = new Promise((resolve) => peer.driver.on('failure', resolve));
    queue.pop()?.complete(0);
    await Promise.resolve();
    queue.forceUsed(999, 0);
    await expect(writing).rejects.toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    expect(await failed).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    await turns();
  });

  it('when everything is ended, does not keep anything from its end', () => {
    const { peer, near, next } = lied();
    near.abort();
    expect([near.end, next.end]).toEqual(['aborted', 'transport-reset']);
    expect(peer.driver.failure?.code).toBe('DEVICE_MISBEHAVED');
    const again = lied();
    again.peer.sockets[Symbol.dispose]();
    again.peer.driver.reset();
    expect(new VsockConnectionManager(again.peer.driver).size).toBe(0);
  });

  it('and answered by a reset, sends nothing of the old connections to the device', () => {
    for (const act of ['updateCredit', 'tryWrite'] as const) {
      const { peer, near } = act === 'tryWrite' ? connected({ driver: { buffers: 2 }, lazy: true }) : lied();
      peer.driver.on('failure', () => {
        peer.driver.reset();
        peer.deaf = false;
      });
      if (act === 'tryWrite') {
        peer.deaf = true;
        near.updateCredit();
        near.updateCredit();
        peer.device.queue(1).forceUsed(999, 0);
        expect(() => near.tryWrite(bytes(5))).toThrow(
          expect.objectContaining({ code: 'DEVICE_MISBEHAVED' }) as Error,
        );
      } else {
        near.updateCredit();
      }
      peer.packets.length = 0;
      peer.listen();
      expect(peer.packets).toEqual([]);
      expect(peer.driver.failure).toBeUndefined();
      expect([near.end, peer.sockets.size]).toEqual(['transport-reset', 0]);
    }
  });
});

describe('a listener that connects anew', () => {
  it('when the device has lied, and was reset, gets all that it asks for', () => {
    const { peer, near } = connected({ driver: { buffers: 2 }, lazy: true });
    peer.onPacket = undefined;
    peer.deaf = true;
    near.updateCredit();
    near.updateCredit();
    peer.device.queue(1).forceUsed(999, 0);
    const ports = [50, 51, 52, 53, 54];
    peer.driver.on('failure', () => {
      peer.driver.reset();
      for (const port of ports) peer.sockets.submitConnect({ cid: 2, port });
    });
    near.updateCredit();
    peer.deaf = false;
    for (let n = 0; n < 5; n += 1) {
      peer.listen();
      peer.sockets.poll();
    }
    expect(peer.packets.map(({ op, dstPort }) => `${op} ${dstPort}`)).toEqual(
      ports.map((port) => `REQUEST ${port}`),
    );
  });
});

describe('a signal of the caller’s own', () => {
  it.each(['calls its listener at once', 'throws'])('that %s keeps nothing waiting', async (how) => {
    const { peer, near, far } = connected();
    const signal = {
      aborted: false,
      addEventListener: (_type: string, listener: () => void) => {
        if (how === 'throws') throw new RangeError('no listeners here');
        listener();
      },
      removeEventListener: () => undefined,
    };
    await expect(near.readChunk({ signal })).rejects.toThrow(
      how === 'throws' ? RangeError : (expect.objectContaining({ code: 'ABORTED' }) as Error),
    );
    expect(peer.transport.interrupts?.holds).toBe(0);
    far.write(bytes(3));
    expect(await near.readChunk()).toEqual(bytes(3));
  });
});

describe('ports', () => {
  it('are used again at once, many times, by either side', async () => {
    const { peer, program, near } = connected();
    await near.close();
    using listener = peer.sockets.listen({ port: 80 });
    for (let n = 0; n < 200; n += 1) {
      const again = peer.sockets.connectSync(FAR, { localPort: 7 });
      again.writeSync(bytes(10));
      if (n % 2 === 0) again.abort();
      else await again.close();
      const far = program.connect(5, 80);
      const accepted = listener.acceptSync();
      far.write(bytes(10, n));
      expect(accepted.tryReadChunk()).toEqual(bytes(10, n));
      if (n % 2 === 0) far.say('RST');
      else await accepted.close();
    }
    expect(peer.sockets.size).toBe(0);
    expect(peer.sockets.isLocalPortUsed(7)).toBe(false);
    expect(peer.driver.quirks).toBe(0);
  });
});

describe('SHUTDOWN in halves, with data between', () => {
  const halves = [
    [1, 2],
    [2, 1],
    [3, 0],
  ] as const;
  for (const [first, second] of halves) {
    for (const read of ['before', 'between', 'after'] as const) {
      it(`of ${first}, then ${second}, read ${read}: nothing is lost and the end is clean`, async () => {
        const { near, far } = connected();
        const all = bytes(300);
        const got: number[] = [];
        const take = (): void => {
          for (let chunk = near.tryReadChunk(); chunk !== undefined; chunk = near.tryReadChunk()) {
            got.push(...chunk);
          }
        };
        far.write(all.subarray(0, 200));
        if (read === 'before') take();
        // Data may follow the half that says that nothing will be received.
        if (first === 1) {
          far.say('SHUTDOWN', { flags: 1 });
          far.write(all.subarray(200));
        } else {
          far.write(all.subarray(200));
          far.say('SHUTDOWN', { flags: first });
        }
        if (read === 'between') take();
        if (second !== 0) far.say('SHUTDOWN', { flags: second });
        take();
        expect(got).toEqual([...all]);
        expect(near.atEnd).toBe(true);
        expect(await near.waitForEnd()).toBe('clean');
        expect(far.wasReset).toBe(true);
      });
    }
  }
});

describe('a peer that says less than it should', () => {
  it('and whose answer brings no room is asked no more until there was some; others go on', async () => {
    const { near, far, peer } = connected({ bufAlloc: 10, lazy: true });
    const other = peer.sockets.connectSync({ cid: 2, port: FAR.port });
    const writing = near.write(bytes(30));
    await turns();
    expect(far.creditRequests).toBe(1);
    other.writeSync(bytes(10));
    far.readSome();
    await turns();
    far.readSome();
    far.readSome();
    await writing;
    far.readSome();
    expect(far.read).toEqual([...bytes(30)]);
  });

  it('and tells of room only when it is asked is asked again after a while, as long as somebody writes [5.10.6.3]', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    try {
      const { near, far, peer } = connected({
        bufAlloc: 10,
        lazy: true,
        manager: { timers: globalThis },
      });
      far.tells = false;
      const { onPacket } = peer;
      peer.onPacket = (packet) => {
        const kept = onPacket?.(packet) === true;
        if (packet.op === 'CREDIT_REQUEST') far.say('CREDIT_UPDATE');
        return kept;
      };
      const pass = async (ms: number): Promise<void> => {
        vi.advanceTimersByTime(ms);
        await turns();
      };
      const writing = near.write(bytes(30));
      await turns();
      expect(far.creditRequests).toBe(1);
      await pass(249);
      expect([far.creditRequests, far.received.length]).toEqual([1, 10]);
      await pass(1);
      expect([far.creditRequests, far.received.length]).toEqual([2, 10]);
      for (let n = 0; n < 3; n += 1) {
        far.readSome();
        await pass(250);
      }
      await writing;
      expect(far.read).toEqual([...bytes(30)]);

      const cancel = new AbortController();
      const given = near.write(bytes(40), { signal: cancel.signal });
      await pass(250);
      cancel.abort();
      await expect(given).rejects.toMatchObject({ code: 'ABORTED' });
      await pass(250);
      const before = far.creditRequests;
      await pass(60_000);
      expect(far.creditRequests).toBe(before);
      expect(near.isEstablished).toBe(true);
    } finally {
      vi.useRealTimers();
    }
  });

  it('and is asked without timers whenever its caller tries again, but not more often than that', async () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    try {
      const { near, far } = connected({ bufAlloc: 10, lazy: true });
      far.tells = false;
      expect(near.tryWrite(bytes(30))).toBe(10);
      for (let n = 0; n < 100; n += 1) expect(near.tryWrite(bytes(20))).toBe(0);
      expect(far.creditRequests).toBe(1);
      vi.advanceTimersByTime(250);
      for (let n = 0; n < 100; n += 1) expect(near.tryWrite(bytes(20))).toBe(0);
      expect(far.creditRequests).toBe(2);
      await turns();
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('a caller', () => {
  it.each(['stream', 'seqpacket'] as const)(
    'that takes the bytes away while they are written learns of it (%s)',
    async (type) => {
      const { near, far } = connected({ bufAlloc: 10, lazy: true, type });
      const data = bytes(10);
      await near.write(data);
      const next = bytes(10, 2);
      const writing = near.write(next);
      await turns();
      structuredClone(next.buffer, { transfer: [next.buffer] });
      far.readSome();
      await expect(writing).rejects.toMatchObject({ code: 'INVALID_PARAM' });
      expect(far.read).toEqual([...data]);
      await near.write(bytes(3));
      far.readSome();
      expect(far.read).toEqual([...data, ...bytes(3)]);
    },
  );
});
