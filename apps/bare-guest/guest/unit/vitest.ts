/**
 * Stands for `vitest` where unit tests run in another engine than its own: describes, tests, hooks, and the very assertions and
 * spies of vitest.
 */
import {
  ASYMMETRIC_MATCHERS_OBJECT,
  chai,
  customMatchers,
  getState,
  JestAsymmetricMatchers,
  JestChaiExpect,
  JestExtend,
  setState,
} from '@vitest/expect';
import FakeTimers from '@sinonjs/fake-timers';
import { fn, restoreAllMocks, spyOn } from '@vitest/spy';
import { describeOne, type Line, runFiles, type RunOptions, testOne, type TestOptions } from './runner.ts';

export { afterEach, beforeEach } from './runner.ts';

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);

type Global = Record<symbol, Record<string, unknown>>;

// As vitest makes it of the same parts.
const expect = Object.assign(
  (value: unknown, message?: string): unknown => chai.expect(value, message),
  chai.expect,
  {
    unreachable: (message = 'this must not be reached'): never => chai.assert.fail(message),
    getState: (): unknown => getState(expect as never),
    setState: (state: object): void => setState(state, expect as never),
  },
);
Object.assign(expect, (globalThis as unknown as Global)[ASYMMETRIC_MATCHERS_OBJECT]);
(chai.expect as unknown as { extend(expect: unknown, matchers: object): void }).extend(
  expect,
  customMatchers,
);
setState({ assertionCalls: 0 }, expect as never);

/** Titles with their values, as vitest fills them in. */
function title(name: string, values: readonly unknown[], index: number): string {
  let next = 0;
  const [first] = values;
  return name
    .replace(/%([sdijoO#%])/g, (_, kind: string) =>
      kind === '%' ? '%' : kind === '#' ? String(index) : String(values[next++]),
    )
    .replace(/\$(\w+)/g, (whole, key: string) =>
      typeof first === 'object' && first !== null && key in first
        ? String((first as Record<string, unknown>)[key])
        : whole,
    );
}

type Body = (...values: never[]) => unknown;

/** Declares a test or a subject for each row: options come before its body, a time-out alone may come behind it. */
const each =
  (add: (name: string, body: () => unknown, options: TestOptions) => void) =>
  (rows: readonly unknown[]) =>
  (name: string, first: TestOptions | Body, second?: number | Body): void => {
    const [body, options] =
      typeof first === 'function'
        ? [first, typeof second === 'number' ? { timeout: second } : {}]
        : [second as Body, first];
    rows.forEach((row, index) => {
      const values = Array.isArray(row) ? (row as readonly unknown[]) : [row];
      add(title(name, values, index), () => body(...(values as never[])), options);
    });
  };

const skippedDescribe = (name: string, body: () => void): void => describeOne(name, body, true);
const skippedTest = (
  name: string,
  first: TestOptions | (() => unknown),
  second?: number | (() => unknown),
): void => testOne(name, first, second, true);

export const describe = Object.assign(describeOne.bind(undefined), {
  each: each((name, body) => describeOne(name, () => void body())),
  skipIf: (condition: unknown) => (condition ? skippedDescribe : describeOne),
});

export const it = Object.assign(testOne.bind(undefined), {
  each: each((name, body, options) => testOne(name, options, body)),
  skipIf: (condition: unknown) => (condition ? skippedTest : testOne),
  runIf: (condition: unknown) => (condition ? testOne : skippedTest),
});

export { it as test };

/** How often `vi.waitFor` asks, at the least 5 ms apart: a busy machine, which lets time pass but does nothing, is no failure. */
const ATTEMPTS = 400;

type Clock = ReturnType<typeof FakeTimers.install>;
let clock: Clock | undefined;

function fakeClock(): Clock {
  if (clock === undefined) throw new Error('vi.useFakeTimers() comes first');
  return clock;
}

function useRealTimers(): void {
  clock?.uninstall();
  clock = undefined;
}

export const vi = {
  fn,
  spyOn,
  restoreAllMocks,
  /** With the clock of vitest's own, which begins at the present time. */
  useFakeTimers({ toFake }: { readonly toFake: ('Date' | 'setTimeout' | 'clearTimeout')[] }): void {
    useRealTimers();
    clock = FakeTimers.install({ now: Date.now(), toFake });
  },
  useRealTimers,
  advanceTimersByTime(ms: number): void {
    fakeClock().tick(ms);
  },
  setSystemTime(time: number | Date): void {
    fakeClock().setSystemTime(time);
  },
  async waitFor(body: () => unknown): Promise<void> {
    for (let left = ATTEMPTS; ; left -= 1) {
      try {
        await body();
        return;
      } catch (error) {
        if (left === 1) throw error;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  },
};

const nothing = (): void => undefined;

/** Types are checked by the compiler. */
export const expectTypeOf = (): unknown =>
  new Proxy(nothing, { get: () => expectTypeOf(), apply: () => undefined });

export { expect };

/** What a test may ask of vitest's own setting for the packages: mocks and clocks are restored between tests. */
function restore(): void {
  restoreAllMocks();
  useRealTimers();
}

/** How long a test may wait. */
const HANG_MS = 60_000;

/** Runs test files, and prints what becomes of each test, as JSON behind a mark. */
export function runAll(
  files: Readonly<Record<string, () => Promise<unknown>>>,
  print: (line: Line) => void,
  extent: Pick<RunOptions, 'longMs' | 'most'>,
): Promise<void> {
  return runFiles(files, { ...extent, report: print, restore, hangMs: HANG_MS });
}
