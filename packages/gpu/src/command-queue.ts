/**
 * A queue of commands: the memory of commands and answers by slot, fences, and the checks of answers.
 *
 * The memory of answers is zeroed before a command is sent, so that an answer that the device did not write is detected. Each fence has
 * its own number: an answer with another number belongs to another command, and the device is no longer trusted.
 */
import {
  type AnswerOptions,
  type DmaRegion,
  requireInteger,
  type RequestHandler,
  type RequestQueue,
  type SpinOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import { type CommandLimits, type GpuCommand, HEADER_SIZE, type Rect } from './command.ts';
import { GpuError } from './gpu-error.ts';
import {
  CtrlHeader,
  ERROR_TYPES_END,
  type GpuCommandName,
  GpuCommandType,
  GpuErrorType,
  type GpuFeatureName,
  GpuFlag,
  GpuOkType,
  MAX_RING_INDEX,
  ResourceFlush,
  TransferToHost2d,
  UpdateCursor,
} from './protocol.ts';

/** Options of a command, however it is sent. */
export interface FenceOptions {
  /** Whether the device answers only when the command is finished. Each command has a suitable default. */
  readonly fence?: boolean;
  /** The timeline of the context that the fence is on, 0 to 63. Needs CONTEXT_INIT; sets `fence`. */
  readonly ring?: number;
}

/** Options of a command that returns a promise. */
export interface RequestOptions extends FenceOptions, WaitOptions {}

/** Options of a command that spins. */
export interface RequestSyncOptions extends FenceOptions, SpinOptions {}

/** Options of a command that is submitted. */
export interface SubmitCommandOptions extends FenceOptions {
  /** `false` does not notify the device; `kick()` does, for several commands at once. */
  readonly kick?: boolean;
}

/** The room for a command, in bytes: more than the largest structure. */
const REQUEST_ROOM = 128;
/** The room for an answer, in bytes: that of GET_EDID, the largest answer of known size. */
export const CONTROL_ANSWER_ROOM: number = HEADER_SIZE + 8 + 1024;
/** The room for an answer on the cursor queue, in bytes. */
export const CURSOR_ANSWER_ROOM: number = HEADER_SIZE;

const HEADER = CtrlHeader.offset;
const ERROR_TYPES_START = GpuErrorType.ERR_UNSPEC;

/** What a queue of commands needs from its driver. */
export interface CommandDriver {
  readonly transport: Transport;
  readonly limits: CommandLimits;
  has(feature: GpuFeatureName): boolean;
  fail(error: VirtioError): void;
  quirk(queue: number, message: string): void;
}

/** The memory that a queue of commands needs, in bytes. */
export function commandMemory(slots: number, answerRoom: number): number {
  return slots * slotSize(answerRoom);
}

/** The size of a slot: a multiple of 64, so that no two slots share a cache line. */
function slotSize(answerRoom: number): number {
  return Math.ceil((REQUEST_ROOM + answerRoom) / 64) * 64;
}

/** A queue of commands. */
export class CommandQueue {
  readonly requests: RequestQueue;

  readonly #driver: CommandDriver;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #address: number;
  readonly #slotSize: number;
  readonly #answerRoom: number;
  /** Whether the device may leave commands unanswered, as QEMU does with cursor commands. */
  readonly #mayBeSilent: boolean;

  // By slot: what the answer has to be.
  readonly #commands: Uint16Array;
  readonly #answerTypes: Uint16Array;
  readonly #fenced: Uint8Array;
  readonly #fenceLow: Uint32Array;
  readonly #fenceHigh: Uint32Array;

  #nextLow = 0;
  #nextHigh = 0;

  constructor(
    requests: RequestQueue,
    memory: DmaRegion,
    driver: CommandDriver,
    answerRoom: number,
    mayBeSilent: boolean,
  ) {
    const { bytes, address } = memory;
    const { slots } = requests;
    this.requests = requests;
    this.#driver = driver;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#bytes = bytes;
    this.#address = address;
    this.#answerRoom = answerRoom;
    this.#slotSize = slotSize(answerRoom);
    this.#mayBeSilent = mayBeSilent;
    this.#commands = new Uint16Array(slots);
    this.#answerTypes = new Uint16Array(slots);
    this.#fenced = new Uint8Array(slots);
    this.#fenceLow = new Uint32Array(slots);
    this.#fenceHigh = new Uint32Array(slots);
  }

  /** The transport of the device. */
  get transport(): Transport {
    return this.#driver.transport;
  }

  // Commands that were built.

  /** Keeps the event loop alive until the function that this returns is called. */
  hold(): () => void {
    const { interrupts } = this.transport;
    let held = true;
    interrupts?.hold();
    return () => {
      if (held) interrupts?.release();
      held = false;
    };
  }

  /** Sends a command and waits for its answer. */
  async request<T>(command: GpuCommand<T>, options: RequestOptions & AnswerOptions = {}): Promise<T> {
    return this.requests.request(this.#prepare(command, options), options);
  }

  /** Sends a command and spins for its answer. */
  requestSync<T>(command: GpuCommand<T>, options: RequestSyncOptions = {}): T {
    return this.requests.requestSync(this.#prepare(command, options), options);
  }

  /** Sends a command. */
  submit(command: GpuCommand<unknown>, options: SubmitCommandOptions = {}): number {
    return this.requests.submitRequest(this.#prepare(command, options), options);
  }

  // Commands of the hot path, which are written where they are sent from.

  /**
   * Prepares and submits TRANSFER_TO_HOST_2D.
   *
   * @param must whether it is an error if there is no room
   * @returns the slot, or -1 if there is no room
   */
  startTransfer(resourceId: number, rect: Rect, offset: number, must: boolean): number {
    const slot = this.#begin(must);
    if (slot < 0) return slot;
    const at = slot * this.#slotSize;
    const view = this.#view;
    const fields = TransferToHost2d.offset;
    this.#writeHeader(slot, GpuCommandType.TRANSFER_TO_HOST_2D, true);
    view.setUint32(at + fields.x, rect.x, true);
    view.setUint32(at + fields.y, rect.y, true);
    view.setUint32(at + fields.width, rect.width, true);
    view.setUint32(at + fields.height, rect.height, true);
    view.setUint32(at + fields.offset, offset % 2 ** 32, true);
    view.setUint32(at + fields.offset + 4, Math.floor(offset / 2 ** 32), true);
    view.setUint32(at + fields.resourceId, resourceId, true);
    view.setUint32(at + fields.padding, 0, true);
    return this.#finish(slot, TransferToHost2d.size);
  }

  /** Prepares and submits RESOURCE_FLUSH, as {@link CommandQueue.startTransfer} does. */
  startFlush(resourceId: number, rect: Rect, must: boolean): number {
    const slot = this.#begin(must);
    if (slot < 0) return slot;
    const at = slot * this.#slotSize;
    const view = this.#view;
    const fields = ResourceFlush.offset;
    this.#writeHeader(slot, GpuCommandType.RESOURCE_FLUSH, true);
    view.setUint32(at + fields.x, rect.x, true);
    view.setUint32(at + fields.y, rect.y, true);
    view.setUint32(at + fields.width, rect.width, true);
    view.setUint32(at + fields.height, rect.height, true);
    view.setUint32(at + fields.resourceId, resourceId, true);
    view.setUint32(at + fields.padding, 0, true);
    return this.#finish(slot, ResourceFlush.size);
  }

  /** Prepares and submits UPDATE_CURSOR or MOVE_CURSOR, as {@link CommandQueue.startTransfer} does. */
  startCursor(
    type: number,
    scanout: number,
    x: number,
    y: number,
    resourceId: number,
    hotX: number,
    hotY: number,
    must: boolean,
  ): number {
    const slot = this.#begin(must);
    if (slot < 0) return slot;
    const at = slot * this.#slotSize;
    const view = this.#view;
    const fields = UpdateCursor.offset;
    this.#writeHeader(slot, type, false);
    view.setUint32(at + fields.scanoutId, scanout, true);
    view.setUint32(at + fields.x, x, true);
    view.setUint32(at + fields.y, y, true);
    view.setUint32(at + fields.padding1, 0, true);
    view.setUint32(at + fields.resourceId, resourceId, true);
    view.setUint32(at + fields.hotX, hotX, true);
    view.setUint32(at + fields.hotY, hotY, true);
    view.setUint32(at + fields.padding, 0, true);
    return this.#finish(slot, UpdateCursor.size);
  }

  /**
   * Checks an answer: the handler's `judge` for every command, on the hot path or not. Its type counts, as memory was zeroed before: Linux's
   * driver does not look at the used length, and lets devices write nothing for a cursor at all.
   */
  readonly judge = (slot: number, usedLength: number): void => {
    const at = this.#answerAt(slot);
    const view = this.#view;
    const type = view.getUint32(at + HEADER.type, true);
    if (type === 0 && this.#mayBeSilent) return;
    const name = this.#nameOf(slot);
    const { transport } = this.#driver;
    if (usedLength < HEADER_SIZE) {
      if (type === 0) {
        throw this.#lied(`answered ${name} with ${usedLength} bytes; an answer has at least ${HEADER_SIZE}`);
      }
      this.#driver.quirk(
        this.requests.queue.index,
        `answered ${name} with used length ${usedLength}, less than the ${HEADER_SIZE} bytes of a header; the header was read all the same`,
      );
    }
    const refused = type >= ERROR_TYPES_START && type < ERROR_TYPES_END;
    if (this.#fenced[slot] === 1) {
      const has = (view.getUint32(at + HEADER.flags, true) & GpuFlag.FENCE) !== 0;
      const same =
        view.getUint32(at + HEADER.fenceId, true) === this.#fenceLow[slot] &&
        view.getUint32(at + HEADER.fenceId + 4, true) === this.#fenceHigh[slot];
      // Of a command that was refused there is nothing to be finished.
      if (has ? !same : !refused) {
        throw this.#lied(
          has
            ? `answered ${name} with the fence of another command`
            : `answered ${name} without the fence of the command, so it may not be finished`,
        );
      }
    }
    if (refused) throw new GpuError(transport.who(), name, type);
    if (type === this.#answerTypes[slot]) return;
    if (type < GpuOkType.OK_NODATA || type >= ERROR_TYPES_END) {
      throw this.#lied(
        `answered ${name} with the type 0x${type.toString(16)}, which is not the type of an answer`,
      );
    }
    throw new VirtioError(
      'DEVICE_MISBEHAVED',
      `${transport.who()} answered ${name} with the type 0x${type.toString(16)}, which belongs to another command; it may ` +
        'not know this one',
    );
  };

  #prepare<T>(command: GpuCommand<T>, { fence, ring }: FenceOptions): RequestOf<T> {
    const { data, answer, track } = command;
    const { limits } = this.#driver;
    // Its caller may change it while the command waits for room, or as soon as it was checked.
    const request = new Uint8Array(command.request);
    this.#check(command, request, ring);
    const inSlot = HEADER_SIZE + answer.size <= this.#answerRoom;
    const apart = inSlot ? undefined : new Uint8Array(answer.size);
    let order = 0;
    return {
      buffers: 2 + (data === undefined ? 0 : 1) + (apart === undefined ? 0 : 1),
      fill: (slot) => {
        const { queue } = this.requests;
        const at = slot * this.#slotSize;
        this.#bytes.set(request, at);
        const context = this.#view.getUint32(at + HEADER.ctxId, true);
        this.#writeHeader(
          slot,
          GpuCommandType[command.name],
          ring !== undefined || (fence ?? command.fenced),
        );
        this.#view.setUint32(at + HEADER.ctxId, context, true);
        if (ring !== undefined) {
          this.#view.setUint32(at + HEADER.flags, GpuFlag.FENCE | GpuFlag.INFO_RING_IDX, true);
          this.#view.setUint8(at + HEADER.ringIdx, ring);
        }
        this.#answerTypes[slot] = answer.type;
        queue.pushReadable(this.#address + at, request.length);
        if (data !== undefined) this.requests.shareReadable(slot, data);
        const answerAt = this.#answerAt(slot);
        const length = HEADER_SIZE + (inSlot ? answer.size : 0);
        this.#bytes.fill(0, answerAt, answerAt + length);
        queue.pushWritable(this.#address + answerAt, length);
        if (apart !== undefined) this.requests.shareWritable(slot, apart);
        order = track?.sent?.(limits) ?? 0;
      },
      judge: (slot, usedLength) => {
        try {
          this.judge(slot, usedLength);
        } catch (error) {
          if (error instanceof GpuError) track?.refused?.(limits, order);
          throw error;
        }
        track?.done?.(limits, order);
      },
      result: (slot, usedLength) => {
        const from = this.#answerAt(slot) + HEADER_SIZE;
        const bytes = apart ?? this.#bytes.subarray(from, from + answer.size);
        // A length below that of a header says nothing about what follows it.
        const tells = usedLength >= HEADER_SIZE || apart !== undefined;
        const length = tells ? Math.max(0, usedLength - HEADER_SIZE) : answer.size;
        if (length < answer.least) {
          this.#driver.quirk(
            this.requests.queue.index,
            `answered ${command.name} with ${length} bytes after the header instead of ${answer.least}; the rest is read as zeros`,
          );
        }
        return answer.read(bytes, length);
      },
    };
  }

  /** Refuses a command that needs a feature that was not negotiated, or numbers that the device does not allow. */
  #check({ name, needs, check }: GpuCommand<unknown>, request: Uint8Array, ring: number | undefined): void {
    const driver = this.#driver;
    // Made by a caller; behind the room is that of other commands.
    requireInteger(driver.transport, `the length of ${name}`, request.length, HEADER_SIZE, REQUEST_ROOM);
    if (needs !== undefined && !driver.has(needs)) throw this.#unsupported(name, needs);
    check?.(driver.limits);
    if (ring === undefined) return;
    if (!driver.has('CONTEXT_INIT')) {
      throw this.#unsupported(`a fence on a timeline (ring ${ring})`, 'CONTEXT_INIT');
    }
    requireInteger(driver.transport, 'ring', ring, 0, MAX_RING_INDEX);
  }

  #begin(must: boolean): number {
    return must ? this.requests.begin(2) : this.requests.tryBegin(2);
  }

  /** Pushes the two parts of a command of the hot path. */
  #finish(slot: number, length: number): number {
    const { queue } = this.requests;
    const answerAt = this.#answerAt(slot);
    const view = this.#view;
    this.#answerTypes[slot] = GpuOkType.OK_NODATA;
    view.setUint32(answerAt + HEADER.type, 0, true);
    view.setUint32(answerAt + HEADER.flags, 0, true);
    view.setUint32(answerAt + HEADER.fenceId, 0, true);
    view.setUint32(answerAt + HEADER.fenceId + 4, 0, true);
    queue.pushReadable(this.#address + slot * this.#slotSize, length);
    queue.pushWritable(this.#address + answerAt, HEADER_SIZE);
    this.requests.submit(slot);
    return slot;
  }

  #writeHeader(slot: number, type: number, fenced: boolean): void {
    const at = slot * this.#slotSize;
    const view = this.#view;
    this.#commands[slot] = type;
    this.#fenced[slot] = fenced ? 1 : 0;
    let low = 0;
    let high = 0;
    if (fenced) {
      this.#nextLow = (this.#nextLow + 1) >>> 0;
      if (this.#nextLow === 0) this.#nextHigh = (this.#nextHigh + 1) >>> 0;
      low = this.#nextLow;
      high = this.#nextHigh;
      this.#fenceLow[slot] = low;
      this.#fenceHigh[slot] = high;
    }
    view.setUint32(at + HEADER.type, type, true);
    view.setUint32(at + HEADER.flags, fenced ? GpuFlag.FENCE : 0, true);
    view.setUint32(at + HEADER.fenceId, low, true);
    view.setUint32(at + HEADER.fenceId + 4, high, true);
    view.setUint32(at + HEADER.ctxId, 0, true);
    // ring_idx and padding.
    view.setUint32(at + HEADER.ringIdx, 0, true);
  }

  #answerAt(slot: number): number {
    return slot * this.#slotSize + REQUEST_ROOM;
  }

  #nameOf(slot: number): GpuCommandName {
    return NAMES.get(this.#commands[slot] as number) ?? 'GET_DISPLAY_INFO';
  }

  #lied(what: string): VirtioError {
    const { transport } = this.#driver;
    const error = transport.fail(
      new VirtioError(
        'DEVICE_MISBEHAVED',
        `${transport.who()} ${what}. It is not trusted any more: reset or dispose its driver`,
      ),
    );
    this.#driver.fail(error);
    return error;
  }

  #unsupported(what: string, feature: GpuFeatureName): VirtioError {
    return new VirtioError(
      'UNSUPPORTED',
      `${this.#driver.transport.who()}: ${what} needs ${feature}, which was not negotiated`,
    );
  }
}

interface RequestOf<T> extends RequestHandler<T> {
  readonly buffers: number;
  fill(slot: number): void;
}

const NAMES: ReadonlyMap<number, GpuCommandName> = new Map(
  Object.entries(GpuCommandType).map(([name, type]) => [type, name as GpuCommandName]),
);
