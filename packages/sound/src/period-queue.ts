/**
 * The tx or the rx queue: I/O messages of all streams of a direction, each in the DMA memory of its slot. A period costs no allocation:
 * its bytes are copied to the slot's memory, between the header and the status.
 *
 * Header, data and status are three descriptors, as in Linux, since some devices rely on that. For capture, data and status are adjacent,
 * as QEMU writes the status after the captured bytes, not at the end of the buffer.
 */
import {
  cancellable,
  type DmaRegion,
  type Request,
  type RequestHandler,
  type RequestQueue,
  requireWaitable,
  spin,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type Waiter,
  type WaitOptions,
} from '@virtio/core';
import { copyPart } from './copy.ts';
import { PcmStatus, PcmXfer, SoundStatus, statusName } from './protocol.ts';
import { SlotMemory } from './slot-memory.ts';

/** The number of descriptors of an I/O message. */
export const IO_DESCRIPTORS = 3;

/** The offset of the data in a slot: a multiple of every sample size. */
const DATA = 16;
const STATUS_SIZE = PcmStatus.size;

/** The receiver of used periods. */
export interface PeriodOwner {
  readonly id: number;
  /**
   * The device has used a period.
   *
   * @param data the memory of the period, all of it; valid during the call
   * @param length the number of captured bytes, at most the size of the period; 0 for playback
   * @param status as the device wrote it
   * @param latency in bytes, as the device wrote it: a hint
   */
  used(data: Uint8Array, length: number, status: number, latency: number): void;
}

/** The result of a transfer. */
export interface Transferred {
  /** The number of bytes that were played or captured. */
  readonly length: number;
  /** The latency that the device reports, in bytes: a hint. */
  readonly latencyBytes: number;
}

/** What a {@link PeriodQueue} needs from the driver. */
export interface PeriodQueueParts {
  readonly transport: Transport;
  /** Whether the device writes the data, which is a capture. */
  readonly capture: boolean;
  readonly allocate: (bytes: number) => DmaRegion;
  readonly quirk: (message: string) => void;
  /** Tells the driver that the device no longer works. */
  readonly report: (error: VirtioError) => void;
}

/** Carries periods. */
export class PeriodQueue implements RequestHandler<undefined> {
  readonly #transport: Transport;
  readonly #capture: boolean;
  readonly #memory: SlotMemory;
  readonly #quirk: (message: string) => void;
  readonly #report: (error: VirtioError) => void;
  readonly #waiting = new Set<Waiter<void>>();
  #requests: RequestQueue<Transferred | undefined> | undefined;
  #unlisten: (() => void) | undefined;
  #moves = 0;
  /** Tokens of submitted transfers, and of those that were found done. */
  readonly #transfers = new Set<number>();
  readonly #done: number[] = [];

  // By slot.
  #owners: (PeriodOwner | undefined)[] = [];
  #lengths = new Int32Array(0);
  readonly #views: DataView[] = [];
  readonly #datas: Uint8Array[] = [];

  // What #look read last.
  #captured = 0;
  #status = 0;
  #latency = 0;

  constructor({ transport, capture, allocate, quirk, report }: PeriodQueueParts) {
    this.#transport = transport;
    this.#capture = capture;
    this.#quirk = quirk;
    this.#report = report;
    this.#memory = new SlotMemory(allocate);
  }

  /** Sets the request queue that it handles. */
  attach(requests: RequestQueue<Transferred | undefined>): void {
    this.#requests = requests;
    this.#owners = new Array<undefined>(requests.slots).fill(undefined);
    this.#lengths = new Int32Array(requests.slots);
  }

  /** The largest number of periods that can be with the device, of all streams together. */
  get capacity(): number {
    const { queue } = this.#queue;
    return Math.floor(queue.size / queue.descriptorsFor(IO_DESCRIPTORS));
  }

  /** Why the device no longer works, until the driver is reset. */
  get failure(): VirtioError | undefined {
    return this.#requests?.failure;
  }

  /**
   * Makes a period available to the device; {@link PeriodQueue.announce} notifies it.
   *
   * @param data for playback: the bytes are copied from its start
   * @param length the bytes to play, or the room for captured bytes
   * @returns false if there is no room now
   */
  post(owner: PeriodOwner, data: Uint8Array | undefined, length: number): boolean {
    const requests = this.#queue;
    const slot = requests.tryBegin(IO_DESCRIPTORS);
    if (slot < 0) return false;
    let address: number;
    try {
      address = this.#prepare(slot, length);
    } catch (error) {
      requests.rewind(slot);
      throw error;
    }
    const view = this.#views[slot] as DataView;
    view.setUint32(0, owner.id, true);
    // So that a status that the device did not write is no status.
    view.setUint32(DATA + length, 0, true);
    view.setUint32(DATA + length + 4, 0, true);
    const memory = this.#datas[slot] as Uint8Array;
    const { queue } = requests;
    queue.pushReadable(address, PcmXfer.size);
    if (this.#capture) {
      queue.pushWritable(address + DATA, length);
    } else {
      if (data !== undefined) copyPart(data, 0, length, memory, 0);
      queue.pushReadable(address + DATA, length);
    }
    queue.pushWritable(address + DATA + length, STATUS_SIZE);
    this.#lengths[slot] = length;
    this.#owners[slot] = owner;
    requests.submit(slot);
    return true;
  }

  /** Kicks the queue. A device that polls is not notified. */
  announce(polling: boolean): void {
    const requests = this.#queue;
    if (requests.failure !== undefined) throw requests.failure;
    if (polling) requests.queue.publish();
    else requests.kick();
  }

  /** Takes back all periods that the device has used, and wakes waiting callers. */
  drain(): void {
    const requests = this.#requests;
    if (requests === undefined || requests.failure !== undefined) return;
    // Listeners that are told of what came back may call this again, and wait for more.
    let any = false;
    try {
      for (let token = requests.poll(); token >= 0; token = requests.poll()) {
        any = true;
        if (this.#transfers.has(token)) this.#done.push(token);
        else requests.complete(token);
        if (this.failure !== undefined) break;
      }
    } catch (error) {
      // Why the queue failed is what all calls throw from now on.
      if (this.failure === undefined) throw error;
    }
    if (any) {
      this.#moves += 1;
      this.wake();
    }
  }

  /** Abandons all periods of an owner: their results are discarded. Their memory is kept until the device has used them. */
  abandon(owner: PeriodOwner): void {
    for (let slot = 0; slot < this.#owners.length; slot += 1) {
      if (this.#owners[slot] === owner) this.#owners[slot] = undefined;
    }
  }

  /** Changes when a buffer came back: there may be room again then. */
  get moves(): number {
    // Stays a small integer: what comes round to the same number after thousands of moves was tried long before.
    return ((this.#moves & 0x3fff) << 16) | this.#queue.queue.availableDescriptors;
  }

  // Single I/O messages of the caller's.

  /** Transfers a buffer and waits until the device has used it. */
  transfer(stream: number, buffer: Uint8Array, options?: WaitOptions): Promise<Transferred> {
    return this.#queue.request(this.#request(stream, buffer), options);
  }

  /** Transfers a buffer and spins until the device has used it. */
  transferSync(stream: number, buffer: Uint8Array, options?: SpinOptions): Transferred {
    return this.#queue.requestSync(this.#request(stream, buffer), options);
  }

  /** Transfers a buffer without waiting; returns the token. */
  submitTransfer(stream: number, buffer: Uint8Array, options?: SubmitOptions): number {
    // Known before the device is told: it may answer inside the notification, and a listener there take the result.
    const token = this.#queue.submitRequest(this.#request(stream, buffer), { kick: false });
    this.#transfers.add(token);
    if (options?.kick !== false) this.#queue.kick();
    return token;
  }

  /** The token of the next submitted transfer that the device has used, or -1. */
  pollTransfer(): number {
    this.drain();
    const token = this.#done.shift();
    if (token !== undefined) return token;
    if (this.failure !== undefined) throw this.failure;
    return -1;
  }

  /** Completes a transfer that was submitted. */
  completeTransfer(token: number): Transferred {
    this.#requireTransfer(token);
    try {
      const result = this.#queue.complete(token);
      this.#freed(token);
      // A transfer has a result of its own; only periods have none.
      return result ?? { length: 0, latencyBytes: 0 };
    } catch (error) {
      if (!VirtioError.is(error, 'NOT_READY')) this.#freed(token);
      throw error;
    }
  }

  /** Cancels a submitted transfer. */
  cancelTransfer(token: number): void {
    this.#requireTransfer(token);
    this.#queue.cancel(token);
    this.#freed(token);
  }

  /** Notifies the device of transfers that were submitted with `kick: false`. */
  kick(): void {
    this.#queue.kick();
  }

  /** Throws if the options of a call that spins are invalid. */
  checkSpin(options?: SpinOptions): void {
    this.#queue.checkSpin(options);
  }

  /** Wakes waiting callers, which then check their conditions again. */
  wake(): void {
    if (this.#waiting.size === 0) return;
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { resolve } of waiting) resolve();
    this.#rest();
  }

  /** The queue was reset: the device has no buffers any more, and all tokens are invalid. */
  forget(): void {
    this.#owners.fill(undefined);
    this.#transfers.clear();
    this.#done.length = 0;
  }

  /** The device no longer works. */
  fail(error: VirtioError): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
    this.#rest();
  }

  /** Waits until something has changed; the caller then checks its condition again. */
  wait(options?: WaitOptions): Promise<void> {
    return new Promise((resolve, reject) => {
      requireWaitable(this.#transport, options);
      if (this.failure !== undefined) throw this.failure;
      let waiting: Waiter<void>;
      cancellable({ resolve, reject }, this.#transport, options?.signal, {
        enter: (waiter) => {
          waiting = waiter;
          this.#waiting.add(waiter);
          this.#unlisten ??= this.#queue.listen(() => {
            this.drain();
          });
        },
        leave: () => {
          this.#waiting.delete(waiting);
          this.#rest();
        },
      });
    });
  }

  /** Spins until something holds. */
  spin(done: () => boolean, awaited: string, options?: SpinOptions): void {
    spin(
      this.#transport,
      () => {
        this.drain();
        if (this.failure !== undefined) throw this.failure;
        return done();
      },
      options,
      awaited,
      this.#report,
    );
  }

  /** @internal the device has used the request of a slot */
  result(slot: number, usedLength: number): undefined {
    const owner = this.#owners[slot];
    this.#owners[slot] = undefined;
    if (owner === undefined) return;
    this.#look(slot, this.#lengths[slot] as number, usedLength);
    const status = this.#status;
    owner.used(this.#datas[slot] as Uint8Array, this.#captured, status, this.#latency);
    if (status < SoundStatus.OK || status > SoundStatus.IO_ERR || usedLength < STATUS_SIZE) {
      // Last, as a listener may take other periods and transfers.
      this.#quirk(
        `a period of stream ${owner.id} was used with ${statusName(status)} and length ${usedLength}`,
      );
    }
  }

  /** A transfer has ended: its slot is free for a period. */
  #freed(token: number): void {
    this.#transfers.delete(token);
    const place = this.#done.indexOf(token);
    if (place >= 0) this.#done.splice(place, 1);
    this.#moves += 1;
    this.wake();
  }

  #requireTransfer(token: number): void {
    if (this.#transfers.has(token)) return;
    throw new VirtioError(
      'WRONG_TOKEN',
      `${this.#transport.who()}: ${String(token)} is not the token of a transfer that was submitted and not completed`,
    );
  }

  #request(stream: number, buffer: Uint8Array): Request<Transferred> {
    const { length } = buffer;
    const capture = this.#capture;
    return {
      buffers: IO_DESCRIPTORS,
      fill: (slot) => {
        const requests = this.#queue;
        const address = this.#prepare(slot, capture ? length : 0);
        const view = this.#views[slot] as DataView;
        const at = capture ? DATA + length : DATA;
        view.setUint32(0, stream, true);
        view.setUint32(at, 0, true);
        view.setUint32(at + 4, 0, true);
        requests.queue.pushReadable(address, PcmXfer.size);
        if (capture) requests.queue.pushWritable(address + DATA, length);
        else requests.shareReadable(slot, buffer);
        requests.queue.pushWritable(address + at, STATUS_SIZE);
      },
      judge: (slot, usedLength) => {
        this.#look(slot, capture ? length : 0, usedLength);
        if (this.#status === SoundStatus.OK) return;
        throw new VirtioError(
          'IO_ERROR',
          `${this.#transport.who()}: a transfer of ${length} bytes of stream ${stream} was answered with ${statusName(this.#status)}; ` +
            "check that the stream is prepared, and look at the host's log",
        );
      },
      result: (slot, usedLength) => {
        this.#look(slot, capture ? length : 0, usedLength);
        if (capture && buffer.length !== length) {
          throw new VirtioError(
            'INVALID_PARAM',
            `${this.#transport.who()}: the buffer of a transfer of stream ${stream} was detached or resized meanwhile, so the captured ` +
              'frames are lost; do not change it before the transfer has ended',
          );
        }
        if (capture) buffer.set((this.#datas[slot] as Uint8Array).subarray(0, this.#captured));
        return { length: capture ? this.#captured : length, latencyBytes: this.#latency };
      },
    };
  }

  /** Reads the status of an I/O message. */
  #look(slot: number, room: number, usedLength: number): void {
    const view = this.#views[slot] as DataView;
    let at = DATA + room;
    this.#captured = this.#capture ? Math.min(room, Math.max(0, usedLength - STATUS_SIZE)) : 0;
    // The status stands at the end, as the descriptors say, or behind what was captured, as QEMU writes it.
    if (this.#capture && this.#captured < room && view.getUint32(at, true) === 0) at = DATA + this.#captured;
    this.#status = view.getUint32(at, true);
    this.#latency = view.getUint32(at + 4, true);
  }

  get #queue(): RequestQueue<Transferred | undefined> {
    if (this.#requests === undefined) throw new TypeError('the queue is not there yet');
    return this.#requests;
  }

  /** No caller waits any more: the device need not send interrupts. */
  #rest(): void {
    if (this.#waiting.size > 0 || this.#unlisten === undefined) return;
    const unlisten = this.#unlisten;
    this.#unlisten = undefined;
    unlisten();
  }

  /** Ensures that a slot has memory for a period; returns its address. */
  #prepare(slot: number, length: number): number {
    const { bytes, address } = this.#memory.region(slot, DATA + length + STATUS_SIZE);
    if (this.#views[slot]?.buffer !== bytes.buffer || this.#views[slot].byteOffset !== bytes.byteOffset) {
      this.#views[slot] = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      this.#datas[slot] = bytes.subarray(DATA, DATA + length);
    } else if (this.#datas[slot]?.length !== length) {
      this.#datas[slot] = bytes.subarray(DATA, DATA + length);
    }
    return address;
  }
}
