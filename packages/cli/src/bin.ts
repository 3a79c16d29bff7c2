#!/usr/bin/env node
/** The program `virtio`. */
import { constants } from 'node:os';
import { ExitStatus } from './errors.ts';
import { Ending, run } from './main.ts';
import { LinuxSystem } from './system.ts';

const controller = new AbortController();

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    const status = 128 + constants.signals[signal];
    // The second signal: end at once; devices are closed at exit. A progress bar may have hidden the cursor.
    if (controller.signal.aborted) {
      if (process.stderr.isTTY) process.stderr.write('\x1b[?25h');
      process.exit(status);
    }
    controller.abort(new Ending(status));
  });
}

// The status that a failed write has, if there was one, also after the command has ended.
let outputStatus: number | undefined;

for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // The reader of the output has ended, as with `| head`: print no message.
    const closed = error.code === 'EPIPE';
    if (!closed && outputStatus === undefined && stream === process.stdout) {
      process.stderr.write(`virtio: standard output could not be written: ${error.message}\n`);
    }
    outputStatus ??= closed ? ExitStatus.BROKEN_PIPE : ExitStatus.FAILED;
    controller.abort(new Ending(outputStatus));
  });
}

const status = await run(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  signal: controller.signal,
  system: new LinuxSystem(),
});

// Output is flushed before the process ends; an open standard input must not keep the process alive.
const flushed = (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((resolve) => {
    if (stream.destroyed || stream.writableEnded) resolve();
    else stream.write('', () => resolve());
  });
await Promise.all([flushed(process.stdout), flushed(process.stderr)]);
process.exit(outputStatus ?? status);
