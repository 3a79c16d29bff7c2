/**
 * A process in a guest that runs tests one after the other, as the host sees it. It is used for as long as every test leaves it as
 * it was; a test that fails, hangs, crashes or leaves something open is the last one of its process.
 */
import type { Guest, GuestProgram } from '../boot/guest.ts';
import { GUEST_DIR } from '../boot/protocol.ts';
import { messageOf } from '../errors.ts';
import type { FromTest, ToTest } from './runner-protocol.ts';

/** Loading all suites on a busy machine. */
const LOAD_MS = 60_000;
/** For what a test has closed to be gone, which its process watches for a shorter time; and for a process to end. */
const CLOSING_MS = 15_000;
/** For a killed process to be gone. One that the kernel does not let go takes the guest with it. */
const KILL_MS = 20_000;

/** The bundle of all suites in a guest. */
export const SUITES = `${GUEST_DIR}/suites.mjs`;

/** How a process ended. */
export interface ProcessEnd {
  readonly status: number;
  readonly signal: string | undefined;
}

/** What is known of a test when it is over. */
export interface Course {
  output: string;
  readonly notes: string[];
  /** What its drivers negotiated, each as JSON, so that the same is there once. */
  readonly negotiated: Set<string>;
  verdict: (FromTest & { type: 'passed' | 'failed' }) | undefined;
  /** Milliseconds until the verdict. */
  ms: number;
  timedOut: boolean;
  /** What it left open; `undefined` if the process could not tell. */
  left: readonly string[] | undefined;
  /** How its process ended, if it did. */
  end: ProcessEnd | undefined;
}

/** Calls a function of the host's half of a test. */
export type CallHost = (name: string, args: unknown) => unknown;

/** A process of tests. */
export class TestProcess {
  readonly #guest: Guest;
  readonly #program: GuestProgram;
  /** Each settles with what it is named after, or with the end of the process; each rejects if the guest dies. */
  readonly #ready = new Milestone();
  #verdict = new Milestone();
  #left = new Milestone();
  #end: ProcessEnd | undefined;
  #course: Course | undefined;
  #call: CallHost | undefined;

  /** Starts a process in the guest. */
  constructor(guest: Guest) {
    this.#guest = guest;
    this.#program = guest.run([SUITES], {
      onOutput: (_stream, bytes) => {
        if (this.#course !== undefined) this.#course.output += bytes.toString('utf8');
      },
      onMessage: (body) => this.#take(body as FromTest),
    });
    this.#program.exited.then(
      (end) => {
        this.#end = end;
        for (const milestone of [this.#ready, this.#verdict, this.#left]) milestone.reach();
      },
      (error: unknown) => {
        for (const milestone of [this.#ready, this.#verdict, this.#left]) milestone.fail(error);
      },
    );
  }

  /** Whether it can run another test. */
  get isUsable(): boolean {
    return this.#end === undefined;
  }

  /**
   * Runs a test.
   *
   * @param last whether the process shall end after it
   * @throws HarnessError if the guest dies
   */
  async run(
    start: Omit<ToTest & { type: 'start' }, 'type'>,
    limitMs: number,
    call: CallHost,
    last: boolean,
  ): Promise<Course> {
    const course = newCourse();
    this.#course = course;
    this.#call = call;
    this.#verdict = new Milestone();
    this.#left = new Milestone();
    await this.#within(LOAD_MS, this.#ready.reached);
    if (this.#end === undefined) {
      const began = performance.now();
      this.#program.send({ type: 'start', ...start } satisfies ToTest);
      course.timedOut = !(await this.#within(limitMs, this.#verdict.reached));
      course.ms = performance.now() - began;
    }
    if (this.#end === undefined) await this.#within(CLOSING_MS, this.#left.reached);
    if (this.#end === undefined && (last || course.verdict?.type !== 'passed' || course.left?.length !== 0)) {
      this.#program.send({ type: 'end' } satisfies ToTest);
      await this.#within(CLOSING_MS, this.#program.exited);
    }
    course.end = this.#end;
    return course;
  }

  #take(message: FromTest): void {
    switch (message.type) {
      case 'ready':
        this.#ready.reach();
        break;
      case 'call':
        void this.#answer(message);
        break;
      case 'note':
        this.#course?.notes.push(message.line);
        break;
      case 'negotiated':
        this.#course?.negotiated.add(JSON.stringify(message.what));
        break;
      case 'passed':
      case 'failed':
        if (this.#course !== undefined) this.#course.verdict ??= message;
        this.#verdict.reach();
        break;
      case 'left':
        if (this.#course !== undefined) this.#course.left = message.what;
        this.#left.reach();
        break;
    }
  }

  async #answer({ id, name, args }: FromTest & { type: 'call' }): Promise<void> {
    try {
      const value = (await this.#call?.(name, args)) ?? null;
      this.#program.send({ type: 'result', id, value } satisfies ToTest);
    } catch (error) {
      const message = `host.${name}: ${messageOf(error)}`;
      this.#program.send({ type: 'failure', id, message } satisfies ToTest);
    }
  }

  /** Waits for something; kills the process if that does not come in time, and returns false. */
  async #within(ms: number, promise: Promise<unknown>): Promise<boolean> {
    let late = false;
    let timer = setTimeout(() => {
      late = true;
      this.#program.kill();
      timer = setTimeout(
        () => this.#guest.giveUp('the kernel did not end a process that was killed'),
        KILL_MS,
      );
    }, ms);
    try {
      await promise;
      return !late;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Something that is waited for, and may fail without anybody waiting. */
class Milestone {
  readonly #promise = Promise.withResolvers<undefined>();

  constructor() {
    this.#promise.promise.catch(() => undefined);
  }

  get reached(): Promise<undefined> {
    return this.#promise.promise;
  }

  reach(): void {
    this.#promise.resolve(undefined);
  }

  fail(error: unknown): void {
    this.#promise.reject(error);
  }
}

/** A test of which nothing is known yet. */
export function newCourse(): Course {
  return {
    output: '',
    notes: [],
    negotiated: new Set(),
    verdict: undefined,
    ms: 0,
    timedOut: false,
    left: undefined,
    end: undefined,
  };
}

/**
 * Everything that is wrong with how a test went: nothing if it passed. A test that says nothing has failed, and so has one that
 * passed but leaves something open or its process hanging or crashing.
 */
export function judge({ verdict, timedOut, left, end }: Course, limitMs: number): string[] {
  if (timedOut) return [`It did not end within ${limitMs / 1000} s.`];
  if (verdict === undefined) return [`Its process ended before the test had: ${describeEnd(end)}.`];
  const failures: string[] = [];
  if (verdict.type === 'failed') failures.push(verdict.message);
  if (left !== undefined && left.length > 0) {
    failures.push(`It left open: ${left.join(', ')}.`);
  } else if (end?.signal === 'SIGKILL') {
    failures.push('It left something that kept its process running until it was killed.');
  } else if (end !== undefined && end.status !== 0) {
    failures.push(`After it had ended, its process failed: ${describeEnd(end)}.`);
  }
  return failures;
}

function describeEnd(end: ProcessEnd | undefined): string {
  if (end === undefined) return 'in an unknown way';
  return end.signal === undefined ? `status ${end.status}` : `killed by ${end.signal}`;
}
