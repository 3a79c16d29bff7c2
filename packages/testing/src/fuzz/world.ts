/** What all parts of the fuzzer know: the driver and its device, what happened to them so far, and what was found. */
import type { VirtioErrorCode } from '@virtio/core';
import type { Canceller } from '../contract/check.ts';
import type { Scene, Wake } from '../contract/scene.ts';
import type { ContractDriver, Receive, Requests, Subject, Transmit } from '../contract/subject.ts';
import { DriverViolation } from '../device-queue.ts';
import type { RingVariant } from '../ring-variants.ts';
import { Causes, type Since } from './causes.ts';
import { type FuzzCounts, increment } from './fuzz-counts.ts';
import type { Moments } from './moments.ts';
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

/** How many of the last actions a finding tells. */
const TRACE = 60;

/** The driver, its device, and the story so far. */
export class World<D extends ContractDriver> {
  readonly options: LifeOptions;
  readonly counts: FuzzCounts;
  readonly scene: Scene<D>;
  readonly moments: Moments | undefined;
  readonly random: Random;
  readonly causes = new Causes();
  readonly kinds: readonly Requests<D>[];
  readonly receives: readonly Receive<D>[];
  readonly transmits: readonly Transmit<D>[];
  /** Of promises, of which some have settled. */
  readonly cancellers: Canceller[] = [];
  /** Marks whose answers are wrong. */
  readonly bad = new Set<number>();
  /** What was done last. */
  readonly trace: string[] = [];
  /** What was found where it could not be thrown. */
  readonly findings: unknown[] = [];

  /** How deep calls from inside are nested. */
  depth = 0;
  /** Whether a call spins, and may be interrupted. */
  spinning = false;
  /** The device neither looks at its queues nor answers: it has lied about them. */
  deaf = false;
  /** A driver may keep messages from when the device lied, also across a reset. */
  dirty = false;
  /** Nothing happens but what a check does. */
  quiet = false;

  readonly #subject: Subject<D>;

  constructor(
    subject: Subject<D>,
    options: LifeOptions,
    counts: FuzzCounts,
    scene: Scene<D>,
    moments: Moments | undefined,
  ) {
    this.#subject = subject;
    this.options = options;
    this.counts = counts;
    this.scene = scene;
    this.moments = moments;
    this.random = new Random(options.seed ^ 0x5bd1e995);
    this.kinds = subject.requests ?? [];
    this.receives = subject.receive ?? [];
    this.transmits = subject.transmit ?? [];
  }

  /** Notes what is done. */
  did(what: string): void {
    increment(this.counts.actions, what.replace(/ \d+/, ''));
    this.trace.push(what);
    if (this.trace.length > TRACE) this.trace.splice(0, this.trace.length - TRACE);
  }

  /** Checks that an error has a cause; see {@link Causes.judge}. */
  judge(error: unknown, since: Since, what: string, allowed: readonly VirtioErrorCode[] = []): void {
    // What the device overwrote is not the driver's doing.
    if (error instanceof DriverViolation && this.causes.tainted) return;
    // A reset from inside of something has taken what was made ready.
    const unready =
      this.#subject.ready !== undefined && this.causes.restarted(since.ready)
        ? (this.#subject.unready ?? (['DEVICE_RESET'] as const))
        : [];
    this.causes.judge(error, since, what, [...allowed, ...unready]);
    const { code } = error as { code: string };
    this.trace.push(`= ${code}`);
    increment(this.counts.ends, code);
  }

  /** Calls the driver, which may fail if there is a cause. */
  call(what: string, body: () => void): void {
    const since = this.causes.since();
    try {
      body();
    } catch (error) {
      this.judge(error, since, what);
    }
  }

  /** Calls the driver in a way that spins. */
  spin(body: () => void): void {
    const before = this.spinning;
    this.spinning = true;
    try {
      body();
    } finally {
      this.spinning = before;
    }
  }

  /** Keeps what is thrown where nobody would see it. */
  guard(body: () => void): void {
    try {
      body();
    } catch (error) {
      this.findings.push(error);
    }
  }

  /** The codes with which a wait may end without another cause. */
  endsOfWaits(canceller?: Canceller): VirtioErrorCode[] {
    const allowed: VirtioErrorCode[] = [];
    if (canceller?.signal.aborted === true) allowed.push('ABORTED');
    if (this.options.wake === 'no interrupts') allowed.push('UNSUPPORTED');
    return allowed;
  }
}
