/** Turns failures of system calls into the errors that all packages share: what was asked, what happened, what to do. */
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { VirtioError, type VirtioErrorCode } from '@virtio/core';

/** Error numbers by name: `Errno.EBUSY`. */
export const Errno = constants.errno;

const CODES: Readonly<Record<string, VirtioErrorCode>> = {
  EACCES: 'PERMISSION_DENIED',
  EPERM: 'PERMISSION_DENIED',
  EBUSY: 'DEVICE_BUSY',
};

/** A system call that failed; the `cause` of the {@link VirtioError} that a caller sees. */
export class SystemCallError extends Error {
  /** The name that stack traces show. */
  override readonly name = 'SystemCallError';
  /** The name of the error: `EBUSY`. */
  readonly code: string;
  /** The number of the error, positive. */
  readonly errno: number;

  constructor(call: string, errno: number) {
    const code = getSystemErrorName(-errno);
    super(`${call} failed with ${code}`);
    this.code = code;
    this.errno = errno;
  }
}

/** The name of the system error behind `error` (`ENOENT`), whether Node.js or a call of ours reported it. */
export function errorName(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/**
 * Makes the error of a failed system call, with a message for people. One that says what to do already, as where no system call
 * can be made, is returned as it is.
 *
 * @param what what was asked: `/dev/vfio/3 could not be opened`
 * @param cause what happened
 * @param advice what to do next
 * @param code the stable code, if the system's error does not say it
 */
export function systemError(
  what: string,
  cause: unknown,
  advice: string,
  code?: VirtioErrorCode,
): VirtioError {
  if (VirtioError.is(cause)) return cause;
  const name = errorName(cause) ?? '';
  const reason = name === '' ? String(cause) : name;
  return new VirtioError(code ?? CODES[name] ?? 'SYSTEM_ERROR', `${what} (${reason}); ${advice}`, { cause });
}
