/** Assertions of the contract: plain errors, so that it runs under any test runner. */
import { type AbortSignalLike, VirtioError, type VirtioErrorCode } from '@virtio/core';

/** The error of a driver that violates the contract. */
export class ContractBreach extends Error {
  override readonly name = 'ContractBreach';
}

/** Throws unless a condition holds. */
export function check(condition: boolean, otherwise: string, cause?: unknown): asserts condition {
  if (!condition) throw new ContractBreach(otherwise, { cause });
}

/** Throws unless two values are the same. */
export function equal(actual: unknown, expected: unknown, what: string): void {
  check(Object.is(actual, expected), `${what}: ${String(actual)}, expected ${String(expected)}`);
}

/** An error as text. */
export function describeError(error: unknown): string {
  if (VirtioError.is(error)) return `${error.code} (${error.message})`;
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

/** Throws unless an error is a `VirtioError` with one of these codes. */
export function hasCode(error: unknown, what: string, ...codes: readonly VirtioErrorCode[]): void {
  check(
    VirtioError.is(error) && (codes.length === 0 || codes.includes(error.code)),
    `${what} ended with ${describeError(error)}, expected ${codes.join(' or ') || 'a VirtioError'}`,
    error,
  );
}

/** Throws unless a call throws a `VirtioError` with one of these codes. */
export function throws(call: () => unknown, what: string, ...codes: readonly VirtioErrorCode[]): void {
  let result: unknown;
  try {
    result = call();
  } catch (error) {
    hasCode(error, what, ...codes);
    return;
  }
  throw new ContractBreach(`${what} returned ${String(result)}; it should have thrown ${codes.join(' or ')}`);
}

/** An abort controller, which ECMAScript does not have. */
export class Canceller {
  readonly #listeners = new Set<() => void>();
  #aborted = false;

  readonly signal: AbortSignalLike & { readonly listeners: number };

  constructor() {
    const listeners = this.#listeners;
    const isAborted = (): boolean => this.#aborted;
    this.signal = {
      get aborted() {
        return isAborted();
      },
      get listeners() {
        return listeners.size;
      },
      reason: 'the contract cancels',
      addEventListener: (_type, listener) => {
        listeners.add(listener);
      },
      removeEventListener: (_type, listener) => {
        listeners.delete(listener);
      },
    };
  }

  abort(): void {
    if (this.#aborted) return;
    this.#aborted = true;
    for (const listener of [...this.#listeners]) listener();
  }
}
