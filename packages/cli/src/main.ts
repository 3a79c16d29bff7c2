/** Runs one command line, and turns errors into a message, advice and an exit status. */
import { VirtioError } from '@virtio/core';
import { CommanderError } from 'commander';
import { ExitStatus, type Report, reportOf } from './errors.ts';
import type { Host } from './host.ts';
import { toJson, wantsColor } from './output.ts';
import { createProgram } from './program.ts';
import pc from 'picocolors';

/**
 * How long a command that was interrupted may take to end in good order, in milliseconds: a stream is stopped, a file server is asked to end
 * a request. A device that does not answer holds it up no longer than this; the end of the process resets it.
 */
const GRACE_MS = 2000;

/** Waits for a command, but not for ever once it is interrupted. */
async function inTime(command: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const late = Promise.withResolvers<never>();
  let timer: NodeJS.Timeout | undefined;
  const interrupted = (): void => {
    timer = setTimeout(() => {
      late.reject(signal.reason);
    }, GRACE_MS);
  };
  if (signal.aborted) interrupted();
  else signal.addEventListener('abort', interrupted, { once: true });
  try {
    await Promise.race([command, late.promise]);
  } finally {
    signal.removeEventListener('abort', interrupted);
    clearTimeout(timer);
  }
}

/**
 * Runs a command.
 *
 * @param argv the arguments after `virtio`
 * @returns the exit status; see {@link ExitStatus}
 */
export async function run(argv: readonly string[], host: Host): Promise<number> {
  const json = argv.includes('--json');
  try {
    await inTime(createProgram(host, { tellErrors: !json }).parseAsync(argv, { from: 'user' }), host.signal);
    // A command that runs until it is interrupted then succeeds, but not if the reader of its output has ended.
    const status = host.signal.aborted ? statusOf(host.signal) : ExitStatus.OK;
    return status === ExitStatus.BROKEN_PIPE ? status : ExitStatus.OK;
  } catch (error) {
    // A command that a signal or a closed pipe ended prints no message.
    if (host.signal.aborted && isEnding(error)) return statusOf(host.signal);
    const report = reportOf(error);
    tell(report, error, argv, json, host);
    return report.status;
  }
}

function tell(
  { status, code, message, advice, help }: Report,
  error: unknown,
  argv: readonly string[],
  json: boolean,
  { stderr, env }: Host,
): void {
  if (json) {
    if (status !== ExitStatus.OK) stderr.write(`${toJson({ error: { code, message, advice, help } })}\n`);
  } else if (!(error instanceof CommanderError)) {
    // Commander has printed its own errors already.
    const colors = pc.createColors(wantsColor(stderr, env, colorOf(argv)));
    stderr.write(`${colors.red('virtio:')} ${message}\n`);
    if (advice !== undefined) stderr.write(`${colors.dim('hint:')} ${advice}\n`);
    if (help !== undefined) stderr.write(`${colors.dim('more:')} ${help}\n`);
  }
  if ((env.VIRTIO_DEBUG ?? '') !== '' && error instanceof Error) stderr.write(`${error.stack ?? ''}\n`);
}

/** What the arguments say about colours. */
function colorOf(argv: readonly string[]): boolean | undefined {
  if (argv.includes('--no-color')) return false;
  return argv.includes('--color') ? true : undefined;
}

/** The reason why a command ends early, with its exit status. For commands that run until SIGINT, that status becomes 0. */
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
