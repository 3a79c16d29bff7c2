/**
 * The host's end of the serial line to the agent. QEMU's serial port has no flow control, and the guest's kernel drops what it
 * cannot buffer. So a line is sent only while the agent has read almost everything before it.
 */
import type { Socket } from 'node:net';
import { lineSplitter } from '../run.ts';
import type { FromGuest, ToGuest } from './protocol.ts';

/** What the guest's kernel surely holds: its buffer for a serial port has 64 KiB. */
const WINDOW_BYTES = 16 * 1024;
/** A line within the window, in characters of up to four bytes and two when escaped. */
const PART_CHARACTERS = 2048;

/** The line to the agent. */
export class Channel {
  readonly #onMessage: (message: FromGuest) => void;
  readonly #waiting: string[] = [];
  readonly #sent: number[] = [];
  #inFlight = 0;
  #socket: Socket | undefined;

  constructor(onMessage: (message: FromGuest) => void) {
    this.#onMessage = onMessage;
  }

  /** Connects the line to QEMU's socket. */
  attach(socket: Socket): void {
    this.#socket = socket;
    socket.setEncoding('utf8').on(
      'data',
      lineSplitter((line) => this.#take(line)),
    );
    socket.on('error', () => undefined);
    this.#flush();
  }

  /** Sends a message as soon as the guest can take it; a long one in parts. */
  send(message: ToGuest): void {
    const text = JSON.stringify(message);
    if (Buffer.byteLength(text) < WINDOW_BYTES) {
      this.#waiting.push(`${text}\n`);
    } else {
      for (let at = 0; at < text.length; at += PART_CHARACTERS) {
        const end = at + PART_CHARACTERS;
        const part = { type: 'part', text: text.slice(at, end), last: end >= text.length } satisfies ToGuest;
        this.#waiting.push(`${JSON.stringify(part)}\n`);
      }
    }
    this.#flush();
  }

  /** The number of messages that wait to be sent. */
  get backlog(): number {
    return this.#waiting.length;
  }

  #flush(): void {
    for (;;) {
      const line = this.#waiting[0];
      if (line === undefined || this.#socket === undefined) return;
      const bytes = Buffer.byteLength(line);
      if (this.#inFlight > 0 && this.#inFlight + bytes > WINDOW_BYTES) return;
      this.#waiting.shift();
      this.#sent.push(bytes);
      this.#inFlight += bytes;
      this.#socket.write(line);
    }
  }

  #take(line: string): void {
    let message: FromGuest;
    try {
      message = JSON.parse(line) as FromGuest;
    } catch {
      if (line.trim() !== '') {
        this.#onMessage({ type: 'warning', text: `unknown message on the serial line: ${line}` });
      }
      return;
    }
    if (message.type === 'taken') {
      this.#inFlight -= this.#sent.shift() ?? 0;
      this.#flush();
    } else {
      this.#onMessage(message);
    }
  }
}
