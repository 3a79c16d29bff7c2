/** Globals of Node.js that tests use, for a bare guest. Drivers need none of them. */
import { Buffer } from 'buffer/';
import { decodeUtf8, encodeUtf8 } from '@virtio/core';
import { machine } from '../machine.ts';

type Listener = (event: { readonly type: 'abort' }) => void;

/** The part of `AbortSignal` that drivers take. */
class Signal {
  aborted = false;
  reason: unknown;
  readonly #listeners = new Set<Listener>();

  static timeout(ms: number): Signal {
    const controller = new Controller();
    setTimeout(
      () => controller.abort(Object.assign(new Error('it took too long'), { name: 'TimeoutError' })),
      ms,
    );
    return controller.signal;
  }

  addEventListener(_type: 'abort', listener: Listener): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_type: 'abort', listener: Listener): void {
    this.#listeners.delete(listener);
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason as Error;
  }

  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    for (const listener of [...this.#listeners]) listener({ type: 'abort' });
  }
}

class Controller {
  readonly signal = new Signal();

  abort(reason: unknown = Object.assign(new Error('aborted'), { name: 'AbortError' })): void {
    this.signal.abort(reason);
  }
}

class Stack {
  #callbacks: (() => void)[] = [];

  use<T extends Disposable | null | undefined>(value: T): T {
    if (value) this.defer(() => value[Symbol.dispose]());
    return value;
  }

  adopt<T>(value: T, callback: (value: T) => void): T {
    this.defer(() => callback(value));
    return value;
  }

  defer(callback: () => void): void {
    this.#callbacks.push(callback);
  }

  move(): Stack {
    const other = new Stack();
    other.#callbacks = this.#callbacks;
    this.#callbacks = [];
    return other;
  }

  dispose(): void {
    for (let callback = this.#callbacks.pop(); callback !== undefined; callback = this.#callbacks.pop()) {
      callback();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

class AsyncStack {
  #callbacks: (() => unknown)[] = [];

  use<T extends AsyncDisposable | Disposable | null | undefined>(value: T): T {
    if (value) {
      this.defer(() =>
        Symbol.asyncDispose in value ? value[Symbol.asyncDispose]() : value[Symbol.dispose](),
      );
    }
    return value;
  }

  defer(callback: () => unknown): void {
    this.#callbacks.push(callback);
  }

  move(): AsyncStack {
    const other = new AsyncStack();
    other.#callbacks = this.#callbacks;
    this.#callbacks = [];
    return other;
  }

  async disposeAsync(): Promise<void> {
    for (let callback = this.#callbacks.pop(); callback !== undefined; callback = this.#callbacks.pop()) {
      await callback();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disposeAsync();
  }
}

class Encoder {
  encode(text: string): Uint8Array {
    return encodeUtf8(text);
  }
}

class Decoder {
  decode(bytes: Uint8Array): string {
    return decodeUtf8(bytes);
  }
}

// Of Node.js' own, a buffer is equal to any bytes that are the same.
Buffer.prototype.equals = function equals(this: Buffer, other: Uint8Array): boolean {
  return Buffer.compare(this, other) === 0;
};

Object.assign(globalThis, {
  Buffer,
  AbortController: Controller,
  AbortSignal: Signal,
  DisposableStack: Stack,
  AsyncDisposableStack: AsyncStack,
  TextEncoder: Encoder,
  TextDecoder: Decoder,
  performance: { now: () => machine.now() },
});
