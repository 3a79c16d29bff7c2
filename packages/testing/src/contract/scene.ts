/** One driver with its device, and the operations in which the behaviours of the contract are written. */
import type { AbortSignalLike, VirtioErrorCode } from '@virtio/core';
import type { Chain } from '../chain.ts';
import type { FakeDevice } from '../fake-device.ts';
import { FakeInterrupts } from '../fake-interrupts.ts';
import { FakePolling } from '../fake-polling.ts';
import { FakeTransport, type FakeTransportOptions } from '../fake-transport.ts';
import type { RingVariant } from '../ring-variants.ts';
import { check, ContractBreach, describeError, equal, hasCode } from './check.ts';
import {
  type Call,
  type ContractDriver,
  MAX_MARK,
  type Requests,
  type Subject,
  type Transmit,
} from './subject.ts';

/** How the driver learns that the device has used buffers. */
export type Wake = 'interrupts' | 'polling' | 'interrupts inside of calls' | 'no interrupts';

/** The forms of a request. */
export type Form = 'promise' | 'sync' | 'submit';

/** A promise that is watched. */
export interface Watched<T> {
  readonly what: string;
  state: 'pending' | 'resolved' | 'rejected';
  value: T | undefined;
  error: unknown;
  /** Resolves when the promise has settled, in either way. */
  readonly done: Promise<void>;
}

/** A request that the device has taken and not answered. */
export interface Held {
  readonly chain: Chain;
  /** 0 for a request that the driver makes of its own accord. */
  readonly mark: number;
  readonly answer: () => void;
}

/** Options of {@link Scene}. */
export interface Setting {
  readonly ring: RingVariant;
  readonly wake: Wake;
  readonly queueSize: number;
  /** Makes the transport (default: a {@link FakeTransport}). */
  readonly transport?: (device: FakeDevice, options: FakeTransportOptions) => FakeTransport;
}

/** Microtasks per turn: more than the longest chain of promises of a driver. */
const MICROTASKS = 16;
/** The number of turns after which everything has happened that will happen. */
const PATIENCE = 30;

/** A driver and its device. */
export class Scene<D extends ContractDriver> {
  readonly subject: Subject<D>;
  readonly setting: Setting;
  readonly device: FakeDevice;
  readonly interrupts: FakeInterrupts | undefined;
  readonly transport: FakeTransport;
  readonly driver: D;
  /** Requests that the device has taken and not answered, oldest first. */
  readonly held: Held[] = [];
  /** Marks of the messages that the device received through transmit queues, in order. */
  readonly received: number[] = [];
  /** Whether the device answers at once; otherwise {@link Scene.answer} does. */
  answering = true;
  /** Called when the device gets a request, before it is answered. If it returns false, the request is never answered. */
  onRequest: (() => unknown) | undefined;
  /** Called once when the device has taken a request that it does not answer at once. */
  afterRequest: (() => void) | undefined;
  /** Called before a request is answered. */
  onAnswer: ((mark: number) => void) | undefined;
  /** The failures that the driver reported. */
  readonly failures: unknown[] = [];

  readonly #watched: Watched<unknown>[] = [];
  #mark = 0;
  #disposed = false;

  constructor(subject: Subject<D>, setting: Setting) {
    this.subject = subject;
    this.setting = setting;
    this.device = subject.device({ ring: setting.ring.features, queueSize: setting.queueSize });
    this.interrupts = interruptsOf(setting.wake);
    const { onReset } = this.device;
    this.device.onReset = () => {
      this.held.length = 0;
      onReset?.();
    };
    for (const queue of new Set(
      [...(subject.requests ?? []), ...(subject.transmit ?? []), ...(subject.own ?? [])].map(
        (kind) => kind.queue,
      ),
    )) {
      this.device.handle(queue, (chain) => this.#take(queue, chain));
    }
    const options = { interrupts: this.interrupts ?? (false as const) };
    this.transport = setting.transport?.(this.device, options) ?? new FakeTransport(this.device, options);
    this.driver = subject.open(this.transport, this.device.hal);
    this.driver.on('failure', (error) => {
      this.failures.push(error);
    });
  }

  /** Makes the driver ready for requests: at the start, and after a reset. */
  async ready(): Promise<void> {
    await this.subject.ready?.(this.driver, this.device, () => this.turn());
  }

  /** Runs one turn: promises, interrupts and a polling event loop. */
  async turn(): Promise<void> {
    for (let n = 0; n < MICROTASKS; n += 1) await Promise.resolve();
    if (this.interrupts instanceof FakePolling) this.interrupts.turn();
    for (let n = 0; n < MICROTASKS; n += 1) await Promise.resolve();
  }

  /** Runs turns until nothing changes any more. */
  async settle(): Promise<void> {
    for (let n = 0; n < 4; n += 1) await this.turn();
  }

  /** A mark that was not used recently. */
  mark(): number {
    this.#mark = this.#mark === MAX_MARK ? 1 : this.#mark + 1;
    return this.#mark;
  }

  /** Watches a promise, so that its state can be read without waiting. */
  watch<T>(promise: Promise<T>, what: string): Watched<T> {
    const done = promise.then(
      (value) => {
        watched.state = 'resolved';
        watched.value = value;
      },
      (error: unknown) => {
        watched.state = 'rejected';
        watched.error = error;
      },
    );
    const watched: Watched<T> = { what, state: 'pending', value: undefined, error: undefined, done };
    this.#watched.push(watched);
    return watched;
  }

  /** Waits until a promise has settled, which it must within a number of turns. */
  async settled(watched: Watched<unknown>): Promise<void> {
    for (let n = 0; watched.state === 'pending' && n < PATIENCE; n += 1) await this.turn();
    check(watched.state !== 'pending', `${watched.what} did not settle`);
  }

  /** Waits for a promise that must resolve. */
  async value<T>(watched: Watched<T>): Promise<T> {
    await this.settled(watched);
    if (watched.state === 'rejected') {
      throw new ContractBreach(`${watched.what} failed: ${describeError(watched.error)}`, {
        cause: watched.error,
      });
    }
    return watched.value as T;
  }

  /** Waits for a promise that must reject. */
  async rejection(watched: Watched<unknown>, ...codes: readonly VirtioErrorCode[]): Promise<void> {
    await this.settled(watched);
    check(
      watched.state === 'rejected',
      `${watched.what} resolved; it should have rejected with ${codes.join(' or ')}`,
    );
    hasCode(watched.error, watched.what, ...codes);
  }

  /** Whether promises can settle in this environment. */
  get hasPromises(): boolean {
    return this.setting.wake !== 'no interrupts';
  }

  /** The forms that a kind of request has and that work in this environment. */
  forms(requests: Requests<D>): Form[] {
    return formsOf(requests).filter((form) => form !== 'promise' || this.hasPromises);
  }

  /** Starts a request with a promise and watches it. */
  start(requests: Requests<D>, options: { readonly signal?: AbortSignalLike } = {}): Started<D> {
    const mark = this.mark();
    const call = requests.call(mark);
    const before = copies(call);
    const watched = this.watch(
      mustReturnPromise(call.promise?.(this.driver, options)),
      `the promise form (mark ${mark})`,
    );
    return { mark, call, watched, untouched: () => mustBeUntouched(call, before, mark) };
  }

  /** Waits for the right answer to a request with a promise. */
  async finish({ call, watched }: Started<D>): Promise<void> {
    call.verify(await this.value(watched));
  }

  /** Makes one request and checks the answer; the device answers at once. */
  async ask(requests: Requests<D>, form: Form): Promise<void> {
    const { driver } = this;
    if (form === 'promise') {
      await this.finish(this.start(requests));
      return;
    }
    const mark = this.mark();
    const call = requests.call(mark);
    if (form === 'sync') {
      call.verify(call.sync?.(driver, { timeoutMs: 1000 }));
      return;
    }
    const token = this.submit(call);
    await this.completed(requests, call, token);
  }

  /** Submits a request. */
  submit(call: Call<D>): number {
    check(call.submit !== undefined, 'the subject has no non-blocking form');
    return call.submit(this.driver);
  }

  /** Polls until a request is done, completes it and checks the answer. No other request may be done before it. */
  async completed({ polling }: Requests<D>, call: Call<D>, token: number): Promise<void> {
    check(polling !== undefined, 'the subject does not describe polling');
    let polled = polling.poll(this.driver);
    for (let n = 0; polled === -1 && n < PATIENCE; n += 1) {
      await this.turn();
      polled = polling.poll(this.driver);
    }
    equal(polled, token, 'poll() returned the token');
    call.verify(polling.complete(this.driver, token));
  }

  /** Answers requests that the device has, in this order (default: all, oldest first). */
  answer(held: readonly Held[] = [...this.held]): void {
    if (this.device.removed) return;
    for (const one of held) {
      // An answer may make the driver act, and the device answer others of these meanwhile.
      const at = this.held.indexOf(one);
      if (at < 0) continue;
      this.held.splice(at, 1);
      if (!one.chain.pending) continue;
      one.answer();
      one.chain.complete();
    }
  }

  /** Counts how many requests the device gets at most if it answers none. All are answered afterwards. */
  async capacity(requests: Requests<D>): Promise<number> {
    const { answering } = this;
    this.answering = false;
    const before = this.held.length;
    const asked = 2 * this.setting.queueSize + 2;
    let count: number;
    if (this.forms(requests).includes('promise')) {
      const started = Array.from({ length: asked }, () => this.start(requests));
      await this.settle();
      count = this.held.length - before;
      // Answers make room for requests that wait for it.
      for (let n = 0; n <= asked && this.held.length > 0; n += 1) {
        this.answer();
        await this.turn();
      }
      for (const one of started) await this.finish(one);
    } else if (this.forms(requests).includes('submit')) {
      const submitted: { readonly call: Call<D>; readonly token: number }[] = [];
      for (let full = false; !full && submitted.length < asked;) {
        const call = requests.call(this.mark());
        try {
          submitted.push({ call, token: this.submit(call) });
        } catch (error) {
          hasCode(error, 'submitting to a full queue', 'QUEUE_FULL');
          full = true;
        }
      }
      count = this.held.length - before;
      this.answer();
      for (const { call, token } of submitted) await this.completed(requests, call, token);
    } else {
      count = this.timeOutAll(requests);
      this.answer();
      this.driver.pollEvents();
      await this.settle();
    }
    this.answering = answering;
    return count;
  }

  /** Makes synchronous requests that time out until the queue is full; returns how many. */
  timeOutAll(requests: Requests<D>): number {
    const most = 2 * this.setting.queueSize + 2;
    for (let count = 0; count < most; count += 1) {
      const call = requests.call(this.mark());
      try {
        call.sync?.(this.driver, { timeoutMs: 0 });
      } catch (error) {
        hasCode(error, 'the synchronous form, which the device does not answer,', 'NOT_READY', 'QUEUE_FULL');
        if ((error as { code: string }).code === 'QUEUE_FULL') return count;
        continue;
      }
      throw new ContractBreach('the synchronous form returned, but the device has not answered');
    }
    throw new ContractBreach(`the synchronous form took ${most} requests, more than there are descriptors`);
  }

  /** Checks that the driver works in all forms, for each kind of request that it has, and for more requests than it has slots. */
  async works(rounds = this.setting.queueSize + 1): Promise<void> {
    const { answering } = this;
    this.answering = true;
    for (const requests of this.subject.requests ?? []) {
      for (const form of this.forms(requests)) {
        for (let n = 0; n < rounds; n += 1) {
          try {
            await this.ask(requests, form);
          } catch (error) {
            throw new ContractBreach(`afterwards, ${form} request ${n + 1}: ${describeError(error)}`, {
              cause: error,
            });
          }
        }
      }
    }
    this.answering = answering;
  }

  /** Checks that the driver waits for nothing: no hold, no timer. */
  async idle(): Promise<void> {
    await this.settle();
    equal(this.interrupts?.holds ?? 0, 0, 'holds on the event loop while no caller waits');
    if (this.interrupts instanceof FakePolling) {
      check(!this.interrupts.busy, 'the event loop polls while no caller waits');
    }
  }

  /** Whether a caller can transfer a buffer: the engine has the method, and the buffer does not lie in DMA memory. */
  canTransfer({ buffer }: Uint8Array): boolean {
    return 'transfer' in buffer && !this.device.hal.regions.some(({ bytes }) => bytes.buffer === buffer);
  }

  /** Makes the device use a chain that does not exist. */
  lie(queue: number): void {
    const ring = this.device.queue(queue);
    ring.forceUsed(0xfffe, 0);
  }

  /** Disposes the driver and checks that all is in order: every promise settled, all memory given back, no rule broken. */
  async end(): Promise<void> {
    this.#dispose();
    await this.settle();
    for (const { state, what } of this.#watched) {
      check(state !== 'pending', `${what} did not settle, not even after dispose`);
    }
    this.device.assertClean();
    await this.idle();
    check(
      this.failures.length < 2 || new Set(this.failures).size === this.failures.length,
      'a failure was reported twice',
    );
  }

  /** Cleans up after a breach of any kind, as far as possible. */
  abandon(): void {
    try {
      this.#dispose();
    } catch {
      return;
    }
  }

  #dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.driver[Symbol.dispose]();
  }

  #take(queue: number, chain: Chain): void {
    const wanted = this.onRequest?.();
    if (!chain.pending) return;
    if (wanted === false) {
      chain.defer();
      return;
    }
    for (const transmit of this.subject.transmit ?? []) {
      if (transmit.queue !== queue) continue;
      const mark = transmit.markOf(chain);
      if (mark < 0) continue;
      this.#hold(chain, mark, () => this.received.push(mark));
      return;
    }
    for (const requests of this.subject.requests ?? []) {
      if (requests.queue !== queue) continue;
      const mark = requests.markOf(chain);
      if (mark < 0) continue;
      this.#hold(chain, mark, () => {
        this.onAnswer?.(mark);
        requests.answer(chain, mark);
      });
      return;
    }
    const own = this.subject.own?.find((kind) => kind.queue === queue && kind.matches(chain));
    if (own !== undefined) {
      this.#hold(chain, 0, () => {
        own.answer(chain, this.device);
      });
      return;
    }
    if (this.subject.other === undefined) {
      throw new ContractBreach(`queue ${queue} got a chain that is not a request of the subject`);
    }
    this.#takeOther(chain);
  }

  #takeOther(chain: Chain): void {
    if (this.setting.ring.inOrder) this.#answerOlder(chain);
    if (chain.pending) this.subject.other?.(chain, this.device);
  }

  /** With in-order use, older chains of the queue must be used first. */
  #answerOlder({ queue }: Chain): void {
    this.answer(this.held.filter((one) => one.chain.queue === queue));
  }

  #hold(chain: Chain, mark: number, answer: () => void): void {
    if (this.answering) {
      if (this.setting.ring.inOrder) this.#answerOlder(chain);
      if (chain.pending) answer();
      return;
    }
    chain.defer();
    this.held.push({ chain, mark, answer });
    const { afterRequest } = this;
    this.afterRequest = undefined;
    afterRequest?.();
  }
}

/** A request with a promise that was started. */
export interface Started<D> {
  readonly mark: number;
  readonly call: Call<D>;
  readonly watched: Watched<unknown>;
  /** Checks that the caller's buffers are unchanged. */
  readonly untouched: () => void;
}

/** Transfers a buffer (ECMAScript 2024): the original is empty afterwards. */
export function transfer({ buffer }: Uint8Array): void {
  (buffer as unknown as { transfer(): unknown }).transfer();
}

/** The forms that a kind of request has. */
export function formsOf<D>(requests: Requests<D>): Form[] {
  const call = requests.call(1);
  return (['promise', 'sync', 'submit'] as const).filter((form) => call[form] !== undefined);
}

/** The forms that a kind of message of the driver has. */
export function transmitFormsOf<D>(transmit: Transmit<D>): ('promise' | 'sync' | 'offer')[] {
  return (['promise', 'sync', 'offer'] as const).filter((form) => transmit[form] !== undefined);
}

/** Copies of the buffers that the device writes. */
export function copies<D>({ buffers = [] }: Call<D>): readonly Uint8Array[] {
  return buffers.map((buffer) => buffer.slice());
}

/** Checks that buffers are unchanged. */
export function mustBeUntouched<D>(
  { buffers = [] }: Call<D>,
  before: readonly Uint8Array[],
  mark: number,
): void {
  buffers.forEach((buffer, i) => {
    const same = before[i]?.every((byte, at) => byte === buffer[at]);
    check(same === true, `a buffer of request ${mark}, which was given up, was written`);
  });
}

function mustReturnPromise(value: Promise<unknown> | undefined): Promise<unknown> {
  check(value instanceof Promise, 'the promise form returned no promise');
  return value;
}

function interruptsOf(wake: Wake): FakeInterrupts | undefined {
  switch (wake) {
    case 'interrupts':
      return new FakeInterrupts();
    case 'interrupts inside of calls':
      return new FakeInterrupts({ synchronous: true });
    case 'polling':
      return new FakePolling();
    case 'no interrupts':
      return undefined;
  }
}
