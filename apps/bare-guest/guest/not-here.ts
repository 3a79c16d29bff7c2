/** What is thrown where something of an operating system is used. */

/** A function that a bare guest does not have. */
export class NotHere extends Error {
  override readonly name = 'NotHere';

  constructor(module: string, what: string) {
    super(`there is no ${what} of ${module} in a bare guest`);
  }
}

/** A stand-in for an export that a bare guest does not have: using it throws. */
export function notHere(module: string, name: string): unknown {
  const refuse = (): never => {
    throw new NotHere(module, name);
  };
  return new Proxy(refuse, { apply: refuse, construct: refuse, get: refuse });
}
