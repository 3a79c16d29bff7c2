/** What is thrown where something of an operating system is used. */

/** A function that a bare guest does not have. */
export class NotHere extends Error {
  override readonly name = 'NotHere';

  constructor(module: string, what: string) {
    super(`there is no ${what} of ${module} in a bare guest`);
  }
}
