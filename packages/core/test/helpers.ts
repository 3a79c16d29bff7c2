/** What several tests use. */
import { expect } from 'vitest';

/** An error with a code, to compare with. */
export const coded = (code: string): Error => expect.objectContaining({ code }) as Error;

/** Lets promises go on for a while. */
export async function turns(count = 20): Promise<void> {
  for (let n = 0; n < count; n += 1) await Promise.resolve();
}
