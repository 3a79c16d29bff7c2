import { PassThrough } from 'node:stream';
import type { Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { Channel } from './channel.ts';
import { fromChunk, toChunk, type FromGuest } from './protocol.ts';

/** A socket whose far end is looked at and spoken from. */
function createPort(): { socket: Socket; sent: string[]; say: (message: object) => void } {
  const socket = new PassThrough();
  const sent: string[] = [];
  socket.write = ((text: string) => sent.push(text) > 0) as never;
  return {
    socket: socket as unknown as Socket,
    sent,
    say: (message) => void socket.push(`${JSON.stringify(message)}\n`),
  };
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('Channel', () => {
  it('sends no more than the guest can hold, and goes on as it takes', async () => {
    const port = createPort();
    const channel = new Channel(() => undefined);
    const text = 'x'.repeat(6000);
    for (let id = 0; id < 5; id++) channel.send({ type: 'stdin', id, text });
    expect(port.sent).toHaveLength(0);
    channel.attach(port.socket);
    expect(port.sent).toHaveLength(2);
    port.say({ type: 'taken' });
    await settled();
    expect(port.sent).toHaveLength(3);
    for (let count = 0; count < 4; count++) port.say({ type: 'taken' });
    await settled();
    expect(port.sent.map((line) => (JSON.parse(line) as { id: number }).id)).toEqual([0, 1, 2, 3, 4]);
    expect(channel.backlog).toBe(0);
  });

  it('sends a message that the serial line could lose in parts', async () => {
    const port = createPort();
    const channel = new Channel(() => undefined);
    channel.attach(port.socket);
    const message = { type: 'message', id: 1, body: 'é"\u{1f600}\n'.repeat(10_000) } as const;
    channel.send(message);
    for (let taken = 0; taken < port.sent.length; taken++) {
      expect(Buffer.byteLength(port.sent[taken] ?? '')).toBeLessThan(16 * 1024);
      port.say({ type: 'taken' });
      await settled();
    }
    const parts = port.sent.map((line) => JSON.parse(line) as { type: string; text: string; last: boolean });
    expect(
      parts.every(({ type, last }, index) => type === 'part' && last === (index === parts.length - 1)),
    ).toBe(true);
    expect(JSON.parse(parts.map(({ text }) => text).join(''))).toEqual(message);
  });

  it('passes messages on and reports what it does not understand', async () => {
    const port = createPort();
    const messages: FromGuest[] = [];
    new Channel((message) => messages.push(message)).attach(port.socket);
    port.say({ type: 'stage', stage: 'init', uptime: 1 });
    port.socket.push('garbage\n\n');
    await settled();
    expect(messages).toEqual([
      { type: 'stage', stage: 'init', uptime: 1 },
      { type: 'warning', text: 'unknown message on the serial line: garbage' },
    ]);
  });
});

describe('chunks', () => {
  it('carry text as text and other bytes unharmed', () => {
    const text = Buffer.from('Grüße\n');
    expect(toChunk(text)).toEqual({ text: 'Grüße\n' });
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    expect(fromChunk(toChunk(bytes))).toEqual(Buffer.from(bytes));
    // A character that was cut in two.
    expect(fromChunk(toChunk(text.subarray(0, 3)))).toEqual(text.subarray(0, 3));
  });
});
