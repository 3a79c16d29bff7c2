/** Standard input and output as one side of a conversation: a terminal in raw mode, or pipes. */
import { once } from 'node:events';
import type { Host } from './host.ts';

/** Ctrl-], as in telnet: ends a conversation on a terminal. */
const ESCAPE = 0x1d;

/** The other side: a port, a connection. */
export interface Conversation {
  /** The data from the other side; its end ends the conversation. */
  readonly incoming: AsyncIterable<Uint8Array>;
  write(bytes: Uint8Array): Promise<void>;
  /** Called when standard input has ended. */
  endWriting(): Promise<void>;
}

/** Options of {@link converse}. */
export interface ConverseOptions {
  /** Whether a terminal sends each key when it is pressed. */
  readonly raw: boolean;
  /** Ends the conversation. */
  readonly signal: AbortSignal;
  /** Whether the conversation ends with standard input; otherwise with the other side. */
  readonly endsWithInput: boolean;
}

/**
 * Transfers bytes in both directions until the conversation ends. It always restores the mode of the terminal.
 *
 * @param make makes the other side; its signal is aborted when the conversation is over
 */
export async function converse(
  host: Host,
  options: ConverseOptions,
  make: (signal: AbortSignal) => Conversation,
): Promise<void> {
  const { stdin, stdout } = host;
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  const conversation = make(signal);
  using terminal = rawMode(host, options.raw);
  // Before standard input is closed, as its mode cannot be set after that.
  signal.addEventListener('abort', () => terminal[Symbol.dispose](), { once: true });

  const output = async (): Promise<void> => {
    for await (const bytes of conversation.incoming) {
      if (!stdout.write(bytes)) await once(stdout, 'drain', { signal });
    }
  };
  const input = async (): Promise<void> => {
    for await (const bytes of readInput(host, signal)) {
      const end = options.raw && stdin.isTTY === true ? bytes.indexOf(ESCAPE) : -1;
      if (end >= 0) {
        over.abort();
        return;
      }
      await conversation.write(bytes);
    }
    if (signal.aborted) return;
    await conversation.endWriting();
    if (options.endsWithInput) over.abort();
  };
  const sides = [
    output().finally(() => {
      over.abort();
    }),
    input(),
  ];
  const results = await Promise.allSettled(sides);
  for (const result of results) {
    if (result.status === 'rejected' && !over.signal.aborted) throw result.reason;
    if (result.status === 'rejected' && !isAbort(result.reason)) throw result.reason;
  }
  options.signal.throwIfAborted();
}

function isAbort(error: unknown): boolean {
  const { name, code } = error as NodeJS.ErrnoException;
  return name === 'AbortError' || code === 'ABORT_ERR' || code === 'ABORTED';
}

/** The data of standard input, until its end or the signal. */
export async function* readInput(
  { stdin }: Host,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, undefined> {
  const abort = (): void => {
    stdin.destroy();
  };
  signal.addEventListener('abort', abort, { once: true });
  try {
    if (!signal.aborted) for await (const bytes of stdin) yield bytes as Uint8Array;
  } catch (error) {
    // Destroyed by the signal.
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
  return undefined;
}

/** Sets raw mode if standard input is a terminal; disposing restores the mode. */
function rawMode({ stdin }: Host, wanted: boolean): Disposable {
  let raw = wanted && stdin.isTTY === true && stdin.setRawMode !== undefined;
  if (raw) stdin.setRawMode?.(true);
  return {
    [Symbol.dispose]: () => {
      if (raw) stdin.setRawMode?.(false);
      raw = false;
    },
  };
}
