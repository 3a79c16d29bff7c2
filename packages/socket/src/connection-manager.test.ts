import { CommonFeatures } from '@virtio/core';
import { FakeInterrupts } from '@virtio/testing';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { bytes, FakePeer, FarProgram, GUEST, HOST, type PeerOptions, turns } from '../test/fake-peer.ts';
import { VsockShutdown } from './index.ts';

const FAR = { cid: HOST, port: 1234 };
const code = (value: string): Error => expect.objectContaining({ code: value }) as Error;

let peers: FakePeer[] = [];
const makePeer = (options?: PeerOptions): FakePeer => {
  const peer = new FakePeer(options);
  peers.push(peer);
  return peer;
};
const makeProgram = (options?: PeerOptions): { peer: FakePeer; program: FarProgram } => {
  const peer = makePeer(options);
  const program = new FarProgram(peer);
  program.listening.add(FAR.port);
  return { peer, program };
};

afterEach(() => {
  for (const peer of peers.splice(0)) peer.end();
  peers = [];
});

describe('connect', () => {
  it('sends a REQUEST and is established by the RESPONSE [5.10.6.5]', async () => {
    const peer = makePeer();
    const connecting = peer.sockets.connect(FAR, { localPort: 5000 });
    expect(peer.take()).toMatchObject({
      ...{ op: 'REQUEST', srcCid: GUEST, dstCid: HOST, srcPort: 5000, dstPort: 1234, type: 1, flags: 0 },
      ...{ bufAlloc: 262_144, fwdCnt: 0 },
    });
    await turns();
    expect(peer.sockets.isConnectionEstablished(FAR, 5000)).toBe(false);
    peer.send({ op: 'RESPONSE', srcPort: 1234, dstPort: 5000, bufAlloc: 100 });
    const connection = await connecting;
    expect(connection.peer).toEqual(FAR);
    expect(connection.local).toEqual({ cid: GUEST, port: 5000 });
    expect(connection.sendCredit).toBe(100);
    expect(connection.phase).toBe('established');
    expect(peer.sockets.isConnectionEstablished(FAR, 5000)).toBe(true);
    expect(peer.sockets.connection(FAR, 5000)).toBe(connection);
    expect(peer.packets).toEqual([]);
  });

  it('is refused by an RST, which is not answered', async () => {
    const peer = makePeer();
    const connecting = peer.sockets.connect(FAR, { localPort: 5000 });
    peer.send({ op: 'RST', srcPort: 1234, dstPort: 5000 });
    await expect(connecting).rejects.toThrow(code('SOCKET_REFUSED'));
    expect(peer.ops()).toEqual(['REQUEST']);
    expect(peer.sockets.size).toBe(0);
    expect(peer.sockets.isLocalPortUsed(5000)).toBe(false);
  });

  it('is cancelled by its caller, and tells the peer', async () => {
    const peer = makePeer();
    const cancel = new AbortController();
    const connecting = peer.sockets.connect(FAR, { signal: cancel.signal });
    await turns();
    expect(peer.transport.interrupts?.holds).toBe(1);
    cancel.abort('enough');
    await expect(connecting).rejects.toThrow(code('ABORTED'));
    expect(peer.ops()).toEqual(['REQUEST', 'RST']);
    expect(peer.transport.interrupts?.holds).toBe(0);
    await expect(peer.sockets.connect(FAR, { signal: cancel.signal })).rejects.toThrow(code('ABORTED'));
    expect(peer.ops()).toEqual([]);
    expect(peer.sockets.size).toBe(0);
  });

  it('gives up on a peer that does not answer, by a timer', async () => {
    const peer = makePeer({ manager: { connectTimeoutMs: 5, timers: globalThis } });
    await expect(peer.sockets.connect(FAR)).rejects.toThrow(code('SOCKET_TIMED_OUT'));
    expect(peer.ops()).toEqual(['REQUEST', 'RST']);
  });

  it('gives up in time when the clock was set back', async () => {
    const peer = makePeer({ manager: { connectTimeoutMs: 20, timers: globalThis } });
    const connecting = peer.sockets.connect(FAR);
    const clock = Date.now;
    const spy = vi.spyOn(Date, 'now').mockImplementation(() => clock() - 3_600_000);
    await expect(connecting).rejects.toThrow(code('SOCKET_TIMED_OUT'));
    spy.mockRestore();
  });

  it('gives up without a timer when something is called', () => {
    vi.useFakeTimers({ toFake: ['Date'] });
    try {
      const peer = makePeer({ manager: { connectTimeoutMs: 5 } });
      const connection = peer.sockets.submitConnect(FAR);
      vi.advanceTimersByTime(4);
      expect(peer.sockets.poll()).toBeUndefined();
      vi.advanceTimersByTime(1);
      expect(peer.sockets.poll()).toMatchObject({ type: 'disconnected' });
      expect(connection.end).toBe('timed-out');
      expect(peer.ops()).toEqual(['REQUEST', 'RST']);
    } finally {
      vi.useRealTimers();
    }
  });

  it.each([NaN, -1, '5'])('is not begun with a time of %s', (timeoutMs) => {
    const peer = makePeer();
    expect(() => peer.sockets.connectSync(FAR, { timeoutMs: timeoutMs as number })).toThrow(
      code('INVALID_PARAM'),
    );
    expect(peer.packets).toEqual([]);
  });

  it.each(['dgram', 'constructor'])('has no type %s', (type) => {
    const peer = makePeer();
    expect(() => peer.sockets.submitConnect(FAR, { type: type as 'stream' })).toThrow(code('INVALID_PARAM'));
  });

  it('spins in its synchronous form', () => {
    const { peer } = makeProgram();
    const connection = peer.sockets.connectSync(FAR);
    expect(connection.isEstablished).toBe(true);
    expect(() => peer.sockets.connectSync({ cid: HOST, port: 99 })).toThrow(code('SOCKET_REFUSED'));
    peer.onPacket = () => true;
    expect(() => peer.sockets.connectSync(FAR, { timeoutMs: 1 })).toThrow(code('SOCKET_TIMED_OUT'));
    expect(peer.sockets.size).toBe(1);
  });

  it('waits for the time that it is given, even if that is longer than connectTimeoutMs', () => {
    const peer = makePeer({ manager: { connectTimeoutMs: 2000 } });
    let time = 0;
    const clock = vi.spyOn(Date, 'now').mockImplementation(() => {
      time += 100;
      if (time === 4000) peer.send({ op: 'RESPONSE', srcPort: FAR.port, dstPort: 5000 });
      return time;
    });
    try {
      const connection = peer.sockets.connectSync(FAR, { localPort: 5000, timeoutMs: 60_000 });
      expect(connection.isEstablished).toBe(true);
      expect(time).toBeGreaterThanOrEqual(4000);
    } finally {
      clock.mockRestore();
    }
  });

  it('takes each free port, and a given one once', async () => {
    const { peer } = makeProgram();
    const first = await peer.sockets.connect(FAR);
    const second = await peer.sockets.connect(FAR);
    expect(first.localPort).not.toBe(second.localPort);
    const { localPort } = first;
    await expect(peer.sockets.connect(FAR, { localPort })).rejects.toThrow(code('ALREADY_USED'));
    // Another peer's port makes another connection.
    await expect(peer.sockets.connect({ cid: HOST, port: 99 }, { localPort })).rejects.toThrow(
      code('SOCKET_REFUSED'),
    );
    expect(peer.sockets.isLocalPortUsed(localPort)).toBe(true);
    first.abort();
    expect(peer.sockets.isLocalPortUsed(localPort)).toBe(false);
    // A port that was just left can be used at once.
    const third = await peer.sockets.connect(FAR, { localPort });
    expect(third.isEstablished).toBe(true);
  });

  it.each([
    [{ cid: -1, port: 1 }, {}],
    [{ cid: 2 ** 32 - 1, port: 1 }, {}],
    [{ cid: 2, port: 2 ** 32 - 1 }, {}],
    [{ cid: 2, port: 1.5 }, {}],
    [FAR, { localPort: -1 }],
    [FAR, { bufferSize: 0 }],
    [FAR, { type: 'dgram' as 'stream' }],
  ])('refuses %o with %o', async (to, options) => {
    const peer = makePeer();
    await expect(peer.sockets.connect(to, options)).rejects.toThrow(code('INVALID_PARAM'));
    expect(peer.packets).toEqual([]);
  });

  it('has room for so many connections and no more', async () => {
    const { peer, program } = makeProgram({ manager: { maxConnections: 3 } });
    const three = await Promise.all([1, 2, 3].map(() => peer.sockets.connect(FAR)));
    await expect(peer.sockets.connect(FAR)).rejects.toThrow(code('QUEUE_FULL'));
    peer.sockets.listen({ port: 80 });
    expect(program.connect(1, 80).established).toBe(false);
    expect(program.connections.get('1:80')?.wasReset).toBe(true);
    three[0]?.abort();
    await peer.sockets.connect(FAR);
  });

  it('needs interrupts for a promise, and says so before anything is sent', async () => {
    const peer = makePeer({ interrupts: false });
    await expect(peer.sockets.connect(FAR)).rejects.toThrow(code('UNSUPPORTED'));
    expect(peer.packets).toEqual([]);
  });
});

describe('listen', () => {
  it('accepts connections of peers, in the order in which they come', async () => {
    const { peer, program } = makeProgram();
    const listener = peer.sockets.listen({ port: 80, bufferSize: 500 });
    expect(peer.sockets.isLocalPortUsed(80)).toBe(true);
    const waiting = listener.accept();
    const far = program.connect(9, 80);
    expect(far.established).toBe(true);
    expect(far.guestRoom).toBe(500);
    const connection = await waiting;
    expect(connection.peer).toEqual({ cid: HOST, port: 9 });
    expect(connection.localPort).toBe(80);
    expect(listener.tryAccept()).toBeUndefined();
    program.connect(10, 80);
    program.connect(11, 80);
    expect(listener.pending).toBe(2);
    expect(listener.acceptSync().peer.port).toBe(10);
    expect(listener.tryAccept()?.peer.port).toBe(11);
    expect(() => listener.acceptSync({ timeoutMs: 1 })).toThrow(code('NOT_READY'));
    expect(peer.sockets.size).toBe(3);
    expect(peer.sockets.connections).toHaveLength(3);
  });

  it('refuses a request for a port on which nobody listens [5.10.6.5]', () => {
    const { peer, program } = makeProgram();
    expect(program.connect(9, 81).wasReset).toBe(true);
    peer.sockets.listen({ port: 81 });
    expect(program.connect(10, 81).established).toBe(true);
    peer.sockets.unlisten(81);
    peer.sockets.unlisten(81);
    expect(program.connect(11, 81).wasReset).toBe(true);
    expect(peer.sockets.isLocalPortUsed(81)).toBe(false);
  });

  it('keeps no more connections waiting than it was told', () => {
    const { peer, program } = makeProgram();
    const listener = peer.sockets.listen({ port: 80, backlog: 2 });
    const fars = [1, 2, 3].map((port) => program.connect(port, 80));
    expect(fars.map(({ wasReset }) => wasReset)).toEqual([false, false, true]);
    // Those that went away while they waited do not count.
    fars[0]?.say('RST');
    expect(program.connect(4, 80).established).toBe(true);
    expect(listener.tryAccept()?.peer.port).toBe(2);
    expect(listener.tryAccept()?.peer.port).toBe(4);
  });

  it('keeps what a peer sent before it went, until it is read', async () => {
    const { peer, program } = makeProgram();
    const listener = peer.sockets.listen({ port: 80 });
    const far = program.connect(1, 80);
    far.write([1, 2, 3]);
    far.say('SHUTDOWN', { flags: VsockShutdown.BOTH });
    expect(far.wasReset).toBe(true);
    const connection = listener.acceptSync();
    expect(connection.end).toBe('clean');
    expect(await connection.readChunk()).toEqual(Uint8Array.of(1, 2, 3));
    expect(await connection.readChunk()).toBeUndefined();
    expect(peer.sockets.size).toBe(0);
  });

  it('is an iterator that ends with the listener', async () => {
    const { peer, program } = makeProgram();
    const listener = peer.sockets.listen({ port: 80 });
    const ports: number[] = [];
    const loop = (async () => {
      for await (const { peer: from } of listener) ports.push(from.port);
    })();
    program.connect(1, 80);
    await turns();
    program.connect(2, 80);
    await turns();
    expect(ports).toEqual([1, 2]);
    listener.close();
    await loop;
    expect(listener.closed).toBe(true);
    await expect(listener.accept()).rejects.toThrow(code('SOCKET_CLOSED'));
    const left = peer.sockets.listen({ port: 80 });
    program.connect(3, 80);
    for await (const one of left) {
      expect(one.peer.port).toBe(3);
      break;
    }
    expect(left.closed).toBe(true);
  });

  it('gives nobody a connection who has cancelled, and no event', async () => {
    const { peer, program } = makeProgram();
    const listener = peer.sockets.listen({ port: 80 });
    const controller = new AbortController();
    const { signal } = controller;
    const accepting = listener.accept({ signal });
    const waiting = peer.sockets.waitForEvent({ signal });
    await turns();
    program.connect(9, 80);
    controller.abort();
    await expect(accepting).rejects.toThrow(code('ABORTED'));
    await expect(waiting).rejects.toThrow(code('ABORTED'));
    await expect(listener.accept({ signal })).rejects.toThrow(code('ABORTED'));
    expect(listener.pending).toBe(1);
    expect(peer.sockets.poll()?.type).toBe('connectionRequest');
  });

  it('keeps no connection when it is closed inside the notification of the answer', () => {
    const { peer, program } = makeProgram({ interrupts: new FakeInterrupts({ synchronous: true }) });
    const listener = peer.sockets.listen({ port: 80 });
    peer.driver.on('used', () => {
      listener.close();
    });
    program.connect(9, 80);
    expect([listener.closed, listener.pending, peer.sockets.size]).toEqual([true, 0, 0]);
  });

  it('aborts those that wait when it is closed', () => {
    const { peer, program } = makeProgram();
    const listener = peer.sockets.listen({ port: 80 });
    const far = program.connect(1, 80);
    listener[Symbol.dispose]();
    expect(far.wasReset).toBe(true);
    expect(peer.sockets.size).toBe(0);
  });

  it('is refused twice on a port, and on ports that are none', () => {
    const peer = makePeer();
    peer.sockets.listen({ port: 80 });
    expect(() => peer.sockets.listen({ port: 80 })).toThrow(code('ALREADY_USED'));
    for (const port of [-1, 2 ** 32 - 1, 0.5, NaN]) {
      expect(() => peer.sockets.listen({ port })).toThrow(code('INVALID_PARAM'));
    }
    expect(() => peer.sockets.listen({ port: 81, backlog: 0 })).toThrow(code('INVALID_PARAM'));
    expect(() => peer.sockets.listen({ port: 81, type: 'seqpacket' })).toThrow(code('UNSUPPORTED'));
  });

  it('is only for its type of sockets', () => {
    const { peer, program } = makeProgram({ features: 3n });
    peer.sockets.listen({ port: 80, type: 'seqpacket' });
    expect(program.connect(1, 80).wasReset).toBe(true);
    expect(program.connect(2, 80, 2).established).toBe(true);
  });
});

describe('poll', () => {
  it('tells what happens, each once until it is taken, in the order of a connection’s life', () => {
    const { peer, program } = makeProgram();
    peer.sockets.listen({ port: 80 });
    expect(peer.sockets.poll()).toBeUndefined();
    const far = program.connect(9, 80);
    far.write([1, 2]);
    far.write([3]);
    far.say('SHUTDOWN', { flags: VsockShutdown.SEND });
    const seen: string[] = [];
    for (let event = peer.sockets.poll(); event !== undefined; event = peer.sockets.poll()) {
      seen.push(event.type);
      if (event.type === 'received') {
        expect(event.connection.available).toBe(3);
        expect(event.connection.tryReadChunk()).toEqual(Uint8Array.of(1, 2, 3));
      }
    }
    expect(seen).toEqual(['connectionRequest', 'received', 'shutdown']);
    far.say('RST');
    expect(peer.sockets.poll()).toMatchObject({ type: 'disconnected' });
    expect(peer.sockets.poll()).toBeUndefined();
  });

  it('loses no event and miscounts none when it is called inside a notification', () => {
    const { peer, program } = makeProgram({
      interrupts: new FakeInterrupts({ synchronous: true }),
      manager: { maxConnections: 2 },
    });
    peer.sockets.listen({ port: 80 });
    const seen: string[] = [];
    const take = (): void => {
      for (let event = peer.sockets.poll(); event !== undefined; event = peer.sockets.poll()) {
        seen.push(`${event.connection.peer.port} ${event.type}`);
      }
    };
    take();
    peer.driver.on('used', take);
    for (let port = 1; port <= 5; port += 1) {
      const far = program.connect(port, 80);
      if (port % 2 === 0) far.say('SHUTDOWN', { flags: VsockShutdown.BOTH });
      else peer.sockets.connections.at(-1)?.abort();
      expect(peer.sockets.size).toBe(0);
    }
    expect(seen).toEqual(
      [1, 2, 3, 4, 5].flatMap((port) => [
        `${port} connectionRequest`,
        ...(port % 2 === 0 ? [`${port} shutdown`] : []),
        `${port} disconnected`,
      ]),
    );
    program.connect(6, 80);
    program.connect(7, 80);
    // Not a third one.
    expect(program.connect(8, 80).over).toBe(true);
    expect(peer.sockets.size).toBe(2);
  });

  it('serves connections that were asked for, too', () => {
    const { peer, program } = makeProgram();
    program.bufAlloc = 10;
    program.onConnection = (far) => (far.eager = false);
    const connection = peer.sockets.submitConnect(FAR);
    expect(peer.sockets.waitForEventSync()).toEqual({ type: 'connected', connection });
    // The credit that came with the response.
    expect(peer.sockets.poll()?.type).toBe('creditUpdate');
    expect(connection.tryWrite(bytes(20))).toBe(10);
    expect(connection.tryWrite(bytes(20))).toBe(0);
    const far = [...program.connections.values()][0];
    far?.readSome();
    expect(peer.sockets.waitForEventSync()).toEqual({ type: 'creditUpdate', connection });
    expect(connection.sendCredit).toBe(10);
    expect(() => peer.sockets.waitForEventSync({ timeoutMs: 1 })).toThrow(code('NOT_READY'));
  });

  it('waits with a promise', async () => {
    const { peer, program } = makeProgram();
    peer.sockets.listen({ port: 80 });
    const waiting = peer.sockets.waitForEvent();
    await turns();
    program.connect(9, 80);
    expect(await waiting).toMatchObject({ type: 'connectionRequest' });
    const cancel = new AbortController();
    const cancelled = peer.sockets.waitForEvent({ signal: cancel.signal });
    cancel.abort();
    await expect(cancelled).rejects.toThrow(code('ABORTED'));
  });

  it('keeps a bounded number of connections whose end nobody has polled', () => {
    const { peer, program } = makeProgram({ manager: { maxConnections: 4 } });
    peer.sockets.listen({ port: 80, backlog: 1000 });
    expect(peer.sockets.poll()).toBeUndefined();
    let accepted = 0;
    for (let port = 0; port < 100; port += 1) {
      const far = program.connect(port, 80);
      if (far.established) accepted += 1;
      far.say('RST');
    }
    expect(accepted).toBe(4);
    while (peer.sockets.poll() !== undefined);
    expect(program.connect(1000, 80).established).toBe(true);
  });

  it('is no matter of those who do not poll', () => {
    const { peer, program } = makeProgram({ manager: { maxConnections: 4 } });
    const listener = peer.sockets.listen({ port: 80 });
    for (let cycle = 0; cycle < 200; cycle += 1) {
      const far = program.connect(cycle, 80);
      const connection = listener.acceptSync();
      connection.writeSync('hello');
      far.say('RST');
      expect(connection.end).toBe('reset');
      expect(peer.sockets.size).toBe(0);
    }
  });
});

describe('packets of nobody', () => {
  it('are refused, but for RSTs [5.10.6.5]', () => {
    const peer = makePeer();
    for (const op of ['RESPONSE', 'SHUTDOWN', 'RW', 'CREDIT_UPDATE', 'CREDIT_REQUEST'] as const) {
      peer.send({ op, srcPort: 1, dstPort: 2, flags: 3 });
      expect(peer.take()).toMatchObject({ op: 'RST', srcPort: 2, dstPort: 1, dstCid: HOST, type: 1 });
    }
    for (let n = 0; n < 100; n += 1) peer.send({ op: 'RST', srcPort: 1, dstPort: 2 });
    expect(peer.packets).toEqual([]);
  });

  it('of an unknown type are refused [5.10.6.4.1]', () => {
    const peer = makePeer();
    peer.sockets.listen({ port: 80 });
    for (const type of [0, 2, 3, 0xffff]) {
      peer.send({ op: 'REQUEST', srcPort: 1, dstPort: 80, type });
      expect(peer.take()).toMatchObject({ op: 'RST', type, srcPort: 80, dstPort: 1 });
      peer.send({ op: 'RST', srcPort: 1, dstPort: 80, type });
    }
    expect(peer.packets).toEqual([]);
  });

  it('for another CID are ignored', () => {
    const peer = makePeer();
    peer.sockets.listen({ port: 80 });
    peer.send({ op: 'REQUEST', srcPort: 1, dstPort: 80, dstCid: GUEST + 1 });
    peer.send({ op: 'REQUEST', srcPort: 1, dstPort: 80, cidHigh: 1 });
    expect(peer.packets).toEqual([]);
    expect(peer.driver.quirks).toBe(2);
    expect(peer.sockets.size).toBe(0);
  });

  it('do not grow anything while the device takes nothing, and are all refused in the end [5.10.6.1.1]', async () => {
    const peer = makePeer();
    peer.deaf = true;
    const accepting = peer.sockets.listen({ port: 9999 }).accept();
    accepting.catch(() => undefined);
    let sent = 0;
    for (let n = 0; n < 1000; n += 1) {
      if (peer.send({ op: 'RW', srcPort: n, dstPort: 2 })) sent += 1;
      if (n % 10 === 0) await turns(1);
    }
    // 8 in the queue, 64 remembered, 8 still in their buffers.
    expect(sent).toBe(80);
    peer.deaf = false;
    peer.listen();
    await turns();
    peer.listen();
    await turns();
    expect(peer.packets.map(({ op, dstPort }) => `${op} ${dstPort}`)).toEqual(
      Array.from({ length: 80 }, (_, n) => `RST ${n}`),
    );
    expect(peer.send({ op: 'RW', srcPort: 5, dstPort: 2 })).toBe(true);
  });

  it('do not grow anything by connections that come and go while the device takes nothing', async () => {
    const peer = makePeer({ manager: { maxConnections: 4 } });
    const listener = peer.sockets.listen({ port: 80, bufferSize: 1 });
    peer.deaf = true;
    let asked = 0;
    for (let n = 0; n < 1000; n += 1) {
      if (!peer.send({ op: 'REQUEST', srcPort: n, dstPort: 80 })) break;
      asked += 1;
      // More than there is room for, which ends the connection.
      peer.send({ op: 'RW', srcPort: n, dstPort: 80, data: bytes(2) });
      expect(listener.pending).toBeLessThanOrEqual(4);
    }
    expect(asked).toBeLessThan(100);
    peer.deaf = false;
    peer.listen();
    for (let n = 0; n < 20; n += 1) {
      expect(peer.sockets.poll()?.type).not.toBe('connected');
      peer.listen();
    }
    // Everything was answered, and there is room again.
    expect(peer.packets.filter(({ op }) => op === 'RST').length).toBeGreaterThanOrEqual(asked);
    peer.packets.length = 0;
    peer.send({ op: 'REQUEST', srcPort: 5000, dstPort: 80 });
    expect(peer.ops()).toEqual(['RESPONSE']);
    await turns();
  });

  it('are refused without interrupts, too, when somebody polls', () => {
    const peer = makePeer({ interrupts: false });
    peer.deaf = true;
    for (let n = 0; n < 100; n += 1) {
      peer.send({ op: 'RW', srcPort: n, dstPort: 2 });
      peer.sockets.poll();
    }
    peer.deaf = false;
    for (let n = 0; n < 20; n += 1) {
      peer.listen();
      peer.sockets.poll();
    }
    expect(peer.packets).toHaveLength(80);
    expect(peer.driver.failure).toBeUndefined();
  });
});

describe('a reset of the transport', () => {
  it('ends connections, fetches the CID again, and leaves listeners as they are [5.10.6.7.1]', async () => {
    const { peer, program } = makeProgram();
    const listener = peer.sockets.listen({ port: 80 });
    const connection = await peer.sockets.connect(FAR);
    const reading = connection.readChunk();
    const seen: number[] = [];
    peer.driver.on('transportReset', (cid) => seen.push(cid));
    new DataView(peer.device.config.buffer).setUint32(0, 77, true);
    peer.event(0);
    await expect(reading).rejects.toThrow(code('SOCKET_TRANSPORT_RESET'));
    expect(seen).toEqual([77]);
    expect(peer.driver.guestCid).toBe(77);
    expect(connection.end).toBe('transport-reset');
    await expect(connection.write('x')).rejects.toThrow(code('SOCKET_TRANSPORT_RESET'));
    expect(peer.sockets.size).toBe(0);
    program.connections.clear();
    // The old CID is nobody's now.
    peer.send({ op: 'REQUEST', srcPort: 3, dstPort: 80 });
    expect(listener.tryAccept()).toBeUndefined();
    peer.send({ op: 'REQUEST', srcPort: 3, dstPort: 80, dstCid: 77 });
    expect(listener.tryAccept()?.local).toEqual({ cid: 77, port: 80 });
    // Sent packets have the new one, which the program checks.
    peer.onPacket = undefined;
    peer.packets.length = 0;
    peer.send({ op: 'RW', srcPort: 4, dstPort: 5, dstCid: 77 });
    expect(peer.take()).toMatchObject({ op: 'RST', srcCid: 77 });
  });

  it('many times over needs its event buffers many times [5.10.6.7.1]', async () => {
    const { peer } = makeProgram();
    let resets = 0;
    peer.driver.on('transportReset', () => (resets += 1));
    for (let n = 0; n < 100; n += 1) {
      peer.event(0);
      await turns(1);
    }
    expect(resets).toBe(100);
  });

  it('lets packets go on that waited for room for refusals', async () => {
    const peer = makePeer();
    peer.deaf = true;
    const accepting = peer.sockets.listen({ port: 80 }).accept();
    for (let n = 0; n < 79; n += 1) peer.send({ op: 'RW', srcPort: n, dstPort: 2 });
    expect(peer.send({ op: 'REQUEST', srcPort: 79, dstPort: 80 })).toBe(true);
    // By interrupts from now on, and the only one is that of the event.
    peer.prompt = false;
    peer.event(0);
    expect((await accepting).peer.port).toBe(79);
  });

  it('with a CID that cannot be fails the driver; unknown events do nothing', async () => {
    const { peer } = makeProgram();
    peer.event(1);
    peer.event(0, 3);
    await turns();
    expect(peer.driver.quirks).toBe(2);
    expect(peer.driver.failure).toBeUndefined();
    new DataView(peer.device.config.buffer).setUint32(0, 2, true);
    peer.event(0);
    await turns();
    expect(peer.driver.failure).toMatchObject({ code: 'INVALID_DEVICE' });
  });
});

describe('the driver', () => {
  it('that is reset ends connections with DEVICE_RESET; listeners go on', async () => {
    const { peer, program } = makeProgram();
    const listener = peer.sockets.listen({ port: 80 });
    const accepting = listener.accept();
    const connection = await peer.sockets.connect(FAR);
    const reading = connection.readChunk();
    new DataView(peer.device.config.buffer).setUint32(0, 78, true);
    peer.driver.reset();
    await expect(reading).rejects.toThrow(code('DEVICE_RESET'));
    expect(peer.driver.guestCid).toBe(78);
    program.connections.clear();
    peer.send({ op: 'REQUEST', srcPort: 3, dstPort: 80, dstCid: 78 });
    expect((await accepting).peer.port).toBe(3);
  });

  it.each([0, 1])('whose queue %i is reset alone ends connections, and tells their peers', async (queue) => {
    const { peer, program } = makeProgram({ features: CommonFeatures.set('RING_RESET').bits });
    const listener = peer.sockets.listen({ port: 80 });
    const connection = await peer.sockets.connect(FAR);
    const reading = connection.readChunk();
    peer.driver.resetQueue(queue);
    await expect(reading).rejects.toThrow(code('DEVICE_RESET'));
    expect([...program.connections.values()].map(({ wasReset }) => wasReset)).toEqual([true]);
    program.connect(3, 80);
    expect(listener.tryAccept()?.peer.port).toBe(3);
  });

  it.each(['remove', 'needsReset'] as const)('whose device goes (%s) ends all waits', async (what) => {
    const { peer } = makeProgram();
    const listener = peer.sockets.listen({ port: 80 });
    const connection = await peer.sockets.connect(FAR);
    const expected = code(what === 'remove' ? 'DEVICE_REMOVED' : 'DEVICE_NEEDS_RESET');
    const waits = [
      connection.readChunk(),
      listener.accept(),
      (async () => {
        // What has happened is told first.
        for (;;) await peer.sockets.waitForEvent();
      })(),
    ];
    for (const wait of waits) wait.catch(() => undefined);
    await turns();
    peer.device[what]();
    await expect(waits[0]).rejects.toThrow(expected);
    await expect(waits[1]).rejects.toThrow(expected);
    await expect(waits[2]).rejects.toThrow(expected);
    expect(() => connection.tryWrite(bytes(1))).toThrow(expected);
    expect(() => peer.sockets.listen({ port: 1 })).toThrow(expected);
    expect(peer.transport.interrupts?.holds).toBe(0);
  });

  it('that is disposed ends everything', async () => {
    const { peer } = makeProgram();
    const connection = await peer.sockets.connect(FAR);
    const reading = connection.readChunk();
    peer.driver[Symbol.dispose]();
    await expect(reading).rejects.toThrow(code('DISPOSED'));
    await expect(peer.sockets.connect(FAR)).rejects.toThrow(code('DISPOSED'));
    expect(() => peer.sockets.poll()).toThrow(code('DISPOSED'));
    peer.sockets[Symbol.dispose]();
  });

  it('has one manager at a time, which can be disposed of', async () => {
    const { peer, program } = makeProgram();
    const { sockets } = peer;
    const connection = await sockets.connect(FAR);
    const Manager = sockets.constructor as new (driver: FakePeer['driver']) => FakePeer['sockets'];
    expect(() => new Manager(peer.driver)).toThrow(code('ALREADY_USED'));
    const accepting = sockets.listen({ port: 80 }).accept();
    sockets[Symbol.dispose]();
    await expect(accepting).rejects.toThrow(code('SOCKET_CLOSED'));
    expect([...program.connections.values()][0]?.wasReset).toBe(true);
    expect(() => sockets.poll()).toThrow(code('DISPOSED'));
    await expect(connection.readChunk()).rejects.toThrow(code('SOCKET_ABORTED'));
    using second = new Manager(peer.driver);
    expect((await second.connect(FAR)).isEstablished).toBe(true);
  });

  it.each([
    { connectionBufferSize: 0 },
    { maxConnections: 0 },
    { connectTimeoutMs: 0 },
    { closeTimeoutMs: -1 },
    { maxConnections: 1.5 },
  ])('refuses managers with %o', (manager) => {
    expect(() => new FakePeer({ manager })).toThrow(code('INVALID_PARAM'));
  });
});
