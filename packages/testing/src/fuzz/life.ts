/** One driver beside its device, from its making to its disposal, with random steps in between. */
import type { VirtioErrorCode } from '@virtio/core';
import type { Chain } from '../chain.ts';
import { LISTENER_ERROR } from '../contract/behaviour.ts';
import { Canceller, check, ContractBreach, describeError, equal } from '../contract/check.ts';
import { copies, mustBeUntouched, Scene, type Wake } from '../contract/scene.ts';
import type { Call, ContractDriver, Receive, Requests, Subject, Transmit } from '../contract/subject.ts';
import { DriverViolation } from '../device-queue.ts';
import { FakeTransport } from '../fake-transport.ts';
import type { RingVariant } from '../ring-variants.ts';
import { Causes, type Since } from './causes.ts';
import { type FuzzCounts, increment } from './fuzz-counts.ts';
import { Moments } from './moments.ts';
import { Random } from './random.ts';

/** What a life is like. */
export interface LifeOptions {
  readonly seed: number;
  readonly ring: RingVariant;
  readonly wake: Wake;
  readonly queueSize: number;
  /** Whether the device lies now and then. */
  readonly lying: boolean;
  /** Whether there are resets, and the device now and then needs one. */
  readonly troubled: boolean;
  /** Whether the driver is called from inside of listeners and of the device. */
  readonly reentrant: boolean;
  /** Whether listeners throw now and then. */
  readonly throwing: boolean;
  readonly steps: number;
}

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
  /** The driver was told that nobody waits. */
  givenUp?: boolean;
  settled?: boolean;
}

/** Marks that must arrive, and marks that may. */
interface Marks {
  readonly must: Set<number>;
  readonly may: Set<number>;
}

/** How deep calls from inside may be nested. */
const MAX_DEPTH = 3;
/** How many of the last actions a finding tells. */
const TRACE = 60;
/** A step that takes longer hangs, or as good as. */
const STEP_MS = 20_000;
const NO_CODES: readonly VirtioErrorCode[] = [];

/** One life of a driver. */
export class Life<D extends ContractDriver> {
  step = 0;
  /** What was done last. */
  readonly trace: string[] = [];

  readonly #options: LifeOptions;
  readonly #counts: FuzzCounts;
  readonly #random: Random;
  readonly #scene: Scene<D>;
  readonly #causes = new Causes();
  readonly #moments: Moments | undefined;
  readonly #kinds: readonly Requests<D>[];
  readonly #receives: readonly Receive<D>[];
  readonly #transmits: readonly Transmit<D>[];

  /** Promises that have not settled. */
  readonly #waiting = new Set<Asked<D>>();
  /** Tokens that were returned and not completed, cancelled or reset. */
  readonly #tokens = new Map<number, Asked<D>>();
  readonly #polled = new Set<number>();
  /** Tokens that are void. */
  readonly #stale: { readonly requests: Requests<D>; readonly token: number }[] = [];
  /** Requests that failed or were given up: their buffers must stay as they are. */
  readonly #over: Asked<D>[] = [];
  readonly #cancellers: Canceller[] = [];
  /** Marks whose answers are wrong. */
  readonly #bad = new Set<number>();
  /** By receive queue: marks that were sent and not received, and those that need not come. */
  readonly #sent = new Map<Receive<D>, Marks>();
  /** By transmit queue: marks that were accepted and that the device must get, and those that it may get. */
  readonly #offered = new Map<Transmit<D>, Marks>();
  readonly #findings: unknown[] = [];
  readonly #capacities = new Map<Requests<D>, number>();

  /** Of listeners for what is used. */
  readonly #removers: (() => void)[] = [];
  #depth = 0;
  /** Calls of `submit` that have not returned; their requests may be answered. */
  #submitting = 0;
  #spinning = false;
  /** The device neither looks at its queues nor answers: it has lied about them. */
  #deaf = false;
  /** A driver may keep messages from when the device lied, also across a reset. */
  #dirty = false;
  #failuresSinceReset = 0;
  /** The last reset failed, of which its caller was told. */
  #resetFailed = false;
  #receiving = 0;
  #sending = 0;
  #quiet = false;

  constructor(subject: Subject<D>, options: LifeOptions, counts: FuzzCounts) {
    this.#options = options;
    this.#counts = counts;
    this.#random = new Random(options.seed ^ 0x5bd1e995);
    this.#kinds = subject.requests ?? [];
    this.#receives = subject.receive ?? [];
    this.#transmits = subject.transmit ?? [];
    for (const receive of this.#receives) this.#sent.set(receive, { must: new Set(), may: new Set() });
    for (const transmit of this.#transmits) this.#offered.set(transmit, { must: new Set(), may: new Set() });
    // Interrupts inside of calls would call the driver from inside of itself, which no device can.
    this.#moments = options.wake === 'interrupts inside of calls' ? undefined : new Moments();
    const onStatus = (): void => this.#insideOfSpin();
    const { ring, wake, queueSize } = options;
    this.#scene = new Scene(subject, {
      ring,
      wake,
      queueSize,
      transport: (device, transportOptions) =>
        new (class extends FakeTransport {
          override checkAlive(): void {
            onStatus();
            super.checkAlive();
          }
        })(device, transportOptions),
    });
    this.#scene.device.recordNotifications = false;
    const { onReset } = this.#scene.device;
    this.#scene.device.onReset = () => {
      onReset?.();
      this.#deviceWasReset();
    };
  }

  async run(): Promise<void> {
    const scene = this.#scene;
    try {
      await scene.ready();
      for (const requests of this.#kinds) this.#capacities.set(requests, await scene.capacity(requests));
      scene.received.length = 0;
      this.#listen();
      scene.onRequest = () => this.#insideOfDevice();
      for (; this.step < this.#options.steps && !this.#causes.disposed; this.step += 1) {
        this.#counts.steps += 1;
        const start = Date.now();
        await this.#act();
        this.#look();
        // Of a device that is gone there is not much more to see.
        if (this.#causes.removed && this.#random.oneIn(20)) break;
        check(Date.now() - start < STEP_MS, 'a step took longer than 20 s');
      }
      await this.#end();
    } finally {
      this.#moments?.[Symbol.dispose]();
      this.#counts.accesses += scene.device.hal.counts.deviceAccesses;
    }
  }

  // What a step does.

  async #act(): Promise<void> {
    const random = this.#random;
    const { troubled, lying } = this.#options;
    if (this.#deaf && random.oneIn(15)) {
      this.#reset();
      await this.#ready();
      return;
    }
    switch (random.below(26)) {
      case 0:
      case 1:
      case 2:
        for (let n = random.below(4); n >= 0; n -= 1) this.#promise();
        return;
      case 3:
      case 4:
        this.#sync();
        return;
      case 5:
      case 6:
        for (let n = random.below(3); n >= 0; n -= 1) this.#submit();
        return;
      case 7:
      case 8:
        this.#poll();
        return;
      case 9:
        this.#useToken();
        return;
      case 10:
        this.#abort();
        return;
      case 11:
      case 12:
      case 13:
        this.#answer();
        return;
      case 14:
      case 15:
        await this.#scene.turn();
        return;
      case 16:
        for (let n = random.below(6); n >= 0; n -= 1) await Promise.resolve();
        return;
      case 17:
        this.#receive();
        return;
      case 18:
        this.#receive();
        return;
      case 19:
        this.#transmit();
        return;
      case 20:
        this.#transmit();
        return;
      case 21:
        this.#nuisance();
        return;
      case 22:
        this.#soon();
        return;
      case 23:
        if (random.oneIn(6)) await this.#check();
        return;
      case 24:
        if (lying && random.oneIn(6)) this.#lie();
        return;
      default:
        if (troubled && random.oneIn(4)) await this.#trouble();
    }
  }

  /** Something that changes the life of the driver. */
  async #trouble(): Promise<void> {
    const random = this.#random;
    if (random.oneIn(3)) {
      this.#reset();
      await this.#ready();
    } else if (random.oneIn(3)) {
      this.#resetQueue();
      await this.#ready();
    } else if (random.oneIn(3)) {
      this.#did('device needs reset');
      this.#causes.happened('needs reset');
      this.#scene.device.needsReset();
    } else if (random.oneIn(12)) {
      this.#did('device removed');
      this.#causes.happened('removed');
      this.#moments?.clear();
      this.#scene.device.remove();
    } else if (random.oneIn(12)) {
      this.#dispose();
    } else if (this.#scene.driver.failure !== undefined) {
      this.#reset();
      await this.#ready();
    }
  }

  /** Calls of the driver from inside of something: a listener, the device, a call that spins. */
  #inside(where: string): void {
    const random = this.#random;
    if (!this.#options.reentrant || this.#quiet || this.#depth >= MAX_DEPTH || !random.oneIn(6)) return;
    this.#depth += 1;
    this.#counts.inside += 1;
    this.trace.push(`(${where}:`);
    const spinning = this.#spinning;
    this.#spinning = false;
    try {
      switch (random.below(12)) {
        case 0:
        case 1:
          this.#promise();
          return;
        case 2:
          this.#submit();
          return;
        case 3:
          this.#poll();
          return;
        case 4:
          this.#useToken();
          return;
        case 5:
        case 6:
          this.#abort();
          return;
        case 7:
          this.#receive();
          return;
        case 8:
          this.#transmit();
          return;
        case 9:
          if (this.#options.troubled && random.oneIn(3)) this.#reset();
          return;
        case 10:
          if (this.#options.troubled && random.oneIn(30)) this.#dispose();
          return;
        default:
          if (this.#options.troubled && random.oneIn(4)) {
            this.#did('device needs reset');
            this.#causes.happened('needs reset');
            this.#scene.device.needsReset();
          }
      }
    } finally {
      this.#spinning = spinning;
      this.#depth -= 1;
      this.trace.push(')');
    }
  }

  /** The device got a request; returns false if it does no more. */
  #insideOfDevice(): boolean {
    const scene = this.#scene;
    if (this.#quiet) return true;
    scene.answering = this.#random.oneIn(this.#spinning ? 2 : 3);
    this.#inside('device');
    return !this.#deaf;
  }

  /** A call spins and looks whether the device still works. */
  #insideOfSpin(): void {
    if (!this.#spinning || this.#quiet) return;
    const random = this.#random;
    if (random.oneIn(2)) this.#answer();
    if (this.#options.lying && random.oneIn(20)) this.#lie();
    if (this.#options.troubled && random.oneIn(20)) {
      this.#did('device needs reset');
      this.#causes.happened('needs reset');
      this.#scene.device.needsReset();
    }
    this.#inside('spin');
  }

  #listen(): void {
    const { driver } = this.#scene;
    driver.on('failure', () => {
      this.#failuresSinceReset += 1;
      this.#inside('listener');
      if (!this.#quiet && this.#options.reentrant && this.#random.oneIn(4)) this.#reset();
      if (!this.#quiet && this.#options.throwing && this.#random.oneIn(4)) throw new Error(LISTENER_ERROR);
    });
  }

  /** Begins or ends to listen for what is used. */
  #listenForUsed(): void {
    const remove = this.#removers.pop();
    if (remove !== undefined && this.#random.oneIn(2)) {
      remove();
      return;
    }
    if (remove !== undefined) this.#removers.push(remove);
    this.#did('listen for used');
    this.#call('on used', () => {
      const added = this.#scene.driver.on('used', () => {
        if (this.#quiet) return;
        this.#guard(() => {
          if (this.#random.oneIn(2)) this.#poll();
          this.#inside('used');
        });
      });
      this.#removers.push(added);
    });
  }

  // Requests.

  #ask(form: string): Asked<D> | undefined {
    const usable = this.#kinds.filter((kind) => kind.call(1)[form as 'sync'] !== undefined);
    if (usable.length === 0) return undefined;
    const requests = this.#random.pick(usable);
    const mark = this.#mark();
    const call = requests.call(mark);
    return { requests, call, mark, before: copies(call), since: this.#causes.since(), form };
  }

  /** A mark that nothing in flight has: marks of what is over are used again. */
  #mark(): number {
    return this.#scene.mark();
  }

  #promise(): void {
    const asked = this.#ask('promise');
    if (asked === undefined) return;
    this.#did(`promise ${asked.mark}`);
    const options: { signal?: Canceller['signal'] } = {};
    if (this.#random.oneIn(2)) {
      asked.canceller = this.#random.oneIn(3)
        ? (this.#cancellers.at(-1) ?? new Canceller())
        : new Canceller();
      this.#cancellers.push(asked.canceller);
      options.signal = asked.canceller.signal;
    }
    this.#waiting.add(asked);
    let promise: Promise<unknown> | undefined;
    try {
      promise = asked.call.promise?.(this.#scene.driver, options);
    } catch (error) {
      this.#found(new ContractBreach(`the promise form threw ${describeError(error)}`, { cause: error }));
    }
    promise?.then(
      (value) => {
        this.#waiting.delete(asked);
        asked.settled = true;
        this.#guard(() => this.#succeeded(asked, value));
      },
      (error: unknown) => {
        this.#waiting.delete(asked);
        asked.settled = true;
        const allowed: VirtioErrorCode[] = [];
        if (asked.canceller?.signal.aborted === true) allowed.push('ABORTED');
        if (this.#options.wake === 'no interrupts') allowed.push('UNSUPPORTED');
        // All slots may be done and wait to be completed.
        if (asked.requests.polling !== undefined) allowed.push('QUEUE_FULL');
        this.#guard(() => this.#failed(asked, error, allowed));
      },
    );
    if (this.#random.oneIn(8)) asked.call.spoil?.();
  }

  #sync(): void {
    const asked = this.#ask('sync');
    if (asked === undefined) return;
    this.#did(`sync ${asked.mark}`);
    this.#spin(() => {
      let value: unknown;
      try {
        value = asked.call.sync?.(this.#scene.driver, { timeoutMs: 0 });
      } catch (error) {
        this.#failed(asked, error, ['QUEUE_FULL', 'NOT_READY']);
        return;
      }
      this.#succeeded(asked, value);
    });
  }

  #submit(): void {
    const asked = this.#ask('submit');
    if (asked === undefined) return;
    this.#did(`submit ${asked.mark}`);
    try {
      const token = this.#submitCall(asked.call);
      check(Number.isInteger(token) && token >= 0, `submit returned ${token}`);
      // A reset inside of the call may have ended the request, or have come before it.
      const { made } = asked.since;
      if (this.#causes.disposed || (this.#causes.restarted(made) && !this.#isLive(asked, token))) {
        this.#stale.push({ requests: asked.requests, token });
        return;
      }
      check(!this.#tokens.has(token), `submit returned token ${token}, which another request has`);
      asked.token = token;
      this.#tokens.set(token, asked);
      this.trace.push(`= token ${token}`);
      increment(this.#counts.ends, 'submitted');
    } catch (error) {
      this.#failed(asked, error, ['QUEUE_FULL']);
    }
  }

  #submitCall(call: Call<D>): number {
    this.#submitting += 1;
    try {
      return call.submit?.(this.#scene.driver) ?? -1;
    } finally {
      this.#submitting -= 1;
    }
  }

  /** Whether a request that was overtaken by a reset inside of its call is in flight all the same: it may have come behind it. */
  #isLive(asked: Asked<D>, token: number): boolean {
    let value: unknown;
    try {
      value = asked.requests.polling?.complete(this.#scene.driver, token);
    } catch (error) {
      if ((error as { code?: string }).code === 'NOT_READY') return true;
      this.#failed(asked, error, ['WRONG_TOKEN']);
      return false;
    }
    this.#succeeded(asked, value);
    return false;
  }

  #poll(): void {
    const pollings = new Set(this.#kinds.flatMap(({ polling }) => (polling ? [polling] : [])));
    if (pollings.size === 0) return;
    const polling = this.#random.pick([...pollings]);
    const since = this.#causes.since();
    this.#did('poll');
    let token: number;
    try {
      token = polling.poll(this.#scene.driver);
    } catch (error) {
      this.#judge(error, since, 'poll', NO_CODES);
      return;
    }
    if (token === -1) return;
    const asked = this.#tokens.get(token);
    if (asked === undefined) {
      // Something may have reset the driver inside of poll, or completed the request.
      check(
        this.#causes.restarted(since.made) || this.#depth + this.#submitting > 0,
        `poll returned token ${token}, which is of no request`,
      );
      return;
    }
    check(!this.#polled.has(token), `poll returned token ${token} twice`);
    this.#polled.add(token);
    if (!this.#random.oneIn(4)) this.#complete(asked);
  }

  #complete(asked: Asked<D>): void {
    const { token = -1, requests } = asked;
    this.#did(`complete ${asked.mark}`);
    const since = this.#causes.since();
    let value: unknown;
    try {
      value = requests.polling?.complete(this.#scene.driver, token);
    } catch (error) {
      const ended = this.#tokens.get(token) !== asked;
      if ((error as { code?: string }).code === 'NOT_READY') {
        check(
          !this.#polled.has(token) || this.#causes.tainted,
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
    const wasLive = this.#tokens.get(token) === asked;
    this.#drop(asked);
    if (wasLive) this.#succeeded(asked, value);
  }

  /** Uses a token in some way: right, too early, or too late. */
  #useToken(): void {
    const random = this.#random;
    if (random.oneIn(3)) {
      const stale = this.#stale.length > 0 ? random.pick(this.#stale.slice(-20)) : undefined;
      if (stale === undefined) return;
      this.#did('use a stale token');
      // A generation may come round, but not so soon.
      for (const use of ['complete', 'cancel'] as const) {
        const { polling } = stale.requests;
        if (polling?.[use] === undefined) continue;
        try {
          polling[use](this.#scene.driver, stale.token);
        } catch (error) {
          this.#judge(error, this.#causes.since(), `${use} of a stale token`, ['WRONG_TOKEN']);
          continue;
        }
        throw new ContractBreach(`${use} of token ${stale.token}, which is stale, did something`);
      }
      return;
    }
    const tokens = [...this.#tokens.values()];
    if (tokens.length === 0) return;
    const asked = random.pick(tokens);
    const { polling } = asked.requests;
    if (polling?.cancel === undefined || random.oneIn(2)) {
      this.#complete(asked);
      return;
    }
    this.#did(`cancel ${asked.mark}`);
    const { token = -1, since } = asked;
    try {
      polling.cancel(this.#scene.driver, token);
    } catch (error) {
      this.#judge(error, since, 'cancel', this.#tokens.get(token) === asked ? NO_CODES : ['WRONG_TOKEN']);
    }
    this.#drop(asked);
    this.#over.push(asked);
  }

  #drop(asked: Asked<D>): void {
    const { token = -1, requests } = asked;
    if (this.#tokens.get(token) !== asked) return;
    this.#tokens.delete(token);
    this.#polled.delete(token);
    // Of a driver that has failed, the tokens are void only when it is reset.
    if (this.#scene.driver.failure === undefined) this.#stale.push({ requests, token });
  }

  #succeeded(asked: Asked<D>, value: unknown): void {
    increment(this.#counts.ends, 'ok');
    const { mark, call, since } = asked;
    check(
      asked.canceller?.signal.aborted !== true || asked.settled === true,
      'a request that was aborted resolved',
    );
    if (this.#bad.has(mark) || this.#causes.after('lie', since.reset)) return;
    call.verify(value);
  }

  #failed(asked: Asked<D>, error: unknown, allowed: readonly VirtioErrorCode[]): void {
    this.#judge(
      error,
      asked.since,
      `request ${asked.mark} (${asked.form})`,
      this.#bad.has(asked.mark) ? [...allowed, 'DEVICE_MISBEHAVED', 'IO_ERROR', 'UNSUPPORTED'] : allowed,
    );
    this.#over.push(asked);
    mustBeUntouched(asked.call, asked.before, asked.mark);
  }

  #judge(error: unknown, since: Since, what: string, allowed: readonly VirtioErrorCode[]): void {
    if (error instanceof DriverViolation && this.#causes.tainted) return;
    this.#causes.judge(error, since, what, allowed);
    this.trace.push(`= ${(error as { code: string }).code}`);
    increment(this.#counts.ends, (error as { code: string }).code);
  }

  #abort(): void {
    if (this.#cancellers.length === 0) return;
    this.#did('abort');
    this.#random.pick(this.#cancellers.slice(-8)).abort();
  }

  // The device.

  /** The device answers some of what it has. */
  #answer(): void {
    const { held } = this.#scene;
    if (this.#deaf || held.length === 0 || this.#scene.device.removed) return;
    const random = this.#random;
    this.#did('answer');
    const some = random.oneIn(3) ? [...held] : held.slice(0, 1 + random.below(held.length));
    if (!this.#options.ring.inOrder && random.oneIn(2)) some.reverse();
    for (const one of some) {
      if (!held.includes(one)) continue;
      if (this.#options.lying && random.oneIn(10)) this.#answerBadly(one.chain, one.mark);
      this.#scene.answer([one]);
    }
  }

  /** Some bytes of the answer are anything, or the length. What the device says of lengths is cut by the driver. */
  #answerBadly(chain: Chain, mark: number): void {
    const random = this.#random;
    if (!chain.pending || (chain.readable === 0 && chain.writable === 0)) return;
    this.#did(`answer ${mark} badly`);
    this.#bad.add(mark);
    this.#causes.happened('lie');
    const length = random.pick([
      0,
      random.below(chain.writable + 1),
      chain.writable,
      chain.writable + 1 + random.below(1000),
      0xffffffff,
    ]);
    chain.writeAt(
      0,
      Uint8Array.from({ length: Math.min(length, chain.writable) }, () => random.bits() & 0xff),
    );
    chain.complete(length);
  }

  /** A lie about the ring. The device then cannot know what is where, and does nothing until it is reset. */
  #lie(): void {
    const { device } = this.#scene;
    if (this.#deaf || device.removed) return;
    const queues = [...this.#kinds, ...this.#receives, ...this.#transmits].map(({ queue }) => queue);
    const ring = device.queues[this.#random.pick(queues)]?.ring;
    if (ring === undefined) return;
    this.#did('lie');
    this.#causes.happened('lie');
    this.#deaf = true;
    device.automatic = false;
    const { size } = ring;
    const id = this.#random.pick([0xfffe, size, this.#random.below(size), this.#random.below(size), 0x10000]);
    ring.forceUsed(id, this.#random.pick([0, 1, this.#random.below(5000), 0xffffffff]));
  }

  /** The device does something in the middle of what the driver does next. */
  #soon(): void {
    const { device } = this.#scene;
    this.#moments?.at(1 + this.#random.below(this.#random.pick([4, 40])), () => {
      if (this.#quiet || this.#deaf || device.removed) return;
      this.#counts.moments += 1;
      this.#did('at a moment');
      if (this.#options.lying && this.#random.oneIn(8)) this.#lie();
      else this.#answer();
    });
  }

  // The driver.

  #nuisance(): void {
    const { interrupts, driver, device } = this.#scene;
    const random = this.#random;
    switch (random.below(6)) {
      case 0:
        if (interrupts) interrupts.masked = !interrupts.masked;
        return;
      case 4:
        this.#listenForUsed();
        return;
      case 1:
        this.#did('pollEvents');
        this.#call('pollEvents', () => driver.pollEvents());
        return;
      case 2:
        if (device.removed) return;
        this.#did('interrupt');
        interrupts?.fireQueue(random.below(device.queues.length));
        return;
      case 3:
        interrupts?.fireConfig();
        return;
      default:
        this.#causes.happened('share');
        device.hal.failShare({ after: random.below(3), count: random.below(3) });
    }
  }

  #call(what: string, body: () => void): void {
    const since = this.#causes.since();
    try {
      body();
    } catch (error) {
      this.#judge(error, since, what, NO_CODES);
    }
  }

  #reset(): void {
    this.#did('reset');
    // What is in flight ends; what failed before goes on failing until the device was reset.
    this.#causes.happened('queue reset');
    const since = this.#causes.since();
    const spinning = this.#spinning;
    this.#spinning = false;
    try {
      this.#scene.driver.reset();
    } catch (error) {
      // A reset may have been overtaken by another from inside of it.
      this.#judge(error, { ...since, reset: 0 }, 'reset', ['DEVICE_RESET']);
      this.#resetFailed = true;
    } finally {
      this.#spinning = spinning;
    }
  }

  #resetQueue(): void {
    const { driver, device } = this.#scene;
    if (driver.resetQueue === undefined || !device.has('RING_RESET') || this.#causes.tainted) return;
    const queue = this.#random.pick([...this.#kinds, ...this.#receives, ...this.#transmits]).queue;
    this.#did(`reset of queue ${queue}`);
    this.#causes.happened('queue reset');
    this.#call('resetQueue', () => {
      driver.resetQueue?.(queue);
      this.#void(queue);
    });
  }

  #deviceWasReset(): void {
    const { device } = this.#scene;
    if (this.#causes.tainted || this.#deaf) {
      device.violations.length = 0;
      this.#dirty = true;
    }
    this.#deaf = false;
    device.automatic = true;
    this.#failuresSinceReset = 0;
    this.#resetFailed = false;
    // The driver's own part of the reset follows: what counts is that nothing from before reaches anybody.
    this.#causes.happened('reset');
    this.#void();
  }

  /** What was in flight is lost, of all queues or of one. */
  #void(queue?: number): void {
    const lost = (kind: { readonly queue: number }): boolean => queue === undefined || kind.queue === queue;
    for (const asked of [...this.#tokens.values()]) {
      if (!lost(asked.requests)) continue;
      this.#drop(asked);
      this.#over.push(asked);
    }
    for (const [kind, { must, may }] of [...this.#sent, ...this.#offered]) {
      if (!lost(kind)) continue;
      for (const mark of must) may.add(mark);
      must.clear();
    }
  }

  #dispose(): void {
    this.#did('dispose');
    this.#causes.happened('disposed');
    this.#spinning = false;
    this.#call('dispose', () => this.#scene.driver[Symbol.dispose]());
  }

  async #ready(): Promise<void> {
    if (this.#causes.disposed || this.#causes.removed || this.#scene.driver.failure !== undefined) return;
    await this.#scene.ready();
  }

  // Messages.

  #receive(): void {
    if (this.#receives.length === 0) return;
    const random = this.#random;
    const receive = random.pick(this.#receives);
    const { driver, device } = this.#scene;
    const state = this.#sent.get(receive);
    if (state === undefined) return;
    const since = this.#causes.since();
    const got = (mark: number): void => {
      if (mark === -1) return;
      const known = state.must.delete(mark) || state.may.delete(mark);
      const lied = this.#dirty || this.#causes.after('lie', since.reset);
      check(known || lied, `received ${mark}, which was not sent, or was received before`);
    };
    switch (random.below(4)) {
      case 0:
        if (this.#deaf || device.removed || device.queues[receive.queue]?.ring === undefined) return;
        this.#did('device sends');
        for (let n = random.below(4); n >= 0; n -= 1) {
          this.#send(receive, state);
        }
        return;
      case 1:
        this.#did('take');
        this.#call('take', () => {
          for (let n = random.below(4); n >= 0; n -= 1) got(receive.take(driver));
        });
        return;
      case 2: {
        if (receive.promise === undefined) return;
        this.#did('wait for a message');
        const canceller = new Canceller();
        this.#cancellers.push(canceller);
        this.#receiving += 1;
        receive.promise(driver, { signal: canceller.signal }).then(
          (mark) => {
            this.#receiving -= 1;
            this.#guard(() => got(mark));
          },
          (error: unknown) => {
            this.#receiving -= 1;
            const allowed: VirtioErrorCode[] = [];
            if (canceller.signal.aborted) allowed.push('ABORTED');
            if (this.#options.wake === 'no interrupts') allowed.push('UNSUPPORTED');
            this.#guard(() => this.#judge(error, since, 'a wait for a message', allowed));
          },
        );
        return;
      }
      default:
        if (receive.sync === undefined) return;
        this.#did('receive sync');
        this.#spin(() => {
          try {
            got(receive.sync?.(driver, { timeoutMs: 0 }) ?? -1);
          } catch (error) {
            this.#judge(error, since, 'receive sync', ['NOT_READY']);
          }
        });
    }
  }

  /** The device sends a message, which the driver may take before this returns. */
  #send(receive: Receive<D>, { must, may }: Marks): boolean {
    const mark = this.#mark();
    may.add(mark);
    const sent = receive.send(this.#scene.device, mark);
    if (may.delete(mark) && sent) must.add(mark);
    return sent;
  }

  #transmit(): void {
    if (this.#transmits.length === 0) return;
    const random = this.#random;
    const transmit = random.pick(this.#transmits);
    const state = this.#offered.get(transmit);
    if (state === undefined) return;
    const { driver } = this.#scene;
    const mark = this.#mark();
    const since = this.#causes.since();
    const accepted = (): void => {
      // It may have arrived already, or have been lost to a reset.
      if (state.may.has(mark) && !this.#causes.restarted(since.made)) {
        state.may.delete(mark);
        state.must.add(mark);
      }
    };
    state.may.add(mark);
    switch (random.below(3)) {
      case 0:
        if (transmit.offer === undefined) break;
        this.#did(`offer ${mark}`);
        this.#call('offer', () => {
          if (transmit.offer?.(driver, mark) === true) accepted();
        });
        return;
      case 1: {
        if (transmit.promise === undefined) break;
        this.#did(`send ${mark}`);
        const canceller = new Canceller();
        this.#cancellers.push(canceller);
        this.#sending += 1;
        transmit.promise(driver, mark, { signal: canceller.signal }).then(
          () => {
            this.#sending -= 1;
            accepted();
          },
          (error: unknown) => {
            this.#sending -= 1;
            const allowed: VirtioErrorCode[] = [];
            if (canceller.signal.aborted) allowed.push('ABORTED');
            if (this.#options.wake === 'no interrupts') allowed.push('UNSUPPORTED');
            this.#guard(() => this.#judge(error, since, `sending ${mark}`, allowed));
          },
        );
        return;
      }
      default:
        if (transmit.sync === undefined) break;
        this.#did(`send sync ${mark}`);
        this.#spin(() => {
          try {
            transmit.sync?.(driver, mark, { timeoutMs: 0 });
            accepted();
          } catch (error) {
            this.#judge(error, since, `sending ${mark}`, ['NOT_READY', 'QUEUE_FULL']);
          }
        });
        return;
    }
    state.may.delete(mark);
  }

  /** What the device got by transmit queues must have been sent. */
  #look(): void {
    const scene = this.#scene;
    for (const mark of scene.received.splice(0)) {
      if (this.#causes.tainted) continue;
      const known = [...this.#offered.values()].some(
        ({ must, may }) => must.delete(mark) || may.delete(mark),
      );
      check(known, `the device got message ${mark}, which was not sent, or it got it twice`);
    }
    const [finding] = this.#findings;
    if (finding !== undefined) throw finding as Error;
    const { failure } = scene.driver;
    check(
      failure === undefined || this.#failuresSinceReset > 0 || this.#resetFailed || this.#causes.disposed,
      `the driver has failed, and nobody was told: ${describeError(failure)}`,
    );
    check(
      this.#failuresSinceReset <= 1,
      `${this.#failuresSinceReset} failures were reported without a reset in between`,
    );
    if (!this.#causes.tainted) {
      scene.device.assertObeyed();
      equal(scene.device.hal.counts.faults, 0, 'accesses of the device to what it was not offered');
    } else {
      scene.device.hal.counts.faults = 0;
    }
    equal(scene.device.hal.misuse.join(), '', 'what the driver did wrong with memory');
  }

  // Checks.

  /** An honest device, and nothing in flight: nothing may be lost. */
  async #check(): Promise<void> {
    const scene = this.#scene;
    if (this.#causes.disposed || this.#causes.removed) return;
    this.#did('check');
    this.#quiet = true;
    try {
      this.#moments?.clear();
      for (const remove of this.#removers.splice(0)) remove();
      scene.device.hal.failShare({ count: 0 });
      if (scene.interrupts) scene.interrupts.masked = false;
      scene.answering = true;
      await scene.settle();
      if (scene.driver.failure !== undefined || this.#causes.tainted || scene.device.status.has(0x40)) {
        this.#reset();
        await scene.settle();
        await this.#ready();
      }
      await this.#drain();
      this.#look();
      this.#counts.checks += 1;
      for (const requests of this.#kinds) {
        equal(
          await scene.capacity(requests),
          this.#capacities.get(requests),
          'requests that the device gets at once',
        );
      }
      await scene.works(3);
      await this.#checkMessages();
      await scene.idle();
      scene.received.length = 0;
    } finally {
      this.#quiet = false;
      scene.answering = this.#random.oneIn(2);
    }
  }

  /** All that is in flight comes to its end. */
  async #drain(): Promise<void> {
    const scene = this.#scene;
    // Those who wait for messages wait for ever.
    for (const canceller of this.#receiving > 0 ? this.#cancellers : []) canceller.abort();
    for (let n = 0; n < 200; n += 1) {
      scene.answer();
      scene.driver.pollEvents();
      for (const asked of [...this.#tokens.values()]) this.#complete(asked);
      await scene.turn();
      const over = this.#waiting.size + this.#tokens.size + scene.held.length + this.#sending === 0;
      if (over && n > 3) break;
    }
    equal(
      [...this.#waiting].map(({ mark }) => mark).join(),
      '',
      'promises that did not settle though the device answered',
    );
    equal(this.#tokens.size, 0, 'tokens that cannot be completed though the device answered');
    equal(this.#receiving, 0, 'waits for messages that did not end though they were aborted');
    equal(this.#sending, 0, 'messages that were not sent though the device takes all');
    this.#cancellers.length = 0;
    this.#checkOver();
  }

  async #checkMessages(): Promise<void> {
    const scene = this.#scene;
    for (const receive of this.#receives) {
      const state = this.#sent.get(receive);
      if (state === undefined) continue;
      for (let quiet = 0; this.#dirty && quiet < 3;) {
        const mark = receive.take(scene.driver);
        if (mark !== -1) {
          state.must.delete(mark);
          continue;
        }
        quiet += 1;
        await scene.turn();
      }
      for (let round = 0; round < 2; round += 1) {
        for (let n = 0; n < this.#options.queueSize; n += 1) {
          this.#send(receive, state);
        }
        for (let quiet = 0; quiet < 3;) {
          const mark = receive.take(scene.driver);
          if (mark === -1) {
            quiet += 1;
            await scene.turn();
          } else
            check(state.must.delete(mark) || state.may.delete(mark), `received ${mark}, which was not sent`);
        }
        equal([...state.must].join(), '', 'messages that were sent and did not come');
      }
      check(this.#send(receive, state), 'the driver has no buffer for a message');
      state.may.clear();
    }
    this.#dirty = false;
    this.#look();
    for (const [transmit, { must, may }] of this.#offered) {
      equal([...must].join(), '', `messages that were sent by queue ${transmit.queue} and did not arrive`);
      may.clear();
    }
  }

  #checkOver(): void {
    for (const { call, before, mark } of this.#over.splice(0)) mustBeUntouched(call, before, mark);
    this.#bad.clear();
  }

  async #end(): Promise<void> {
    const scene = this.#scene;
    if (!this.#causes.disposed && this.#random.oneIn(2)) await this.#check();
    this.#moments?.clear();
    this.#quiet = true;
    const tainted = this.#causes.tainted;
    if (!this.#causes.disposed) this.#dispose();
    await scene.settle();
    if (scene.interrupts) scene.interrupts.masked = false;
    await scene.settle();
    const [finding] = this.#findings;
    if (finding !== undefined) throw finding as Error;
    for (const { mark } of this.#waiting)
      throw new ContractBreach(`request ${mark} did not settle, not even after dispose`);
    equal(this.#receiving + this.#sending, 0, 'messages that wait after dispose');
    this.#checkOver();
    if (tainted) scene.device.violations.length = 0;
    await scene.end();
  }

  #spin(body: () => void): void {
    const before = this.#spinning;
    this.#spinning = true;
    try {
      body();
    } finally {
      this.#spinning = before;
    }
  }

  #guard(body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#found(error);
    }
  }

  #found(error: unknown): void {
    this.#findings.push(error);
  }

  #did(what: string): void {
    increment(this.#counts.actions, what.replace(/ \d+/, ''));
    this.trace.push(what);
    if (this.trace.length > TRACE) this.trace.splice(0, this.trace.length - TRACE);
  }
}
