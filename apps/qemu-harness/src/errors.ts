/** The failures that a person can do something about. Their message is all that the command line prints. */

/** What went wrong, for programs. */
export type HarnessErrorCode =
  | 'UNSUPPORTED_HOST'
  | 'MISSING_PACKAGES'
  | 'DOWNLOAD_FAILED'
  | 'INSTALL_FAILED'
  | 'IMAGE_FAILED'
  | 'BAD_ARGUMENTS'
  | 'BUNDLE_FAILED'
  | 'QEMU_FAILED'
  | 'GUEST_FAILED'
  | 'QMP_FAILED';

/** An expected failure: the message says what was tried, what happened and what to do next. */
export class HarnessError extends Error {
  override readonly name = 'HarnessError';
  readonly code: HarnessErrorCode;

  constructor(code: HarnessErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
