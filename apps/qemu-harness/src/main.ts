/** The harness's command line. */
import { USAGE } from '@virtio/setup/usage';
import { chooseAccelerator } from './boot/accelerator.ts';
import { HarnessError } from './errors.ts';
import { prepare } from './prepare.ts';
import { parseGuestOptions } from './script/options.ts';
import { runScript } from './script/run-script.ts';
import { parseSuiteOptions } from './suite-options.ts';
import { runSuites } from './framework/run-suites.ts';
import { createProgress } from './terminal.ts';

async function main([command, ...args]: readonly string[]): Promise<number> {
  switch (command) {
    case 'prepare': {
      const progress = createProgress();
      const image = await prepare(progress.note);
      const accelerator = await chooseAccelerator(image, progress.note);
      progress.print(
        `The guest is ready: Linux ${image.kernelRelease}, Node.js ${image.nodeVersion}, ${accelerator}`,
      );
      return 0;
    }
    case 'guest': {
      const options = parseGuestOptions(args);
      if (options === undefined) {
        console.log(USAGE.guest);
        return 0;
      }
      return runScript(options, createProgress(true));
    }
    case 'start':
    case 'test': {
      const options = parseSuiteOptions(args, command);
      if (options !== undefined) return runSuites(options);
      console.log(USAGE.start);
      return 0;
    }
    default:
      console.error(`${USAGE.start}\n\n${USAGE.guest}`);
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
