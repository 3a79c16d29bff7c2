import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FileWindow } from './file-window.ts';
import { FakeMachine } from './sysfs.fixture.ts';

let machine: FakeMachine;
let path = '';
let fd = -1;

beforeEach(() => {
  machine = new FakeMachine();
  path = join(machine.root, 'config');
  writeFileSync(
    path,
    Uint8Array.from({ length: 64 }, (_, i) => i),
  );
  fd = openSync(path, 'r+');
});
afterEach(() => {
  closeSync(fd);
  machine[Symbol.dispose]();
});

describe('FileWindow', () => {
  it('reads and writes registers of each width, little-endian, from where it starts', () => {
    const window = new FileWindow('the test', fd, 16, 32);
    expect(window.read8(1)).toBe(17);
    expect(window.read16(2)).toBe(0x1312);
    expect(window.read32(4)).toBe(0x17161514);
    window.write8(0, 0xaa);
    window.write16(2, 0xbbcc);
    window.write32(4, 0xdeadbeef);
    expect([...readFileSync(path).subarray(15, 25)]).toEqual([
      15, 0xaa, 17, 0xcc, 0xbb, 0xef, 0xbe, 0xad, 0xde, 24,
    ]);
  });

  it('refuses what is outside, or not aligned', () => {
    const window = new FileWindow('the test', fd, 0, 8);
    expect(() => window.read32(8)).toThrow(expect.objectContaining({ code: 'CONFIG_SPACE_TOO_SMALL' }));
    expect(() => window.write16(1, 0)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('says that rights are missing where the kernel cuts the file short', () => {
    const window = new FileWindow('the test', fd, 0, 4096);
    expect(() => window.read32(64)).toThrow(expect.objectContaining({ code: 'PERMISSION_DENIED' }));
  });

  it('looks like a device that is gone once it is detached', () => {
    const window = new FileWindow('the test', fd, 0, 64);
    window.detach();
    window.write32(0, 1);
    expect([window.read8(0), window.read16(0), window.read32(0)]).toEqual([0xff, 0xffff, 0xffff_ffff]);
    expect(readFileSync(path)[0]).toBe(0);
  });

  it('reports a file that cannot be read', () => {
    const window = new FileWindow('the test', 9999, 0, 64);
    expect(() => window.read8(0)).toThrow(expect.objectContaining({ code: 'SYSTEM_ERROR' }));
  });
});
