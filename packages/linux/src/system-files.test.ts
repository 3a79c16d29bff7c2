import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SystemFiles } from './system-files.ts';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'system-files-'));
});
afterEach(() => {
  rmSync(root, { recursive: true });
});

describe('SystemFiles', () => {
  it('writes a file that is there', () => {
    writeFileSync(join(root, 'driver_override'), 'a longer name');
    new SystemFiles(root).write('/driver_override', 'vfio-pci');
    expect(readFileSync(join(root, 'driver_override'), 'utf8')).toBe('vfio-pci');
  });

  it('makes no file, and says that there is none: a device that is being unplugged loses its files before its folder', () => {
    const write = (): void => {
      new SystemFiles(root).write('/driver_override', 'vfio-pci');
    };
    expect(write).toThrow(expect.objectContaining({ code: 'ENOENT' }));
    expect(existsSync(join(root, 'driver_override'))).toBe(false);
    const inSysfs = (): void => {
      new SystemFiles().write('/sys/devices/system/cpu/not-there', '1');
    };
    expect(inSysfs).toThrow(expect.objectContaining({ code: 'ENOENT' }));
  });
});
