import { afterEach, describe, expect, it } from 'vitest';
import { type Connected, connected as connect } from '../test/connected.ts';
import { bytes, FakePeer, turns } from '../test/fake-peer.ts';
import { VsockSeqFlags, VsockShutdown } from './index.ts';

const code = (value: string): Error => expect.objectContaining({ code: value }) as Error;
const { EOM, EOR } = VsockSeqFlags;

const peers: FakePeer[] = [];
const connected = (options?: Parameters<typeof connect>[0]): Connected => {
  const made = connect({ type: 'seqpacket', ...options });
  peers.push(made.peer);
  return made;
};
afterEach(() => {
  for (const peer of peers.splice(0)) peer.end();
});

describe('seqpacket sockets', () => {
  it('send messages whole, in as many packets as they need, the last one marked [5.10.6.6]', async () => {
    const { near, far } = connected({ bufAlloc: 100_000 });
    expect(near.type).toBe('seqpacket');
    await near.write(bytes(2500));
    await near.write('end', { endOfRecord: true });
    await near.write(new Uint8Array(0));
    near.writeSync(bytes(980, 2));
    expect(near.tryWriteMessage(bytes(981, 3), { endOfRecord: true })).toBe(true);
    expect(near.tryWriteMessage(new Uint8Array(0))).toBe(true);
    expect(far.messages).toEqual([
      { data: [...bytes(2500)], eor: false },
      { data: [...Buffer.from('end')], eor: true },
      { data: [], eor: false },
      { data: [...bytes(980, 2)], eor: false },
      { data: [...bytes(981, 3)], eor: true },
      { data: [], eor: false },
    ]);
  });

  it('end a peer whose message fills the buffer behind empty ones', async () => {
    const { near, far } = connected({ bufferSize: 100 });
    far.say('RW', { flags: EOM });
    far.say('RW', { data: bytes(100) });
    expect(near.tryReadMessage()?.data).toEqual(new Uint8Array(0));
    await expect(near.readMessage()).rejects.toThrow(code('SOCKET_PROTOCOL'));
    expect(far.wasReset).toBe(true);
  });

  it('receive messages whole, and say where records end', async () => {
    const { near, far } = connected();
    const reading = near.readMessage();
    far.say('RW', { data: bytes(5) });
    await turns();
    expect(near.availableMessages).toBe(0);
    expect(near.tryReadMessage()).toBeUndefined();
    far.say('RW', { data: bytes(3, 2), flags: EOM });
    expect(await reading).toEqual({ data: Uint8Array.of(...bytes(5), ...bytes(3, 2)), endOfRecord: false });
    far.say('RW', { flags: EOM });
    far.say('RW', { data: bytes(2), flags: EOM | EOR });
    far.say('RW', { data: bytes(1), flags: EOM });
    expect(near.availableMessages).toBe(3);
    expect(near.readMessageSync()).toEqual({ data: new Uint8Array(0), endOfRecord: false });
    expect(near.tryReadMessage()).toEqual({ data: bytes(2), endOfRecord: true });
    // Chunks are messages.
    expect(await near.readChunk()).toEqual(bytes(1));
    far.say('RW', { data: bytes(9) });
    far.say('SHUTDOWN', { flags: VsockShutdown.SEND });
    expect(await near.readMessage()).toBeUndefined();
  });

  it('lose no empty message when the peer has gone', async () => {
    const { near, far } = connected();
    far.say('RW', { data: bytes(5), flags: EOM });
    far.say('RW', { flags: EOM });
    far.say('RW', { flags: EOM | EOR });
    far.say('SHUTDOWN', { flags: VsockShutdown.BOTH });
    expect((await near.readMessage())?.data).toEqual(bytes(5));
    expect(near.availableMessages).toBe(2);
    expect(await near.readMessage()).toEqual({ data: new Uint8Array(0), endOfRecord: false });
    expect(await near.readMessage()).toEqual({ data: new Uint8Array(0), endOfRecord: true });
    expect(await near.readMessage()).toBeUndefined();
  });

  it('return credit when no whole message is left to read', async () => {
    const { near, far } = connected({ bufferSize: 1000 });
    far.say('RW', { data: bytes(100), flags: EOM });
    far.say('RW', { data: bytes(700), flags: 0 });
    expect(far.creditUpdates).toBe(0);
    expect((await near.readMessage())?.data).toHaveLength(100);
    // What is left is the beginning of a message, which the peer cannot finish without credit.
    expect(far.creditUpdates).toBe(1);
    far.say('RW', { data: bytes(200), flags: EOM });
    expect((await near.readMessage())?.data).toHaveLength(900);
  });

  it('send a message in parts as the peer has room, and do not mix it with another', async () => {
    const { near, far } = connected({ bufAlloc: 1000, lazy: true });
    await near.write(bytes(800));
    const second = near.write(bytes(900, 2));
    const third = near.write(bytes(10, 3));
    await turns();
    expect(near.tryWriteMessage(bytes(1))).toBe(false);
    expect(far.received).toHaveLength(1000);
    far.eager = true;
    far.readSome();
    await Promise.all([second, third]);
    expect(far.messages.map(({ data }) => data.length)).toEqual([800, 900, 10]);
    expect(far.messages[1]?.data).toEqual([...bytes(900, 2)]);
  });

  it('refuse a message that the peer could never take', async () => {
    const { near } = connected({ bufAlloc: 1000 });
    await expect(near.write(bytes(1001))).rejects.toThrow(code('SOCKET_MESSAGE_TOO_LONG'));
    expect(() => near.tryWriteMessage(bytes(1001))).toThrow(code('SOCKET_MESSAGE_TOO_LONG'));
    expect(near.tryWriteMessage(bytes(1000))).toBe(true);
  });

  it('try a message whole or not at all', () => {
    const { near, far, peer } = connected({ bufAlloc: 20_000, lazy: true });
    peer.deaf = true;
    // 8 buffers of 980 bytes.
    expect(() => near.tryWriteMessage(bytes(7841))).toThrow(code('SOCKET_MESSAGE_TOO_LONG'));
    expect(near.tryWriteMessage(bytes(7840))).toBe(true);
    expect(near.tryWriteMessage(bytes(1))).toBe(false);
    peer.deaf = false;
    peer.listen();
    expect(near.tryWriteMessage(bytes(6000))).toBe(true);
    expect(near.sendCredit).toBe(20_000 - 13_840);
    expect(near.tryWriteMessage(bytes(7000))).toBe(false);
    expect(far.messages).toHaveLength(2);
  });

  it('abort when a message was sent in part and cannot be finished', async () => {
    const { near, far } = connected({ bufAlloc: 1000, lazy: true });
    far.tells = false;
    await near.write(bytes(600));
    const cancel = new AbortController();
    const writing = near.write(bytes(600), { signal: cancel.signal });
    await turns();
    cancel.abort();
    await expect(writing).rejects.toThrow(code('ABORTED'));
    expect(far.wasReset).toBe(true);
    const other = connected({ bufAlloc: 1000, lazy: true });
    other.far.tells = false;
    other.near.writeSync(bytes(600));
    expect(() => other.near.writeSync(bytes(600), { timeoutMs: 1 })).toThrow(code('NOT_READY'));
    expect(other.near.end).toBe('aborted');
  });

  it('end a peer whose message never ends, or who sends empty ones without end', () => {
    const first = connected({ bufferSize: 1000 });
    first.far.say('RW', { data: bytes(500) });
    first.far.say('RW', { data: bytes(500) });
    expect(first.near.end).toBe('protocol');
    const second = connected({ bufferSize: 1000 });
    for (let n = 0; n < 1000; n += 1) second.far.say('RW', { flags: EOM });
    expect(second.near.end).toBeUndefined();
    second.far.say('RW', { flags: EOM });
    expect(second.near.end).toBe('protocol');
  });

  it('are not read or written as streams are, nor streams as they are', async () => {
    const { near } = connected();
    expect(() => near.tryRead(new Uint8Array(1))).toThrow(code('UNSUPPORTED'));
    expect(() => near.tryWrite(new Uint8Array(1))).toThrow(code('UNSUPPORTED'));
    await expect(near.read(new Uint8Array(1))).rejects.toThrow(code('UNSUPPORTED'));
    const { near: stream } = connected({ type: 'stream' });
    expect(() => stream.tryReadMessage()).toThrow(code('UNSUPPORTED'));
    expect(() => stream.tryWriteMessage(new Uint8Array(1))).toThrow(code('UNSUPPORTED'));
    await expect(stream.readMessage()).rejects.toThrow(code('UNSUPPORTED'));
  });

  it('are refused by a device without them', async () => {
    const peer = new FakePeer();
    await expect(peer.sockets.connect({ cid: 2, port: 1 }, { type: 'seqpacket' })).rejects.toThrow(
      code('UNSUPPORTED'),
    );
    peer.end();
  });
});
