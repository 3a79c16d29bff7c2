/** Exit statuses, and errors with advice for the command line. */
import { VirtioError } from '@virtio/core';
import { CommanderError } from 'commander';

/** Exit statuses. */
export const ExitStatus = {
  OK: 0,
  /** The device failed, or the compared data differs. */
  FAILED: 1,
  /** The arguments are not valid. */
  USAGE: 2,
  /** There is no such device, or it is gone. */
  NO_DEVICE: 3,
  /** The system does not permit it, or it was not confirmed. */
  REFUSED: 4,
  /** The device is in use. */
  BUSY: 5,
  /** The machine lacks a module, an IOMMU or memory. */
  MACHINE: 6,
  /** SIGINT. */
  INTERRUPTED: 130,
  /** The reader of the output has ended (SIGPIPE). */
  BROKEN_PIPE: 141,
} as const;

/** An exit status. */
export type ExitStatus = (typeof ExitStatus)[keyof typeof ExitStatus];

/** An error of the command line itself. */
export class CliError extends Error {
  override readonly name = 'CliError';
  /** The exit status. */
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

/** The report of an error. */
export interface Report {
  readonly status: ExitStatus;
  readonly code: string;
  readonly message: string;
  readonly advice: string | undefined;
  /** The command that explains the error. */
  readonly help: string | undefined;
}

interface Known {
  readonly status: ExitStatus;
  readonly advice?: string;
}

const KNOWN: Readonly<Record<string, Known>> = {
  NO_DEVICE: {
    status: ExitStatus.NO_DEVICE,
    advice: 'virtio list shows the PCI and MMIO devices of this machine',
  },
  DEVICE_REMOVED: { status: ExitStatus.NO_DEVICE },
  INVALID_DEVICE: { status: ExitStatus.NO_DEVICE },
  PERMISSION_DENIED: {
    status: ExitStatus.REFUSED,
    advice: 'run the command as root, or let root bind the device for you: virtio bind <device>',
  },
  DEVICE_BUSY: {
    status: ExitStatus.BUSY,
    advice: 'if nothing on this machine needs the device, add --take-over; it is given back at the end',
  },
  ALREADY_USED: { status: ExitStatus.BUSY },
  MODULE_MISSING: { status: ExitStatus.MACHINE },
  IOMMU_MISSING: {
    status: ExitStatus.MACHINE,
    advice: 'on a test machine, add --unsafe-physical-memory: the device can then access all memory',
  },
  DMA_ERROR: {
    status: ExitStatus.MACHINE,
    advice: 'physical memory needs huge pages: echo 64 > /proc/sys/vm/nr_hugepages',
  },
  INVALID_PARAM: { status: ExitStatus.USAGE },
  INVALID_DEVICE_TYPE: { status: ExitStatus.USAGE },
  DEVICE_NEEDS_RESET: { status: ExitStatus.FAILED, advice: 'run the command again: it resets the device' },
  SOCKET_REFUSED: {
    status: ExitStatus.FAILED,
    advice: 'check that a program of the peer listens at that port',
  },
  SOCKET_TIMED_OUT: {
    status: ExitStatus.FAILED,
    advice:
      'some devices do not answer instead of refusing: check that a program of the peer listens at that port',
  },
};

/** The report of an error, and the exit status. */
export function reportOf(error: unknown): Report {
  if (error instanceof CliError) {
    const { status, message, advice } = error;
    return { status, code: 'CLI', message, advice, help: undefined };
  }
  if (error instanceof CommanderError) {
    const status = error.exitCode === 0 ? ExitStatus.OK : ExitStatus.USAGE;
    return {
      status,
      code: error.code,
      message: error.message.replace(/^error: /, ''),
      advice: undefined,
      help: undefined,
    };
  }
  if (VirtioError.is(error)) {
    const { status, advice }: Known = KNOWN[error.code] ?? { status: ExitStatus.FAILED };
    // A socket where nobody listens is in no list of devices; its message says what to do.
    const elsewhere = error.code === 'NO_DEVICE' && error.cause !== undefined;
    return {
      status,
      code: error.code,
      message: messageOf(error),
      advice: elsewhere ? undefined : advice,
      help: `virtio explain ${error.code}`,
    };
  }
  if (error instanceof Error) {
    const { code = error.name, path } = error as NodeJS.ErrnoException;
    const status = ['EACCES', 'EPERM', 'EROFS'].includes(code) ? ExitStatus.REFUSED : ExitStatus.FAILED;
    // Errors of shares have this form, too, but another name; what is not there is the host's.
    if (error.name === 'Error' && path !== undefined && ['ENOENT', 'ENOTDIR'].includes(code)) {
      const message = `${path} could not be opened: there is no such file`;
      return { status: ExitStatus.USAGE, code, message, advice: 'check the path', help: undefined };
    }
    return { status, code, message: error.message, advice: undefined, help: undefined };
  }
  const message = String(error);
  return { status: ExitStatus.FAILED, code: 'UNKNOWN', message, advice: undefined, help: undefined };
}

/** The message of an error without what is for programmers: a file, and a function that the hint has a command for. */
export function messageOf({ message, help }: VirtioError): string {
  return message.replace(` (see ${help})`, '').replace(/; listDevices\(\) .*$/s, '');
}
