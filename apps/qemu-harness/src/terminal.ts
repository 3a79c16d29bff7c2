/** Progress for people, on standard error: one line that is replaced on a terminal, plain lines elsewhere. */

/** Where progress goes. */
export interface Progress {
  /** What is going on now. */
  readonly note: (line: string) => void;
  /** A line that stays. */
  readonly print: (line: string) => void;
  /** Removes the passing line before something else is written. */
  readonly clear: () => void;
}

/**
 * Progress on standard error.
 *
 * @param quiet leave out what merely passes when there is no terminal
 */
export function createProgress(quiet = false): Progress {
  const { stderr } = process;
  let shown = false;
  const clear = (): void => {
    if (shown) stderr.write('\r\x1b[2K');
    shown = false;
  };
  return {
    clear,
    print: (line) => {
      clear();
      stderr.write(`${line}\n`);
    },
    note: (line) => {
      if (stderr.isTTY) {
        clear();
        stderr.write(`\x1b[2m${line.slice(0, stderr.columns - 1)}\x1b[22m`);
        shown = true;
      } else if (!quiet) {
        stderr.write(`${line}\n`);
      }
    },
  };
}
