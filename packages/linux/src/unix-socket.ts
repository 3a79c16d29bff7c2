/**
 * Unix stream sockets that carry descriptors (SCM_RIGHTS), which `node:net` cannot. No call here blocks.
 *
 * `sendmsg` and `recvmsg` take structures with pointers in them. These lie in one block of memory outside of JavaScript's heap,
 * which all sockets of the thread share, as no call outlasts the next.
 */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { VirtioError, type VirtioErrorCode } from '@virtio/core';
import { Mapping } from './mapping.ts';
import { closeDescriptor, type SocketCall, tryCall } from './syscalls.ts';
import { Errno, SystemCallError, systemError } from './system-error.ts';

const AF_UNIX = 1;
/** `SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC`. */
const STREAM = 0x80801;
/** `SOCK_STREAM | SOCK_CLOEXEC`: each call here says that it does not wait, so that the other end may be a program that does. */
const PAIR = 0x80001;
/** `SOCK_NONBLOCK | SOCK_CLOEXEC` for `accept4`. */
const ACCEPTED = 0x80800;
const SHUT_RDWR = 2;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

/** `struct sockaddr_un`: the family, and a path that ends in a zero byte. */
const ADDRESS = { size: 110, path: 2, longest: 107 } as const;
/** `struct cmsghdr`: length, level, type; its data follow. */
const CMSG_HEADER = 16;
/** `SCM_MAX_FD`: the most descriptors that the kernel passes at once. */
const MOST_DESCRIPTORS = 253;

/** Where things are in the shared block. */
const AT = { header: 0, vector: 64, control: 128, data: 4096 } as const;
const CONTROL_SIZE = CMSG_HEADER + 4 * (MOST_DESCRIPTORS + 1);
const DATA_SIZE = 65536;

/** Fields of `struct msghdr`. */
const HEADER = { vector: 16, vectors: 24, control: 32, controlLength: 40, flags: 48 } as const;

interface Scratch {
  readonly address: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
}

let scratch: Scratch | undefined;

function block(): Scratch {
  if (scratch === undefined) {
    const mapping = Mapping.map({ size: AT.data + DATA_SIZE });
    const bytes = new Uint8Array(mapping.view());
    const view = new DataView(bytes.buffer);
    scratch = { address: mapping.address, bytes, view };
    setAddress(view, AT.header + HEADER.vector, mapping.address + AT.vector);
    setAddress(view, AT.header + HEADER.vectors, 1);
    setAddress(view, AT.vector, mapping.address + AT.data);
  }
  return scratch;
}

function setAddress(view: DataView, at: number, value: number): void {
  view.setBigUint64(at, BigInt(value), true);
}

/** What {@link UnixSocket.receive} returns. */
export interface Received {
  /** The bytes, a copy; none at the end of the stream. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The descriptors that were received with them; the caller closes them. */
  readonly descriptors: readonly number[];
}

/** One end of a connection. */
export class UnixSocket implements Disposable {
  readonly #fd: number;
  #closed = false;

  /** Takes over a descriptor, which must not block. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The descriptor, for watching or sending it. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * Connects to a socket in the file system.
   *
   * @returns `undefined` if the other side has too many connections to accept now; try again later
   * @throws {@link VirtioError} `NO_DEVICE` if nothing listens there, `PERMISSION_DENIED`, `INVALID_PARAM`
   */
  static connect(path: string): UnixSocket | undefined {
    const address = socketAddress(path);
    const socket = new UnixSocket(make());
    const result = tryCall('connect', socket.fd, address, address.length);
    if (result === 0) return socket;
    socket[Symbol.dispose]();
    if (result === -Errno.EAGAIN) return undefined;
    const nobody: Advice = ['start the program that listens there first', 'NO_DEVICE'];
    throw pathError(`${path} could not be connected to`, 'connect', -result, {
      [Errno.ENOENT]: hasFolder(path) ? nobody : [`${noFolder(path)}, or ${nobody[0]}`, 'NO_DEVICE'],
      [Errno.ECONNREFUSED]: nobody,
      [Errno.EPROTOTYPE]: ['it is not a stream socket: check the path', 'INVALID_PARAM'],
    });
  }

  /**
   * Makes two sockets that are connected to each other. Their descriptors block, for a program that is given one; what this class does
   * with them does not.
   *
   * @throws {@link VirtioError} `SYSTEM_ERROR`
   */
  static pair(): [UnixSocket, UnixSocket] {
    const fds = new Int32Array(2);
    check('socketpair', 'a pair of sockets could not be made', AF_UNIX, PAIR, 0, new Uint8Array(fds.buffer));
    const [left = -1, right = -1] = fds;
    return [new UnixSocket(left), new UnixSocket(right)];
  }

  /**
   * Sends as many bytes as the kernel takes now. Descriptors are sent with the first byte.
   *
   * @returns how many bytes it took, 0 if none now (wait until the socket can be written), -1 if the other side is gone
   * @throws {@link VirtioError} `SYSTEM_ERROR`, `INVALID_PARAM` for more than 253 descriptors
   */
  send(bytes: Uint8Array, descriptors: readonly number[] = []): number {
    if (this.#closed) return -1;
    if (descriptors.length > MOST_DESCRIPTORS) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${descriptors.length} descriptors were to be sent at once; the kernel passes ${MOST_DESCRIPTORS} at most`,
      );
    }
    const { address, bytes: memory, view } = block();
    const length = Math.min(bytes.length, DATA_SIZE);
    memory.set(bytes.subarray(0, length), AT.data);
    setAddress(view, AT.vector + 8, length);
    const control = descriptors.length === 0 ? 0 : CMSG_HEADER + 4 * descriptors.length;
    if (control > 0) {
      setAddress(view, AT.control, control);
      view.setInt32(AT.control + 8, SOL_SOCKET, true);
      view.setInt32(AT.control + 12, SCM_RIGHTS, true);
      descriptors.forEach((fd, i) => view.setInt32(AT.control + CMSG_HEADER + 4 * i, fd, true));
    }
    setAddress(view, AT.header + HEADER.control, control === 0 ? 0 : address + AT.control);
    setAddress(view, AT.header + HEADER.controlLength, Math.ceil(control / 8) * 8);
    view.setInt32(AT.header + HEADER.flags, 0, true);
    const result = tryCall('sendmsg', this.#fd, address, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (result >= 0) return result;
    if (result === -Errno.EAGAIN) return 0;
    if (result === -Errno.EPIPE || result === -Errno.ECONNRESET) return -1;
    throw systemError(
      'a message could not be sent',
      new SystemCallError('sendmsg', -result),
      'see the cause',
    );
  }

  /**
   * Receives bytes and descriptors without waiting.
   *
   * @param most how many bytes at most, up to 64 KiB
   * @returns `undefined` if nothing has; no bytes when the other side has closed its end
   * @throws {@link VirtioError} `SYSTEM_ERROR`; with the error EMFILE if descriptors came and there was no room for them
   */
  receive(most: number = DATA_SIZE): Received | undefined {
    if (this.#closed) return { bytes: new Uint8Array(0), descriptors: [] };
    const { address, bytes: memory, view } = block();
    setAddress(view, AT.vector + 8, Math.min(most, DATA_SIZE));
    setAddress(view, AT.header + HEADER.control, address + AT.control);
    setAddress(view, AT.header + HEADER.controlLength, CONTROL_SIZE);
    view.setInt32(AT.header + HEADER.flags, 0, true);
    const result = tryCall('recvmsg', this.#fd, address, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (result === -Errno.EAGAIN) return undefined;
    if (result === -Errno.ECONNRESET) return { bytes: new Uint8Array(0), descriptors: [] };
    if (result < 0) {
      throw systemError(
        'a message could not be received',
        new SystemCallError('recvmsg', -result),
        'see the cause',
      );
    }
    const descriptors = receivedDescriptors(view);
    if ((view.getInt32(AT.header + HEADER.flags, true) & MSG_CTRUNC) !== 0) {
      for (const fd of descriptors) closeDescriptor(fd);
      throw systemError(
        'descriptors were received, but not all of them could be opened',
        new SystemCallError('recvmsg', Errno.EMFILE),
        'close descriptors, or raise the limit of open files (ulimit -n)',
      );
    }
    return { bytes: memory.slice(AT.data, AT.data + result), descriptors };
  }

  /** Ends the connection for both sides; the descriptor stays until the socket is disposed. */
  shutdown(): void {
    if (!this.#closed) tryCall('shutdown', this.#fd, SHUT_RDWR);
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    closeDescriptor(this.#fd);
  }
}

/** A listening socket in the file system. */
export class UnixListener implements Disposable {
  readonly #fd: number;
  #closed = false;

  /**
   * Listens. An existing file of that name, even a stale socket, must be removed before.
   *
   * @throws {@link VirtioError} `ALREADY_USED` if there is a file, `PERMISSION_DENIED`, `INVALID_PARAM` also for a folder that does not
   * exist
   */
  constructor(path: string) {
    const address = socketAddress(path);
    this.#fd = make();
    const bound = tryCall('bind', this.#fd, address, address.length);
    const result = bound < 0 ? bound : tryCall('listen', this.#fd, 1);
    if (result === 0) return;
    closeDescriptor(this.#fd);
    throw pathError(`a socket could not listen at ${path}`, 'bind', -result, {
      [Errno.EADDRINUSE]: ['there is a file of that name; remove it', 'ALREADY_USED'],
      [Errno.ENOENT]: [`${noFolder(path)}, or make the folder`, 'INVALID_PARAM'],
      [Errno.EROFS]: ['its file system is read-only: choose another folder', 'PERMISSION_DENIED'],
    });
  }

  /** The descriptor, for watching it. */
  get fd(): number {
    return this.#fd;
  }

  /**
   * The next connection, or `undefined` if there is none now.
   *
   * @throws {@link VirtioError} `SYSTEM_ERROR` if no descriptor is left for it; it can be accepted later
   */
  accept(): UnixSocket | undefined {
    if (this.#closed) return undefined;
    const fd = tryCall('accept4', this.#fd, 0, 0, ACCEPTED);
    if (fd >= 0) return new UnixSocket(fd);
    if (fd === -Errno.EAGAIN || fd === -Errno.ECONNABORTED) return undefined;
    throw systemError(
      'a connection could not be accepted',
      new SystemCallError('accept4', -fd),
      'close descriptors, or raise the limit of open files (ulimit -n)',
      'SYSTEM_ERROR',
    );
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    closeDescriptor(this.#fd);
  }
}

function receivedDescriptors(view: DataView): number[] {
  const descriptors: number[] = [];
  const end = AT.control + Number(view.getBigUint64(AT.header + HEADER.controlLength, true));
  let at: number = AT.control;
  while (at + CMSG_HEADER <= end) {
    const length = Number(view.getBigUint64(at, true));
    if (length < CMSG_HEADER || at + length > end) break;
    if (view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS) {
      for (let next = at + CMSG_HEADER; next + 4 <= at + length; next += 4) {
        descriptors.push(view.getInt32(next, true));
      }
    }
    at += Math.ceil(length / 8) * 8;
  }
  return descriptors;
}

function socketAddress(path: string): Uint8Array {
  const name = new TextEncoder().encode(path);
  if (name.length === 0 || name.length > ADDRESS.longest || name.includes(0)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `'${path}' cannot be the path of a socket: it has 1 to ${ADDRESS.longest} bytes, none of them zero`,
    );
  }
  const address = new Uint8Array(ADDRESS.size);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, ADDRESS.path);
  return address;
}

/** What to do about an error, and its code if the system's error does not say it. */
type Advice = readonly [text: string, code?: VirtioErrorCode];

/** The same for who connects and who listens. */
const PATH_ADVICE: Readonly<Record<number, Advice>> = {
  [Errno.ENOTDIR]: ['a part of the path is a file, not a folder: check the path', 'INVALID_PARAM'],
  [Errno.ELOOP]: ['its symbolic links lead nowhere: check the path', 'INVALID_PARAM'],
  [Errno.EACCES]: ['check the rights of the socket and of the folders above it'],
};

const NO_ADVICE: Advice = ['see the cause'];

function pathError(
  what: string,
  call: SocketCall,
  errno: number,
  advice: Readonly<Record<number, Advice>>,
): VirtioError {
  const [text, code] = advice[errno] ?? PATH_ADVICE[errno] ?? NO_ADVICE;
  return systemError(what, new SystemCallError(call, errno), text, code);
}

function hasFolder(path: string): boolean {
  return existsSync(dirname(path));
}

function noFolder(path: string): string {
  return `the folder ${dirname(path)} does not exist: check the path`;
}

function make(): number {
  return check('socket', 'a socket could not be made', AF_UNIX, STREAM, 0);
}

function check(name: SocketCall, what: string, ...args: unknown[]): number {
  const result = tryCall(name, ...args);
  if (result >= 0) return result;
  throw systemError(what, new SystemCallError(name, -result), 'raise the limit of open files (ulimit -n)');
}
