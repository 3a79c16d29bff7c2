/**
 * As much of a VNC client as it takes to see a guest's keyboard LEDs: QEMU tells its viewers about them (the pseudo-encoding
 * -261), and nothing else on the host shows them.
 */
import { connect, type Socket } from 'node:net';

const LED_STATE = -261;
const SECURITY_NONE = 1;
const RAW = 0;
const LEDS = ['scroll', 'num', 'caps'] as const;
const TIMEOUT_MS = 20_000;

/** A connection to QEMU's VNC server. */
export interface VncClient {
  /** Waits until the server tells of the LEDs, and returns those that are on. */
  nextLeds(): Promise<readonly string[]>;
  close(): void;
}

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
    for (;;) {
      const bytes = this.#socket.read(length) as Buffer | null;
      if (bytes?.length === length) return bytes;
      if (this.#socket.closed || Date.now() > deadline) throw new Error('the VNC server fell silent');
      const { promise, resolve } = Promise.withResolvers<undefined>();
      const done = (): void => resolve(undefined);
      const timer = setTimeout(done, deadline - Date.now());
      this.#socket.once('readable', done).once('close', done);
      await promise;
      clearTimeout(timer);
      this.#socket.off('readable', done).off('close', done);
    }
  }
}

/** Connects to a server on a unix socket, and asks it for LEDs. */
export async function connectVnc(path: string): Promise<VncClient> {
  const socket = connect(path);
  const reader = new Reader(socket);
  const version = await reader.take(12);
  socket.write(version);
  const types = await reader.take((await reader.take(1)).readUInt8());
  if (!types.includes(SECURITY_NONE)) throw new Error(`the VNC server wants one of ${types.toString('hex')}`);
  socket.write(Uint8Array.of(SECURITY_NONE));
  const result = (await reader.take(4)).readUInt32BE();
  if (result !== 0) throw new Error(`the VNC server refused: ${result}`);
  // Shared with other viewers.
  socket.write(Uint8Array.of(1));
  const init = await reader.take(24);
  const bytesPerPixel = init.readUInt8(4) / 8;
  await reader.take(init.readUInt32BE(20));

  const encodings = Buffer.alloc(4 + 8);
  encodings.writeUInt8(2, 0);
  encodings.writeUInt16BE(2, 2);
  encodings.writeInt32BE(LED_STATE, 4);
  encodings.writeInt32BE(RAW, 8);
  socket.write(encodings);

  const nextUpdate = async (): Promise<readonly string[] | undefined> => {
    const type = (await reader.take(1)).readUInt8();
    if (type !== 0) throw new Error(`the VNC server sent message ${type}`);
    await reader.take(1);
    let leds: readonly string[] | undefined;
    for (let count = (await reader.take(2)).readUInt16BE(); count > 0; count--) {
      const rectangle = await reader.take(12);
      const encoding = rectangle.readInt32BE(8);
      if (encoding === LED_STATE) {
        const state = (await reader.take(1)).readUInt8();
        leds = LEDS.filter((_name, bit) => (state & (1 << bit)) !== 0);
      } else {
        await reader.take(rectangle.readUInt16BE(4) * rectangle.readUInt16BE(6) * bytesPerPixel);
      }
    }
    return leds;
  };
  // The server tells the state once when it learns that this viewer wants it.
  while ((await nextUpdate()) === undefined);
  return {
    async nextLeds() {
      for (;;) {
        const leds = await nextUpdate();
        if (leds !== undefined) return leds;
      }
    },
    close: () => void socket.destroy(),
  };
}
