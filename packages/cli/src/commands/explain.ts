/** `virtio explain`: what the code of an error means, what causes it, and what to do. */
import type { Command } from 'commander';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { CliError, ExitStatus, usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { Printer, type PrintOptions } from '../output.ts';
import { addPrintOptions } from '../session.ts';

/** Adds the command. */
export function addExplain(program: Command, host: Host): void {
  addPrintOptions(
    program
      .command('explain')
      .description('explain the code of an error: its meaning, its causes, and what to do')
      .argument('[code]', 'the code, such as QUEUE_FULL (default: all codes)'),
  ).action(async (code: string | undefined, options: PrintOptions, command: Command) => {
    const wrap = wrapFor(host, command);
    const printer = new Printer(host, options);
    const all = explanations(await readPage());
    if (code === undefined) {
      printer.result(Object.fromEntries(all));
      for (const [name, text] of all) {
        printer.line(printer.colors.bold(name));
        printer.line(`${wrap(text)}\n`);
      }
      return;
    }
    const name = code.toUpperCase();
    const text = all.get(name);
    if (text === undefined) {
      throw usage(`there is no code "${code}"`, 'virtio explain shows all codes');
    }
    printer.result({ code: name, text });
    printer.line(printer.colors.bold(name));
    printer.line(wrap(text));
  });
}

/** Fits paragraphs to the width of a terminal; elsewhere they stay as they are. */
function wrapFor(host: Host, command: Command): (text: string) => string {
  const { isTTY, columns } = host.stdout;
  if (isTTY !== true || columns === undefined || columns <= 0) return (text) => text;
  const helper = command.createHelp();
  return (text) =>
    text
      .split(/\n{2,}/)
      .map((paragraph) => helper.boxWrap(paragraph.replaceAll('\n', ' '), columns))
      .join('\n\n');
}

/** The paragraphs of the page, by the code in their heading. */
export function explanations(page: string): ReadonlyMap<string, string> {
  const [, ...sections] = page.split(/^(?=#{2,3} )/m);
  const found = new Map<string, string>();
  for (const section of sections) {
    const [, code, text = ''] = /^### (\w+)\n+([^]*)$/.exec(section) ?? [];
    if (code !== undefined) found.set(code, text.trim());
  }
  return found;
}

/** The page, which is a file of `@virtio/core`. */
async function readPage(): Promise<string> {
  try {
    return await readFile(
      fileURLToPath(new URL('errors.md', import.meta.resolve('@virtio/core/package.json'))),
      'utf8',
    );
  } catch {
    // For example if this program was bundled into one file.
    throw new CliError(
      ExitStatus.MACHINE,
      'the page that explains the codes, errors.md of the package @virtio/core, is missing',
      'install @virtio/cli from the registry, or read the page "Errors" of the manual',
    );
  }
}
