/** How fast the host's time-stamp counter runs; under software emulation the guest's runs just as fast. */
import { existsSync, readFileSync } from 'node:fs';

const CPU = '/sys/devices/system/cpu/cpu0';

/** The rate in kHz, or `undefined` if nothing on this host tells it. */
export function hostTscKhz(): number | undefined {
  try {
    const base = `${CPU}/cpufreq/base_frequency`;
    if (existsSync(base)) return Number(readFileSync(base, 'utf8'));
    // Where the clock is changed at will, /proc/cpuinfo shows its present rate instead of the counter's.
    return tscFromCpuinfo(readFileSync('/proc/cpuinfo', 'utf8'), existsSync(`${CPU}/cpufreq`));
  } catch {
    return undefined;
  }
}

/** Takes the rate in kHz from /proc/cpuinfo: the rated clock in the processor's name, or the clock if it is constant. */
export function tscFromCpuinfo(text: string, variable: boolean): number | undefined {
  const constant = /^cpu MHz\s*:\s*([\d.]+)/m.exec(text)?.[1];
  if (constant !== undefined && !variable) return Math.round(Number(constant) * 1000);
  const rated = /^model name\s*:.*@ ([\d.]+)GHz/m.exec(text)?.[1];
  return rated === undefined ? undefined : Math.round(Number(rated) * 1e6);
}
