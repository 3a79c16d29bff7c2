/** Resources that are closed together. `DisposableStack` does the same, but Node.js 22 does not have it. */

/** A stack of resources: closes them in reverse order, all of them even if one throws. */
export class Resources implements Disposable {
  readonly #all: Disposable[] = [];

  /** Adds a resource, and returns it. */
  add<T extends Disposable>(resource: T): T {
    this.#all.push(resource);
    return resource;
  }

  /** Adds a function to call when the resources are closed. */
  defer(close: () => void): void {
    this.#all.push({ [Symbol.dispose]: close });
  }

  /** @throws the first error of a resource, after all of them were closed */
  [Symbol.dispose](): void {
    let failed = false;
    let first: unknown;
    for (const resource of this.#all.splice(0).reverse()) {
      try {
        resource[Symbol.dispose]();
      } catch (error) {
        if (!failed) first = error;
        failed = true;
      }
    }
    if (failed) throw first;
  }

  /** Runs `build`; if it throws, closes everything. */
  keepUnlessThrown<T>(build: () => T): T {
    try {
      return build();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }
}
