/**
 * A sound device for tests, written from the specification alone: it keeps the streams' states itself, refuses what is out of order, and
 * plays and captures when the test says so.
 */
import { CommonFeatures, DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, FakeTransport } from '@virtio/testing';
import { VirtioSound, type SoundOptions } from '../src/index.ts';

export const SPLIT = CommonFeatures.set('EVENT_IDX', 'INDIRECT_DESC').bits;
export const CTLS = 1n;
export const OK = 0x8000;
export const BAD_MSG = 0x8001;
export const NOT_SUPP = 0x8002;
export const IO_ERR = 0x8003;

/** A stream of the model. */
export interface ModelStream {
  readonly output: boolean;
  features: number;
  formats: bigint;
  rates: bigint;
  min: number;
  max: number;
  state: 'new' | 'set' | 'prepared' | 'running' | 'stopped' | 'released';
  params:
    | { buffer: number; period: number; features: number; channels: number; format: number; rate: number }
    | undefined;
  /** What was played, in order. */
  readonly played: number[];
  /** The sizes of the periods that were played. */
  readonly sizes: number[];
  /** Periods that wait: of playback to be heard, of capture to be filled. */
  readonly waiting: Chain[];
}

export interface ModelJack {
  remap: boolean;
  connected: boolean;
  association: number;
  sequence: number;
}

export interface ModelControl {
  readonly name: string;
  readonly role: number;
  readonly type: number;
  readonly access: number;
  readonly count: number;
  readonly index?: number;
  /** The union of 24 bytes. */
  readonly range: Uint8Array;
  readonly items?: readonly string[];
  /** The value: 512 bytes. */
  value: Uint8Array;
  tlv: Uint8Array;
  commands: Uint8Array[];
}

export interface ModelOptions {
  readonly features?: bigint;
  readonly streams?: readonly Partial<ModelStream>[];
  readonly jacks?: readonly Partial<ModelJack>[];
  readonly maps?: readonly {
    readonly direction: number;
    readonly positions: readonly number[];
    readonly channels?: number;
  }[];
  readonly controls?: readonly ModelControl[];
  readonly queueSize?: number;
  readonly interrupts?: boolean;
  readonly options?: SoundOptions;
}

const S16_AND_FRIENDS = (1n << 5n) | (1n << 4n) | (1n << 17n) | (1n << 19n);
const COMMON_RATES = (1n << 6n) | (1n << 7n) | (1n << 14n) | (1n << 15n);

export class SoundModel {
  readonly device: FakeDevice;
  transport: FakeTransport;
  readonly streams: ModelStream[];
  readonly jacks: ModelJack[];
  readonly maps: NonNullable<ModelOptions['maps']>;
  readonly controls: readonly ModelControl[];
  /** The control requests that came: code and bytes. */
  readonly requests: { readonly code: number; readonly bytes: Uint8Array }[] = [];
  /** Answers a control request in place of the model; `false` to let the model do it. */
  override: ((code: number, chain: Chain) => boolean) | undefined;
  /** The status and latency of the next periods. */
  status = OK;
  latency = 0;
  /** Where the status of a capture goes: behind the captured bytes, as QEMU does, or at the end of the buffer. */
  statusAtEnd = false;
  /** Plays at once whatever comes, inside of the notification. */
  eager = false;

  readonly #options: SoundOptions;
  #driver: VirtioSound | undefined;

  constructor({
    features = SPLIT,
    streams = [{ output: true }, { output: false }],
    jacks = [],
    maps = [],
    controls = [],
    queueSize = 64,
    interrupts = true,
    options = {},
  }: ModelOptions = {}) {
    this.streams = streams.map((stream) => ({
      output: true,
      features: 0,
      formats: S16_AND_FRIENDS,
      rates: COMMON_RATES,
      min: 1,
      max: 2,
      state: 'new',
      params: undefined,
      played: [],
      sizes: [],
      waiting: [],
      ...stream,
    }));
    this.jacks = jacks.map((jack) => ({
      remap: false,
      connected: false,
      association: 0,
      sequence: 0,
      ...jack,
    }));
    this.maps = maps;
    this.controls = controls;
    const config = new DataView(new ArrayBuffer(16));
    [this.jacks.length, this.streams.length, maps.length, controls.length].forEach((count, index) => {
      config.setUint32(4 * index, count, true);
    });
    this.device = new FakeDevice({
      type: DeviceType.Sound,
      features,
      config: new Uint8Array(config.buffer),
      queues: [queueSize, queueSize, queueSize, queueSize],
    });
    this.transport = new FakeTransport(this.device, interrupts ? {} : { interrupts: false });
    this.#options = options;
    this.device.handle(0, (chain) => this.#control(chain));
    this.device.handle(2, (chain) => this.#period(chain, true));
    this.device.handle(3, (chain) => this.#period(chain, false));
    this.device.onReset = () => {
      for (const stream of this.streams) {
        stream.state = 'new';
        stream.waiting.length = 0;
      }
    };
  }

  get driver(): VirtioSound {
    return (this.#driver ??= new VirtioSound(this.transport, this.device.hal, this.#options));
  }

  stream(id: number): ModelStream {
    const stream = this.streams[id];
    if (stream === undefined) throw new Error(`the model has no stream ${id}`);
    return stream;
  }

  /** Plays so many periods of a stream that runs; returns how many there were. */
  play(id: number, count = Infinity): number {
    const stream = this.stream(id);
    let done = 0;
    while (done < count && stream.state === 'running') {
      const chain = stream.waiting.shift();
      if (chain === undefined) break;
      // What is played is what stands there now, not what stood there when it was posted.
      const bytes = chain.bytes().subarray(4);
      stream.played.push(...bytes);
      stream.sizes.push(bytes.length);
      this.#status(chain);
      chain.complete();
      done += 1;
    }
    return done;
  }

  /** Captures bytes into the next period of a stream that runs; returns false if there is none. */
  capture(id: number, bytes: Uint8Array): boolean {
    const stream = this.stream(id);
    if (stream.state !== 'running') return false;
    const chain = stream.waiting.shift();
    if (chain === undefined) return false;
    this.#fill(chain, bytes);
    return true;
  }

  /** Sends an event. */
  event(code: number, data: number): boolean {
    const view = new DataView(new ArrayBuffer(8));
    view.setUint32(0, code, true);
    view.setUint32(4, data >>> 0, true);
    return this.device.send(1, new Uint8Array(view.buffer));
  }

  /** The codes of the requests that came, but for queries. */
  get commands(): string[] {
    const names: Readonly<Record<number, string>> = {
      0x101: 'SET_PARAMS',
      0x102: 'PREPARE',
      0x103: 'RELEASE',
      0x104: 'START',
      0x105: 'STOP',
    };
    return this.requests.flatMap(({ code }) => names[code] ?? []);
  }

  #fill(chain: Chain, bytes: Uint8Array): void {
    const room = chain.writable - 8;
    chain.write(bytes.subarray(0, room));
    const length = chain.written;
    if (this.statusAtEnd) {
      chain.writeAt(room, this.#statusBytes());
      chain.complete(length + 8);
    } else {
      chain.write(this.#statusBytes());
      chain.complete();
    }
  }

  #statusBytes(): Uint8Array {
    const view = new DataView(new ArrayBuffer(8));
    view.setUint32(0, this.status, true);
    view.setUint32(4, this.latency, true);
    return new Uint8Array(view.buffer);
  }

  #status(chain: Chain): void {
    chain.write(this.#statusBytes());
  }

  #period(chain: Chain, output: boolean): void {
    const id = chain.header().getUint32(0, true);
    const stream = this.streams[id];
    if (stream?.output !== output) {
      this.status = BAD_MSG;
      this.#status(chain);
      this.status = OK;
      return;
    }
    if (output ? chain.writable !== 8 : chain.readable !== 4) {
      throw this.device.violated('a period has buffers of the wrong direction [5.14.6.8]');
    }
    if (stream.params !== undefined) {
      const size = output ? chain.readable - 4 : chain.writable - 8;
      if (size > stream.params.period) throw this.device.violated(`a period of ${size} bytes`);
    }
    // vhost-device-sound ends where this throws.
    if (stream.state === 'stopped') {
      throw this.device.violated(
        'a period after STOP; the driver transfers data after PREPARE and START [5.14.6.6.1]',
      );
    }
    chain.defer();
    stream.waiting.push(chain);
    if (this.eager && output) this.play(id);
  }

  #control(chain: Chain): void {
    const request = chain.header();
    const code = request.getUint32(0, true);
    this.requests.push({ code, bytes: chain.bytes() });
    if (this.override?.(code, chain) === true) return;
    const reply = (status: number, payload: ArrayLike<number> = []): void => {
      const head = new DataView(new ArrayBuffer(4));
      head.setUint32(0, status, true);
      chain.write(new Uint8Array(head.buffer));
      chain.write(payload);
    };
    const item = (): number => request.getUint32(4, true);
    switch (code) {
      case 0x0001: {
        this.#query(request, reply, this.jacks.length, 24, (id) => this.#jackInfo(id));
        return;
      }
      case 0x0002: {
        const jack = this.jacks[item()];
        if (jack?.remap !== true) {
          reply(NOT_SUPP);
          return;
        }
        jack.association = request.getUint32(8, true);
        jack.sequence = request.getUint32(12, true);
        reply(OK);
        return;
      }
      case 0x0100: {
        this.#query(request, reply, this.streams.length, 32, (id) => this.#streamInfo(id));
        return;
      }
      case 0x0200: {
        this.#query(request, reply, this.maps.length, 24, (id) => this.#mapInfo(id));
        return;
      }
      case 0x0300: {
        this.#query(request, reply, this.controls.length, 92, (id) => this.#controlInfo(id));
        return;
      }
      case 0x0101:
      case 0x0102:
      case 0x0103:
      case 0x0104:
      case 0x0105: {
        reply(this.#command(code, item(), request));
        return;
      }
      default: {
        this.#element(code, item(), chain, reply);
        return;
      }
    }
  }

  #query(
    request: DataView,
    reply: (status: number, payload?: ArrayLike<number>) => void,
    total: number,
    size: number,
    info: (id: number) => Uint8Array,
  ): void {
    const [start, count, given] = [4, 8, 12].map((at) => request.getUint32(at, true)) as [
      number,
      number,
      number,
    ];
    if (start + count > total) {
      throw this.device.violated(`items ${start} + ${count} of ${total} [5.14.6.2]`);
    }
    if (given !== size) throw this.device.violated(`items of ${given} bytes in place of ${size}`);
    const payload: number[] = [];
    for (let id = start; id < start + count; id += 1) payload.push(...info(id));
    reply(OK, payload);
  }

  #command(code: number, id: number, request: DataView): number {
    const stream = this.streams[id];
    if (stream === undefined) return BAD_MSG;
    const { state } = stream;
    switch (code) {
      case 0x0101: {
        if (state === 'running' || state === 'stopped') return BAD_MSG;
        const params = {
          buffer: request.getUint32(8, true),
          period: request.getUint32(12, true),
          features: request.getUint32(16, true),
          channels: request.getUint8(20),
          format: request.getUint8(21),
          rate: request.getUint8(22),
        };
        if (request.getUint8(23) !== 0) throw this.device.violated('padding that is not 0 [5.14.6.6.3.2]');
        if (params.buffer % params.period !== 0) {
          throw this.device.violated('periods that do not divide the buffer');
        }
        if (((stream.formats >> BigInt(params.format)) & 1n) === 0n) {
          throw this.device.violated('a format that there is not');
        }
        if (((stream.rates >> BigInt(params.rate)) & 1n) === 0n) {
          throw this.device.violated('a rate that there is not');
        }
        if (params.channels < stream.min || params.channels > stream.max) {
          throw this.device.violated('channels');
        }
        if ((params.features & ~stream.features) !== 0) {
          throw this.device.violated('features that there are not');
        }
        stream.params = params;
        stream.state = 'set';
        return OK;
      }
      case 0x0102:
        if (!['set', 'prepared', 'released'].includes(state)) return BAD_MSG;
        stream.state = 'prepared';
        return OK;
      case 0x0103:
        if (!['prepared', 'stopped'].includes(state)) return BAD_MSG;
        stream.state = 'released';
        // 5.14.6.6.5.1: all I/O messages are completed first.
        for (const chain of stream.waiting.splice(0)) {
          if (stream.output) {
            this.#status(chain);
            chain.complete();
          } else {
            this.#fill(chain, new Uint8Array(0));
          }
        }
        return OK;
      case 0x0104:
        if (!['prepared', 'stopped'].includes(state)) return BAD_MSG;
        stream.state = 'running';
        if (this.eager) this.play(id);
        return OK;
      default:
        if (state !== 'running') return BAD_MSG;
        stream.state = 'stopped';
        return OK;
    }
  }

  #element(
    code: number,
    id: number,
    chain: Chain,
    reply: (status: number, payload?: ArrayLike<number>) => void,
  ): void {
    const control = this.controls[id];
    if (control === undefined) {
      reply(BAD_MSG);
      return;
    }
    const payload = chain.bytes().slice(8);
    const may = (bit: number): void => {
      if (((control.access >> bit) & 1) === 0) throw this.device.violated(`access ${bit} to control ${id}`);
    };
    switch (code) {
      case 0x0301: {
        const names = new Uint8Array(64 * (control.items?.length ?? 0));
        control.items?.forEach((name, index) => names.set(new TextEncoder().encode(name), 64 * index));
        reply(OK, names);
        return;
      }
      case 0x0302:
        may(0);
        {
          reply(OK, control.value);
          return;
        }
      case 0x0303:
        may(1);
        if (payload.length !== 512) throw this.device.violated(`a value of ${payload.length} bytes`);
        control.value = payload;
        {
          reply(OK);
          return;
        }
      case 0x0304:
        may(4);
        {
          reply(OK, control.tlv.subarray(0, chain.writable - 4));
          return;
        }
      case 0x0305:
        may(5);
        control.tlv = payload;
        {
          reply(OK);
          return;
        }
      case 0x0306:
        may(6);
        control.commands.push(payload);
        {
          reply(OK);
          return;
        }
      default: {
        reply(NOT_SUPP);
        return;
      }
    }
  }

  #jackInfo(id: number): Uint8Array {
    const jack = this.jacks[id] as ModelJack;
    const view = new DataView(new ArrayBuffer(24));
    view.setUint32(0, 7, true);
    view.setUint32(4, jack.remap ? 1 : 0, true);
    view.setUint32(8, (jack.association << 4) | jack.sequence, true);
    view.setUint32(12, 0x10 + id, true);
    view.setUint8(16, jack.connected ? 1 : 0);
    return new Uint8Array(view.buffer);
  }

  #streamInfo(id: number): Uint8Array {
    const stream = this.stream(id);
    const view = new DataView(new ArrayBuffer(32));
    view.setUint32(0, 7, true);
    view.setUint32(4, stream.features, true);
    view.setBigUint64(8, stream.formats, true);
    view.setBigUint64(16, stream.rates, true);
    view.setUint8(24, stream.output ? 0 : 1);
    view.setUint8(25, stream.min);
    view.setUint8(26, stream.max);
    return new Uint8Array(view.buffer);
  }

  #mapInfo(id: number): Uint8Array {
    const {
      direction,
      positions,
      channels = positions.length,
    } = this.maps[id] as NonNullable<ModelOptions['maps']>[0];
    const bytes = new Uint8Array(24);
    bytes[0] = 7;
    bytes[4] = direction;
    bytes[5] = channels;
    bytes.set(positions, 6);
    return bytes;
  }

  #controlInfo(id: number): Uint8Array {
    const control = this.controls[id] as ModelControl;
    const bytes = new Uint8Array(92);
    const view = new DataView(bytes.buffer);
    [7, control.role, control.type, control.access, control.count, control.index ?? 0].forEach(
      (value, index) => {
        view.setUint32(4 * index, value, true);
      },
    );
    bytes.set(new TextEncoder().encode(control.name), 24);
    bytes.set(control.range, 68);
    return bytes;
  }
}

/** Lets microtasks run. */
export async function turns(count = 60): Promise<void> {
  for (let i = 0; i < count; i += 1) await Promise.resolve();
}
