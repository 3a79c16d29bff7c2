import { describe, expect, it } from 'vitest';
import { encodeCpio } from './cpio.ts';

interface Decoded {
  path: string;
  mode: number;
  data: string;
  device: [number, number];
}

/** Reads an archive by the published layout: a header of 110 characters, name and data each padded to 4 bytes. */
function decode(archive: Buffer): Decoded[] {
  const entries: Decoded[] = [];
  const align = (offset: number): number => Math.ceil(offset / 4) * 4;
  for (let offset = 0; offset < archive.length;) {
    expect(archive.toString('latin1', offset, offset + 6)).toBe('070701');
    const field = (index: number): number =>
      Number.parseInt(archive.toString('latin1', offset + 6 + index * 8, offset + 14 + index * 8), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const path = archive.toString('utf8', offset + 110, offset + 110 + nameSize - 1);
    expect(archive[offset + 110 + nameSize - 1]).toBe(0);
    const start = align(offset + 110 + nameSize);
    entries.push({
      path,
      mode,
      data: archive.toString('utf8', start, start + size),
      device: [field(9), field(10)],
    });
    offset = align(start + size);
  }
  return entries;
}

describe('encodeCpio', () => {
  it('writes files, links, devices and folders with their modes', () => {
    const entries = decode(
      encodeCpio([
        { type: 'file', path: 'init', data: Buffer.from('hello'), mode: 0o755 },
        { type: 'symlink', path: 'bin/sh', target: 'busybox' },
        { type: 'character-device', path: 'dev/console', major: 5, minor: 1 },
        { type: 'directory', path: 'tmp', mode: 0o1777 },
      ]),
    );
    expect(entries).toEqual([
      { path: 'init', mode: 0o100755, data: 'hello', device: [0, 0] },
      { path: 'bin', mode: 0o040755, data: '', device: [0, 0] },
      { path: 'bin/sh', mode: 0o120777, data: 'busybox', device: [0, 0] },
      { path: 'dev', mode: 0o040755, data: '', device: [0, 0] },
      { path: 'dev/console', mode: 0o020600, data: '', device: [5, 1] },
      { path: 'tmp', mode: 0o041777, data: '', device: [0, 0] },
      { path: 'TRAILER!!!', mode: 0, data: '', device: [0, 0] },
    ]);
  });

  it('pads each entry, so that a second archive can follow', () => {
    for (let length = 0; length < 9; length++) {
      const archive = encodeCpio([
        { type: 'file', path: 'a'.repeat(length + 1), data: Buffer.alloc(length, 'x') },
      ]);
      expect(archive.length % 4).toBe(0);
      expect(decode(Buffer.concat([archive, archive]))).toHaveLength(4);
    }
  });

  it('writes a folder once and gives the same bytes for the same entries', () => {
    const build = (): Buffer =>
      encodeCpio([
        { type: 'file', path: 'a/b/c', data: Buffer.from('1') },
        { type: 'file', path: 'a/b/d', data: Buffer.from('2') },
      ]);
    expect(decode(build()).map(({ path }) => path)).toEqual(['a', 'a/b', 'a/b/c', 'a/b/d', 'TRAILER!!!']);
    expect(build().equals(build())).toBe(true);
  });

  it('refuses paths that leave the root', () => {
    for (const path of ['', '/etc', '../x', 'a/../b']) {
      expect(() => encodeCpio([{ type: 'directory', path }])).toThrow(/relative to the root/);
    }
  });
});
