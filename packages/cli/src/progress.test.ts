import { PassThrough } from 'node:stream';
import { stripVTControlCharacters } from 'node:util';
import { expect, it } from 'vitest';
import type { Host } from './host.ts';
import { showProgress } from './progress.ts';

it.each([60, 80, 200])('fits a terminal of %i columns, with all that it tells', (columns) => {
  const stderr = Object.assign(new PassThrough(), { isTTY: true, columns });
  {
    using bar = showProgress({ stderr } as unknown as Host, false, 'copying', 64 << 20);
    bar.update(1 << 20);
  }
  const shown = stripVTControlCharacters(String(stderr.read()));
  const [, ...lines] = shown.split('copying ');
  expect(lines.at(-1)).toMatch(/^=*-+ 1 % · 1 MiB of 64 MiB · .* left$/);
  expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(columns - 'copying '.length);
});

it('shows nothing in a file, or beside JSON', () => {
  const stderr = new PassThrough();
  using none = showProgress({ stderr } as unknown as Host, false, 'copying', 10);
  const terminal = Object.assign(new PassThrough(), { isTTY: true });
  using json = showProgress({ stderr: terminal } as unknown as Host, true, 'copying', 10);
  none.update(5);
  json.update(5);
  expect([stderr.read(), terminal.read()]).toEqual([null, null]);
});
