/**
 * A network interface of the kernel whose other end is in this process: frames that the kernel sends are read from
 * `/dev/net/tun`, and the kernel receives frames that are written to it. Connected to a driver, it lets the kernel's IP stack use
 * that driver, and with it sockets, `fetch`, `ssh`.
 *
 * The descriptor does not block, and libuv watches it: nothing runs while nothing happens, and no thread waits.
 */
import { closeSync, constants, openSync } from 'node:fs';
import {
  type AbortSignalLike,
  requireBytes,
  requireInteger,
  requireSignal,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { EventPoller } from './event-poller.ts';
import { closeDescriptor, inetSocket, ioctl, readNow, writeNow } from './syscalls.ts';
import { errorName, systemError } from './system-error.ts';

/** `<linux/if_tun.h>`: `_IOW('T', 202, int)`. */
const TUNSETIFF = 0x400454ca;
const IFF_TAP = 0x0002;
/** Frames come without the kernel's packet information. */
const IFF_NO_PI = 0x1000;

/** `<linux/sockios.h>`, and what `<linux/if.h>` says of `struct ifreq`. */
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCGIFMTU = 0x8921;
const SIOCSIFMTU = 0x8922;
const SIOCSIFHWADDR = 0x8924;
const IFF_UP = 1;
const NAME_SIZE = 16;
const IFREQ_SIZE = 40;
const ARPHRD_ETHER = 1;

/** The longest frame that the kernel can have: an MTU of 65,521 and a tagged header. */
const MAX_FRAME = 65_539;
/** How many frames are carried in one direction before other work has a turn. */
const BATCH = 64;

/** Options of {@link Tap}. */
export interface TapOptions {
  /** The interface's name, of up to 15 characters; `%d` becomes a free number (default `tap%d`). */
  readonly name?: string;
  /** Its MAC address: six bytes (default: a random one chosen by the kernel). */
  readonly macAddress?: Uint8Array;
  /** Its MTU (default 1500). */
  readonly mtu?: number;
}

/** The part of a driver's received packet that a {@link Tap} needs. */
export interface TapPacket {
  readonly data: Uint8Array;
  release(): void;
}

/** The part of a network driver that a {@link Tap} needs: `VirtioNet` has it. */
export interface TapPeer {
  /** Calls `handler` with each received packet, and returns how many there were. */
  poll(handler: (packet: TapPacket) => void): number;
  receive(options: WaitOptions): Promise<TapPacket>;
  /** A transmit buffer of the driver to build a frame in. */
  takeBuffer():
    | ({
        readonly data: Uint8Array;
        send(length: number, options: { readonly kick: boolean }): void;
      } & Disposable)
    | undefined;
  send(frame: Uint8Array, options: WaitOptions): Promise<void>;
  kick(): void;
}

/** Counters of the frames that a {@link Tap} and a driver have exchanged. */
export interface TapCounters {
  /** Frames from the driver to the kernel. */
  readonly received: number;
  /** Frames from the kernel to the driver. */
  readonly sent: number;
  /** Frames that the kernel, or the driver, did not take: too long, too short, or no room. */
  readonly dropped: number;
}

/** A connection of a {@link Tap} and a driver. Disposing it ends only the connection. */
export interface TapConnection extends Disposable {
  /** Settles when the connection has ended: after it was disposed, or with the error that ended it. */
  readonly ended: Promise<void>;
  readonly counters: TapCounters;
}

/**
 * A TAP network interface of the kernel, with its other end in this process. It exists until it is disposed or the process ends.
 *
 * @example
 * ```ts
 * import { Tap, type TapPeer } from '@virtio/linux';
 *
 * // `net` is a VirtioNet.
 * export async function serveKernel(net: TapPeer & { readonly macAddress: Uint8Array; readonly mtu: number }): Promise<void> {
 *   using tap = new Tap({ name: 'virtio0', macAddress: net.macAddress, mtu: net.mtu });
 *   tap.up();
 *   using connection = tap.connect(net);
 *   // Now `udhcpc -i virtio0` or `ip address add … dev virtio0`, and all that follows.
 *   await connection.ended;
 * }
 * ```
 */
export class Tap implements Disposable {
  /** The interface's name. */
  readonly name: string;

  readonly #fd: number;
  readonly #poller: EventPoller;
  readonly #waiting = new Set<() => void>();
  #disposed = false;

  /**
   * Makes the interface. It is down; see {@link Tap.up}.
   *
   * @throws {@link VirtioError} `MODULE_MISSING`, `PERMISSION_DENIED` without CAP_NET_ADMIN, `DEVICE_BUSY` if there is an interface of this
   * name, `INVALID_PARAM`, `SYSTEM_ERROR`
   */
  constructor({ name = 'tap%d', macAddress, mtu }: TapOptions = {}) {
    if (!isName(name)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `'${String(name)}' cannot be the name of an interface: give 1 to 15 characters (bytes in UTF-8), no spaces, no '/'`,
      );
    }
    if (macAddress !== undefined) {
      requireBytes('Tap', macAddress);
      requireInteger('Tap', 'the length of macAddress', macAddress.length, 6, 6);
    }
    if (mtu !== undefined) requireInteger('Tap', 'mtu', mtu, 68, 65_521);
    this.#fd = openTun();
    try {
      this.name = attach(this.#fd, name);
      this.#poller = new EventPoller();
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
    try {
      this.#poller.watch(this.#fd, this.#readable);
      if (macAddress !== undefined) this.#setMac(macAddress);
      if (mtu !== undefined) {
        this.#order(SIOCSIFMTU, 'SIOCSIFMTU', (view) => view.setInt32(NAME_SIZE, mtu, true));
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** The interface's MTU as it is now. */
  get mtu(): number {
    return this.#order(SIOCGIFMTU, 'SIOCGIFMTU').getInt32(NAME_SIZE, true);
  }

  /** Brings the interface up. It gets no IP address by that, except a link-local one of IPv6. */
  up(): void {
    this.#setFlag(true);
  }

  /** Takes the interface down. */
  down(): void {
    this.#setFlag(false);
  }

  /**
   * Reads a frame that the kernel has sent, without waiting.
   *
   * @param buffer for the frame; what does not fit is lost
   * @returns the bytes of the frame, or -1 if there is none now
   * @throws {@link VirtioError} `DISPOSED`, `SYSTEM_ERROR`, `INVALID_PARAM` for what is not a `Uint8Array`
   */
  tryRead(buffer: Uint8Array): number {
    requireBytes(this.name, buffer);
    this.#check();
    try {
      return readNow(this.#fd, buffer);
    } catch (error) {
      // The interface is down: nothing comes until it is up.
      if (errorName(error) === 'EIO') return -1;
      throw systemError(`${this.name} could not be read`, error, 'the interface may have been removed');
    }
  }

  /**
   * Reads a frame that the kernel sends, and waits for it if need be.
   *
   * @param buffer for the frame; what does not fit is lost
   * @returns the bytes of the frame
   * @throws {@link VirtioError} `ABORTED`, `DISPOSED`, `SYSTEM_ERROR`, `INVALID_PARAM`; no frame was taken then
   */
  async read(buffer: Uint8Array, options: WaitOptions = {}): Promise<number> {
    const { signal } = options;
    requireSignal(this.name, signal);
    for (;;) {
      // Also after a wait: a caller that has cancelled takes no frame.
      if (signal?.aborted === true) throw aborted(signal);
      const length = this.tryRead(buffer);
      if (length >= 0) return length;
      await this.#arrival(signal);
    }
  }

  /**
   * Sends a frame to the kernel.
   *
   * @returns false if it did not take it: there was no room, the interface is down, or the bytes are not a frame
   * @throws {@link VirtioError} `DISPOSED`, `SYSTEM_ERROR`, `INVALID_PARAM` for what is not a `Uint8Array`
   */
  write(frame: Uint8Array): boolean {
    requireBytes(this.name, frame);
    this.#check();
    if (frame.length === 0) return false;
    try {
      return writeNow(this.#fd, frame) === frame.length;
    } catch (error) {
      const name = errorName(error);
      if (name === 'EIO' || name === 'EINVAL' || name === 'ENOBUFS') return false;
      throw systemError(`${this.name} could not be written`, error, 'the interface may have been removed');
    }
  }

  /**
   * Carries frames between the kernel and a driver, both ways, until the result is disposed or something fails. Neither direction
   * blocks the other or the event loop, and frames are kept only in the buffers of both: a slow driver makes the kernel's own
   * queue fill.
   */
  connect(net: TapPeer): TapConnection {
    this.#check();
    const stop = new AbortController();
    const counters = { received: 0, sent: 0, dropped: 0 };
    this.#poller.hold();
    const down = this.#carryToKernel(net, stop.signal, counters);
    const up = this.#carryToDriver(net, stop.signal, counters);
    const ended = (async () => {
      try {
        await Promise.race([down, up]);
      } finally {
        stop.abort();
        await Promise.allSettled([down, up]);
        this.#poller.release();
      }
    })().catch((error: unknown) => {
      if (!(VirtioError.is(error, 'ABORTED') && stop.signal.aborted)) throw error;
    });
    // Callers that do not use `ended` need not handle its rejection.
    ended.catch(() => undefined);
    return {
      ended,
      counters,
      [Symbol.dispose]: () => {
        stop.abort();
      },
    };
  }

  /** Removes the interface. Connections end with `DISPOSED`. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#poller[Symbol.dispose]();
    closeSync(this.#fd);
    this.#readable();
  }

  async #carryToKernel(
    net: TapPeer,
    signal: AbortSignal,
    counters: { received: number; dropped: number },
  ): Promise<never> {
    const take = (packet: TapPacket): void => {
      if (this.write(packet.data)) counters.received += 1;
      else counters.dropped += 1;
    };
    for (;;) {
      const packet = await net.receive({ signal });
      try {
        take(packet);
      } finally {
        packet.release();
      }
      while (net.poll(take) > 0) {
        await turn();
        if (signal.aborted) throw aborted(signal);
      }
    }
  }

  async #carryToDriver(
    net: TapPeer,
    signal: AbortSignal,
    counters: { sent: number; dropped: number },
  ): Promise<never> {
    const spare = new Uint8Array(MAX_FRAME);
    for (;;) {
      if (signal.aborted) throw aborted(signal);
      let count = 0;
      let length = 0;
      while (count < BATCH && length >= 0) {
        using buffer = net.takeBuffer();
        if (buffer === undefined) break;
        length = this.tryRead(buffer.data);
        if (length < 0) break;
        count += 1;
        if (send(buffer, length)) counters.sent += 1;
        else counters.dropped += 1;
      }
      if (count > 0) net.kick();
      if (length < 0) {
        await this.#arrival(signal);
      } else if (count < BATCH) {
        // The driver has no buffer: the next frame waits here for one, all others wait in the kernel.
        length = this.tryRead(spare);
        if (length < 0) await this.#arrival(signal);
        else if (await deliver(net, spare.slice(0, length), signal)) counters.sent += 1;
        else counters.dropped += 1;
      } else {
        await turn();
      }
    }
  }

  /** Waits until the kernel has sent something. */
  #arrival(signal: AbortSignalLike | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#check();
      if (signal?.aborted === true) throw aborted(signal);
      const leave = (): void => {
        this.#waiting.delete(wake);
        signal?.removeEventListener('abort', cancel);
        this.#poller.release();
      };
      const wake = (): void => {
        leave();
        if (this.#disposed) reject(this.#disposedError());
        else resolve();
      };
      const cancel = (): void => {
        leave();
        reject(aborted(signal));
      };
      this.#poller.hold();
      this.#waiting.add(wake);
      signal?.addEventListener('abort', cancel);
    });
  }

  readonly #readable = (): void => {
    for (const wake of [...this.#waiting]) wake();
  };

  #check(): void {
    if (this.#disposed) throw this.#disposedError();
  }

  #disposedError(): VirtioError {
    return new VirtioError('DISPOSED', `${this.name} is disposed; make another Tap`);
  }

  #setMac(macAddress: Uint8Array): void {
    this.#order(SIOCSIFHWADDR, 'SIOCSIFHWADDR', (view) => {
      view.setUint16(NAME_SIZE, ARPHRD_ETHER, true);
      macAddress.forEach((byte, i) => {
        view.setUint8(NAME_SIZE + 2 + i, byte);
      });
    });
  }

  #setFlag(up: boolean): void {
    const flags = this.#order(SIOCGIFFLAGS, 'SIOCGIFFLAGS').getInt16(NAME_SIZE, true);
    this.#order(SIOCSIFFLAGS, 'SIOCSIFFLAGS', (view) => {
      view.setInt16(NAME_SIZE, up ? flags | IFF_UP : flags & ~IFF_UP, true);
    });
  }

  /** Makes an `ioctl` on the interface, and returns the kernel's answer. */
  #order(request: number, label: string, fill?: (view: DataView) => void): DataView {
    this.#check();
    const socket = inetSocket();
    try {
      const order = ifreq(this.name);
      fill?.(new DataView(order.buffer));
      ioctl(socket, request, label, order);
      return new DataView(order.buffer);
    } catch (error) {
      throw systemError(
        `${this.name} did not take ${label}`,
        error,
        'see "ip link show"; this needs CAP_NET_ADMIN',
      );
    } finally {
      closeDescriptor(socket);
    }
  }
}

function openTun(): number {
  try {
    return openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
  } catch (error) {
    const name = errorName(error);
    const missing = name === 'ENOENT' || name === 'ENODEV' || name === 'ENXIO';
    throw systemError(
      '/dev/net/tun could not be opened',
      error,
      missing ? 'load the module: "modprobe tun"' : 'run as root, or with CAP_NET_ADMIN',
      missing ? 'MODULE_MISSING' : undefined,
    );
  }
}

/** Makes the interface, and returns the name that it got. */
function attach(fd: number, name: string): string {
  const order = ifreq(name);
  new DataView(order.buffer).setUint16(NAME_SIZE, IFF_TAP | IFF_NO_PI, true);
  try {
    ioctl(fd, TUNSETIFF, 'TUNSETIFF', order);
  } catch (error) {
    throw systemError(
      `the interface ${name} could not be made`,
      error,
      'choose another name if there is one of this name; this needs CAP_NET_ADMIN (root)',
    );
  }
  const end = order.indexOf(0);
  return new TextDecoder().decode(order.subarray(0, Math.min(end, NAME_SIZE - 1)));
}

/** Whether the kernel takes a name, and all of it. */
function isName(name: unknown): name is string {
  return (
    typeof name === 'string' &&
    /^[^\s/\0]+$/.test(name) &&
    !/^\.\.?$/.test(name) &&
    new TextEncoder().encode(name).length < NAME_SIZE
  );
}

function ifreq(name: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(IFREQ_SIZE);
  new TextEncoder().encodeInto(name, bytes.subarray(0, NAME_SIZE - 1));
  return bytes;
}

/** Sends a frame from a buffer of the driver; one that is too long for the device is dropped, as a network card would do. */
function send(
  buffer: { send(length: number, options: { readonly kick: boolean }): void },
  length: number,
): boolean {
  try {
    buffer.send(length, { kick: false });
    return true;
  } catch (error) {
    if (VirtioError.is(error, 'INVALID_PARAM')) return false;
    throw error;
  }
}

async function deliver(net: TapPeer, frame: Uint8Array, signal: AbortSignal): Promise<boolean> {
  try {
    await net.send(frame, { signal });
    return true;
  } catch (error) {
    if (VirtioError.is(error, 'INVALID_PARAM')) return false;
    throw error;
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const aborted = (signal: AbortSignalLike | undefined): VirtioError =>
  new VirtioError('ABORTED', 'the wait was cancelled by its caller', { cause: signal?.reason });
