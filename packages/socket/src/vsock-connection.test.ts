import { afterEach, describe, expect, it, vi } from 'vitest';
import { FakeInterrupts } from '@virtio/testing';
import { type Connected, connected as connect } from '../test/connected.ts';
import { bytes, FakePeer, turns } from '../test/fake-peer.ts';
import { VsockShutdown } from './index.ts';

const code = (value: string): Error => expect.objectContaining({ code: value }) as Error;
const { RECEIVE, SEND, BOTH } = VsockShutdown;

const peers: FakePeer[] = [];
const connected = (options?: Parameters<typeof connect>[0]): Connected => {
  const made = connect(options);
  peers.push(made.peer);
  return made;
};
afterEach(() => {
  for (const peer of peers.splice(0)) peer.end();
  vi.restoreAllMocks();
});

/** The peer is asked for credit again after some time: here, none passes. */
const stopTime = (): void => void vi.spyOn(Date, 'now').mockReturnValue(1e9);

describe('writing', () => {
  it('sends bytes in packets that fit, in order', async () => {
    const { near, far } = connected({ bufAlloc: 100_000 });
    const data = bytes(5000);
    await near.write(data);
    expect(far.read).toEqual([...data]);
    await near.write('žluť');
    expect(Buffer.from(far.read.slice(5000)).toString()).toBe('žluť');
    await near.write(new Uint8Array(0));
    expect(far.read).toHaveLength(5006);
  });

  it('stops when the peer has no room, asks once for credit, and goes on when there is some [5.10.6.3.1]', async () => {
    stopTime();
    const { near, far } = connected({ bufAlloc: 1000, lazy: true });
    const data = bytes(2500);
    let written = false;
    const writing = near.write(data).then(() => (written = true));
    await turns();
    expect(written).toBe(false);
    expect(near.sendCredit).toBe(0);
    expect(far.received).toHaveLength(1000);
    expect(far.creditRequests).toBe(1);
    far.readSome(400);
    await turns();
    // The peer says nothing of less than half of its buffer.
    expect(far.received).toHaveLength(600);
    expect(far.creditRequests).toBe(1);
    far.readSome(100);
    await turns();
    expect(far.received).toHaveLength(1000);
    expect(far.creditRequests).toBe(2);
    far.eager = true;
    far.readSome();
    await writing;
    expect(far.read).toEqual([...data]);
  });

  it('sees credit in whatever packet it comes, also in a CREDIT_REQUEST', async () => {
    const { near, far } = connected({ bufAlloc: 10, lazy: true });
    far.tells = false;
    for (const op of ['CREDIT_REQUEST', 'RW', 'SHUTDOWN'] as const) {
      expect(near.tryWrite(bytes(20))).toBe(10);
      expect(near.tryWrite(bytes(20))).toBe(0);
      far.readSome();
      far.say(op, op === 'SHUTDOWN' ? { flags: SEND } : {});
      expect(near.sendCredit).toBe(10);
    }
  });

  it('waits for a peer that never answers a CREDIT_REQUEST until its caller has enough', async () => {
    stopTime();
    const { near, far } = connected({ bufAlloc: 10, lazy: true });
    far.tells = false;
    const cancel = new AbortController();
    const writing = near.write(bytes(20), { signal: cancel.signal });
    await turns();
    expect(far.creditRequests).toBe(1);
    cancel.abort();
    await expect(writing).rejects.toThrow(code('ABORTED'));
    expect(() => near.writeSync(bytes(1), { timeoutMs: 0 })).toThrow(code('NOT_READY'));
    expect(far.creditRequests).toBe(1);
  });

  it('survives a buffer that shrinks below what is in flight', async () => {
    const { near, far, program } = connected({ bufAlloc: 1000, lazy: true });
    expect(near.tryWrite(bytes(1000))).toBe(1000);
    program.bufAlloc = 100;
    far.say('CREDIT_UPDATE');
    expect(near.sendCredit).toBe(0);
    far.readSome(850);
    far.say('CREDIT_UPDATE');
    expect(near.sendCredit).toBe(0);
    far.readSome(100);
    far.say('CREDIT_UPDATE');
    expect(near.sendCredit).toBe(50);
    expect(near.tryWrite(bytes(1000))).toBe(50);
  });

  it('keeps writes apart, and a cancelled one out', async () => {
    const { near, far } = connected({ bufAlloc: 100, lazy: true });
    const cancel = new AbortController();
    const done: string[] = [];
    const first = near.write('a'.repeat(250)).then(() => done.push('a'));
    const second = near.write('b'.repeat(10), { signal: cancel.signal });
    const third = near.write('c'.repeat(10)).then(() => done.push('c'));
    second.catch(() => undefined);
    await turns();
    expect(near.tryWrite(bytes(1))).toBe(0);
    expect(() => near.writeSync('d')).toThrow(code('ALREADY_USED'));
    expect(() => near.shutdown(SEND)).toThrow(code('ALREADY_USED'));
    cancel.abort();
    await expect(second).rejects.toThrow(code('ABORTED'));
    far.eager = true;
    far.readSome();
    await Promise.all([first, third]);
    expect(done).toEqual(['a', 'c']);
    expect(Buffer.from(far.read).toString()).toBe('a'.repeat(250) + 'c'.repeat(10));
  });

  it('that has nothing to do with a slow peer goes on', async () => {
    const { peer, program, near, far } = connected({ bufAlloc: 1000, lazy: true });
    const stuck = near.write(bytes(5000));
    stuck.catch(() => undefined);
    await turns();
    program.onConnection = (one) => (one.eager = true);
    const other = await peer.sockets.connect({ cid: 2, port: 1234 });
    await other.write(bytes(50_000));
    expect(far.received).toHaveLength(1000);
    near.abort();
    await expect(stuck).rejects.toThrow(code('SOCKET_ABORTED'));
  });

  it('waits for the device when its queue is full, and so does what is due', async () => {
    const { peer, near, far } = connected({ bufAlloc: 100_000 });
    peer.deaf = true;
    let written = false;
    const data = bytes(20_000);
    const writing = near.write(data).then(() => (written = true));
    await turns();
    far.say('CREDIT_REQUEST');
    await turns();
    expect(written).toBe(false);
    expect(far.creditUpdates).toBe(0);
    peer.deaf = false;
    peer.listen();
    await writing;
    expect(far.read).toEqual([...data]);
    expect(far.creditUpdates).toBe(1);
  });

  it('is refused with what is no bytes', async () => {
    const { near } = connected();
    await expect(near.write([1, 2] as unknown as Uint8Array)).rejects.toThrow(code('INVALID_PARAM'));
    expect(() => near.tryWrite(new ArrayBuffer(3) as unknown as Uint8Array)).toThrow(code('INVALID_PARAM'));
    await near.write('still works');
  });

  it('before the connection is established waits', async () => {
    const { peer } = connected();
    peer.onPacket = undefined;
    const connection = peer.sockets.submitConnect({ cid: 2, port: 5 }, { localPort: 6 });
    expect(connection.tryWrite(bytes(3))).toBe(0);
    const writing = connection.write(bytes(3));
    await turns();
    expect(peer.ops()).toEqual(['REQUEST']);
    peer.send({ op: 'RESPONSE', srcPort: 5, dstPort: 6 });
    await writing;
    expect(peer.ops()).toEqual(['RW']);
  });
});

describe('reading', () => {
  it('takes what there is, in three forms', async () => {
    const { near, far } = connected();
    const into = new Uint8Array(3);
    expect(near.tryRead(into)).toBe(0);
    expect(near.tryReadChunk()).toBeUndefined();
    expect(() => near.readSync(into, { timeoutMs: 1 })).toThrow(code('NOT_READY'));
    far.write([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(near.available).toBe(8);
    expect(near.tryRead(into)).toBe(3);
    expect([...into]).toEqual([1, 2, 3]);
    expect(near.readSync(into)).toBe(3);
    expect(await near.read(into)).toBe(2);
    expect([...into]).toEqual([7, 8, 6]);
    const reading = near.readChunk();
    await turns();
    far.write([9]);
    expect(await reading).toEqual(Uint8Array.of(9));
    expect(await near.read(new Uint8Array(0))).toBe(0);
    far.write([10]);
    expect(near.readChunkSync()).toEqual(Uint8Array.of(10));
    const cancel = new AbortController();
    const cancelled = near.read(into, { signal: cancel.signal });
    cancel.abort();
    await expect(cancelled).rejects.toThrow(code('ABORTED'));
  });

  it('takes nothing for who has cancelled, even in the turn in which data come', async () => {
    const { near, far } = connected({ interrupts: new FakeInterrupts({ synchronous: true }) });
    const controller = new AbortController();
    const reading = near.readChunk({ signal: controller.signal });
    await turns();
    far.say('RW', { data: bytes(3) });
    controller.abort();
    await expect(reading).rejects.toThrow(code('ABORTED'));
    expect(near.tryReadChunk()).toEqual(bytes(3));
  });

  it('does not end for who has transferred the array meanwhile, and loses nothing', async () => {
    const { near, far } = connected();
    const into = new Uint8Array(10);
    const reading = near.read(into);
    into.buffer.transfer();
    far.write(bytes(3));
    await expect(reading).rejects.toThrow(code('INVALID_PARAM'));
    expect(await near.readChunk()).toEqual(bytes(3));
  });

  it('lets other work have its turn while the peer never stops sending', async () => {
    const interrupts = new FakeInterrupts();
    interrupts.defer = (callback) => void setImmediate(callback);
    const { peer, near, far } = connected({ interrupts });
    // What is seen here is what the reader does by itself; real interrupts come between turns of the event loop.
    interrupts.masked = true;
    peer.prompt = false;
    const flood = { isOn: true };
    let sent = 0;
    let taken = 0;
    peer.onPacket = ({ fwdCnt }) => {
      taken = fwdCnt;
      return true;
    };
    peer.device.onNotify = () => {
      peer.listen();
      const packet = { op: 'RW', srcPort: far.port, dstPort: far.guestPort, data: bytes(100) } as const;
      while (flood.isOn && sent - taken + 100 <= 4096 && peer.send(packet)) sent += 100;
    };
    near.updateCredit();
    const reading = (async () => {
      let chunks = 0;
      for await (const chunk of near) {
        chunks += chunk.length > 0 ? 1 : 0;
        // Without turns for other work it would end here.
        if (!flood.isOn || chunks === 10_000) return chunks;
      }
      return 0;
    })();
    await new Promise((resolve) => setTimeout(resolve, 1));
    flood.isOn = false;
    expect(await reading).toBeLessThan(10_000);
  });

  it('returns credit, so that a peer with more than the buffer holds never stops for good', async () => {
    const { near, far } = connected({ bufferSize: 1000 });
    const data = bytes(100_000);
    far.write(data);
    expect(near.available).toBe(1000);
    expect(far.guestRoom).toBe(0);
    const got: number[] = [];
    // In pieces that never empty the buffer by themselves, and in single bytes.
    while (got.length < data.length) {
      const into = new Uint8Array(got.length % 1000 === 0 ? 999 : 1);
      const count = near.tryRead(into);
      expect(count).toBeGreaterThan(0);
      got.push(...into.subarray(0, count));
    }
    expect(got).toEqual([...data]);
    expect(far.unsent).toBe(0);
  });

  it('answers a CREDIT_REQUEST at once, and tells again when there is room', () => {
    const { near, far } = connected({ bufferSize: 1000 });
    far.write(bytes(1000));
    far.say('CREDIT_REQUEST');
    expect(far.creditUpdates).toBe(1);
    expect(far.guestRoom).toBe(0);
    near.tryRead(new Uint8Array(249));
    expect(far.creditUpdates).toBe(1);
    near.tryRead(new Uint8Array(1));
    expect(far.creditUpdates).toBe(2);
    expect(far.guestRoom).toBe(250);
    expect(near.receiveCredit).toBe(250);
    near.updateCredit();
    expect(far.creditUpdates).toBe(3);
    far.tells = false;
    near.requestCredit();
    near.requestCredit();
    expect(far.creditRequests).toBe(1);
  });

  it('is told of in every packet, with the size of the buffer [5.10.6.3.1]', async () => {
    const { peer, near, far } = connected({ bufferSize: 1000 });
    far.write(bytes(100));
    near.tryRead(new Uint8Array(70));
    peer.onPacket = undefined;
    const to = { srcPort: far.port, dstPort: near.localPort };
    near.writeSync('x');
    near.updateCredit();
    near.requestCredit();
    await near.endWriting();
    near.endReading();
    peer.send({ op: 'CREDIT_REQUEST', ...to });
    near.abort();
    expect(peer.packets.map(({ op, bufAlloc, fwdCnt }) => [op, bufAlloc, fwdCnt])).toEqual([
      ['RW', 1000, 70],
      ['CREDIT_UPDATE', 1000, 70],
      ['CREDIT_REQUEST', 1000, 70],
      ['SHUTDOWN', 1000, 70],
      ['SHUTDOWN', 1000, 70],
      ['CREDIT_UPDATE', 1000, 100],
      ['RST', 1000, 100],
    ]);
  });

  it('ends when the peer has shut its side down, and not before', async () => {
    const { near, far } = connected();
    far.write([1, 2]);
    far.say('RW');
    far.say('CREDIT_UPDATE');
    expect(near.atEnd).toBe(false);
    far.say('SHUTDOWN', { flags: SEND });
    expect(near.atEnd).toBe(false);
    expect(await near.readChunk()).toEqual(Uint8Array.of(1, 2));
    expect(near.atEnd).toBe(true);
    expect(await near.readChunk()).toBeUndefined();
    expect(await near.read(new Uint8Array(1))).toBe(0);
    expect(near.readChunkSync()).toBeUndefined();
    // The other direction goes on.
    await near.write('more');
    expect(Buffer.from(far.read).toString()).toBe('more');
    expect(near.shutdowns).toEqual({ local: 0, peer: SEND });
  });

  it('tells of a connection that was reset, after what came before', async () => {
    const { near, far } = connected();
    far.write([1, 2]);
    far.say('RST');
    expect(await near.readChunk()).toEqual(Uint8Array.of(1, 2));
    await expect(near.readChunk()).rejects.toThrow(code('SOCKET_RESET'));
    expect(() => near.tryRead(new Uint8Array(1))).toThrow(code('SOCKET_RESET'));
    expect(() => near.tryWrite(bytes(1))).toThrow(code('SOCKET_RESET'));
    expect(near.end).toBe('reset');
  });

  it('by iteration goes to the end', async () => {
    const { near, far } = connected();
    const got: number[] = [];
    const loop = (async () => {
      for await (const chunk of near) got.push(...chunk);
    })();
    for (let n = 0; n < 10; n += 1) {
      far.write([n]);
      await turns(1);
    }
    far.say('SHUTDOWN', { flags: SEND });
    await loop;
    expect(got).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});

describe('the end', () => {
  it('by close is told to the peer, and waits until it confirms [5.10.6.5]', async () => {
    const { peer, near, far } = connected();
    void near.write(bytes(3000));
    await near.close();
    expect(far.read).toEqual([...bytes(3000)]);
    expect(far.guestShutdown).toBe(BOTH);
    expect(near.end).toBe('clean');
    expect(peer.sockets.size).toBe(0);
    await near.close();
    await expect(near.write('x')).rejects.toThrow(code('SOCKET_SHUTDOWN'));
    expect(await near.readChunk()).toBeUndefined();
    expect(await near.waitForEnd()).toBe('clean');
  });

  it('by close waits for writes that are under way', async () => {
    const { near, far } = connected({ bufAlloc: 100, lazy: true });
    const writing = near.write(bytes(250));
    const closing = near.close();
    await turns();
    expect(far.guestShutdown).toBe(0);
    far.eager = true;
    far.readSome();
    await Promise.all([writing, closing]);
    expect(far.read).toEqual([...bytes(250)]);
  });

  it('by close does not keep its caller longer than he wants, and comes when the writes are done', async () => {
    const { near, far } = connected({ bufAlloc: 100, lazy: true });
    const writing = near.write(bytes(250));
    const controller = new AbortController();
    const closing = near.close({ signal: controller.signal });
    await turns();
    controller.abort();
    await expect(closing).rejects.toThrow(code('ABORTED'));
    expect(far.guestShutdown).toBe(0);
    far.eager = true;
    far.readSome();
    await writing;
    expect(await near.waitForEnd()).toBe('clean');
    expect(far.read).toEqual([...bytes(250)]);
  });

  it('by closeSync does not cut off a promise of a write', async () => {
    const { near, far } = connected({ bufAlloc: 100, lazy: true });
    const writing = near.write(bytes(250));
    expect(() => near.closeSync()).toThrow(code('ALREADY_USED'));
    far.eager = true;
    far.readSome();
    await writing;
    near.closeSync();
    expect(far.read).toEqual([...bytes(250)]);
  });

  it.each([NaN, -1, '5'])('by closeSync does not begin with a time of %s', (timeoutMs) => {
    const { near, far } = connected();
    expect(() => near.closeSync({ timeoutMs: timeoutMs as number })).toThrow(code('INVALID_PARAM'));
    expect([near.phase, far.guestShutdown]).toEqual(['established', 0]);
  });

  it('of writing waits for a connection that is not established yet', async () => {
    const peer = new FakePeer();
    peers.push(peer);
    const near = peer.sockets.submitConnect({ cid: 2, port: 1234 });
    const ended = near.endWriting();
    await turns();
    const { srcPort } = peer.take();
    expect([near.phase, peer.packets]).toEqual(['connecting', []]);
    peer.send({ op: 'RESPONSE', srcPort: 1234, dstPort: srcPort });
    await ended;
    expect(peer.take()).toMatchObject({ op: 'SHUTDOWN', flags: SEND });
    peer.send({ op: 'RW', srcPort: 1234, dstPort: srcPort, data: bytes(5) });
    expect(await near.readChunk()).toEqual(bytes(5));
  });

  it('by closeSync gives a silent peer its time, then an RST', () => {
    const { near, far, peer } = connected();
    peer.onPacket = (packet) => {
      if (packet.op === 'RST') far.wasReset = true;
      return true;
    };
    near.closeSync({ timeoutMs: 1 });
    expect(far.wasReset).toBe(true);
    expect(near.end).toBe('timed-out');
  });

  it('by close gives a silent peer its time, by a timer', async () => {
    const { near, far, peer } = connected({ manager: { closeTimeoutMs: 5, timers: globalThis } });
    peer.onPacket = (packet) => {
      if (packet.op === 'RST') far.wasReset = true;
      return true;
    };
    await near.close();
    expect(far.wasReset).toBe(true);
    expect(near.end).toBe('timed-out');
  });

  it('in halves that the peer does not confirm loses nothing that was received before', async () => {
    const { near, far, peer } = connected({ manager: { closeTimeoutMs: 5, timers: globalThis } });
    const sent: string[] = [];
    peer.onPacket = ({ op }) => sent.push(op) > 0;
    await near.endWriting();
    far.say('RW', { data: bytes(100) });
    far.say('SHUTDOWN', { flags: SEND });
    expect(await near.waitForEnd()).toBe('timed-out');
    expect(sent).toEqual(['SHUTDOWN', 'SHUTDOWN', 'RST']);
    const into = new Uint8Array(200);
    expect(await near.read(into)).toBe(100);
    expect(into.subarray(0, 100)).toEqual(bytes(100));
    expect(await near.read(into)).toBe(0);
    expect(near.atEnd).toBe(true);
    // Nobody knows what the peer has read.
    await expect(near.write('x')).rejects.toThrow(code('SOCKET_TIMED_OUT'));
  });

  it('is asked for again when a peer was not done with the data at first', async () => {
    const { peer, near } = connected({ lazy: true });
    // As vhost-device-vsock: SHUTDOWN counts only when all data were passed on.
    const shutdowns: number[] = [];
    const port = near.localPort;
    peer.onPacket = (packet) => {
      if (packet.op === 'SHUTDOWN') shutdowns.push(packet.flags);
      return true;
    };
    await near.write(bytes(100));
    const closing = near.close();
    await turns();
    expect(shutdowns).toEqual([SEND, BOTH]);
    peer.send({ op: 'CREDIT_UPDATE', srcPort: 1234, dstPort: port, fwdCnt: 60 });
    expect(shutdowns).toHaveLength(2);
    peer.send({ op: 'CREDIT_UPDATE', srcPort: 1234, dstPort: port, fwdCnt: 100 });
    expect(shutdowns).toEqual([SEND, BOTH, BOTH]);
    peer.send({ op: 'RST', srcPort: 1234, dstPort: port });
    await closing;
    expect(near.end).toBe('clean');
  });

  it('in halves', async () => {
    const { near, far } = connected();
    await near.write('request');
    await near.endWriting();
    expect(far.guestShutdown).toBe(SEND);
    await expect(near.write('x')).rejects.toThrow(code('SOCKET_SHUTDOWN'));
    far.write([1, 2, 3]);
    expect(await near.readChunk()).toEqual(Uint8Array.of(1, 2, 3));
    far.say('SHUTDOWN', { flags: SEND });
    // Both have said all they had: the connection closes by itself.
    await turns();
    expect(near.end).toBe('clean');
    expect(far.over).toBe(true);
    expect(await near.readChunk()).toBeUndefined();
  });

  it('of both directions leaves what was received to be read', async () => {
    const { near, far } = connected();
    far.write([1, 2, 3]);
    far.say('SHUTDOWN', { flags: SEND });
    await near.endWriting();
    expect(near.end).toBe('clean');
    expect(await near.readChunk()).toEqual(Uint8Array.of(1, 2, 3));
    expect(await near.readChunk()).toBeUndefined();
  });

  it('of reading drops what comes, and the peer never waits for room', async () => {
    const { near, far } = connected({ bufferSize: 1000 });
    far.write(bytes(500));
    near.endReading();
    expect(far.guestShutdown).toBe(RECEIVE);
    far.write(bytes(10_000));
    expect(far.unsent).toBe(0);
    expect(await near.readChunk()).toBeUndefined();
    await near.write('still sends');
    expect(far.read).toHaveLength(11);
    near.shutdown();
    expect(near.end).toBe('clean');
  });

  it('of a peer that will not receive stops writes', async () => {
    const { near, far } = connected({ bufAlloc: 10, lazy: true });
    const writing = near.write(bytes(20));
    await turns();
    far.say('SHUTDOWN', { flags: RECEIVE });
    await expect(writing).rejects.toThrow(code('SOCKET_SHUTDOWN'));
    far.write([7]);
    expect(await near.readChunk()).toEqual(Uint8Array.of(7));
    far.say('SHUTDOWN', { flags: SEND });
    expect(far.wasReset).toBe(true);
    expect(near.end).toBe('clean');
    expect(await near.readChunk()).toBeUndefined();
  });

  it('by abort is at once, and ends all waits', async () => {
    const { near, far, peer } = connected({ bufAlloc: 10, lazy: true });
    const waits = [near.write(bytes(20)), near.readChunk()];
    for (const wait of waits) wait.catch(() => undefined);
    await turns();
    near[Symbol.dispose]();
    expect(far.wasReset).toBe(true);
    for (const wait of waits) await expect(wait).rejects.toThrow(code('SOCKET_ABORTED'));
    near.abort();
    expect(peer.transport.interrupts?.holds).toBe(0);
    await near.close();
  });

  it('comes by leaving a block', async () => {
    const { near, far } = connected();
    {
      await using connection = near;
      await connection.write('bye');
    }
    expect(far.over).toBe(true);
    expect(near.end).toBe('clean');
  });

  it('refuses hints that are none', () => {
    const { near } = connected();
    for (const hints of [0, 4, -1, 1.5]) expect(() => near.shutdown(hints)).toThrow(code('INVALID_PARAM'));
  });
});

describe('a peer that breaks the protocol', () => {
  it('by sending more than there is room for is reset, and nothing is overrun [5.10.6.3.2]', async () => {
    const { near, far, peer } = connected({ bufferSize: 1000 });
    far.write(bytes(900));
    const data = bytes(101);
    peer.send({ op: 'RW', srcPort: far.port, dstPort: near.localPort, data });
    expect(far.wasReset).toBe(true);
    expect(near.end).toBe('protocol');
    expect(await near.readChunk()).toEqual(bytes(900));
    await expect(near.readChunk()).rejects.toThrow(code('SOCKET_PROTOCOL'));
  });

  it('by claiming more data than there are is reset', async () => {
    const { near, far, peer } = connected();
    peer.send({ op: 'RW', srcPort: far.port, dstPort: near.localPort, data: bytes(10), len: 11 });
    expect(far.wasReset).toBe(true);
    await expect(near.readChunk()).rejects.toThrow(code('SOCKET_PROTOCOL'));
  });

  it('by data of another type of socket is reset', () => {
    const { near, far, peer } = connected({ features: 3n });
    peer.send({ op: 'RW', srcPort: far.port, dstPort: near.localPort, data: bytes(10), type: 2 });
    expect(near.end).toBe('protocol');
    expect(far.wasReset).toBe(true);
  });

  it('by counts that cannot be is not believed', () => {
    const { near, far, peer } = connected({ bufAlloc: 1000, lazy: true });
    near.writeSync(bytes(600));
    const more = { srcPort: far.port, dstPort: near.localPort, bufAlloc: 1000 };
    peer.send({ op: 'CREDIT_UPDATE', ...more, fwdCnt: 601 });
    expect(near.sendCredit).toBe(400);
    peer.send({ op: 'CREDIT_UPDATE', ...more, fwdCnt: 0xffff_ffff });
    expect(near.sendCredit).toBe(400);
    expect(peer.driver.quirks).toBe(2);
    peer.send({ op: 'CREDIT_UPDATE', ...more, fwdCnt: 600 });
    expect(near.sendCredit).toBe(1000);
  });

  it('harmlessly is counted: data where there are none, unknown operations, a second RESPONSE', async () => {
    const { near, far, peer } = connected();
    const to = { srcPort: far.port, dstPort: near.localPort };
    peer.send({ op: 'CREDIT_UPDATE', ...to, data: bytes(3) });
    peer.send({ op: 8, ...to });
    peer.send({ op: 'INVALID', ...to });
    peer.send({ op: 'RESPONSE', ...to });
    peer.send({ op: 'SHUTDOWN', ...to, flags: 4 });
    expect(peer.driver.quirks).toBe(5);
    far.write([1]);
    expect(await near.readChunk()).toEqual(Uint8Array.of(1));
  });

  it('by using its port again gets a new connection, and the old one is over', async () => {
    const { near, peer, program } = connected();
    const listener = peer.sockets.listen({ port: 80 });
    program.connect(9, 80);
    const old = listener.acceptSync();
    program.connections.clear();
    const far = program.connect(9, 80);
    expect(far.established).toBe(true);
    expect(old.end).toBe('reset');
    const fresh = listener.acceptSync();
    far.write([5]);
    expect(await fresh.readChunk()).toEqual(Uint8Array.of(5));
    // Where nobody listens it is refused.
    peer.send({ op: 'REQUEST', srcPort: 1234, dstPort: near.localPort });
    expect(near.end).toBe('reset');
    expect(
      program.strayResets + [...program.connections.values()].filter(({ wasReset }) => wasReset).length,
    ).toBe(1);
  });

  it('by crossing a request with one of its own is refused', async () => {
    const peer = new FakePeer();
    const connecting = peer.sockets.connect({ cid: 2, port: 5 }, { localPort: 6 });
    peer.sockets.listen({ port: 6 });
    peer.send({ op: 'REQUEST', srcPort: 5, dstPort: 6 });
    await expect(connecting).rejects.toThrow(code('SOCKET_PROTOCOL'));
    expect(peer.ops()).toEqual(['REQUEST', 'RST']);
    peer.end();
  });
});
