/** Runs one command line, and turns what goes wrong into a message, advice and an exit status. */
import { VirtioError } from '@virtio/core';
import { CommanderError } from 'commander';
import { ExitStatus, reportOf } from './errors.ts';
import type { Host } from './host.ts';
import { toJson, wantsColor } from './output.ts';
import { createProgram } from './program.ts';
import pc from 'picocolors';

/**
 * Runs a command.
 *
 * @param argv what stands behind `virtio`
 * @returns the exit status; see {@link ExitStatus}
 */
export async function run(argv: readonly string[], host: Host): Promise<number> {
  try {
    await createProgram(host).parseAsync(argv, { from: 'user' });
    return ExitStatus.OK;
  } catch (error) {
    // What a signal or a closed pipe has ended needs no words.
    if (host.signal.aborted && isEnding(error)) return statusOf(host.signal);
    // Commander has said it already.
    if (error instanceof CommanderError) return reportOf(error).status;
    const { status, code, message, advice } = reportOf(error);
    if (argv.includes('--json')) {
      host.stderr.write(`${toJson({ error: { code, message, advice } })}\n`);
    } else {
      const colors = pc.createColors(wantsColor(host.stderr, host.env));
      host.stderr.write(`${colors.red('virtio:')} ${message}\n`);
      if (advice !== undefined) host.stderr.write(`${colors.dim('hint:')} ${advice}\n`);
    }
    return status;
  }
}

/** Why a command ends early. Commands that go on until they are interrupted end well. */
export class Ending {
  readonly status: number;

  constructor(status: number) {
    this.status = status;
  }
}

function statusOf({ reason }: AbortSignal): number {
  return reason instanceof Ending ? reason.status : ExitStatus.INTERRUPTED;
}

function isEnding(error: unknown): boolean {
  if (error instanceof Ending || VirtioError.is(error, 'ABORTED')) return true;
  const { name, code } = error as NodeJS.ErrnoException;
  return name === 'AbortError' || code === 'ABORT_ERR' || code === 'EPIPE';
}
