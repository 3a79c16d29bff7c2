import { encode } from 'fast-png';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readPng } from './commands/gpu.ts';

async function roundTrip(image: Parameters<typeof encode>[0]): Promise<number[]> {
  const folder = mkdtempSync(join(tmpdir(), 'virtio-png-'));
  try {
    const file = join(folder, 'image.png');
    writeFileSync(file, encode(image));
    const { data } = await readPng(file);
    return [...data];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

it('reads pictures of every kind as R, G, B, A', async () => {
  expect(
    await roundTrip({ width: 1, height: 2, data: Uint8Array.of(1, 2, 3, 4, 5, 6), channels: 3 }),
  ).toEqual([1, 2, 3, 255, 4, 5, 6, 255]);
  expect(await roundTrip({ width: 1, height: 1, data: Uint8Array.of(1, 2, 3, 4), channels: 4 })).toEqual([
    1, 2, 3, 4,
  ]);
  expect(await roundTrip({ width: 2, height: 1, data: Uint8Array.of(9, 200), channels: 1 })).toEqual([
    9, 9, 9, 255, 200, 200, 200, 255,
  ]);
  expect(
    await roundTrip({ width: 1, height: 1, data: Uint16Array.of(0xffff, 0x8080, 0), channels: 3, depth: 16 }),
  ).toEqual([255, 128, 0, 255]);
});

it('refuses what is no PNG', async () => {
  await expect(readPng(import.meta.filename)).rejects.toThrow(/is not a PNG file/);
});
