/** The program as a process: what becomes of output that cannot be written. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const BIN = fileURLToPath(new URL('bin.ts', import.meta.url));

/** Runs `virtio --help` in a shell, with its standard output redirected. */
function help(redirection: string): { status: number | null; stderr: string } {
  const command = `"$0" --conditions=@virtio/source "$1" --help ${redirection}`;
  return spawnSync('sh', ['-c', command, process.execPath, BIN], { encoding: 'utf8' });
}

it('fails with a message when standard output is full', () => {
  const { status, stderr } = help('> /dev/full');
  expect(stderr).toMatch(/^virtio: standard output could not be written: ENOSPC[^\n]*\n$/);
  expect(status).toBe(1);
}, 60_000);

it('ends with 141 and no message when the reader ends before the command has printed', () => {
  // The reader of the pipe has ended before the program starts.
  const { status, stderr } = spawnSync(
    'bash',
    [
      '-c',
      'exec 3> >(exec 0<&-); wait $!; "$0" --conditions=@virtio/source "$1" --help >&3',
      process.execPath,
      BIN,
    ],
    { encoding: 'utf8' },
  );
  expect({ status, stderr }).toEqual({ status: 141, stderr: '' });
}, 60_000);
