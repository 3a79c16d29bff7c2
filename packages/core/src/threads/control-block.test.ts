import { expect, it, vi } from 'vitest';
import { ControlBlock } from './control-block.ts';

it('shows another thread a whole configuration, also while the next one is written', () => {
  const owner = ControlBlock.create(7);
  const thread = new ControlBlock(owner.buffer);
  const read = (): number[] => Array.from({ length: thread.configSize }, (_, at) => thread.readConfig(at, 1));
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

it('gives no number of which the owner has changed a part meanwhile', () => {
  const owner = ControlBlock.create(8);
  const thread = new ControlBlock(owner.buffer);
  owner.writeConfig(new Uint8Array(8).fill(1));
  const load = Atomics.load.bind(Atomics) as (array: Int32Array, index: number) => number;
  for (let moment = 1; moment < 12; moment += 1) {
    let left = moment;
    const loads = vi.spyOn(Atomics, 'load').mockImplementation(((array: Int32Array, index: number) => {
      left -= 1;
      if (left === 0) for (const n of [2, 3, 1]) owner.writeConfig(new Uint8Array(8).fill(n));
      return load(array, index);
    }) as typeof Atomics.load);
    const number = thread.readConfig(4, 4);
    loads.mockRestore();
    expect([0x01010101, 0x02020202, 0x03030303]).toContain(number);
  }
});
