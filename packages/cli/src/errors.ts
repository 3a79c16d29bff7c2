/** Exit statuses, and errors with advice for the command line. */
import { VirtioError } from '@virtio/core';
import { CommanderError } from 'commander';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';

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
    // A socket where nobody listens is in no list of devices, and rights do not help where sysfs is read-only: these messages say what to do.
    const { code: cause } = (error.cause ?? {}) as NodeJS.ErrnoException;
    const elsewhere = (error.code === 'NO_DEVICE' && error.cause !== undefined) || cause === 'EROFS';
    return {
      status,
      code: error.code,
      message: messageOf(error),
      advice: elsewhere ? undefined : advice,
      help: `virtio explain ${error.code}`,
    };
  }
  if (error instanceof Error) return fileReport(error);
  const message = String(error);
  return { status: ExitStatus.FAILED, code: 'UNKNOWN', message, advice: undefined, help: undefined };
}

/** What is wrong with a file of the user, and what to do. */
const FILES: Readonly<Record<string, readonly [status: ExitStatus, what: string, advice: string]>> = {
  ENOENT: [ExitStatus.USAGE, 'there is no such file', 'check the path'],
  ENOTDIR: [ExitStatus.USAGE, 'there is no such file', 'check the path'],
  EISDIR: [ExitStatus.USAGE, 'it is a directory', 'give a file'],
  EACCES: [
    ExitStatus.REFUSED,
    'its rights do not permit it',
    'check them, and those of the directories above',
  ],
  EPERM: [
    ExitStatus.REFUSED,
    'its rights do not permit it',
    'check them, and those of the directories above',
  ],
  EROFS: [ExitStatus.REFUSED, 'its file system is read-only', 'choose another directory'],
  ENOSPC: [ExitStatus.FAILED, 'its file system is full', 'make room, or choose another directory'],
};

/** How the calls of the system are called in a message. */
const DONE: Readonly<Record<string, string>> = { read: 'read', write: 'written' };

/** The report of an error of Node.js. */
function fileReport(error: NodeJS.ErrnoException): Report {
  const { code = error.name, path, syscall } = error;
  // Errors of shares have this form, too, but another name: what is not there is the host's.
  const known = error.name === 'Error' && syscall !== undefined ? FILES[code] : undefined;
  if (known === undefined) {
    const status = ['EACCES', 'EPERM', 'EROFS'].includes(code) ? ExitStatus.REFUSED : ExitStatus.FAILED;
    return { status, code, message: error.message, advice: undefined, help: undefined };
  }
  const [status, what, advice] = known;
  const absent = path !== undefined && code === 'ENOENT' && !existsSync(dirname(path));
  return {
    status,
    code,
    message: `${path ?? 'a file'} could not be ${DONE[syscall ?? ''] ?? 'opened'}: ${
      absent ? `there is no directory ${dirname(path)}` : what
    }`,
    advice,
    help: undefined,
  };
}

/** The message of an error without what is for programmers: a file, and a function that the hint has a command for. */
export function messageOf({ message, help }: VirtioError): string {
  return message.replace(` (see ${help})`, '').replace(/; listDevices\(\) .*$/s, '');
}
