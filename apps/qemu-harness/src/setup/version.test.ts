import { describe, expect, it } from 'vitest';
import { isRecent, parseQemuVersion } from './version.ts';

describe('parseQemuVersion', () => {
  it('reads what QEMU prints and how Debian numbers it', () => {
    expect(parseQemuVersion('QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)')).toEqual([10, 0]);
    expect(parseQemuVersion('qemu-img version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u18)')).toEqual([7, 2]);
    expect(parseQemuVersion('1:7.2+dfsg-7+deb12u18+b3')).toEqual([7, 2]);
    expect(parseQemuVersion('none')).toBeUndefined();
  });
});

describe('isRecent', () => {
  it('wants 8.2, the first with a sound device', () => {
    expect(
      [
        [7, 2],
        [8, 1],
        [8, 2],
        [9, 0],
        [10, 0],
      ].map(([a = 0, b = 0]) => isRecent([a, b])),
    ).toEqual([false, false, true, true, true]);
    expect(isRecent(undefined)).toBe(false);
  });
});
