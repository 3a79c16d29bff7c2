/** Runs the tests that files declare, and says what becomes of each as it goes, so that it is known where an engine ended or hangs. */

/** What a test may have between its title and its body. */
export interface TestOptions {
  /** Milliseconds. */
  readonly timeout?: number;
}

type Hook = () => unknown;

interface Test {
  readonly name: string;
  readonly options: TestOptions;
  readonly body: () => unknown;
  readonly scopes: readonly Scope[];
  readonly isSkipped: boolean;
}

interface Scope {
  readonly name: string;
  readonly before: Hook[];
  readonly after: Hook[];
  readonly isSkipped: boolean;
}

/** What the runner says. A test has begun until the next line of its file. */
export type Line =
  | {
      /** `long`: it says that it takes long. `left`: others of its file stand for it. */
      readonly what: 'begun' | 'passed' | 'skipped' | 'long' | 'left';
      readonly file: string;
      readonly name: string;
    }
  | { readonly what: 'failed'; readonly file: string; readonly name: string; readonly why: string }
  | { readonly what: 'ended'; readonly file: string };

/** How files are run. */
export interface RunOptions {
  readonly report: (line: Line) => void;
  /** Called before each test and after the last one. */
  readonly restore: () => void;
  /** What says that it takes this long is left out. */
  readonly longMs: number;
  /** Of a file with more tests, as many are run, at equal distances. */
  readonly most: number;
  /** How long a test may wait for what cannot come. One that computes is not stopped. */
  readonly hangMs: number;
}

const scope = (name: string, isSkipped = false): Scope => ({ name, before: [], after: [], isSkipped });

const tests: Test[] = [];
let scopes: readonly Scope[] = [scope('')];

/** Declares tests of a subject. */
export function describeOne(name: string, body: () => void, isSkipped = false): void {
  const outer = scopes;
  scopes = [...outer, scope(name, isSkipped)];
  body();
  scopes = outer;
}

/** Declares a test: options come before its body, a time-out alone may come behind it. */
export function testOne(
  name: string,
  first: TestOptions | (() => unknown),
  second?: number | (() => unknown),
  isSkipped = false,
): void {
  const body = typeof first === 'function' ? first : second;
  const options =
    typeof first === 'function' ? (typeof second === 'number' ? { timeout: second } : {}) : first;
  if (typeof body !== 'function') throw new Error(`the test '${name}' has no body`);
  tests.push({ name, options, body, scopes, isSkipped: isSkipped || scopes.some((one) => one.isSkipped) });
}

export function beforeEach(hook: Hook): void {
  scopes.at(-1)?.before.push(hook);
}

export function afterEach(hook: Hook): void {
  scopes.at(-1)?.after.push(hook);
}

/** Loads test files one after the other and runs their tests. */
export async function runFiles(
  files: Readonly<Record<string, () => Promise<unknown>>>,
  { report, restore, longMs, most, hangMs }: RunOptions,
): Promise<void> {
  for (const [file, load] of Object.entries(files)) {
    tests.length = 0;
    scopes = [scope('')];
    const attempt = async (name: string, body: () => Promise<unknown>): Promise<void> => {
      report({ what: 'begun', file, name });
      try {
        await body();
        if (name !== LOADING) report({ what: 'passed', file, name });
      } catch (error) {
        report({ what: 'failed', file, name, why: text(error) });
      }
    };
    await attempt(LOADING, load);
    const distance = Math.max(1, Math.ceil(tests.length / most));
    for (const [index, test] of [...tests].entries()) {
      const name = [...test.scopes.slice(1).map((one) => one.name), test.name].join(' > ');
      const what = test.isSkipped
        ? 'skipped'
        : (test.options.timeout ?? 0) >= longMs
          ? 'long'
          : index % distance === 0
            ? undefined
            : 'left';
      if (what !== undefined) {
        report({ what, file, name });
        continue;
      }
      restore();
      await attempt(name, () => within(hangMs, runOne(test)));
    }
    restore();
    report({ what: 'ended', file });
  }
}

/** The name of what a file does outside its tests. */
export const LOADING = '(loading the file)';

async function runOne({ body, scopes: around }: Test): Promise<void> {
  const errors: unknown[] = [];
  const attempt = async (hooks: readonly Hook[]): Promise<void> => {
    try {
      for (const hook of hooks) await hook();
    } catch (error) {
      errors.push(error);
    }
  };
  await attempt([...around.flatMap(({ before }) => before), body]);
  for (const { after } of [...around].reverse()) await attempt([...after].reverse());
  if (errors.length > 0) throw errors[0];
}

interface Timers {
  readonly setTimeout: (callback: () => void, ms: number) => unknown;
  readonly clearTimeout: (timer: unknown) => void;
}

/** Those of the engine, whatever a test puts in their place. */
const { setTimeout, clearTimeout } = globalThis as unknown as Timers;

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: unknown;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came of it in ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function text(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
