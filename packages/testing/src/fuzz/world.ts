/** What all parts of the fuzzer share: the driver and its device, what has happened to them, and the findings. */
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

/** Options of a life. */
export interface LifeOptions {
  readonly seed: number;
  readonly ring: RingVariant;
  readonly wake: Wake;
  readonly queueSize: number;
  /** Whether the device sometimes lies. */
  readonly lying: boolean;
  /** Whether the driver is reset, and the device sometimes needs a reset. */
  readonly troubled: boolean;
  /** Whether the driver is called from within listeners and the device. */
  readonly reentrant: boolean;
  /** Whether listeners sometimes throw. */
  readonly throwing: boolean;
  readonly steps: number;
}

/** How many of the last actions a finding lists. */
const TRACE = 60;

/** The driver, its device, and what has happened so far. */
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
  /** The cancellers of promises, some of which have settled. */
  readonly cancellers: Canceller[] = [];
  /** Marks whose answers are wrong. */
  readonly bad = new Set<number>();
  /** What was done last. */
  readonly trace: string[] = [];
  /** Findings from places where they could not be thrown. */
  readonly findings: unknown[] = [];

  /** How deep calls from inside are nested. */
  depth = 0;
  /** Whether a call spins, and may be interrupted. */
  spinning = false;
  /** Whether the device neither processes its queues nor answers, because it has lied about them. */
  deaf = false;
  /** Whether the driver may still have messages from a lying device, also after a reset. */
  dirty = false;
  /** Whether nothing happens except what a check does. */
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

  /** Records an action. */
  did(what: string): void {
    increment(this.counts.actions, what.replace(/ \d+/, ''));
    this.trace.push(what);
    if (this.trace.length > TRACE) this.trace.splice(0, this.trace.length - TRACE);
  }

  /** Checks that an error has a cause; see {@link Causes.judge}. */
  judge(error: unknown, since: Since, what: string, allowed: readonly VirtioErrorCode[] = []): void {
    // What the device overwrote is not the driver's fault; a reset may have followed before the call's promise was looked at.
    const misled = this.causes.after('lie', Math.min(since.reset, since.ready));
    if (error instanceof DriverViolation && (this.causes.tainted || misled)) return;
    // A reset from within a call has undone what was made ready.
    const unready =
      this.#subject.ready !== undefined && this.causes.restarted(since.ready)
        ? (this.#subject.unready ?? (['DEVICE_RESET'] as const))
        : [];
    const wrong = misled ? (this.#subject.misled ?? []) : [];
    this.causes.judge(error, since, what, [...allowed, ...unready, ...wrong]);
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

  /** Keeps what is thrown in a place where it would be lost. */
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
