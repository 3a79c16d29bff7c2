/** Typed events without the DOM's EventTarget or Node.js's EventEmitter. */
import { asError } from '../errors.ts';

/** Calls listeners by the name of an event. */
export class Events<Map extends object> {
  readonly #listeners = new globalThis.Map<keyof Map, ((value: never) => void)[]>();

  /**
   * Adds a listener. Listeners are called in the order in which they were added.
   *
   * @returns a function that removes it
   */
  on<Name extends keyof Map>(name: Name, listener: (value: Map[Name]) => void): () => void {
    // Each registration has its own entry, so that one listener can be added twice and removed once.
    const entry = (value: Map[Name]): void => {
      listener(value);
    };
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), entry]);
    return () => {
      const listeners = this.#listeners.get(name) ?? [];
      this.#listeners.set(
        name,
        listeners.filter((other) => other !== entry),
      );
    };
  }

  /** How many listeners an event has. */
  count(name: keyof Map): number {
    return this.#listeners.get(name)?.length ?? 0;
  }

  /**
   * Calls all listeners of an event. One that throws affects neither the others nor the caller: its error becomes an unhandled
   * rejection.
   */
  emit<Name extends keyof Map>(name: Name, value: Map[Name]): void {
    const listeners = this.#listeners.get(name);
    // Nothing is allocated if there is no listener: some events occur at each request.
    if (listeners === undefined) return;
    // A change of the listeners makes a new array, so this visits those of the moment when the event occurred.
    for (const listener of listeners) {
      try {
        (listener as (value: Map[Name]) => void)(value);
      } catch (error) {
        void Promise.reject(asError(error));
      }
    }
  }
}
