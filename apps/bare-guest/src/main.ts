/** The command line of the bare guests. */
import { USAGE } from '@virtio/setup/usage';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import { createProgress } from '@virtio/qemu-harness/src/terminal.ts';
import { parseScriptOptions, parseTestOptions } from './options.ts';
import { runPortability } from './portability.ts';
import { runBareScript } from './run-script.ts';
import { prepareBare, runBareSuites } from './run-suites.ts';

async function main([command, ...args]: readonly string[]): Promise<number> {
  switch (command) {
    case 'guest': {
      const options = parseScriptOptions(args);
      if (options !== undefined) return runBareScript(options, createProgress(true).note);
      console.log(USAGE.guest);
      return 0;
    }
    case 'prepare':
      await prepareBare(console.log);
      return 0;
    case 'test':
      return runBareSuites(parseTestOptions(args));
    case 'unit':
      return runPortability(args);
    default:
      console.error(USAGE.guest);
      return 2;
  }
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof HarnessError)) throw error;
  console.error(error.message);
  process.exitCode = error.code === 'BAD_ARGUMENTS' ? 2 : 1;
}
