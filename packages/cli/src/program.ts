/** The command line: all commands, completion, help. */
import tab from '@bomb.sh/tab/commander';
import { Command } from 'commander';
import manifest from '../package.json' with { type: 'json' };
import { addBlk } from './commands/blk.ts';
import { addList } from './commands/list.ts';
import { addProbe } from './commands/probe.ts';
import type { Host } from './host.ts';

/** Makes the program for one command line. */
export function createProgram(host: Host): Command {
  const program = new Command('virtio')
    .description('VirtIO devices on the command line: the drivers are in this program, not in the kernel')
    .version(manifest.version)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => host.stdout.write(text),
      writeErr: (text) => host.stderr.write(text),
      getOutHelpWidth: () => host.stdout.columns ?? 100,
      getErrHelpWidth: () => host.stderr.columns ?? 100,
    })
    .showSuggestionAfterError()
    .showHelpAfterError('(virtio --help tells what there is)')
    .addHelpText(
      'after',
      '\nA device is pci:0000:00:03.0 (or 0000:00:03.0), mmio:0xfeb00e00 or vhost-user:/path/to/socket.',
    );
  for (const add of [addList, addProbe, addBlk]) add(program, host);
  tab(program);
  return program;
}
