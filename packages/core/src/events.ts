/** Typed events without the DOM's EventTarget or Node.js's EventEmitter. */

/** Calls listeners by the name of an event. */
export class Events<Map extends object> {
  readonly #listeners = new globalThis.Map<keyof Map, Set<(value: never) => void>>();

  /**
   * Adds a listener.
   *
   * @returns a function that removes it
   */
  on<Name extends keyof Map>(name: Name, listener: (value: Map[Name]) => void): () => void {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set);
    set.add(listener);
    return () => set.delete(listener);
  }

  /** Calls all listeners of an event, in the order in which they were added. */
  emit<Name extends keyof Map>(name: Name, value: Map[Name]): void {
    for (const listener of this.#listeners.get(name) ?? []) (listener as (value: Map[Name]) => void)(value);
  }
}
