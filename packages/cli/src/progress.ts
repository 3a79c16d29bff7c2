/** A progress bar on standard error during a long transfer; nothing if that is not a terminal. */
import { SingleBar } from 'cli-progress';
import type { Host } from './host.ts';
import { formatSize } from './quantities.ts';

/** A progress bar. Disposing removes it. */
export interface Progress extends Disposable {
  /** How much is done, in the units of the total. */
  update(done: number): void;
}

const NONE: Progress = { update: () => undefined, [Symbol.dispose]: () => undefined };

/**
 * Shows the progress of `what`.
 *
 * @param total the total in bytes, or in the unit of `format`
 */
export function showProgress(
  { stderr }: Host,
  json: boolean,
  what: string,
  total: number,
  format: (value: number) => string = formatSize,
): Progress {
  if (json || stderr.isTTY !== true || total <= 0) return NONE;
  // On a narrow terminal the bar is short, so that the numbers are seen.
  const room = (stderr.columns ?? 80) - what.length - 45;
  const bar = new SingleBar({
    barsize: Math.max(5, Math.min(40, room)),
    format: `${what} {bar} {percentage} % · {value} of {total} · {eta_formatted} left`,
    stream: stderr,
    hideCursor: true,
    clearOnComplete: true,
    formatValue: (value, _options, type) =>
      type === 'value' || type === 'total' ? format(value) : String(value),
  });
  bar.start(total, 0);
  return {
    update: (done) => {
      bar.update(done);
    },
    [Symbol.dispose]: () => {
      bar.stop();
    },
  };
}
