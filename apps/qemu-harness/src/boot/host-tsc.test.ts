import { describe, expect, it } from 'vitest';
import { tscFromCpuinfo } from './host-tsc.ts';

const CPUINFO = 'processor\t: 0\nmodel name\t: Example(R) CPU @ 2.30GHz\ncpu MHz\t\t: 2299.998\n';

describe('tscFromCpuinfo', () => {
  it('takes the clock where it is constant, the rated one where it is not', () => {
    expect(tscFromCpuinfo(CPUINFO, false)).toBe(2_299_998);
    expect(tscFromCpuinfo(CPUINFO.replace('2299.998', '800.000'), true)).toBe(2_300_000);
  });

  it('does not guess', () => {
    expect(tscFromCpuinfo('model name\t: Example CPU\ncpu MHz\t\t: 800.000\n', true)).toBeUndefined();
  });
});
