import { afterEach, describe, expect, expectTypeOf, it } from 'vitest';
import { type Connected, connected as connect } from '../test/connected.ts';
import { bytes, type FakePeer, turns } from '../test/fake-peer.ts';
import { VsockShutdown } from './index.ts';

const { RECEIVE, SEND } = VsockShutdown;
const code = (value: string): Error => expect.objectContaining({ code: value }) as Error;

const peers: FakePeer[] = [];
const connected = (options?: Parameters<typeof connect>[0]): Connected => {
  const made = connect(options);
  peers.push(made.peer);
  return made;
};
afterEach(() => {
  for (const peer of peers.splice(0)) peer.end();
});

describe('readable', () => {
  it('is a stream that asks for no more than its reader does, so that the peer waits', async () => {
    const { near, far } = connected({ bufferSize: 1000 });
    const stream = near.readable(ReadableStream<Uint8Array<ArrayBuffer>>);
    expectTypeOf(stream).toEqualTypeOf<ReadableStream<Uint8Array<ArrayBuffer>>>();
    const data = bytes(5000);
    far.write(data);
    await turns();
    expect(far.unsent).toBe(4000);
    const got: number[] = [];
    const reader = stream.getReader();
    const first = await reader.read();
    got.push(...(first.value ?? []));
    await turns();
    expect(far.unsent).toBe(3000);
    while (got.length < data.length) got.push(...((await reader.read()).value ?? []));
    expect(got).toEqual([...data]);
    far.say('SHUTDOWN', { flags: SEND });
    expect(await reader.read()).toEqual({ done: true, value: undefined });
  });

  it('that is cancelled tells the peer, and leaves the other direction', async () => {
    const { near, far, peer } = connected();
    const reader = near.readable(ReadableStream<Uint8Array<ArrayBuffer>>).getReader();
    const reading = reader.read();
    await turns();
    expect(peer.transport.interrupts?.holds).toBe(1);
    await reader.cancel('enough');
    expect(await reading).toEqual({ done: true, value: undefined });
    expect(peer.transport.interrupts?.holds).toBe(0);
    expect(far.guestShutdown).toBe(RECEIVE);
    await near.write('x');
    expect(far.read).toHaveLength(1);
  });

  it('fails with the connection', async () => {
    const { near, far } = connected();
    const reader = near.readable(ReadableStream<Uint8Array<ArrayBuffer>>).getReader();
    const reading = reader.read();
    await turns();
    far.say('RST');
    await expect(reading).rejects.toThrow(code('SOCKET_RESET'));
  });
});

describe('writable', () => {
  it('is slowed down by the peer, and closes its direction only', async () => {
    const { near, far } = connected({ bufAlloc: 100, lazy: true });
    const stream = near.writable(WritableStream<Uint8Array | string>);
    expectTypeOf(stream).toEqualTypeOf<WritableStream<Uint8Array | string>>();
    const writer = stream.getWriter();
    void writer.write('a'.repeat(250));
    let ready = false;
    void writer.ready.then(() => (ready = true));
    await turns();
    expect(ready).toBe(false);
    far.eager = true;
    far.readSome();
    await writer.ready;
    await writer.close();
    expect(far.guestShutdown).toBe(SEND);
    expect(far.read).toHaveLength(250);
    far.write([1]);
    expect(await near.readChunk()).toEqual(Uint8Array.of(1));
  });

  it('that is aborted resets the connection, also during a write', async () => {
    const { near, far } = connected({ bufAlloc: 100, lazy: true });
    const writer = near.writable(WritableStream<Uint8Array | string>).getWriter();
    const writing = writer.write('a'.repeat(250));
    writing.catch(() => undefined);
    writer.closed.catch(() => undefined);
    await turns();
    await writer.abort('enough');
    await expect(writing).rejects.toThrow();
    expect(far.wasReset).toBe(true);
    expect(near.end).toBe('aborted');
  });
});

describe('both', () => {
  it('carry an echo of any size, and end with it', async () => {
    const { near, far, peer } = connected({ bufferSize: 1000, bufAlloc: 700 });
    const echo = near
      .readable(ReadableStream<Uint8Array<ArrayBuffer>>)
      .pipeTo(near.writable(WritableStream<Uint8Array>));
    const data = bytes(50_000);
    far.write(data);
    while (far.unsent > 0) await turns();
    far.say('SHUTDOWN', { flags: SEND });
    await echo;
    expect(far.read).toEqual([...data]);
    await turns();
    expect(near.end).toBe('clean');
    expect(peer.sockets.size).toBe(0);
  });
});
