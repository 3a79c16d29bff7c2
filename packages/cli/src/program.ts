/** The command line: all commands, completion, help. */
import { Command } from 'commander';
import manifest from '../package.json' with { type: 'json' };
import { addBind } from './commands/bind.ts';
import { addBlk } from './commands/blk.ts';
import { addConsole } from './commands/console.ts';
import { addExplain } from './commands/explain.ts';
import { addGpu } from './commands/gpu.ts';
import { addInput } from './commands/input.ts';
import { addList } from './commands/list.ts';
import { addNet } from './commands/net.ts';
import { addProbe } from './commands/probe.ts';
import { addRng } from './commands/rng.ts';
import { addShares } from './commands/shares.ts';
import { addSocket } from './commands/socket.ts';
import { addSound } from './commands/sound.ts';
import { addTrace } from './commands/trace.ts';
import { addCompletion } from './completion.ts';
import { HELP, remark } from './help.ts';
import type { Host } from './host.ts';

/**
 * Makes the program for one command line.
 *
 * @param options `tellErrors`: whether errors in the arguments are printed as text
 */
export function createProgram(host: Host, { tellErrors = true } = {}): Command {
  const program = new Command('virtio')
    .description('VirtIO devices on the command line: the drivers are in this program, not in the kernel')
    .version(manifest.version)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => host.stdout.write(text),
      writeErr: (text) => {
        if (tellErrors) host.stderr.write(text);
      },
      getOutHelpWidth: () => host.stdout.columns ?? 100,
      getErrHelpWidth: () => host.stderr.columns ?? 100,
    })
    .configureHelp(HELP)
    .showSuggestionAfterError()
    .showHelpAfterError('(virtio --help lists the commands, virtio COMMAND --help the arguments of one)')
    .addHelpText('after', ({ command }) =>
      remark(
        command,
        'A device is pci:0000:00:03.0 (or 0000:00:03.0), mmio:0xfeb00e00 or vhost-user:/path/to/socket.',
      ),
    );
  addList(program, host);
  addProbe(program, host);
  addBind(program, host);
  addTrace(program, host, async (argv, traced) => {
    await createProgram(traced, { tellErrors }).parseAsync(argv, { from: 'user' });
  });
  for (const add of [addBlk, addNet, addConsole, addRng, addInput, addSocket, addShares, addGpu, addSound]) {
    add(program, host);
  }
  addExplain(program, host);
  addCompletion(program, host);
  return program;
}
