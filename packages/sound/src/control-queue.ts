/**
 * The control queue: sends requests, checks their answers, and tracks the state of each stream. The state changes when a command is
 * sent, so that commands may be sent without waiting for each other; it changes back if the device refuses, and is unknown if the caller
 * did not wait for the answer.
 */
import {
  type Request,
  type RequestQueue,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { SoundCommand } from './commands.ts';
import { nextState, type PcmState } from './pcm-state.ts';
import { requestName, SoundHeader, SoundRequest, SoundStatus, statusName } from './protocol.ts';
import type { SlotMemory } from './slot-memory.ts';

/** The parts of a {@link ControlQueue}. */
export interface ControlQueueParts {
  readonly transport: Transport;
  readonly requests: RequestQueue;
  readonly memory: SlotMemory;
  /** Reports that the device broke the specification and nothing was at risk. */
  readonly quirk: (message: string) => void;
  /** Is called when the state of a stream has changed. */
  readonly moved: (stream: number) => void;
}

/** The state of a stream. */
interface StreamState {
  now: PcmState;
  /** The state if the device carries out all that was sent; `unknown` if it may have lost commands. */
  assumed: PcmState;
}

/** The state of a stream before and after a command. */
interface Transition {
  readonly stream: StreamState;
  readonly before: Readonly<StreamState>;
  readonly after: PcmState;
}

const align = (bytes: number): number => Math.ceil(bytes / 16) * 16;

/** Sends commands. */
export class ControlQueue {
  readonly #transport: Transport;
  readonly #requests: RequestQueue;
  readonly #memory: SlotMemory;
  readonly #quirk: (message: string) => void;
  readonly #moved: (stream: number) => void;
  #states = new Map<number, StreamState>();
  /** The state changes of submitted commands, by token. */
  readonly #submitted = new Map<number, Transition | undefined>();

  constructor({ transport, requests, memory, quirk, moved }: ControlQueueParts) {
    this.#transport = transport;
    this.#requests = requests;
    this.#memory = memory;
    this.#quirk = quirk;
    this.#moved = moved;
  }

  /** The state of a stream. */
  state(stream: number): PcmState {
    return this.#states.get(stream)?.now ?? 'initial';
  }

  /** The state of a stream, if the device carries out all that was sent. */
  assumed(stream: number): PcmState {
    return this.#states.get(stream)?.assumed ?? 'initial';
  }

  /** What a device has refused shows in which state an unknown one is. */
  conclude(stream: number, state: PcmState): void {
    this.#states.set(stream, { now: state, assumed: state });
    this.#moved(stream);
  }

  /** The device was reset: no stream has parameters, and no command is with the device. */
  forget(): void {
    this.#states = new Map();
    this.#submitted.clear();
  }

  /** The queue was reset alone: all tokens are invalid, and whether the device has carried out their commands is not known. */
  lose(): void {
    for (const transition of this.#submitted.values()) {
      if (transition !== undefined) Object.assign(transition.stream, { now: 'unknown', assumed: 'unknown' });
    }
    this.#submitted.clear();
  }

  /** Sends a command and waits for its answer. */
  async request<T>(command: SoundCommand<T>, options?: WaitOptions): Promise<T> {
    const { request, transition } = this.#request(command);
    try {
      return await this.#requests.request(request, options);
    } catch (error) {
      settle(transition(), error);
      throw error;
    }
  }

  /** Sends a command and spins until it is answered. */
  requestSync<T>(command: SoundCommand<T>, options?: SpinOptions): T {
    const { request, transition } = this.#request(command);
    try {
      return this.#requests.requestSync(request, options);
    } catch (error) {
      settle(transition(), error);
      throw error;
    }
  }

  /** Sends a command without waiting. */
  submit(command: SoundCommand<unknown>, options?: SubmitOptions): number {
    const { request, transition } = this.#request(command);
    // Known before the device is told: it may answer inside the notification, and a listener there take the result.
    const token = this.#requests.submitRequest(request, { kick: false });
    this.#submitted.set(token, transition());
    if (options?.kick !== false) this.#requests.kick();
    return token;
  }

  kick(): void {
    this.#requests.kick();
  }

  poll(): number {
    return this.#requests.poll();
  }

  complete(token: number): unknown {
    try {
      const value = this.#requests.complete(token);
      this.#submitted.delete(token);
      return value;
    } catch (error) {
      // The device still has it; or there is no such request.
      if (!VirtioError.is(error, 'NOT_READY') && !VirtioError.is(error, 'WRONG_TOKEN')) {
        settle(this.#submitted.get(token), error);
        this.#submitted.delete(token);
      }
      throw error;
    }
  }

  cancel(token: number): void {
    this.#requests.cancel(token);
    const transition = this.#submitted.get(token);
    if (transition !== undefined) transition.stream.now = 'unknown';
    this.#submitted.delete(token);
  }

  /** Makes the queue's request for a command, and returns the state change once the command was sent. */
  #request<T>(command: SoundCommand<T>): {
    readonly request: Request<T>;
    readonly transition: () => Transition | undefined;
  } {
    const { bytes, replyBytes, code } = command;
    const at = align(bytes.length);
    const size = SoundHeader.size + replyBytes;
    let transition: Transition | undefined;
    const request: Request<T> = {
      buffers: 2,
      fill: (slot) => {
        const region = this.#memory.region(slot, at + size);
        transition = this.#move(command);
        region.bytes.set(bytes);
        region.bytes.fill(0, at, at + size);
        this.#requests.queue.pushReadable(region.address, bytes.length);
        this.#requests.queue.pushWritable(region.address + at, size);
      },
      judge: (slot, usedLength) => {
        const { bytes: memory } = this.#memory.region(slot, at + size);
        const status = new DataView(memory.buffer, memory.byteOffset + at).getUint32(0, true);
        if (status !== SoundStatus.OK) throw this.#refused(command, status);
        // QEMU before 9.0 counts the status alone; Linux does not look at the length. Values and metadata may be shorter than their room.
        if (usedLength < size && code !== SoundRequest.CTL_TLV_READ && code !== SoundRequest.CTL_READ) {
          this.#quirk(
            `${requestName(code)} was answered with used length ${usedLength} instead of ${size}; the whole answer was read`,
          );
        }
      },
      result: (slot, usedLength) => {
        const { bytes: memory } = this.#memory.region(slot, at + size);
        // A copy, so that what is checked is what is used.
        const reply = memory.slice(at + SoundHeader.size, at + size);
        const written = Math.max(0, Math.min(usedLength - SoundHeader.size, replyBytes));
        return command.parse(new DataView(reply.buffer), written);
      },
    };
    return { request, transition: () => transition };
  }

  #move({ stream }: SoundCommand<unknown>): Transition | undefined {
    if (stream === undefined) return undefined;
    let state = this.#states.get(stream.id);
    if (state === undefined) {
      state = { now: 'initial', assumed: 'initial' };
      this.#states.set(stream.id, state);
    }
    const before = { ...state };
    const after = nextState(this.#transport.who(), stream.id, before.now, stream.command);
    state.now = after;
    state.assumed = after;
    this.#moved(stream.id);
    return { stream: state, before, after };
  }

  #refused({ code, stream }: SoundCommand<unknown>, status: number): VirtioError {
    const what = `${this.#transport.who()}: ${requestName(code)}${stream === undefined ? '' : ` of stream ${stream.id}`}`;
    switch (status) {
      case SoundStatus.BAD_MSG:
        return new VirtioError(
          'IO_ERROR',
          `${what} was answered with BAD_MSG: the device considers it malformed or out of order`,
        );
      case SoundStatus.NOT_SUPP:
        return new VirtioError(
          'UNSUPPORTED',
          `${what} was answered with NOT_SUPP: the device cannot do this`,
        );
      case SoundStatus.IO_ERR:
        return new VirtioError(
          'IO_ERROR',
          `${what} was answered with IO_ERR: the device failed; try again, or look at the host's log`,
        );
      default:
        return new VirtioError(
          'DEVICE_MISBEHAVED',
          `${what} was answered with ${statusName(status)}, which is not a status; it is unknown whether it was carried out`,
        );
    }
  }
}

/** Corrects the state after a command that failed: the device refused it, it was never sent, or its outcome is unknown. */
function settle(transition: Transition | undefined, error: unknown): void {
  if (transition === undefined) return;
  const { stream, before, after } = transition;
  const refused = VirtioError.is(error, 'IO_ERROR') || VirtioError.is(error, 'UNSUPPORTED');
  if (!refused) stream.now = 'unknown';
  else if (stream.now === after) Object.assign(stream, before);
}
