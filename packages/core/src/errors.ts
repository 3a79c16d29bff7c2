/**
 * One error class for all drivers and transports. The `code` is stable and meant for `switch`; the message is meant for people:
 * what was asked, what happened, what to do next.
 */
import { requireDispose } from './ecmascript.ts';

// Called here because every module with a disposable class imports this one, so that this runs first.
requireDispose(Symbol);

/**
 * The page of the codes, a file of this package. If it is published on the web, put its address here (`CONTRIBUTING.md` says
 * how); no other line changes.
 */
const PAGE = '@virtio/core/errors.md';

/** How a message ends. If a message contains another one, only the last ending is kept. */
const END = / \(see \S+#\w+\)/g;

const addressOf = (code: string): string => `${PAGE}#${code.toLowerCase()}`;

/** The stable codes of {@link VirtioError}. */
export type VirtioErrorCode =
  /** The queue has too few free descriptors now; try again after a completion. */
  | 'QUEUE_FULL'
  /** The device has not used the request's buffers yet, or did not answer within the time allowed. */
  | 'NOT_READY'
  /** The token does not name a request that can be completed now. */
  | 'WRONG_TOKEN'
  /** The queue, device or resource is in use already. */
  | 'ALREADY_USED'
  /** An argument is out of range; nothing was sent to the device. */
  | 'INVALID_PARAM'
  /** Memory for DMA could not be allocated, or an address cannot be used by the device. */
  | 'DMA_ERROR'
  /** The device reported that the request failed. */
  | 'IO_ERROR'
  /** The device, or what was negotiated with it, cannot do this. */
  | 'UNSUPPORTED'
  /** The configuration space, or a register window, is too small for this access. */
  | 'CONFIG_SPACE_TOO_SMALL'
  /** The device has no configuration space, but a device of its type must have one. */
  | 'CONFIG_SPACE_MISSING'
  /** The device did not accept the features that the driver chose, or does not offer one that the driver needs. */
  | 'FEATURES_REFUSED'
  /** The number is not a device type of the specification. */
  | 'INVALID_DEVICE_TYPE'
  /** A register or capability does not have the value that the specification asks for. */
  | 'INVALID_DEVICE'
  /** There is no device here (device id 0). */
  | 'NO_DEVICE'
  /** The device wrote something that the specification rules out; the driver no longer trusts it. */
  | 'DEVICE_MISBEHAVED'
  /** The device asked for a reset; call the driver's `reset()`. */
  | 'DEVICE_NEEDS_RESET'
  /** The device was reset while the request was in flight; whether it was carried out is not known. */
  | 'DEVICE_RESET'
  /** The device was unplugged. */
  | 'DEVICE_REMOVED'
  /** The driver or its memory has been disposed. */
  | 'DISPOSED'
  /** The request was cancelled by its caller. */
  | 'ABORTED'
  /** The operating system refuses access. */
  | 'PERMISSION_DENIED'
  /** Another driver, process or user holds the device. */
  | 'DEVICE_BUSY'
  /** A kernel module that is needed is not loaded. */
  | 'MODULE_MISSING'
  /** The device is not behind an IOMMU. */
  | 'IOMMU_MISSING'
  /** A system call failed for a reason that has no code of its own; see `cause`. */
  | 'SYSTEM_ERROR'
  /** The peer of a socket refused, reset or closed the connection, or sent what the protocol does not allow. */
  | `SOCKET_${string}`;

/** The error class of all `@virtio/*` packages. Its message ends with the place where its code is explained: {@link VirtioError.help}. */
export class VirtioError extends Error {
  override readonly name = 'VirtioError';
  /** What went wrong, for programs. */
  readonly code: VirtioErrorCode;
  /**
   * Which of several causes of the same code this is, where a program may want to tell them apart: `COMMON_CFG_MISSING`. As
   * stable as the code; the packages that set it export a type of their reasons.
   */
  readonly reason: string | undefined;

  /**
   * @param code what went wrong, for programs
   * @param message what was asked, what happened and what to do next, for people; {@link VirtioError.help} is appended. If it is
   * empty, as in the build under the condition `virtio-terse`, the message is the code and that address
   * @param options `cause`: the error that led to this one; `reason`: see {@link VirtioError.reason}
   */
  constructor(
    code: VirtioErrorCode,
    message: string,
    options: { readonly cause?: unknown; readonly reason?: string | undefined } = {},
  ) {
    super(
      `${message.replace(END, '') || code} (see ${addressOf(code)})`,
      'cause' in options ? { cause: options.cause } : undefined,
    );
    this.code = code;
    this.reason = options.reason;
  }

  /**
   * Where the code, its causes and its remedies are explained: `@virtio/core/errors.md#queue_full`, a file among the installed
   * packages. `virtio explain QUEUE_FULL` shows the same.
   */
  get help(): string {
    return addressOf(this.code);
  }

  /**
   * Whether `value` is a {@link VirtioError}, by default of any code.
   *
   * @example
   * ```ts
   * import { VirtioError } from '@virtio/core';
   *
   * try {
   *   throw new VirtioError('QUEUE_FULL', 'queue 0 is full');
   * } catch (error) {
   *   if (!VirtioError.is(error, 'QUEUE_FULL')) throw error;
   * }
   * ```
   */
  static is(value: unknown, code?: VirtioErrorCode): value is VirtioError {
    return isVirtioError(value) && (code === undefined || value.code === code);
  }
}

/** A class that mentions itself is renamed by bundlers (esbuild), and its errors would be printed as `_VirtioError`. */
function isVirtioError(value: unknown): value is VirtioError {
  return value instanceof VirtioError;
}

/** What was thrown, as an `Error`, for a promise to reject with. Calls nothing of an object, as that may throw. */
export function asError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown;
  return new Error(typeof thrown === 'string' ? thrown : `a value of type ${typeof thrown} was thrown`, {
    cause: thrown,
  });
}
