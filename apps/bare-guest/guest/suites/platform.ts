/** Globals that ECMAScript does not have and tests use, in the parts that they use. Drivers need none of them. */
import { Buffer } from 'buffer/';
import { ReadableStream, TransformStream, WritableStream } from 'web-streams-polyfill';
import { decodeUtf8, encodeUtf8 } from '@virtio/core';

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

  static abort(reason?: unknown): Signal {
    const controller = new Controller();
    controller.abort(reason);
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

/** What both stacks keep: callbacks, of which the last is called first, and all of them, whatever one throws. */
class Callbacks {
  #list: (() => unknown)[] = [];
  #failed: { readonly error: unknown } | undefined;

  defer(callback: () => unknown): void {
    this.#list.push(callback);
  }

  protected moveTo<T extends Callbacks>(other: T): T {
    const callbacks: Callbacks = other;
    callbacks.#list = this.#list;
    this.#list = [];
    return other;
  }

  /** Takes the callbacks off, one by one. */
  protected *take(): Generator<() => unknown> {
    for (let callback = this.#list.pop(); callback !== undefined; callback = this.#list.pop()) yield callback;
    const failed = this.#failed;
    this.#failed = undefined;
    if (failed !== undefined) throw failed.error;
  }

  protected failed(error: unknown): void {
    const before = this.#failed;
    this.#failed = {
      error:
        before === undefined
          ? error
          : Object.assign(new Error('disposing failed twice'), { error, suppressed: before.error }),
    };
  }
}

class Stack extends Callbacks {
  use<T extends Disposable | null | undefined>(value: T): T {
    if (value) this.defer(() => value[Symbol.dispose]());
    return value;
  }

  adopt<T>(value: T, callback: (value: T) => void): T {
    this.defer(() => callback(value));
    return value;
  }

  move(): Stack {
    return this.moveTo(new Stack());
  }

  dispose(): void {
    for (const callback of this.take()) {
      try {
        callback();
      } catch (error) {
        this.failed(error);
      }
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

class AsyncStack extends Callbacks {
  use<T extends AsyncDisposable | Disposable | null | undefined>(value: T): T {
    if (value) {
      this.defer(() =>
        Symbol.asyncDispose in value ? value[Symbol.asyncDispose]() : value[Symbol.dispose](),
      );
    }
    return value;
  }

  move(): AsyncStack {
    return this.moveTo(new AsyncStack());
  }

  async disposeAsync(): Promise<void> {
    for (const callback of this.take()) {
      try {
        await callback();
      } catch (error) {
        this.failed(error);
      }
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

/** What chai makes its own events of; nobody listens. */
class Target {
  addEventListener(): void {
    // Nothing is ever told.
  }

  removeEventListener(): void {
    // Nothing was added.
  }

  dispatchEvent(): boolean {
    return true;
  }
}

class Event {
  readonly type: string;

  constructor(type: string) {
    this.type = type;
  }
}

/** The globals. */
export const platform = {
  Buffer,
  Event,
  EventTarget: Target,
  AbortController: Controller,
  AbortSignal: Signal,
  DisposableStack: Stack,
  AsyncDisposableStack: AsyncStack,
  TextEncoder: Encoder,
  TextDecoder: Decoder,
  ReadableStream,
  WritableStream,
  TransformStream,
};
