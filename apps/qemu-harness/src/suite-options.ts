/** The command lines of `start` and `test`. */
import { parseArgs } from 'node:util';
import { USAGE } from '@virtio/setup/usage';
import { HarnessError, messageOf } from './errors.ts';
import { type Architecture, ARCHITECTURES } from './architecture.ts';
import type { SuiteOptions } from './framework/run-suites.ts';

function architecture(name: string): Architecture {
  const known = ARCHITECTURES.find((one) => one === name);
  if (known === undefined) throw new Error(`--arch ${name}: must be one of ${ARCHITECTURES.join(', ')}`);
  return known;
}

/**
 * Parses the arguments after the command.
 *
 * @param command `test` is `start` among other checks: plain lines even on a terminal, and more tests
 * @returns `undefined` if only help was asked for
 * @throws {@link HarnessError} `BAD_ARGUMENTS`
 */
export function parseSuiteOptions(
  argv: readonly string[],
  command: 'start' | 'test',
): SuiteOptions | undefined {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        full: { type: 'boolean', default: false },
        arch: { type: 'string', multiple: true },
        json: { type: 'string' },
        plain: { type: 'boolean', default: command === 'test' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (values.help) return undefined;
    const extent = values.full ? 'full' : command === 'test' ? 'checks' : 'short';
    const arch = values.arch?.map(architecture);
    return { filters: positionals, extent, arch, json: values.json, plain: values.plain };
  } catch (error) {
    // What Node.js says in further sentences is advice for other programs.
    const [what = ''] = messageOf(error).split(/\.(?: |$)/);
    throw new HarnessError('BAD_ARGUMENTS', `${what}.\n\n${USAGE.start}`);
  }
}
