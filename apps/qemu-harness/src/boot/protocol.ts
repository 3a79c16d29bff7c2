/**
 * The messages on the second serial port: one JSON object a line, in both directions. The agent in the guest only
 * runs programs and passes on what they say; all decisions are the host's.
 */

/** A run's bytes: text where they are valid UTF-8, base64 where not. */
export type Chunk = { readonly text: string } | { readonly base64: string };

/** What the host asks of the guest. */
export type ToGuest =
  /** Start Node.js with these arguments. With `ipc`, `message` goes both ways. */
  | { readonly type: 'run'; readonly id: number; readonly args: readonly string[]; readonly ipc: boolean }
  | ({ readonly type: 'stdin'; readonly id: number } & Chunk)
  | { readonly type: 'stdin-end'; readonly id: number }
  | { readonly type: 'message'; readonly id: number; readonly body: unknown }
  /** A piece of a message that is too long for one line; the whole is a line's text. */
  | { readonly type: 'part'; readonly text: string; readonly last: boolean }
  | { readonly type: 'kill'; readonly id: number }
  | { readonly type: 'power-off' };

/** What the guest tells the host. */
export type FromGuest =
  /** A stage of the boot, with the seconds since the kernel started. `init` and `node` come from init. */
  | { readonly type: 'stage'; readonly stage: 'init' | 'node' | 'ready'; readonly uptime: number }
  | { readonly type: 'warning'; readonly text: string }
  /** The guest cannot be used, and will do nothing more. Comes from init. */
  | { readonly type: 'broken'; readonly text: string }
  | { readonly type: 'agent-died'; readonly status: string }
  /** One line from the host was taken. */
  | { readonly type: 'taken' }
  | ({ readonly type: 'output'; readonly id: number; readonly stream: 'stdout' | 'stderr' } & Chunk)
  | { readonly type: 'message'; readonly id: number; readonly body: unknown }
  | {
      readonly type: 'exit';
      readonly id: number;
      readonly code: number | null;
      readonly signal: string | null;
    };

/** Where the bundles of a run lie in the guest. */
export const GUEST_DIR = '/guest';

/** How many bytes of input a chunk may carry. */
export const CHUNK_BYTES = 8192;

/** Wraps bytes for a message. */
export function toChunk(bytes: Uint8Array): Chunk {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = buffer.toString('utf8');
  return Buffer.from(text, 'utf8').equals(buffer) ? { text } : { base64: buffer.toString('base64') };
}

/** Unwraps bytes of a message. */
export function fromChunk(chunk: Chunk): Buffer {
  return 'text' in chunk ? Buffer.from(chunk.text, 'utf8') : Buffer.from(chunk.base64, 'base64');
}
