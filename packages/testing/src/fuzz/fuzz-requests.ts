/** The fuzzer's requests in all forms: which were made, which tokens there are, and how they must end. */
import { VirtioError, type VirtioErrorCode } from '@virtio/core';
import { DriverViolation } from '../device-queue.ts';
import { Canceller, check, ContractBreach, describeError, equal } from '../contract/check.ts';
import { copies, mustBeUntouched, transfer } from '../contract/scene.ts';
import type { Call, ContractDriver, Requests } from '../contract/subject.ts';
import type { Since } from './causes.ts';
import { increment } from './fuzz-counts.ts';
import type { World } from './world.ts';

/** A request that was made. */
interface Asked<D> {
  readonly requests: Requests<D>;
  readonly call: Call<D>;
  readonly mark: number;
  readonly before: readonly Uint8Array[];
  readonly since: Since;
  readonly form: string;
  canceller?: Canceller;
  token?: number;
  /** Whether its caller has transferred its buffers meanwhile: it may then fail, and its answer is lost. */
  transferred?: boolean;
}

const NO_CODES: readonly VirtioErrorCode[] = [];

/** Makes requests. */
export class FuzzRequests<D extends ContractDriver> {
  readonly #world: World<D>;
  /** Promises that have not settled. */
  readonly #waiting = new Set<Asked<D>>();
  /** Tokens that were returned and not completed, cancelled or reset. */
  readonly #tokens = new Set<Asked<D>>();
  /** Those of them that `poll` returned. */
  readonly #polled = new Set<Asked<D>>();
  /** Tokens that are no longer valid. */
  readonly #stale: { readonly requests: Requests<D>; readonly token: number }[] = [];
  /** Marks of requests that were answered: their buffers may have been written, also before they are completed. */
  readonly #answered = new Set<number>();
  /** Requests that failed or were given up: their buffers must not change. */
  readonly #over: Asked<D>[] = [];
  /** Calls of `submit` that have not returned; their requests may be answered. */
  #submitting = 0;
  /** Whether a request may have a token that its caller did not get. */
  #refused = false;

  constructor(world: World<D>) {
    this.#world = world;
    world.scene.onAnswer = (mark) => this.#answered.add(mark);
  }

  /** Requests that have not ended. */
  get pending(): number {
    return this.#waiting.size + this.#tokens.size;
  }

  #ask(form: string): Asked<D> | undefined {
    const usable = this.#world.kinds.filter((kind) => kind.call(1)[form as 'sync'] !== undefined);
    if (usable.length === 0) return undefined;
    const requests = this.#world.random.pick(usable);
    const mark = this.#world.scene.mark();
    const call = requests.call(mark);
    return { requests, call, mark, before: copies(call), since: this.#world.causes.since(), form };
  }

  promise(): void {
    const asked = this.#ask('promise');
    if (asked === undefined) return;
    this.#world.did(`promise ${asked.mark}`);
    const options: { signal?: Canceller['signal'] } = {};
    if (this.#world.random.oneIn(2)) {
      asked.canceller = this.#world.random.oneIn(3)
        ? (this.#world.cancellers.at(-1) ?? new Canceller())
        : new Canceller();
      this.#world.cancellers.push(asked.canceller);
      options.signal = asked.canceller.signal;
    }
    this.#waiting.add(asked);
    let promise: Promise<unknown> | undefined;
    try {
      promise = asked.call.promise?.(this.#world.scene.driver, options);
    } catch (error) {
      this.#world.findings.push(
        new ContractBreach(`the promise form threw ${describeError(error)}`, { cause: error }),
      );
    }
    promise?.then(
      (value) => {
        this.#waiting.delete(asked);
        this.#world.guard(() => this.#succeeded(asked, value));
      },
      (error: unknown) => {
        this.#waiting.delete(asked);
        const allowed = this.#world.endsOfWaits(asked.canceller);
        // All slots may be done and wait to be completed.
        const { queue } = asked.requests;
        if (this.#world.kinds.some((kind) => kind.queue === queue && kind.polling !== undefined)) {
          allowed.push('QUEUE_FULL');
        }
        this.#world.guard(() => this.#failed(asked, error, allowed));
      },
    );
    if (this.#world.random.oneIn(8)) asked.call.spoil?.();
  }

  sync(): void {
    const asked = this.#ask('sync');
    if (asked === undefined) return;
    this.#world.did(`sync ${asked.mark}`);
    this.#world.spin(() => {
      let value: unknown;
      try {
        value = asked.call.sync?.(this.#world.scene.driver, { timeoutMs: 0 });
      } catch (error) {
        this.#failed(asked, error, ['QUEUE_FULL', 'NOT_READY']);
        return;
      }
      this.#succeeded(asked, value);
    });
  }

  submit(): void {
    const asked = this.#ask('submit');
    if (asked === undefined) return;
    this.#world.did(`submit ${asked.mark}`);
    try {
      const token = this.#submitCall(asked.call);
      check(Number.isInteger(token) && token >= 0, `submit returned ${token}`);
      // A reset within the call may have ended the request, or have come before it.
      const { made } = asked.since;
      if (
        this.#world.causes.disposed ||
        (this.#world.causes.restarted(made) && !this.#isLive(asked, token))
      ) {
        this.#expire(asked, token);
        return;
      }
      const { queue } = asked.requests;
      const other = [...this.#tokens].some((live) => live.token === token && live.requests.queue === queue);
      check(!other, `submit returned token ${token}, which another request has`);
      asked.token = token;
      this.#tokens.add(asked);
      this.#world.trace.push(`= token ${token}`);
      increment(this.#world.counts.ends, 'submitted');
    } catch (error) {
      // The device refused the notification because of what it overwrote itself; the request is made all the same.
      this.#refused ||= error instanceof DriverViolation && this.#world.causes.tainted;
      this.#failed(asked, error, ['QUEUE_FULL']);
    }
  }

  #submitCall(call: Call<D>): number {
    this.#submitting += 1;
    try {
      return call.submit?.(this.#world.scene.driver) ?? -1;
    } finally {
      this.#submitting -= 1;
    }
  }

  /** Whether a request is in flight although its call contained a reset: it may have been submitted after the reset. */
  #isLive(asked: Asked<D>, token: number): boolean {
    let value: unknown;
    try {
      value = asked.requests.polling?.complete(this.#world.scene.driver, token);
    } catch (error) {
      if ((error as { code?: string }).code === 'NOT_READY') return true;
      this.#failed(asked, error, ['WRONG_TOKEN']);
      return false;
    }
    this.#succeeded(asked, value);
    return false;
  }

  /** The request that a token names: of the queue that was polled, or of another that is polled by the same calls. */
  #find({ queue, polling }: Requests<D>, token: number): Asked<D> | undefined {
    const named = [...this.#tokens].filter(
      ({ token: its, requests }) =>
        its === token && (requests.queue === queue || requests.polling === polling),
    );
    return named.find(({ requests }) => requests.queue === queue) ?? named[0];
  }

  poll(): void {
    const kinds = this.#world.kinds.filter(({ polling }) => polling !== undefined);
    if (kinds.length === 0) return;
    const kind = this.#world.random.pick(kinds);
    const { polling } = kind;
    if (polling === undefined) return;
    const since = this.#world.causes.since();
    this.#world.did('poll');
    let token: number;
    try {
      token = polling.poll(this.#world.scene.driver);
    } catch (error) {
      this.#world.judge(error, since, 'poll', NO_CODES);
      return;
    }
    if (token === -1) return;
    const asked = this.#find(kind, token);
    if (asked === undefined) {
      // Something may have reset the driver within poll, or completed the request.
      check(
        this.#world.causes.restarted(since.made) ||
          this.#world.depth + this.#submitting > 0 ||
          (this.#refused && this.#world.causes.tainted),
        `poll returned token ${token}, which belongs to no request`,
      );
      return;
    }
    check(!this.#polled.has(asked), `poll returned token ${token} twice`);
    this.#polled.add(asked);
    if (!this.#world.random.oneIn(4)) this.complete(asked);
  }

  complete(asked: Asked<D>): void {
    const { token = -1, requests } = asked;
    this.#world.did(`complete ${asked.mark}`);
    const since = this.#world.causes.since();
    let value: unknown;
    try {
      value = requests.polling?.complete(this.#world.scene.driver, token);
    } catch (error) {
      const ended = !this.#tokens.has(asked);
      if ((error as { code?: string }).code === 'NOT_READY') {
        check(
          !this.#polled.has(asked) || this.#world.causes.tainted,
          'complete of a request that poll returned is NOT_READY',
        );
        return;
      }
      this.#drop(asked);
      this.#failed(
        { ...asked, since: { ...asked.since, made: Math.min(asked.since.made, since.made) } },
        error,
        ended ? ['WRONG_TOKEN'] : NO_CODES,
      );
      return;
    }
    const wasLive = this.#tokens.has(asked);
    this.#drop(asked);
    if (wasLive) this.#succeeded(asked, value);
  }

  /** Uses a token correctly, too early, or too late. */
  useToken(): void {
    const random = this.#world.random;
    if (random.oneIn(3)) {
      const stale = this.#stale.length > 0 ? random.pick(this.#stale.slice(-20)) : undefined;
      if (stale === undefined) return;
      this.#world.did('use a stale token');
      // The generation of a token may wrap around, but not so soon.
      for (const use of ['complete', 'cancel'] as const) {
        const { polling } = stale.requests;
        if (polling?.[use] === undefined) continue;
        try {
          polling[use](this.#world.scene.driver, stale.token);
        } catch (error) {
          this.#world.judge(error, this.#world.causes.since(), `${use} of a stale token`, ['WRONG_TOKEN']);
          continue;
        }
        throw new ContractBreach(`${use} of token ${stale.token}, which is stale, did something`);
      }
      return;
    }
    const tokens = [...this.#tokens];
    if (tokens.length === 0) return;
    const asked = random.pick(tokens);
    const { polling } = asked.requests;
    if (polling?.cancel === undefined || random.oneIn(2)) {
      this.complete(asked);
      return;
    }
    this.#world.did(`cancel ${asked.mark}`);
    const { token = -1, since } = asked;
    try {
      polling.cancel(this.#world.scene.driver, token);
    } catch (error) {
      this.#world.judge(error, since, 'cancel', this.#tokens.has(asked) ? NO_CODES : ['WRONG_TOKEN']);
    }
    this.#drop(asked);
    if (!this.#answered.has(asked.mark)) this.#over.push(asked);
  }

  /** Transfers the buffers of a request while the device may have it. */
  transfer(): void {
    const { random, scene } = this.#world;
    const asked = [...this.#waiting, ...this.#tokens].filter(
      ({ transferred, call: { buffers = [] } }) =>
        transferred !== true && buffers.length > 0 && buffers.every((buffer) => scene.canTransfer(buffer)),
    );
    if (asked.length === 0) return;
    const one = random.pick(asked);
    this.#world.did(`transfer the buffers of ${one.mark}`);
    one.transferred = true;
    for (const buffer of one.call.buffers ?? []) transfer(buffer);
  }

  abort(): void {
    if (this.#world.cancellers.length === 0) return;
    this.#world.did('abort');
    this.#world.random.pick(this.#world.cancellers.slice(-8)).abort();
  }

  #drop(asked: Asked<D>): void {
    if (!this.#tokens.delete(asked)) return;
    this.#polled.delete(asked);
    this.#expire(asked, asked.token ?? -1);
  }

  /** Records that a token is no longer valid. */
  #expire({ requests }: Asked<D>, token: number): void {
    // The tokens of a driver that has failed become invalid only when it is reset.
    if (this.#world.scene.driver.failure === undefined) this.#stale.push({ requests, token });
  }

  #succeeded(asked: Asked<D>, value: unknown): void {
    increment(this.#world.counts.ends, 'ok');
    const { mark, call, since } = asked;
    if (asked.transferred === true) return;
    if (this.#world.bad.has(mark) || this.#world.causes.after('lie', since.reset)) return;
    call.verify(value);
  }

  #failed(asked: Asked<D>, error: unknown, allowed: readonly VirtioErrorCode[]): void {
    const codes = asked.transferred === true ? [...allowed, 'INVALID_PARAM' as const] : allowed;
    this.#world.judge(
      error,
      asked.since,
      `request ${asked.mark} (${asked.form})`,
      this.#world.bad.has(asked.mark) || this.#world.causes.after('lie', asked.since.reset)
        ? [...codes, 'DEVICE_MISBEHAVED', 'IO_ERROR', 'UNSUPPORTED']
        : codes,
    );
    if (asked.transferred === true) return;
    if (asked.requests.judgedInBuffers === true && VirtioError.is(error, 'DEVICE_MISBEHAVED')) return;
    this.#over.push(asked);
    mustBeUntouched(asked.call, asked.before, asked.mark);
  }

  checkOver(): void {
    for (const { call, before, mark, transferred } of this.#over.splice(0)) {
      if (transferred !== true) mustBeUntouched(call, before, mark);
    }
    this.#world.bad.clear();
    this.#answered.clear();
  }

  /** Completes all requests that have a token and are done. */
  completeAll(): void {
    for (const asked of [...this.#tokens]) this.complete(asked);
  }

  /** Checks that all have ended. */
  checkEnded(why: string): void {
    equal([...this.#waiting].map(({ mark }) => mark).join(), '', `promises that did not settle ${why}`);
    equal(this.#tokens.size, 0, `tokens that cannot be completed ${why}`);
  }

  /** Records that requests in flight are lost, of all queues or of one. */
  void(queue?: number): void {
    for (const asked of [...this.#tokens]) {
      if (queue !== undefined && asked.requests.queue !== queue) continue;
      this.#drop(asked);
      if (!this.#answered.has(asked.mark)) this.#over.push(asked);
    }
  }
}
