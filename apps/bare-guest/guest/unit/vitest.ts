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
import { fn, restoreAllMocks, spyOn } from '@vitest/spy';

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

type Body = (...values: never[]) => unknown;
type Hook = () => unknown;

/** What a test may have between its title and its body. */
interface TestOptions {
  readonly timeout?: number;
}

interface Test {
  readonly name: string;
  readonly options: TestOptions;
  readonly body: () => unknown;
  readonly scopes: readonly Scope[];
}

interface Scope {
  readonly name: string;
  readonly before: Hook[];
  readonly after: Hook[];
}

const tests: Test[] = [];
let scopes: readonly Scope[] = [];

const scope = (name: string): Scope => ({ name, before: [], after: [] });

function describeOne(name: string, body: () => void): void {
  const outer = scopes;
  scopes = [...outer, scope(name)];
  body();
  scopes = outer;
}

function testOne(name: string, first: TestOptions | (() => unknown), second?: () => unknown): void {
  const body = typeof first === 'function' ? first : second;
  const options = typeof first === 'function' ? {} : first;
  if (body === undefined) throw new Error(`the test '${name}' has no body`);
  tests.push({ name, options, body, scopes });
}

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

const each =
  (add: (name: string, body: () => void) => void) =>
  (rows: readonly unknown[]) =>
  (name: string, body: Body): void => {
    rows.forEach((row, index) => {
      const values = Array.isArray(row) ? (row as readonly unknown[]) : [row];
      add(title(name, values, index), () => body(...(values as never[])));
    });
  };

const skip = (): void => undefined;

export const describe = Object.assign(describeOne, {
  each: each(describeOne),
  skipIf: (condition: unknown) => (condition ? skip : describeOne),
});

export const it = Object.assign(testOne.bind(undefined), {
  each: each(testOne),
  skipIf: (condition: unknown) => (condition ? skip : testOne),
  runIf: (condition: unknown) => (condition ? testOne : skip),
});

export { it as test };

export function beforeEach(hook: Hook): void {
  scopes.at(-1)?.before.push(hook);
}

export function afterEach(hook: Hook): void {
  scopes.at(-1)?.after.push(hook);
}

const WAIT_MS = 1000;

export const vi = {
  fn,
  spyOn,
  restoreAllMocks,
  async waitFor(body: () => unknown): Promise<void> {
    for (const end = Date.now() + WAIT_MS; ;) {
      try {
        await body();
        return;
      } catch (error) {
        if (Date.now() > end) throw error;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  },
};

/** Types are checked by the compiler. */
export const expectTypeOf = (): unknown =>
  new Proxy(skip, { get: () => expectTypeOf(), apply: () => undefined });

export { expect };

/** The result of a test file. */
export interface FileResult {
  readonly file: string;
  readonly passed: number;
  /** Titles of tests that take minutes here, as they say that they take long, and an engine that interprets runs them. */
  readonly leftOut: readonly string[];
  /** Titles of the tests that failed, with what they said. */
  readonly failed: readonly { readonly name: string; readonly why: string }[];
}

const LONG_MS = 30_000;
const { interprets = false } = globalThis as { readonly interprets?: boolean };

/** Loads test files one after the other and runs their tests. */
export async function runFiles(
  files: Readonly<Record<string, () => Promise<unknown>>>,
  report: (result: FileResult) => void,
): Promise<void> {
  for (const [file, load] of Object.entries(files)) {
    tests.length = 0;
    scopes = [scope('')];
    const failed: { name: string; why: string }[] = [];
    const leftOut: string[] = [];
    let passed = 0;
    try {
      await load();
    } catch (error) {
      failed.push({ name: '(loading the file)', why: text(error) });
    }
    for (const test of [...tests]) {
      const name = [...test.scopes.slice(1).map((one) => one.name), test.name].join(' > ');
      if (interprets && (test.options.timeout ?? 0) >= LONG_MS) {
        leftOut.push(name);
        continue;
      }
      try {
        await runOne(test);
        passed += 1;
      } catch (error) {
        failed.push({ name, why: text(error) });
      }
    }
    report({ file, passed, leftOut, failed });
  }
}

async function runOne({ body, scopes: around }: Test): Promise<void> {
  try {
    for (const { before } of around) for (const hook of before) await hook();
    await body();
  } finally {
    for (const { after } of [...around].reverse()) for (const hook of after) await hook();
  }
}

function text(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}
