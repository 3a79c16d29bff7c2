/** Stands for `node:timers/promises` in tests that run in a bare guest. */
import { loop } from '../prelude.ts';

const after = async <T>(ms: number, value?: T): Promise<T | undefined> =>
  new Promise((resolve) => {
    loop.setTimer(() => resolve(value), ms);
  });

export { after as setTimeout };

export async function setImmediate(): Promise<void> {
  await new Promise<void>((resolve) => loop.schedule(resolve));
}
