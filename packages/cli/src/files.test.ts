import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterAll, expect, it } from 'vitest';
import { closeOutput, contents, openOutput } from './files.ts';

const folder = mkdtempSync(join(tmpdir(), 'virtio-cli-'));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

it('opens a file to read when its bytes are asked for, and not before', async () => {
  const missing = contents(join(folder, 'missing'));
  // A file that was opened at once would have said so by now, to nobody who listens.
  await setTimeout(20);
  await expect(missing.next()).rejects.toMatchObject({ code: 'ENOENT' });
});

it('says at once that a file cannot be written', async () => {
  await expect(openOutput(join(folder, 'missing/file'))).rejects.toMatchObject({ code: 'ENOENT' });
});

it('has written all when it is closed', async () => {
  const file = join(folder, 'file');
  const stream = await openOutput(file);
  stream.write('some ');
  stream.write('words');
  await closeOutput(stream);
  expect(readFileSync(file, 'utf8')).toBe('some words');
});

it('tells of what went wrong in between when it is closed', async () => {
  const stream = await openOutput(join(folder, 'broken'));
  stream.destroy(new Error('the disk is full'));
  await setTimeout(1);
  await expect(closeOutput(stream)).rejects.toThrow('the disk is full');
});
