/** Runs tasks in two ways: with promises, or spinning. */
import {
  type AbortSignalLike,
  requireSignal,
  requireWaitable,
  spin,
  type SpinOptions,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { abortError, refuseAborted, settledOrAborted } from './abort.ts';
import type { TagDevice, Tags } from './tags.ts';
import { HOLD, ROOM, type Task } from './task.ts';

/** What {@link TaskRunner.runSync} spins with when an answer has not come in time. */
const ONE_LOOK: SpinOptions = { timeoutMs: 0 };

/** Runs the tasks of a client. */
export class TaskRunner {
  readonly #device: TagDevice;
  readonly #tags: Tags;
  readonly #cancel: (tag: number) => Promise<void> | undefined;

  /** @param cancel asks the server to end a request early; its answer is still awaited */
  constructor(device: TagDevice, tags: Tags, cancel: (tag: number) => Promise<void> | undefined) {
    this.#device = device;
    this.#tags = tags;
    this.#cancel = cancel;
  }

  /**
   * Runs a task with promises.
   *
   * @param options `signal` cancels it: the server is asked to end the requests in flight, and the promise rejects when it has answered
   * them
   * @returns what the task returns
   * @throws {@link VirtioError} `ABORTED`; `UNSUPPORTED` on a transport without interrupts; `INVALID_PARAM` for a signal of a wrong type;
   * what the task throws
   */
  async run<V>(task: Task<V>, { signal }: WaitOptions = {}): Promise<V> {
    requireWaitable(this.#device.transport);
    requireSignal(this.#device.transport, signal);
    refuseAborted(signal);
    try {
      return await this.#steps(task, signal);
    } finally {
      if (this.#tags.hasOrphans) this.#device.kickSoon();
    }
  }

  /**
   * Runs a task and spins until it ends.
   *
   * @param options `timeoutMs`: how long the server may take for an answer (default 60,000)
   * @throws {@link VirtioError} `NOT_READY` if it takes longer, `QUEUE_FULL` if tasks that run with promises have all tags; what
   * the task throws
   */
  runSync<V>(task: Task<V>, options?: SpinOptions): V {
    try {
      return this.#stepsSync(task, options);
    } finally {
      this.#tags.sweep();
      // What a task leaves to itself, also if it fails, is sent all the same.
      if (this.#tags.hasOrphans && this.#device.failure === undefined) this.#device.kick();
    }
  }

  async #steps<V>(task: Task<V>, signal: AbortSignalLike | undefined): Promise<V> {
    const tags = this.#tags;
    let aborted = false;
    let step = task.next();
    while (step.done !== true) {
      const wait = step.value;
      try {
        // What cleans up after a cancellation is not cancelled itself.
        const patience = aborted ? undefined : signal;
        if (wait === ROOM && patience?.aborted !== true) await tags.room(patience);
        else if (wait >= HOLD) await this.#doneOrAborted(wait - HOLD, patience);
        else if (wait >= 0 && signal !== undefined) await this.#doneOrCancelled(wait, signal);
        else if (wait >= 0) await tags.done(wait);
        if (signal?.aborted === true && !aborted && this.#isCancellable(wait)) {
          aborted = true;
          // A tag that this task was woken for goes to the next one.
          tags.wake();
          throw abortError(signal);
        }
      } catch (error) {
        step = task.throw(error);
        continue;
      }
      step = task.next();
    }
    return step.value;
  }

  #stepsSync<V>(task: Task<V>, options: SpinOptions | undefined): V {
    let time = options;
    let step = task.next();
    while (step.done !== true) {
      const wait = step.value;
      try {
        if (wait === ROOM) this.#roomSync(time);
        else if (wait >= 0) this.#spin(() => this.#tags.isDone(wait % HOLD), time);
      } catch (error) {
        // A server that let the time of one answer pass does not get as much again for each of the others in flight.
        if (VirtioError.is(error, 'NOT_READY')) time = ONE_LOOK;
        step = task.throw(error);
        continue;
      }
      step = task.next();
    }
    return step.value;
  }

  /** Whether a task that waited can be cancelled now: a request that is cancelled takes its answer first. */
  #isCancellable(wait: number): boolean {
    return wait < 0 || (wait >= HOLD && !this.#tags.isDone(wait - HOLD));
  }

  /** Waits for an answer, or until the caller aborts: the request goes on then. */
  async #doneOrAborted(tag: number, signal: AbortSignalLike | undefined): Promise<void> {
    const done = this.#tags.done(tag);
    await settledOrAborted(done, signal);
    this.#tags.undone(tag, done);
  }

  /** Waits for an answer. If the caller aborts, this cancels the request, and still waits for the answer. */
  async #doneOrCancelled(tag: number, signal: AbortSignalLike): Promise<void> {
    const tags = this.#tags;
    await this.#doneOrAborted(tag, signal);
    if (tags.isDone(tag)) return;
    await this.#cancel(tag);
    await tags.done(tag);
  }

  #roomSync(time: SpinOptions | undefined): void {
    const tags = this.#tags;
    tags.sweep();
    if (!tags.hasRoom && !tags.hasOrphans) {
      throw new VirtioError(
        'QUEUE_FULL',
        `${this.#device.transport.who()}: requests with promises use all ${tags.capacity} tags; wait until one of them ends`,
      );
    }
    this.#spin(() => {
      tags.sweep();
      return tags.hasRoom;
    }, time);
  }

  #spin(done: () => boolean, time: SpinOptions | undefined): void {
    const device = this.#device;
    // It fails if the device has; then all requests are done.
    if (device.failure === undefined) device.kick();
    spin(device.transport, done, time, 'the answer of the file server', (error) => {
      device.fail(error);
    });
  }
}
