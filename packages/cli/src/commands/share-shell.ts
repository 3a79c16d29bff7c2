/** A small shell on a share. */
import { posix } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { reportOf } from '../errors.ts';
import type { Host } from '../host.ts';
import { orAborted } from '../interrupt.ts';
import type { Printer } from '../output.ts';
import { get, list, put } from './share-files.ts';
import type { Share } from './share.ts';

const HELP = `ls [path]          list a directory
cd [path]          change to a directory
pwd                show the current directory
cat path           show a file
get path [file]    copy a file from the share
put file [path]    copy a file to the share
mkdir path         make a directory
rm [-r] path       remove a file, or a directory with its contents
mv from to         rename a file
ln -s target path  make a symbolic link
exit               end the shell (or Ctrl-D)`;

/** The current directory of the shell. */
interface Place {
  at: string;
}

/**
 * Reads commands from standard input until its end. On a terminal, a failed command is reported, and Ctrl-C ends the command that runs, or
 * clears the line; in a script, a failed command ends the shell.
 *
 * @param name what the prompt begins with
 */
export async function shell(fs: Share, host: Host, printer: Printer, name: string): Promise<void> {
  const terminal = host.stdin.isTTY === true;
  const place: Place = { at: '/' };
  const lines = createInterface({
    input: host.stdin,
    ...(terminal && { output: host.stdout }),
    terminal,
    signal: host.signal,
  });
  let running: AbortController | undefined;
  lines.on('SIGINT', () => {
    if (running !== undefined) {
      running.abort();
      return;
    }
    lines.write(null, { ctrl: true, name: 'e' });
    lines.write(null, { ctrl: true, name: 'u' });
  });
  lines.setPrompt(`${name}:/> `);
  if (terminal) lines.prompt();
  try {
    // Commands that arrive while one runs wait in the iterator.
    for await (const line of lines) {
      const words = splitWords(line);
      if (words[0] === 'exit') break;
      running = new AbortController();
      const { signal } = running;
      try {
        const both = { ...host, signal: AbortSignal.any([host.signal, signal]) };
        // Not waited for after Ctrl-C: a server that does not answer would leave no way out.
        await orAborted(carryOut(fs, both, printer, place, words), signal);
      } catch (error) {
        if (!terminal || host.signal.aborted) throw error;
        printer.line(`${words[0] ?? ''}: ${signal.aborted ? 'interrupted' : reportOf(error).message}`);
      } finally {
        running = undefined;
      }
      lines.setPrompt(`${name}:${place.at}> `);
      if (terminal) lines.prompt();
    }
  } finally {
    // This restores the mode of the terminal.
    lines.close();
  }
  host.signal.throwIfAborted();
}

/** Splits a line into words; spaces in quotes are kept. */
export function splitWords(line: string): string[] {
  return Array.from(
    line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g),
    ([, double, single, bare]) => double ?? single ?? bare ?? '',
  );
}

async function carryOut(
  fs: Share,
  host: Host,
  printer: Printer,
  place: Place,
  [command = '', ...args]: readonly string[],
): Promise<void> {
  const { signal } = host;
  const full = (path: string): string => posix.resolve(place.at, path);
  const need = (count: number): readonly string[] => {
    if (args.length < count) {
      throw new Error(`the command needs ${count} ${count === 1 ? 'argument' : 'arguments'}; see help`);
    }
    return args;
  };
  switch (command) {
    case '':
      return;
    case 'help':
      printer.line(HELP);
      return;
    case 'pwd':
      printer.line(place.at);
      return;
    case 'cd': {
      const to = full(args[0] ?? '/');
      if (!(await fs.stat(to, { signal })).isDirectory()) throw new Error(`${to} is not a directory`);
      place.at = to;
      return;
    }
    case 'ls':
      return list(fs, printer, full(args[0] ?? '.'), { signal });
    case 'cat':
      return get(fs, host, printer, full(need(1)[0] ?? ''), '-');
    case 'get': {
      const [path = '', file = posix.basename(path)] = need(1);
      return get(fs, host, printer, full(path), file);
    }
    case 'put': {
      const [file = '', path = posix.basename(file)] = need(1);
      return put(fs, host, printer, file, full(path), true);
    }
    case 'mkdir':
      await fs.mkdir(full(need(1)[0] ?? ''), { recursive: true, signal });
      return;
    case 'rm': {
      const recursive = args[0] === '-r';
      const path = recursive ? need(2)[1] : need(1)[0];
      await fs.rm(full(path ?? ''), { recursive, signal });
      return;
    }
    case 'mv': {
      const [from = '', to = ''] = need(2);
      await fs.rename(full(from), full(to));
      return;
    }
    case 'ln': {
      const [, target = '', path = ''] = need(3);
      await fs.symlink(target, full(path));
      return;
    }
    default:
      throw new Error('there is no such command; see help');
  }
}
