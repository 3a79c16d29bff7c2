/** Parses and formats numbers and sizes. */
import { InvalidArgumentError } from 'commander';

const UNITS: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** Parses a count: `12`, `0x200`. */
export function parseCount(text: string): number {
  const value = /^(?:\d+|0x[0-9a-f]+)$/i.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Give a whole number: 12, 0x200.');
  return value;
}

/** Parses a number of seconds, which may have a fraction: `2.5`. */
export function parseSeconds(text: string): number {
  const value = /^\d+(?:\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (!(value > 0 && value <= 86_400)) throw new InvalidArgumentError('Give a number of seconds: 2, 0.5.');
  return value;
}

/** Parses a size in bytes: `512`, `4K`, `1M`, `2GiB`. */
export function parseSize(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+(?:\.\d+)?|0x[0-9a-f]+)([kmgt]?)(?:i?b)?$/i.exec(text) ?? [];
  const value = Number(digits) * (UNITS[unit.toLowerCase()] ?? NaN);
  if (digits === '' || !Number.isSafeInteger(value)) {
    throw new InvalidArgumentError('Give a size in bytes: 512, 4K, 1M, 2G.');
  }
  return value;
}

/** Formats a size: `64 MiB`, `1.5 GiB`. */
export function formatSize(bytes: number): string {
  if (bytes < 1024) return `${bytes} bytes`;
  const names = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  const power = Math.min(Math.floor(Math.log2(bytes) / 10), names.length);
  const value = bytes / 1024 ** power;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${names[power - 1] ?? ''}`;
}
