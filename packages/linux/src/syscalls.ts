/**
 * The system calls that Node.js does not offer, through koffi: mappings, ioctls, eventfds, epoll, and reading and
 * writing without blocking. Everything else (opening, closing, reading and writing at a position) is `node:fs`, which takes the same descriptors.
 *
 * Constants are those of x86-64, aarch64 and riscv64, which are the same here except for the layout of `epoll_event`.
 */
import { constants } from 'node:os';
import { VirtioError } from '@virtio/core';
import { koffi } from './koffi.ts';
import { SystemCallError, systemError } from './system-error.ts';

/** Protection of a mapping: `PROT_*` of `<asm-generic/mman-common.h>`. */
export const Prot = { NONE: 0, READ: 1, WRITE: 2 } as const;

/** Flags of a mapping: `MAP_*` of `<asm-generic/mman-common.h>` and `<asm-generic/mman.h>`. */
export const MapFlags = {
  SHARED: 0x1,
  PRIVATE: 0x2,
  FIXED: 0x10,
  ANONYMOUS: 0x20,
  NORESERVE: 0x4000,
  POPULATE: 0x8000,
  HUGETLB: 0x40000,
  /** With HUGETLB: pages of 2 MiB, whatever the default size is. */
  HUGE_2MB: 21 << 26,
} as const;

/** Flags of `memfd_create`: `<linux/memfd.h>`. */
export const MemfdFlags = { CLOEXEC: 1, ALLOW_SEALING: 2, HUGETLB: 4, HUGE_2MB: 21 << 26 } as const;

/** `F_ADD_SEALS` and `F_GET_SEALS`, and the seals: `<linux/fcntl.h>`. */
export const Seals = { ADD: 1033, GET: 1034, SEAL: 1, SHRINK: 2, GROW: 4 } as const;

/** `F_OFD_SETLK` and `F_WRLCK` of `<asm-generic/fcntl.h>`, and the bytes of `struct flock`. */
const F_OFD_SETLK = 37;
const F_WRLCK = 1;
const FLOCK_SIZE = 32;
const FLOCK_START = 8;
const FLOCK_LENGTH = 16;

/** `F_DUPFD_CLOEXEC` of `<linux/fcntl.h>`. */
const F_DUPFD_CLOEXEC = 1030;

/** Modes of `fallocate`: `<linux/falloc.h>`. */
const FALLOC_PUNCH_HOLE = 3;

/** Events of `poll`: `<asm-generic/poll.h>`. */
export const PollEvents = { IN: 1, OUT: 4 } as const;

/** `EFD_CLOEXEC | EFD_NONBLOCK` of `<sys/eventfd.h>`. */
const EVENTFD_FLAGS = 0x80800;
/** `EPOLL_CLOEXEC` of `<sys/epoll.h>`. */
const EPOLL_CLOEXEC = 0x80000;

/** The calls of sockets. */
export type SocketCall =
  'socket' | 'socketpair' | 'bind' | 'listen' | 'connect' | 'accept4' | 'shutdown' | 'sendmsg' | 'recvmsg';

/** `AF_INET`, `SOCK_DGRAM` and `SOCK_CLOEXEC` of `<sys/socket.h>`. */
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0x80000;

type Native = (...args: unknown[]) => unknown;

function load(): Readonly<Record<string, Native>> {
  if (process.platform !== 'linux') {
    throw new VirtioError('UNSUPPORTED', `@virtio/linux needs Linux; this is ${process.platform}`);
  }
  if (!['x64', 'arm64', 'riscv64'].includes(process.arch)) {
    throw new VirtioError(
      'UNSUPPORTED',
      `@virtio/linux supports x86-64, aarch64 and riscv64; this is ${process.arch}`,
    );
  }
  const libc = koffi().load(null);
  const declare = (name: string, result: string, args: string[]): Native =>
    libc.func(name, result, args) as Native;
  return {
    mmap: declare('mmap', 'uintptr_t', ['uintptr_t', 'size_t', 'int', 'int', 'int', 'int64_t']),
    mincore: declare('mincore', 'int', ['uintptr_t', 'size_t', 'void *']),
    munmap: declare('munmap', 'int', ['uintptr_t', 'size_t']),
    ioctl: declare('ioctl', 'int', ['int', 'ulong', 'void *']),
    ioctlNumber: declare('ioctl', 'int', ['int', 'ulong', 'int64_t']),
    getpagesize: declare('getpagesize', 'int', []),
    eventfd: declare('eventfd', 'int', ['uint', 'int']),
    memfd_create: declare('memfd_create', 'int', ['const char *', 'uint']),
    eventfd_write: declare('eventfd_write', 'int', ['int', 'uint64_t']),
    close: declare('close', 'int', ['int']),
    fcntl: declare('fcntl', 'int', ['int', 'int', 'int']),
    fcntlLock: declare('fcntl', 'int', ['int', 'int', 'void *']),
    fallocate: declare('fallocate', 'int', ['int', 'int', 'int64_t', 'int64_t']),
    socketpair: declare('socketpair', 'int', ['int', 'int', 'int', 'void *']),
    bind: declare('bind', 'int', ['int', 'void *', 'uint']),
    listen: declare('listen', 'int', ['int', 'int']),
    connect: declare('connect', 'int', ['int', 'void *', 'uint']),
    accept4: declare('accept4', 'int', ['int', 'uintptr_t', 'uintptr_t', 'int']),
    shutdown: declare('shutdown', 'int', ['int', 'int']),
    sendmsg: declare('sendmsg', 'int64_t', ['int', 'uintptr_t', 'int']),
    recvmsg: declare('recvmsg', 'int64_t', ['int', 'uintptr_t', 'int']),
    poll: declare('poll', 'int', ['void *', 'ulong', 'int']),
    epoll_create1: declare('epoll_create1', 'int', ['int']),
    epoll_ctl: declare('epoll_ctl', 'int', ['int', 'int', 'int', 'void *']),
    read: declare('read', 'int64_t', ['int', 'void *', 'size_t']),
    write: declare('write', 'int64_t', ['int', 'void *', 'size_t']),
    socket: declare('socket', 'int', ['int', 'int', 'int']),
    epoll_wait: declare('epoll_wait', 'int', ['int', 'void *', 'int', 'int']),
  };
}

let functions: Readonly<Record<string, Native>> | undefined;

function native(name: string): Native {
  functions ??= load();
  return functions[name] as Native;
}

/**
 * Calls a function that returns -1 and sets `errno` when it fails, again if a signal interrupted it.
 *
 * @returns its result, or `-errno`
 */
export function tryCall(name: SocketCall, ...args: unknown[]): number {
  for (;;) {
    const result = native(name)(...args) as number;
    if (result >= 0) return result;
    const errno = koffi().errno();
    if (errno !== constants.errno.EINTR) return -errno;
  }
}

/** Calls a function that returns -1 and sets `errno` when it fails. */
function call(name: string, label: string, ...args: unknown[]): number {
  const result = native(name)(...args) as number;
  if (result < 0) throw new SystemCallError(label, koffi().errno());
  return result;
}

/**
 * `mmap(2)`.
 *
 * @param hint where, with `MapFlags.FIXED`; else 0
 * @returns the address
 * @throws {@link SystemCallError}
 */
export function mmap(
  hint: number,
  size: number,
  prot: number,
  flags: number,
  fd: number,
  offset: number,
): number {
  const address = native('mmap')(hint, size, prot, flags, fd, offset);
  // User addresses fit a number; MAP_FAILED is all ones and arrives as a bigint.
  if (typeof address !== 'number') throw new SystemCallError('mmap', koffi().errno());
  return address;
}

/** `munmap(2)`. Views of the memory must be detached before: touching one afterwards ends the process. */
export function munmap(address: number, size: number): void {
  call('munmap', 'munmap', address, size);
}

/** `mincore(2)`: whether each page of a mapping is in memory, by bit 0 of a byte a page. */
export function mincore(address: number, size: number): Uint8Array {
  const pages = new Uint8Array(Math.ceil(size / systemPageSize()));
  call('mincore', 'mincore', address, size, pages);
  return pages;
}

/** An ArrayBuffer over mapped memory. It does not keep the mapping alive. */
export function viewMemory(address: number, size: number): ArrayBuffer {
  return koffi().view(address, size);
}

/**
 * `ioctl(2)` with a structure, or with a string that ends in a zero byte.
 *
 * @param label the request for messages: `VFIO_SET_IOMMU`
 * @throws {@link SystemCallError}
 */
export function ioctl(fd: number, request: number, label: string, argument: Uint8Array): number {
  return call('ioctl', label, fd, request, argument);
}

/**
 * `ioctl(2)` with a number, or without an argument.
 *
 * @throws {@link SystemCallError}
 */
export function ioctlNumber(fd: number, request: number, label: string, argument = 0): number {
  return call('ioctlNumber', label, fd, request, argument);
}

/** The size of the system's pages in bytes: 4096, on aarch64 also 16384 or 65536. */
export function systemPageSize(): number {
  return call('getpagesize', 'getpagesize');
}

/** Calls a function that makes a descriptor. */
function open(name: string, label: string, ...args: unknown[]): number {
  try {
    return call(name, label, ...args);
  } catch (error) {
    throw systemError('a descriptor could not be made', error, 'raise the limit of open files (ulimit -n)');
  }
}

/** A new eventfd with the count 0, which does not block. @throws {@link VirtioError} `SYSTEM_ERROR` */
export function eventfd(): number {
  return open('eventfd', 'eventfd', 0, EVENTFD_FLAGS);
}

/** Another descriptor of the same file, for another thread to own. @throws {@link VirtioError} `SYSTEM_ERROR` */
export function duplicate(fd: number): number {
  return open('fcntl', 'F_DUPFD_CLOEXEC', fd, F_DUPFD_CLOEXEC, 0);
}

/** Closes a descriptor that no call of `node:fs` has opened: in a worker thread `closeSync` warns of such ones. */
export function closeDescriptor(fd: number): void {
  native('close')(fd);
}

/** Adds 1 to the count of an eventfd, which signals it. */
export function signalEventfd(fd: number): void {
  native('eventfd_write')(fd, 1);
}

/**
 * Adds seals to a memfd; they cannot be removed.
 *
 * @throws {@link SystemCallError}
 */
export function addSeals(fd: number, seals: number): void {
  call('fcntl', 'F_ADD_SEALS', fd, Seals.ADD, seals);
}

/**
 * Takes a lock on a part of a file, which must be open for writing. It ends when the file is closed.
 *
 * @param size bytes; 0 for all that follow
 * @throws {@link SystemCallError} with EAGAIN if another open file has it
 */
export function lockRange(fd: number, start: number, size: number): void {
  const lock = new DataView(new ArrayBuffer(FLOCK_SIZE));
  lock.setInt16(0, F_WRLCK, true);
  lock.setBigInt64(FLOCK_START, BigInt(start), true);
  lock.setBigInt64(FLOCK_LENGTH, BigInt(size), true);
  call('fcntlLock', 'F_OFD_SETLK', fd, F_OFD_SETLK, new Uint8Array(lock.buffer));
}

/** Gives pages of a file back to the system; they read as zeros afterwards. */
export function punchHole(fd: number, offset: number, size: number): void {
  call('fallocate', 'fallocate', fd, FALLOC_PUNCH_HOLE, offset, size);
}

/**
 * Blocks until one of the descriptors is ready, closed or broken.
 *
 * @param waits pairs of a descriptor and `PollEvents`
 * @param timeoutMs milliseconds
 * @returns whether one is; a signal or the timeout ends the wait as well
 */
export function pollDescriptors(
  waits: readonly (readonly [fd: number, events: number])[],
  timeoutMs: number,
): boolean {
  const view = new DataView(new ArrayBuffer(8 * waits.length));
  waits.forEach(([fd, events], i) => {
    view.setInt32(8 * i, fd, true);
    view.setInt16(8 * i + 4, events, true);
  });
  return (native('poll')(new Uint8Array(view.buffer), waits.length, Math.ceil(timeoutMs)) as number) > 0;
}

/** `memfd_create(2)`. */
export function memfdCreate(name: string, flags: number): number {
  return call('memfd_create', 'memfd_create', name, flags);
}

/** A new epoll descriptor. @throws {@link VirtioError} `SYSTEM_ERROR` */
export function epollCreate(): number {
  return open('epoll_create1', 'epoll_create1', EPOLL_CLOEXEC);
}

/** `epoll_ctl(2)`. */
export function epollControl(epoll: number, operation: number, fd: number, event: Uint8Array): void {
  call('epoll_ctl', 'epoll_ctl', epoll, operation, fd, event);
}

/** `epoll_wait(2)` that does not wait. Returns how many events were written. */
export function epollPoll(epoll: number, events: Uint8Array, count: number): number {
  return call('epoll_wait', 'epoll_wait', epoll, events, count, 0);
}

/**
 * `read(2)` of a descriptor that does not block; `node:fs` would throw where there is nothing.
 *
 * @returns the bytes that were read, or -1 if there is nothing now
 */
export function readNow(fd: number, bytes: Uint8Array): number {
  return transferNow('read', fd, bytes);
}

/**
 * `write(2)` to a descriptor that does not block.
 *
 * @returns the bytes that were written, or -1 if there is no room now
 */
export function writeNow(fd: number, bytes: Uint8Array): number {
  return transferNow('write', fd, bytes);
}

function transferNow(name: 'read' | 'write', fd: number, bytes: Uint8Array): number {
  const result = native(name)(fd, bytes, bytes.length) as number;
  if (result >= 0) return result;
  const errno = koffi().errno();
  if (errno === constants.errno.EAGAIN || errno === constants.errno.EINTR) return -1;
  throw new SystemCallError(name, errno);
}

/** An IPv4 datagram socket, for `ioctl`s on network interfaces. */
export function inetSocket(): number {
  return call('socket', 'socket', AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}
