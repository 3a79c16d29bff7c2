import { expect, it, vi } from 'vitest';
import { SharedFile } from './shared-file.ts';

/** Huge pages are ordinary ones here; whether they are present. */
const pages = vi.hoisted(() => ({ present: 1 }));

vi.mock('./syscalls.ts', async (original) => {
  const calls = await original<{ memfdCreate(name: string, flags: number): number }>();
  return {
    ...calls,
    memfdCreate: (name: string) => calls.memfdCreate(name, 3),
    mincore: (_address: number, size: number) => new Uint8Array(size / 4096).fill(pages.present),
  };
});

it('refuses huge pages that are reserved but cannot be filled, as touching one would end the process', () => {
  using file = SharedFile.create('test', 4 << 20);
  expect(file.huge).toBe(true);
  // The limit of a control group, which counts pages that are filled.
  pages.present = 0;
  expect(() => file.map(0, 2 << 20)).toThrow(
    expect.objectContaining({
      code: 'DMA_ERROR',
      message: expect.stringMatching(
        /hugetlb\.2MB\.max.* or do without huge pages \(hugePages: false\)/,
      ) as string,
    }),
  );
  pages.present = 1;
  using mapping = file.map(2 << 20, 2 << 20);
  expect(mapping.size).toBe(2 << 20);
});

it('asks nothing of ordinary pages, which are filled when they are touched', () => {
  pages.present = 0;
  using file = SharedFile.create('test', 2 << 20, false);
  using mapping = file.map(0, 2 << 20);
  expect(new Uint8Array(mapping.view()).every((byte) => byte === 0)).toBe(true);
});
