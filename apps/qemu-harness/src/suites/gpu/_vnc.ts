/**
 * As much of a VNC client as it takes to be the viewer of a display: it asks for another size of the display, and is told the
 * image of the cursor. QEMU has no other way for either that a program can use.
 */
import { connect, type Socket } from 'node:net';

const ENCODING = { RAW: 0, DESKTOP_SIZE: -223, ALPHA_CURSOR: -314, EXTENDED_DESKTOP_SIZE: -308 } as const;
const SECURITY_NONE = 1;
const TIMEOUT_MS = 20_000;

/** The image of a cursor. */
export interface CursorImage {
  readonly width: number;
  readonly height: number;
  readonly hotX: number;
  readonly hotY: number;
  /** Bytes as QEMU sends them: B, G, R, A. */
  readonly pixels: Uint8Array;
}

/** What a server tells. */
type Told =
  | { readonly type: 'cursor'; readonly image: CursorImage }
  | { readonly type: 'size'; readonly width: number; readonly height: number; readonly status: number }
  | { readonly type: 'pixels' };

/** Bytes of a socket, by the number. */
class Reader {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.pause().on('error', () => undefined);
  }

  async take(length: number): Promise<Buffer> {
    if (length === 0) return Buffer.alloc(0);
    const deadline = Date.now() + TIMEOUT_MS;
    // A stream gives what it has in one piece only if it has that much.
    const pieces: Buffer[] = [];
    let missing = length;
    while (missing > 0) {
      const ready = Math.min(missing, this.#socket.readableLength);
      const bytes = ready > 0 ? (this.#socket.read(ready) as Buffer | null) : null;
      if (bytes !== null) {
        pieces.push(bytes);
        missing -= bytes.length;
        continue;
      }
      this.#socket.read(0);
      if (this.#socket.readableLength > 0) continue;
      if (this.#socket.closed || Date.now() > deadline) throw new Error('the VNC server fell silent');
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const done = (): void => resolve(undefined);
      const timer = setTimeout(done, deadline - Date.now());
      this.#socket.once('readable', done).once('close', done);
      await promise;
      clearTimeout(timer);
      this.#socket.off('readable', done).off('close', done);
    }
    return Buffer.concat(pieces);
  }
}

/** A connection to QEMU's VNC server. */
export class VncViewer {
  readonly #socket: Socket;
  readonly #reader: Reader;
  /** What was told and not asked for yet. */
  readonly #told: Told[] = [];
  #width = 0;
  #height = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#reader = new Reader(socket);
  }

  /** Connects to a server on a unix socket. */
  static async connect(path: string): Promise<VncViewer> {
    const viewer = new VncViewer(connect(path));
    await viewer.#begin();
    return viewer;
  }

  /** Asks for another size of the display, and waits for the server's word on it: 4 is "passed on". */
  async resize(width: number, height: number): Promise<number> {
    const message = Buffer.alloc(8 + 16);
    message.writeUInt8(251, 0);
    message.writeUInt16BE(width, 2);
    message.writeUInt16BE(height, 4);
    message.writeUInt8(1, 6);
    message.writeUInt16BE(width, 8 + 8);
    message.writeUInt16BE(height, 8 + 10);
    this.#socket.write(message);
    for (;;) {
      const told = await this.#until('size');
      if (told.status !== 0) return told.status;
    }
  }

  /** The next image of the cursor that the server tells. */
  async nextCursor(): Promise<CursorImage> {
    return (await this.#until('cursor')).image;
  }

  close(): void {
    this.#socket.destroy();
  }

  async #begin(): Promise<void> {
    const { take } = { take: (length: number) => this.#reader.take(length) };
    this.#socket.write(await take(12));
    const types = await take((await take(1)).readUInt8());
    if (!types.includes(SECURITY_NONE)) {
      throw new Error(`the VNC server wants one of ${types.toString('hex')}`);
    }
    this.#socket.write(Uint8Array.of(SECURITY_NONE));
    const result = (await take(4)).readUInt32BE();
    if (result !== 0) throw new Error(`the VNC server refused: ${result}`);
    this.#socket.write(Uint8Array.of(1));
    const init = await take(24);
    this.#width = init.readUInt16BE(0);
    this.#height = init.readUInt16BE(2);
    await take(init.readUInt32BE(20));
    const wanted = [
      ENCODING.RAW,
      ENCODING.DESKTOP_SIZE,
      ENCODING.EXTENDED_DESKTOP_SIZE,
      ENCODING.ALPHA_CURSOR,
    ];
    const encodings = Buffer.alloc(4 + 4 * wanted.length);
    encodings.writeUInt8(2, 0);
    encodings.writeUInt16BE(wanted.length, 2);
    wanted.forEach((encoding, n) => encodings.writeInt32BE(encoding, 4 + 4 * n));
    this.#socket.write(encodings);
    this.#ask();
  }

  /** Asks for what changes; without a question the server says nothing. */
  #ask(): void {
    const request = Buffer.alloc(10);
    request.writeUInt8(3, 0);
    request.writeUInt8(1, 1);
    request.writeUInt16BE(this.#width, 6);
    request.writeUInt16BE(this.#height, 8);
    this.#socket.write(request);
  }

  async #until<T extends Told['type']>(type: T): Promise<Told & { type: T }> {
    for (;;) {
      const at = this.#told.findIndex((told) => told.type === type);
      if (at >= 0) return this.#told.splice(at, 1)[0] as Told & { type: T };
      await this.#update();
    }
  }

  async #update(): Promise<void> {
    const type = (await this.#reader.take(1)).readUInt8();
    // A bell.
    if (type === 2) return;
    if (type !== 0) throw new Error(`the VNC server sent message ${type}`);
    await this.#reader.take(1);
    for (let count = (await this.#reader.take(2)).readUInt16BE(); count > 0; count--) {
      const told = await this.#rectangle();
      if (told.type !== 'pixels') this.#told.push(told);
    }
    this.#ask();
  }

  async #rectangle(): Promise<Told> {
    const header = await this.#reader.take(12);
    const [x, y, width, height] = [0, 2, 4, 6].map((at) => header.readUInt16BE(at)) as [
      number,
      number,
      number,
      number,
    ];
    switch (header.readInt32BE(8)) {
      case ENCODING.RAW:
        await this.#reader.take(width * height * 4);
        return { type: 'pixels' };
      case ENCODING.DESKTOP_SIZE:
        [this.#width, this.#height] = [width, height];
        return { type: 'size', width, height, status: 0 };
      case ENCODING.EXTENDED_DESKTOP_SIZE: {
        const screens = (await this.#reader.take(4)).readUInt8();
        await this.#reader.take(16 * screens);
        // x says who asked: 1 is this viewer; y is what became of it.
        if (x !== 1) [this.#width, this.#height] = [width, height];
        return { type: 'size', width, height, status: x === 1 ? y : 0 };
      }
      case ENCODING.ALPHA_CURSOR: {
        await this.#reader.take(4);
        const pixels = await this.#reader.take(width * height * 4);
        return { type: 'cursor', image: { width, height, hotX: x, hotY: y, pixels } };
      }
      default:
        throw new Error(`the VNC server used encoding ${header.readInt32BE(8)}`);
    }
  }
}
