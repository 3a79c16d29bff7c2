/**
 * Waits for eventfds on Node's event loop: one epoll descriptor collects them, and libuv watches that one. No thread is blocked,
 * and nothing runs while nothing happens.
 *
 * The eventfds are watched edge-triggered, so their counts need not be read. Handlers run from `setImmediate`, one batch for
 * all that was signalled: libuv calls koffi's callback outside of any JavaScript, where a thrown error would surface in an
 * unrelated place.
 */
import type { node } from 'koffi';
import { koffi } from './koffi.ts';
import { closeDescriptor, epollControl, epollCreate, epollPoll } from './syscalls.ts';
import { systemError } from './system-error.ts';

/** `EPOLL_CTL_*` and the event bits of `<sys/epoll.h>`. */
const CTL_ADD = 1;
const CTL_DEL = 2;
const EPOLLIN = 0x1;
const EPOLLOUT = 0x4;
const EPOLLET = 0x80000000;

/** `struct epoll_event` is packed on x86-64 only; its data is a number that we choose. */
const EVENT = process.arch === 'x64' ? { size: 12, data: 4 } : { size: 16, data: 8 };
const BATCH = 16;

interface Watch {
  readonly fd: number;
  readonly handler: () => void;
  signalled: boolean;
}

/** Calls handlers when descriptors are signalled. */
export class EventPoller implements Disposable {
  readonly #epoll = epollCreate();
  readonly #events = new Uint8Array(EVENT.size * BATCH);
  readonly #words = new DataView(this.#events.buffer);
  readonly #watches = new Map<number, Watch>();
  readonly #handle: node.PollHandle;
  #holds = 0;
  #scheduled = false;
  #disposed = false;

  constructor() {
    this.#handle = koffi().node.poll(this.#epoll, { readable: true }, this.#ready);
    this.#handle.unref();
  }

  /**
   * Calls `handler` each time `fd` was signalled; several signals may lead to one call.
   *
   * @param writable whether `handler` is also called when the descriptor can be written again
   * @throws {@link VirtioError} `SYSTEM_ERROR`
   */
  watch(fd: number, handler: () => void, writable = false): void {
    const event = new DataView(new ArrayBuffer(EVENT.size));
    event.setUint32(0, (EPOLLIN | EPOLLET | (writable ? EPOLLOUT : 0)) >>> 0, true);
    event.setUint32(EVENT.data, fd, true);
    try {
      epollControl(this.#epoll, CTL_ADD, fd, new Uint8Array(event.buffer));
    } catch (error) {
      throw systemError(
        'a descriptor could not be watched',
        error,
        'if the system watches too many, raise fs.epoll.max_user_watches',
        'SYSTEM_ERROR',
      );
    }
    this.#watches.set(fd, { fd, handler, signalled: false });
  }

  /** Ends {@link EventPoller.watch}. Call it before closing the descriptor. */
  unwatch(fd: number): void {
    if (!this.#watches.delete(fd) || this.#disposed) return;
    epollControl(this.#epoll, CTL_DEL, fd, new Uint8Array(EVENT.size));
  }

  /** Keeps the event loop alive until {@link EventPoller.release} has been called as many times. */
  hold(): void {
    this.#holds += 1;
    if (this.#holds === 1 && !this.#disposed) this.#handle.ref();
  }

  /** Ends one {@link EventPoller.hold}. */
  release(): void {
    // Without a hold it would take away the next one.
    if (this.#holds === 0) return;
    this.#holds -= 1;
    if (this.#holds === 0 && !this.#disposed) this.#handle.unref();
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#watches.clear();
    this.#handle.close();
    closeDescriptor(this.#epoll);
  }

  readonly #ready = (): void => {
    let count: number;
    do {
      count = epollPoll(this.#epoll, this.#events, BATCH);
      for (let i = 0; i < count; i += 1) {
        const watch = this.#watches.get(this.#words.getUint32(i * EVENT.size + EVENT.data, true));
        if (watch) watch.signalled = true;
      }
    } while (count === BATCH);
    this.#schedule();
  };

  readonly #dispatch = (): void => {
    this.#scheduled = false;
    let complete = false;
    try {
      for (const watch of this.#watches.values()) {
        if (!watch.signalled) continue;
        watch.signalled = false;
        watch.handler();
      }
      complete = true;
    } finally {
      // If a handler throws, the signals of the others are not lost.
      if (!complete) this.#schedule();
    }
  };

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#dispatch);
  }
}
