/** A made-up device with a queue of each kind, and its driver on the engine of `@virtio/core`, described for the contract. */
import {
  type AnswerOptions,
  BufferDriver,
  FeatureTable,
  type Hal,
  type ReceiveQueue,
  type Request,
  type RequestQueue,
  requireWaitable,
  type SpinOptions,
  type TransmitQueue,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import type { Chain } from '../chain.ts';
import { FakeDevice } from '../fake-device.ts';
import { type Call, MAX_MARK, type Subject } from './subject.ts';

/** No device of the specification. */
const SAMPLE = 62;
/** The mark of what the driver asks of its own accord. */
export const OWN = MAX_MARK + 1;
const REQUESTS = 0;
const RECEIVE = 1;
const TRANSMIT = 2;
const SIZE = 16;

/** The bytes that belong to a mark. */
export function bytesOf(mark: number, length = SIZE): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, at) => (mark * 7 + at) & 0xff);
  new DataView(bytes.buffer).setUint32(0, mark, true);
  return bytes;
}

function markOf(bytes: Uint8Array): number {
  const mark = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
  bytesOf(mark, bytes.length).forEach((byte, at) => {
    if (byte !== bytes[at]) {
      throw new Error(`byte ${at} of what belongs to mark ${mark} is ${String(bytes[at])}`);
    }
  });
  return mark;
}

/** Asks with a buffer, and gets its copy back; receives and sends marks. Asks of its own accord when the configuration changes. */
export class Sample extends BufferDriver<never> {
  readonly #requests: RequestQueue;
  readonly #received: ReceiveQueue;
  readonly #sent: TransmitQueue;
  readonly #marks: number[] = [];
  /** How it waits for what it asks of its own accord. */
  protected readonly own: AnswerOptions = { holds: false };

  constructor(transport: Transport, hal: Hal) {
    super(transport, hal, {
      deviceType: SAMPLE,
      table: new FeatureTable<never>('SampleFeatures', {}),
      supported: [],
    });
    const queues = this.setUp(() => ({
      requests: this.createRequestQueue({ index: REQUESTS }),
      received: this.createReceiveQueue({ index: RECEIVE, bufferSize: SIZE, receive: () => this.#receive() }),
      sent: this.createTransmitQueue({ index: TRANSMIT, bufferSize: SIZE }),
    }));
    this.#requests = queues.requests;
    this.#received = queues.received;
    this.#sent = queues.sent;
    this.start();
  }

  async ask(request: Uint8Array, reply: Uint8Array, options?: WaitOptions): Promise<number> {
    return this.#requests.request(this.#request(request, reply), options);
  }

  askSync(request: Uint8Array, reply: Uint8Array, options?: SpinOptions): number {
    return this.#requests.requestSync(this.#request(request, reply), options);
  }

  submitAsk(request: Uint8Array, reply: Uint8Array): number {
    return this.#requests.submitRequest(this.#request(request, reply));
  }

  poll(): number {
    return this.#requests.poll();
  }

  complete(token: number): unknown {
    return this.#requests.complete(token);
  }

  cancel(token: number): void {
    this.#requests.cancel(token);
  }

  tryReceive(): number {
    if (this.#marks.length === 0) this.#received.drain();
    const mark = this.#marks.shift();
    if (mark === undefined) this.checkUsable();
    return mark ?? -1;
  }

  async receive(options?: WaitOptions): Promise<number> {
    for (;;) {
      requireWaitable(this.transport, options);
      const mark = this.tryReceive();
      if (mark >= 0) return mark;
      await this.#received.wait(options);
    }
  }

  receiveSync(options?: SpinOptions): number {
    let mark = -1;
    this.#received.spin(() => (mark = this.tryReceive()) >= 0, options);
    return mark;
  }

  trySend(mark: number): boolean {
    const buffer = this.#sent.take();
    if (buffer < 0) return false;
    this.#sent.buffer(buffer).set(bytesOf(mark));
    this.#sent.send(buffer, SIZE);
    this.#sent.kick();
    return true;
  }

  sendSync(mark: number, options?: SpinOptions): void {
    this.#sent.spin(() => this.trySend(mark), options);
  }

  /** Asks of its own accord. */
  protected override onConfigChange(): void {
    if (this.transport.interrupts === undefined) return;
    const request = this.#request(bytesOf(OWN), new Uint8Array(SIZE));
    this.#requests.request(request, this.own).catch(() => undefined);
  }

  #request(request: Uint8Array, reply: Uint8Array): Request<number> {
    const requests = this.#requests;
    return {
      buffers: 2,
      fill(slot) {
        requests.shareReadable(slot, request);
        requests.shareWritable(slot, reply);
      },
      result: (_slot, usedLength) => usedLength,
    };
  }

  #receive(): boolean {
    this.#received.poll((bytes) => {
      if (bytes.length !== SIZE) {
        throw this.transport.fail(
          new VirtioError('DEVICE_MISBEHAVED', `a message has ${bytes.length} bytes`),
        );
      }
      this.#marks.push(new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true));
    });
    return this.#marks.length > 0;
  }
}

export const sampleSubject: Subject<Sample> = {
  name: 'sample',
  device: ({ ring, queueSize }) =>
    new FakeDevice({ type: SAMPLE, features: ring, config: 4, queues: [queueSize, queueSize, queueSize] }),
  open: (transport, hal) => new Sample(transport, hal),
  requests: [
    {
      queue: REQUESTS,
      descriptors: 2,
      call(mark: number): Call<Sample> {
        const request = bytesOf(mark);
        const reply = new Uint8Array(SIZE);
        return {
          promise: (sample, options) => sample.ask(request, reply, options),
          sync: (sample, options) => sample.askSync(request, reply, options),
          submit: (sample) => sample.submitAsk(request, reply),
          verify(length) {
            if (length !== SIZE || markOf(reply) !== mark) {
              throw new Error(`request ${mark} got another's answer`);
            }
          },
          buffers: [reply],
        };
      },
      markOf(chain: Chain): number {
        const mark = markOf(chain.readAt(0, SIZE));
        return mark === OWN ? -1 : mark;
      },
      answer: (chain, mark) => void chain.write(bytesOf(mark)),
      polling: {
        poll: (sample) => sample.poll(),
        complete: (sample, token) => sample.complete(token),
        cancel: (sample, token) => sample.cancel(token),
      },
    },
  ],
  receive: [
    {
      queue: RECEIVE,
      send: (device, mark) => device.send(RECEIVE, bytesOf(mark)),
      take: (sample) => sample.tryReceive(),
      promise: (sample, options) => sample.receive(options),
      sync: (sample, options) => sample.receiveSync(options),
    },
  ],
  transmit: [
    {
      queue: TRANSMIT,
      offer: (sample, mark) => sample.trySend(mark),
      sync: (sample, mark, options) => sample.sendSync(mark, options),
      markOf: (chain) => markOf(chain.bytes()),
    },
  ],
  own: [
    {
      queue: REQUESTS,
      provoke: (device: FakeDevice): void => {
        device.changeConfig((config) => {
          config.setUint8(0, config.getUint8(0) + 1);
        });
      },
      matches: (chain) => markOf(chain.readAt(0, SIZE)) === OWN,
      answer: (chain) => void chain.write(bytesOf(OWN)),
    },
  ],
};
