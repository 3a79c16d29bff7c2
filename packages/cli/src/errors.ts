/** How a command ends: exit statuses, and errors with advice in the words of the command line. */
import { VirtioError } from '@virtio/core';
import { CommanderError } from 'commander';

/** Exit statuses. */
export const ExitStatus = {
  OK: 0,
  /** The device failed, or what was looked for is not so. */
  FAILED: 1,
  /** The arguments make no sense. */
  USAGE: 2,
  /** There is no such device, or it is gone. */
  NO_DEVICE: 3,
  /** The system does not permit it, or it was not confirmed. */
  REFUSED: 4,
  /** Somebody else has the device. */
  BUSY: 5,
  /** The machine lacks something: a module, an IOMMU, memory. */
  MACHINE: 6,
  /** SIGINT. */
  INTERRUPTED: 130,
  /** Nobody reads the output any more (SIGPIPE). */
  BROKEN_PIPE: 141,
} as const;

/** An exit status. */
export type ExitStatus = (typeof ExitStatus)[keyof typeof ExitStatus];

/** An error of the command line's own. */
export class CliError extends Error {
  override readonly name = 'CliError';
  /** The exit status that it leads to. */
  readonly status: ExitStatus;
  /** What to do about it. */
  readonly advice: string | undefined;

  constructor(status: ExitStatus, message: string, advice?: string) {
    super(message);
    this.status = status;
    this.advice = advice;
  }
}

/** An error in the arguments. */
export function usage(message: string, advice?: string): CliError {
  return new CliError(ExitStatus.USAGE, message, advice);
}

/** What is told of an error. */
export interface Report {
  readonly status: ExitStatus;
  readonly code: string;
  readonly message: string;
  readonly advice: string | undefined;
  /** The command that tells more. */
  readonly help: string | undefined;
}

interface Known {
  readonly status: ExitStatus;
  readonly advice?: string;
}

const KNOWN: Readonly<Record<string, Known>> = {
  NO_DEVICE: { status: ExitStatus.NO_DEVICE, advice: 'virtio list shows the devices of this machine' },
  DEVICE_REMOVED: { status: ExitStatus.NO_DEVICE },
  INVALID_DEVICE: { status: ExitStatus.NO_DEVICE },
  PERMISSION_DENIED: {
    status: ExitStatus.REFUSED,
    advice: 'run as root, or let root bind the device for you: virtio bind <device>',
  },
  DEVICE_BUSY: {
    status: ExitStatus.BUSY,
    advice: 'if nothing on this machine needs the device, add --take-over; it is given back at the end',
  },
  ALREADY_USED: { status: ExitStatus.BUSY },
  MODULE_MISSING: { status: ExitStatus.MACHINE },
  IOMMU_MISSING: {
    status: ExitStatus.MACHINE,
    advice:
      'on a machine that you can afford to lose, add --unsafe-physical-memory: nothing then keeps the device from any memory',
  },
  DMA_ERROR: {
    status: ExitStatus.MACHINE,
    advice: 'physical memory needs huge pages: echo 64 > /proc/sys/vm/nr_hugepages',
  },
  INVALID_PARAM: { status: ExitStatus.USAGE },
  INVALID_DEVICE_TYPE: { status: ExitStatus.USAGE },
  DEVICE_NEEDS_RESET: { status: ExitStatus.FAILED, advice: 'run the command again: it resets the device' },
  SOCKET_REFUSED: { status: ExitStatus.FAILED, advice: 'nobody listens at that port of the peer' },
  SOCKET_TIMED_OUT: {
    status: ExitStatus.FAILED,
    advice: 'some devices say nothing where they should refuse: see that somebody listens at that port',
  },
};

/** What to tell of an error, and how to end. */
export function reportOf(error: unknown): Report {
  if (error instanceof CliError) {
    const { status, message, advice } = error;
    return { status, code: 'CLI', message, advice, help: undefined };
  }
  if (error instanceof CommanderError) {
    const status = error.exitCode === 0 ? ExitStatus.OK : ExitStatus.USAGE;
    return { status, code: error.code, message: error.message, advice: undefined, help: undefined };
  }
  if (VirtioError.is(error)) {
    const { status, advice }: Known = KNOWN[error.code] ?? { status: ExitStatus.FAILED };
    return {
      status,
      code: error.code,
      message: messageOf(error),
      advice,
      help: `virtio explain ${error.code}`,
    };
  }
  if (error instanceof Error) {
    const { code = error.name } = error as NodeJS.ErrnoException;
    const status = ['EACCES', 'EPERM', 'EROFS'].includes(code) ? ExitStatus.REFUSED : ExitStatus.FAILED;
    return { status, code, message: error.message, advice: undefined, help: undefined };
  }
  const message = String(error);
  return { status: ExitStatus.FAILED, code: 'UNKNOWN', message, advice: undefined, help: undefined };
}

/** The message of an error without its end, which names a file that people of the command line need not have. */
export function messageOf({ message, help }: VirtioError): string {
  return message.replace(` (see ${help})`, '');
}
