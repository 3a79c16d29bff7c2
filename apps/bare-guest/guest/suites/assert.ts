/** Stands for `node:assert/strict` in tests that run in a bare guest. */
import { format } from '../format.ts';

/** What a failed assertion throws. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

type Expected = RegExp | ((error: unknown) => unknown) | object | undefined;

export function fail(message: string): never {
  throw new AssertionError(message);
}

export function ok(value: unknown, message?: string): asserts value {
  if (!value) fail(message ?? `${format(value)} is not true`);
}

export function equal(actual: unknown, expected: unknown, message?: string): void {
  if (!Object.is(actual, expected)) {
    fail(`${message ?? 'not equal'}: ${format(actual)}, not ${format(expected)}`);
  }
}

export function notEqual(actual: unknown, other: unknown, message?: string): void {
  if (Object.is(actual, other)) fail(`${message ?? 'equal'}: ${format(actual)}`);
}

export function match(text: string, pattern: RegExp, message?: string): void {
  if (!pattern.test(text)) fail(`${message ?? 'no match'}: ${text} for ${String(pattern)}`);
}

export function doesNotMatch(text: string, pattern: RegExp, message?: string): void {
  if (pattern.test(text)) fail(`${message ?? 'a match'}: ${text} for ${String(pattern)}`);
}

export function deepEqual(actual: unknown, expected: unknown, message?: string): void {
  if (!same(actual, expected)) fail(`${message ?? 'not equal'}: ${format(actual)}, not ${format(expected)}`);
}

export function throws(body: () => unknown, expected?: Expected, message?: string): void {
  try {
    body();
  } catch (error) {
    judge(error, expected);
    return;
  }
  fail(message ?? 'nothing was thrown');
}

export async function rejects(
  promise: Promise<unknown> | (() => Promise<unknown>),
  expected?: Expected,
  message?: string,
): Promise<void> {
  try {
    await (typeof promise === 'function' ? promise() : promise);
  } catch (error) {
    judge(error, expected);
    return;
  }
  fail(message ?? 'nothing was rejected');
}

function judge(error: unknown, expected: Expected): void {
  if (expected === undefined) return;
  if (expected instanceof RegExp) {
    match(String(error), expected);
  } else if (typeof expected === 'function') {
    const check = expected as ((error: unknown) => unknown) & { readonly prototype?: unknown };
    if (check.prototype instanceof Error) {
      ok(error instanceof (check as unknown as new () => Error), `another error: ${format(error)}`);
    } else {
      equal(check(error), true, `another error: ${format(error)}`);
    }
  } else {
    for (const [key, value] of Object.entries(expected)) {
      const found = (error as Record<string, unknown>)[key];
      if (value instanceof RegExp) match(String(found), value, key);
      else ok(same(found, value), `another error: its ${key} is not ${format(value)}: ${format(error)}`);
    }
  }
}

/** Whether two values are alike, as `isDeepStrictEqual` sees it. */
export function same(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (ArrayBuffer.isView(a) && ArrayBuffer.isView(b)) {
    const [x, y] = [a as Uint8Array, b as Uint8Array];
    return x.length === y.length && x.every((value, index) => Object.is(value, y[index]));
  }
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && [...a].every(([key, value]) => b.has(key) && same(value, b.get(key)));
  }
  if (a instanceof Set && b instanceof Set) return a.size === b.size && [...a].every((value) => b.has(value));
  if (a instanceof Error && a.message !== (b as Error).message) return false;
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && same((a as never)[key], (b as never)[key]))
  );
}

export default Object.assign(ok, { ok, equal, notEqual, deepEqual, match, throws, rejects, fail });
