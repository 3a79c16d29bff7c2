import { expect, it } from 'vitest';
import { ControlBlock } from './control-block.ts';

it('shows another thread a whole configuration, also while the next one is written', () => {
  const owner = ControlBlock.create(7);
  const thread = new ControlBlock(owner.buffer);
  const read = (): number[] => Array.from({ length: thread.configSize }, (_, at) => thread.configByte(at));
  owner.writeConfig(new Uint8Array(7).fill(1));
  for (let n = 2; n < 6; n += 1) {
    const { configGeneration } = thread;
    const seen: unknown[] = [];
    // The thread reads when the owner has written some of the bytes.
    const next = Object.defineProperty(new Array<number>(7).fill(n), 4, {
      get() {
        seen.push(thread.configGeneration, read());
        return n;
      },
    });
    owner.writeConfig(next as unknown as Uint8Array);
    expect(seen).toEqual([configGeneration, new Array(7).fill(n - 1)]);
    expect(thread.configGeneration).not.toBe(configGeneration);
    expect(read()).toEqual(new Array(7).fill(n));
  }
});
