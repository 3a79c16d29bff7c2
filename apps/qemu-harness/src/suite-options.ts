/** The command lines of `start` and `test`. */
import { parseArgs } from 'node:util';
import { HarnessError, messageOf } from './errors.ts';
import type { SuiteOptions } from './framework/run-suites.ts';

/** How to call them. */
export const SUITE_USAGE = `npm start [-- FILTER …]  set up, boot guests, run every driver in them, write the report
npm test                 the same among all other checks, in plain lines

  FILTER       only tests whose name, device or kind of guest contains it, e.g. blk or microvm; of several, each must be contained
  --full       every test in every kind of guest; otherwise all tests run in the first kind, and in others those that show most
  --json FILE  write the report's JSON to this file, too`;

/**
 * Parses the arguments after the command.
 *
 * @param plain plain lines even on a terminal
 * @throws {@link HarnessError} `BAD_ARGUMENTS`
 */
export function parseSuiteOptions(argv: readonly string[], plain: boolean): SuiteOptions {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        full: { type: 'boolean', default: false },
        json: { type: 'string' },
        plain: { type: 'boolean', default: plain },
      },
    });
    return { filters: positionals, full: values.full, json: values.json, plain: values.plain };
  } catch (error) {
    throw new HarnessError('BAD_ARGUMENTS', `${messageOf(error)}.\n\n${SUITE_USAGE}`);
  }
}
