import { Agent, createServer, request } from 'node:http';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { type ByteConnection, toDuplex } from './duplex.ts';

/** One end of a pipe between two connections, which holds `room` bytes in each direction. */
class End implements ByteConnection {
  other: End | undefined;
  readonly room: number;
  readonly chunks: Uint8Array[] = [];
  ended = false;
  aborted = false;
  closed = false;
  #wake: (() => void)[] = [];

  constructor(room: number) {
    this.room = room;
  }

  get #held(): number {
    return this.chunks.reduce((sum, { length }) => sum + length, 0);
  }

  async readChunk({ signal }: { readonly signal?: AbortSignal } = {}): Promise<Uint8Array | undefined> {
    for (;;) {
      signal?.throwIfAborted();
      if (this.aborted) throw new Error('the connection was reset');
      const chunk = this.chunks.shift();
      if (chunk !== undefined) {
        this.other?.wake();
        return chunk;
      }
      if (this.ended) return undefined;
      await this.#sleep(signal);
    }
  }

  async write(data: Uint8Array, { signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const { other } = this;
    if (other === undefined) throw new Error('there is no far side');
    while (other.#held + data.length > other.room && other.#held > 0) {
      signal?.throwIfAborted();
      await this.#sleep(signal);
    }
    other.chunks.push(data.slice());
    other.wake();
  }

  endWriting(): Promise<void> {
    if (this.other !== undefined) this.other.ended = true;
    this.other?.wake();
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.closed = true;
    return this.endWriting();
  }

  abort(): void {
    this.aborted = true;
    if (this.other !== undefined) this.other.aborted = true;
    this.other?.wake();
    this.wake();
  }

  wake(): void {
    for (const go of this.#wake.splice(0)) go();
  }

  async #sleep(signal: AbortSignal | undefined): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake.push(resolve);
      signal?.addEventListener('abort', () => resolve(), { once: true });
    });
  }
}

function pair(room = 1000): [End, End] {
  const [one, two] = [new End(room), new End(room)];
  one.other = two;
  two.other = one;
  return [one, two];
}

describe('toDuplex', () => {
  it('carries bytes both ways, and ends each way by itself', async () => {
    const [one, two] = pair();
    const near = toDuplex(one, { allowHalfOpen: true });
    const far = toDuplex(two, { allowHalfOpen: true });
    const received = text(far);
    near.end('hello');
    expect(await received).toBe('hello');
    const answer = text(near);
    far.end('and back');
    expect(await answer).toBe('and back');
    await Promise.all([once(near, 'close'), once(far, 'close')]);
    expect([one.closed, two.closed, one.aborted]).toEqual([true, true, false]);
  });

  it('makes a fast writer wait for a slow reader', async () => {
    const [one, two] = pair(1000);
    const near = toDuplex(one);
    let more = true;
    let written = 0;
    for (; more && written < 1_000_000; written += 1000) {
      more = near.write(Buffer.alloc(1000, written & 0xff));
    }
    expect(written).toBeLessThan(100_000);
    near.end();
    let got = 0;
    for await (const chunk of toDuplex(two)) got += (chunk as Buffer).length;
    expect(got).toBe(written);
  });

  it('copies a megabyte through an echo without a difference', async () => {
    const [one, two] = pair(5000);
    const echo = toDuplex(two);
    const echoing = pipeline(echo, echo);
    const data = Buffer.from(Array.from({ length: 1 << 20 }, (_, n) => (n * 7 + (n >> 9)) & 0xff));
    const near = toDuplex(one, { allowHalfOpen: true });
    near.end(data);
    const pieces: Buffer[] = [];
    for await (const chunk of near) pieces.push(chunk as Buffer);
    expect(Buffer.concat(pieces).equals(data)).toBe(true);
    await echoing;
  });

  it('resets the connection when it is destroyed before its end, and fails when the connection does', async () => {
    const [one, two] = pair();
    const near = toDuplex(one);
    near.resume();
    const far = toDuplex(two);
    far.resume();
    const failed = once(far, 'error');
    near.destroy();
    expect(one.aborted).toBe(true);
    expect(await failed).toMatchObject([{ message: 'the connection was reset' }]);
    expect(near.destroyed).toBe(true);
    await expect(
      new Promise<void>((resolve, reject) => far.write('x', (error) => (error ? reject(error) : resolve()))),
    ).rejects.toThrow();
  });

  it('says when it is idle, as other sockets do', async () => {
    const [one, two] = pair();
    const near = toDuplex(one);
    let timeouts = 0;
    near.setTimeout(5, () => (timeouts += 1));
    await once(near, 'timeout');
    expect(timeouts).toBe(1);
    for (const ms of [NaN, -1, Infinity, '5', null]) {
      expect(() => near.setTimeout(ms as number)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    }
    // A timer of Node.js with more than 31 bits would fire at once.
    near.on('timeout', () => (timeouts += 1));
    near.setTimeout(2 ** 32);
    await sleep(20);
    expect(timeouts).toBe(1);
    near.setTimeout(0);
    expect(near.setNoDelay().setKeepAlive().ref().unref()).toBe(near);
    near.on('error', () => undefined).destroy();
    two.abort();
  });

  it('serves HTTP, with several requests on one connection', async () => {
    const [one, two] = pair(300);
    const server = createServer((message, response) => {
      void text(message).then((body) => response.end(`${message.url ?? ''} ${body.toUpperCase()}`));
    });
    server.emit('connection', toDuplex(two));
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    (agent as { createConnection: unknown }).createConnection = () => toDuplex(one);
    const ask = async (path: string, body: string): Promise<string> => {
      const asked = request({ agent, path, method: 'POST' });
      asked.end(body);
      const [response] = (await once(asked, 'response')) as [NodeJS.ReadableStream];
      return text(response);
    };
    expect(await ask('/a', 'x'.repeat(2000))).toBe(`/a ${'X'.repeat(2000)}`);
    expect(await ask('/b', 'hello')).toBe('/b HELLO');
    agent.destroy();
    server.close();
  });
});
