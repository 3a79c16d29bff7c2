/**
 * Control commands as requests of the control queue.
 *
 * One command is with the device at a time: the ring has room for the chain of one with data. A command whose caller gave up stays
 * with the device until it is answered, and the next one waits for that.
 */
import { type DmaRegion, type Request, type RequestQueue, type Transport, VirtioError } from '@virtio/core';
import { type ControlTarget, join, type NetCommand } from './control.ts';
import { ControlAck } from './protocol.ts';

/** The bytes for the answer to a command, for each slot. */
const ANSWER_SIZE = 2048;

/** The most descriptors of a control command: for its head, its data in one or two parts, and the ack. */
export const CONTROL_QUEUE_SIZE = 4;

/** In place of an answer, before there is one. */
const UNANSWERED = 0xff;

/** What {@link ControlRequests} are made of. */
export interface ControlRequestsParts {
  readonly transport: Transport;
  readonly queue: RequestQueue;
  readonly allocate: (bytes: number) => DmaRegion;
  readonly target: ControlTarget;
  /** Makes the packets available to the device that were sent before. */
  readonly publish: () => void;
}

/** Makes requests of commands. */
export class ControlRequests {
  /** The control queue. */
  readonly queue: RequestQueue;
  readonly #transport: Transport;
  readonly #answers: DmaRegion;
  readonly #target: ControlTarget;
  readonly #publish: () => void;

  constructor({ transport, queue, allocate, target, publish }: ControlRequestsParts) {
    this.#transport = transport;
    this.queue = queue;
    this.#answers = allocate(queue.slots * ANSWER_SIZE);
    this.#target = target;
    this.#publish = publish;
  }

  /** The request for a command. */
  of<T>(command: NetCommand<T>): Request<T> {
    const target = this.#target;
    const { queue: commands } = this;
    const data = command.data(target);
    const pieces = data instanceof Uint8Array ? [data] : data;
    const size = 1 + (command.resultSize?.(target) ?? 0);
    if (size > ANSWER_SIZE) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${command.name}: the answer would have ${size} bytes, and there is room for ${ANSWER_SIZE}; ask for less at once`,
      );
    }
    const { bytes, address } = this.#answers;
    const apart = [
      Uint8Array.of(command.class, command.command),
      ...pieces.filter(({ length }) => length > 0),
    ];
    // A descriptor for each part, as in Linux: legacy devices need that [5.1.9.8], and cloud-hypervisor, whatever 2.7.4.1 says.
    const parts = apart.length < commands.queue.size ? apart : [join(apart)];
    return {
      buffers: parts.length + 1,
      fill: (slot) => {
        for (const part of parts) commands.shareReadable(slot, part);
        bytes[slot * ANSWER_SIZE] = UNANSWERED;
        commands.queue.pushWritable(address + slot * ANSWER_SIZE, size);
        if (command.sent === undefined) return;
        // 5.1.9.5.6.1: after it, none may follow on the pairs that it ends.
        this.#publish();
        command.sent(target);
      },
      // Devices report all kinds of used lengths here, so what counts is whether the answer was written.
      result: (slot, usedLength) => {
        const start = slot * ANSWER_SIZE;
        const ack = bytes[start];
        if (ack === ControlAck.OK) {
          const end = Math.min(size, Math.max(1, usedLength));
          return command.value(bytes.slice(start + 1, start + end), target);
        }
        const who = `${this.#transport.who()}: the command ${command.name}`;
        if (ack === ControlAck.ERR) throw new VirtioError('IO_ERROR', `${who} was refused by the device`);
        throw new VirtioError(
          'DEVICE_MISBEHAVED',
          `${who} was answered with ${ack}, which is neither OK (0) nor ERR (1)`,
        );
      },
    };
  }
}
