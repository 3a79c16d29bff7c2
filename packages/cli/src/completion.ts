/** `virtio complete`: completion in shells, by the library `@bomb.sh/tab` from commander's own commands. */
import tab from '@bomb.sh/tab/commander';
import type { Command } from 'commander';
import { formatAddress } from './address.ts';
import { typeName } from './catalog.ts';
import type { Host } from './host.ts';

/** Adds the command to a program that has all others. For a device, the completion proposes those of this machine. */
export function addCompletion(program: Command, host: Host): void {
  const completion = tab(program);
  for (const command of completion.commands.values()) {
    if (!command.arguments.has('device')) continue;
    command.argument('device', (propose) => {
      for (const device of host.system.listDevices()) {
        if (device.deviceType !== 0) propose(formatAddress(device), typeName(device.deviceType));
      }
    });
  }
  const command = program.commands.find((one) => one.name() === 'complete');
  if (command === undefined) throw new Error('the library has added no command');
  // The library prints to the console.
  const { log } = console;
  command
    .description('print the completion script of a shell')
    .hook('preAction', () => {
      console.log = (text: string) => void host.stdout.write(`${mended(text)}\n`);
    })
    .hook('postAction', () => {
      console.log = log;
    });
}

/**
 * The library's script, as it should be where completions have colons, as addresses of devices do. In bash, a word begins behind the last
 * colon that was typed, and the script may be loaded twice. In zsh, the description begins behind a colon that is not escaped.
 */
function mended(text: string): string {
  if (text.startsWith('#compdef')) return text.replace('//:/\\:}', '//:/\\\\:}');
  if (!text.startsWith('# bash completion')) return text;
  return text
    .replaceAll(/^readonly /gm, '')
    .replace(
      /^( *)COMPREPLY=\( \$\(compgen -W .*$/m,
      '$&\n$1__ltrim_colon_completions "$cur" # of the package bash-completion, as _get_comp_words_by_ref',
    );
}
