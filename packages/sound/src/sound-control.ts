/**
 * The control requests of a sound device, each with promises and spinning; and any of them without waiting, as a command.
 */
import {
  requireInteger,
  requireWaitable,
  type SpinOptions,
  type SubmitOptions,
  type Transport,
  VirtioError,
  type WaitOptions,
} from '@virtio/core';
import {
  controlCommand,
  parametersCommand,
  type PcmParameters,
  type Query,
  queryCommand,
  remapCommand,
  type SoundCommand,
  streamCommand,
} from './commands.ts';
import type { ControlQueue } from './control-queue.ts';
import {
  type ControlMetadata,
  type ControlValue,
  readMetadata,
  readValue,
  writeMetadata,
  writeValue,
} from './control-values.ts';
import { formatNumber, isWholeFrames, type PcmFormatName, rateNumber } from './formats.ts';
import {
  type ChannelMapInfo,
  type ControlInfo,
  type JackInfo,
  parseChannelMap,
  parseControl,
  parseEnumItem,
  parseJack,
  parseStream,
  type StreamInfo,
} from './info.ts';
import type { PcmState } from './pcm-state.ts';
import {
  ChannelMapInfoLayout,
  CONTROL_VALUE_SIZE,
  type ControlAccessName,
  ControlInfoLayout,
  ENUM_ITEM_SIZE,
  JackInfoLayout,
  PcmInfoLayout,
  SoundRequest,
  TLV_MAX_SIZE,
  TlvHeader,
} from './protocol.ts';
import { ask, carryOut, carryOutSync, type Step, type Steps } from './steps.ts';

/** The number of items of each kind. */
export interface SoundCounts {
  readonly jacks: number;
  readonly streams: number;
  readonly channelMaps: number;
  /** 0 unless CTLS was negotiated. */
  readonly controls: number;
}

/** The items to ask for (default: all). */
export interface ItemRange {
  /** The first one (default 0). */
  readonly start?: number;
  /** How many (default: all from there on). */
  readonly count?: number;
}

/** The largest size of items that are asked for at once, in bytes. */
const QUERY_BYTES = 16_384;
/** The largest number of items of a kind; a device that reports more is not trusted. */
const MAX_ITEMS = 65_536;

const JACKS: Query<JackInfo> = { code: SoundRequest.JACK_INFO, size: JackInfoLayout.size, parse: parseJack };
const STREAMS: Query<StreamInfo> = {
  code: SoundRequest.PCM_INFO,
  size: PcmInfoLayout.size,
  parse: parseStream,
};
const MAPS: Query<ChannelMapInfo> = {
  code: SoundRequest.CHMAP_INFO,
  size: ChannelMapInfoLayout.size,
  parse: parseChannelMap,
};
const CONTROLS: Query<ControlInfo> = {
  code: SoundRequest.CTL_INFO,
  size: ControlInfoLayout.size,
  parse: parseControl,
};

/**
 * The control requests of a sound device: `VirtioSound.control`. A call out of order, with a number that the device does not have, or
 * for a feature or access right that an item lacks, is refused before anything is sent.
 *
 * All promises reject, and all `…Sync` calls throw, with `INVALID_PARAM` for calls that were refused here, `UNSUPPORTED` if the device answers
 * NOT_SUPP, `IO_ERROR` for BAD_MSG and IO_ERR, `DEVICE_MISBEHAVED` for an answer that the specification does not allow; `ABORTED`, `NOT_READY` after
 * `timeoutMs`; or why the device no longer works.
 *
 * @see VIRTIO 1.4, 5.14.6
 */
export class SoundControl {
  readonly #transport: Transport;
  readonly #queue: ControlQueue;
  #counts: SoundCounts;
  /** The capabilities of streams, as first reported: QEMU's `channels_max` follows the parameters that were set last. */
  readonly #streams = new Map<number, StreamInfo>();
  readonly #controls = new Map<number, ControlInfo>();

  /** @internal */
  constructor(transport: Transport, queue: ControlQueue, counts: SoundCounts) {
    this.#transport = transport;
    this.#queue = queue;
    this.#counts = counts;
  }

  /** The number of jacks. */
  get jacks(): number {
    return this.#counts.jacks;
  }

  /** The number of PCM streams. */
  get streams(): number {
    return this.#counts.streams;
  }

  /** The number of channel maps. */
  get channelMaps(): number {
    return this.#counts.channelMaps;
  }

  /** The number of control elements; 0 unless CTLS was negotiated. */
  get controls(): number {
    return this.#counts.controls;
  }

  /**
   * The state of a stream after the commands that were sent.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if there is no such stream
   */
  streamState(stream: number): PcmState {
    return this.#queue.state(this.#id('stream', stream, this.#counts.streams));
  }

  // Items.

  /** Asks for information about jacks. */
  jackInfos(range?: ItemRange, options?: WaitOptions): Promise<JackInfo[]> {
    return this.run(this.#items('jacks', JACKS, range), options);
  }

  /** As {@link SoundControl.jackInfos}, spinning. */
  jackInfosSync(range?: ItemRange, options?: SpinOptions): JackInfo[] {
    return this.runSync(this.#items('jacks', JACKS, range), options);
  }

  /** Asks for information about PCM streams. */
  streamInfos(range?: ItemRange, options?: WaitOptions): Promise<StreamInfo[]> {
    return this.run(this.#streamItems(range), options);
  }

  /** As {@link SoundControl.streamInfos}, spinning. */
  streamInfosSync(range?: ItemRange, options?: SpinOptions): StreamInfo[] {
    return this.runSync(this.#streamItems(range), options);
  }

  /** Asks for information about channel maps. */
  channelMapInfos(range?: ItemRange, options?: WaitOptions): Promise<ChannelMapInfo[]> {
    return this.run(this.#items('channelMaps', MAPS, range), options);
  }

  /** As {@link SoundControl.channelMapInfos}, spinning. */
  channelMapInfosSync(range?: ItemRange, options?: SpinOptions): ChannelMapInfo[] {
    return this.runSync(this.#items('channelMaps', MAPS, range), options);
  }

  /** Asks for information about control elements. */
  controlInfos(range?: ItemRange, options?: WaitOptions): Promise<ControlInfo[]> {
    return this.run(this.#controlItems(range), options);
  }

  /** As {@link SoundControl.controlInfos}, spinning. */
  controlInfosSync(range?: ItemRange, options?: SpinOptions): ControlInfo[] {
    return this.runSync(this.#controlItems(range), options);
  }

  // Jacks.

  /** Changes the association and sequence of a jack that can be remapped. */
  remapJack(jack: number, association: number, sequence: number, options?: WaitOptions): Promise<void> {
    return this.run(this.#remap(jack, association, sequence), options);
  }

  /** As {@link SoundControl.remapJack}, spinning. */
  remapJackSync(jack: number, association: number, sequence: number, options?: SpinOptions): void {
    this.runSync(this.#remap(jack, association, sequence), options);
  }

  // Streams.

  /** Sets the parameters of a stream; they are first checked against its capabilities. */
  setParameters(stream: number, parameters: PcmParameters, options?: WaitOptions): Promise<void> {
    return this.run(this.parametersSteps(stream, parameters), options);
  }

  /** As {@link SoundControl.setParameters}, spinning. */
  setParametersSync(stream: number, parameters: PcmParameters, options?: SpinOptions): void {
    this.runSync(this.parametersSteps(stream, parameters), options);
  }

  /** Prepares a stream whose parameters are set. */
  prepare(stream: number, options?: WaitOptions): Promise<void> {
    return this.run(this.#command(stream, 'PREPARE'), options);
  }

  /** As {@link SoundControl.prepare}, spinning. */
  prepareSync(stream: number, options?: SpinOptions): void {
    this.runSync(this.#command(stream, 'PREPARE'), options);
  }

  /** Starts a stream that is prepared or stopped. */
  start(stream: number, options?: WaitOptions): Promise<void> {
    return this.run(this.#command(stream, 'START'), options);
  }

  /** As {@link SoundControl.start}, spinning. */
  startSync(stream: number, options?: SpinOptions): void {
    this.runSync(this.#command(stream, 'START'), options);
  }

  /** Stops a stream that runs. */
  stop(stream: number, options?: WaitOptions): Promise<void> {
    return this.run(this.#command(stream, 'STOP'), options);
  }

  /** As {@link SoundControl.stop}, spinning. */
  stopSync(stream: number, options?: SpinOptions): void {
    this.runSync(this.#command(stream, 'STOP'), options);
  }

  /** Releases a stream that is prepared or stopped: the device gives all of its buffers back. */
  release(stream: number, options?: WaitOptions): Promise<void> {
    return this.run(this.#command(stream, 'RELEASE'), options);
  }

  /** As {@link SoundControl.release}, spinning. */
  releaseSync(stream: number, options?: SpinOptions): void {
    this.runSync(this.#command(stream, 'RELEASE'), options);
  }

  // Control elements.

  /** Asks for the names of the items of an element of type `ENUMERATED`. */
  controlItems(control: number, options?: WaitOptions): Promise<string[]> {
    return this.run(this.#enumItems(control), options);
  }

  /** As {@link SoundControl.controlItems}, spinning. */
  controlItemsSync(control: number, options?: SpinOptions): string[] {
    return this.runSync(this.#enumItems(control), options);
  }

  /** Reads the values of an element with the access right `READ`. */
  readControl(control: number, options?: WaitOptions): Promise<ControlValue> {
    return this.run(this.#read(control), options);
  }

  /** As {@link SoundControl.readControl}, spinning. */
  readControlSync(control: number, options?: SpinOptions): ControlValue {
    return this.runSync(this.#read(control), options);
  }

  /** Changes the values of an element with the access right `WRITE`. */
  writeControl(control: number, value: ControlValue, options?: WaitOptions): Promise<void> {
    return this.run(this.#write(control, value), options);
  }

  /** As {@link SoundControl.writeControl}, spinning. */
  writeControlSync(control: number, value: ControlValue, options?: SpinOptions): void {
    this.runSync(this.#write(control, value), options);
  }

  /**
   * Reads the metadata of an element with the access right `TLV_READ`.
   *
   * @param size the largest size in bytes, a multiple of 4 up to 65536 (default 4096); the device leaves out what does not fit
   */
  readMetadata(control: number, size?: number, options?: WaitOptions): Promise<ControlMetadata> {
    return this.run(this.#readMetadata(control, size), options);
  }

  /** As {@link SoundControl.readMetadata}, spinning. */
  readMetadataSync(control: number, size?: number, options?: SpinOptions): ControlMetadata {
    return this.runSync(this.#readMetadata(control, size), options);
  }

  /** Changes the metadata of an element with the access right `TLV_WRITE`. */
  writeMetadata(control: number, metadata: ControlMetadata, options?: WaitOptions): Promise<void> {
    return this.run(this.#sendMetadata('TLV_WRITE', control, metadata), options);
  }

  /** As {@link SoundControl.writeMetadata}, spinning. */
  writeMetadataSync(control: number, metadata: ControlMetadata, options?: SpinOptions): void {
    this.runSync(this.#sendMetadata('TLV_WRITE', control, metadata), options);
  }

  /** Sends a command to an element with the access right `TLV_COMMAND`. */
  commandMetadata(control: number, command: ControlMetadata, options?: WaitOptions): Promise<void> {
    return this.run(this.#sendMetadata('TLV_COMMAND', control, command), options);
  }

  /** As {@link SoundControl.commandMetadata}, spinning. */
  commandMetadataSync(control: number, command: ControlMetadata, options?: SpinOptions): void {
    this.runSync(this.#sendMetadata('TLV_COMMAND', control, command), options);
  }

  // Without waiting.

  /**
   * Sends a command without waiting: one of {@link streamCommand}, {@link parametersCommand}, {@link remapCommand}, {@link queryCommand} or
   * {@link controlCommand}. A stream's state is checked; parameters, numbers and access rights are not.
   *
   * @returns the token of the request
   * @throws {@link VirtioError} `QUEUE_FULL`, `INVALID_PARAM` for a command out of order, or why the device no longer works
   */
  submit(command: SoundCommand<unknown>, options?: SubmitOptions): number {
    return this.#queue.submit(command, options);
  }

  /** Notifies the device of commands that were submitted with `kick: false`. */
  kick(): void {
    this.#queue.kick();
  }

  /** The token of the next submitted command that was answered, or -1. */
  poll(): number {
    return this.#queue.poll();
  }

  /**
   * Completes a command that was submitted.
   *
   * @returns the result of the command's `parse`
   * @throws {@link VirtioError} `NOT_READY`, `WRONG_TOKEN`, or what was wrong with the answer
   */
  complete(token: number): unknown {
    return this.#queue.complete(token);
  }

  /** Cancels a command; the state of its stream is then unknown. */
  cancel(token: number): void {
    this.#queue.cancel(token);
  }

  // For the driver.

  /** @internal */
  async run<T>(steps: Steps<T>, options?: WaitOptions): Promise<T> {
    requireWaitable(this.#transport, options);
    return carryOut(steps, (step) => this.#queue.request(commandOf(step), options));
  }

  /** @internal */
  runSync<T>(steps: Steps<T>, options?: SpinOptions): T {
    return carryOutSync(steps, (step) => this.#queue.requestSync(commandOf(step), options));
  }

  /** @internal The device was reset. */
  forget(counts: SoundCounts): void {
    if (counts.streams !== this.#counts.streams) this.#streams.clear();
    this.#controls.clear();
    this.#counts = counts;
  }

  /** @internal The information about an element is out of date. */
  forgetControl(control: number): void {
    this.#controls.delete(control);
  }

  /** @internal The capabilities of a stream, as first reported. */
  *streamSteps(stream: number): Steps<StreamInfo> {
    const id = this.#id('stream', stream, this.#counts.streams);
    const known = this.#streams.get(id);
    if (known !== undefined) return known;
    yield* this.#streamItems({});
    const info = this.#streams.get(id);
    if (info === undefined) throw this.#none('stream', stream, this.#counts.streams);
    return info;
  }

  /** @internal */
  *parametersSteps(stream: number, parameters: PcmParameters): Steps<void> {
    const info = yield* this.streamSteps(stream);
    this.#checkParameters(info, parameters);
    yield* ask(parametersCommand(stream, parameters));
  }

  *#command(stream: number, command: 'PREPARE' | 'START' | 'STOP' | 'RELEASE'): Steps<void> {
    yield* ask(streamCommand(this.#id('stream', stream, this.#counts.streams), command));
  }

  *#items<T>(kind: keyof SoundCounts, query: Query<T>, { start = 0, count }: ItemRange = {}): Steps<T[]> {
    const total = this.#counts[kind];
    if (total > MAX_ITEMS) {
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.#transport.who()} reports ${total} ${kind}; more than ${MAX_ITEMS} are not accepted`,
      );
    }
    // 5.14.6.2: no more than there are.
    requireInteger(this.#transport, `the first of the ${kind}`, start, 0, total);
    const end =
      start +
      requireInteger(this.#transport, `the number of ${kind}`, count ?? total - start, 0, total - start);
    const items: T[] = [];
    const most = Math.floor(QUERY_BYTES / query.size);
    for (let at = start; at < end; at += most) {
      items.push(...(yield* ask(queryCommand(query, at, Math.min(most, end - at)))));
    }
    return items;
  }

  *#streamItems(range?: ItemRange): Steps<StreamInfo[]> {
    const infos = yield* this.#items('streams', STREAMS, range);
    for (const info of infos) if (!this.#streams.has(info.id)) this.#streams.set(info.id, info);
    return infos;
  }

  *#controlItems(range?: ItemRange): Steps<ControlInfo[]> {
    const infos = yield* this.#items('controls', CONTROLS, range);
    for (const info of infos) this.#controls.set(info.id, info);
    return infos;
  }

  *#remap(jack: number, association: number, sequence: number): Steps<void> {
    this.#id('jack', jack, this.#counts.jacks);
    requireInteger(this.#transport, 'association', association, 0, 0xffff_ffff);
    requireInteger(this.#transport, 'sequence', sequence, 0, 0xffff_ffff);
    const [info] = yield* this.#items('jacks', JACKS, { start: jack, count: 1 });
    if (info?.remappable !== true) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#transport.who()}: jack ${jack} cannot be remapped, as it does not have REMAP`,
      );
    }
    yield* ask(remapCommand(jack, association, sequence));
  }

  *#control(control: number, access?: ControlAccessName): Steps<ControlInfo> {
    const { controls } = this.#counts;
    this.#id('control element', control, controls);
    const info = this.#controls.get(control) ?? (yield* this.#controlItems({ start: control, count: 1 }))[0];
    if (info === undefined) throw this.#none('control element', control, controls);
    // 5.14.6.10.2.1, 5.14.6.10.3.2: no request without the right to it.
    if (access !== undefined && !info.access.includes(access)) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#transport.who()}: control element ${control} (${info.name}) does not have ${access}; it has ${info.access.join(', ') || 'no rights'}`,
      );
    }
    return info;
  }

  *#enumItems(control: number): Steps<string[]> {
    const { items, name } = yield* this.#control(control);
    if (items === undefined) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: control element ${control} (${name}) is not of type ENUMERATED`,
      );
    }
    if (items > MAX_ITEMS) {
      throw new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.#transport.who()}: control element ${control} (${name}) has ${items} items`,
      );
    }
    return yield* ask(
      controlCommand('CTL_ENUM_ITEMS', control, items * ENUM_ITEM_SIZE, (reply) =>
        Array.from({ length: items }, (_, item) => parseEnumItem(reply, item * ENUM_ITEM_SIZE)),
      ),
    );
  }

  *#read(control: number): Steps<ControlValue> {
    const info = yield* this.#control(control, 'READ');
    return yield* ask(
      controlCommand('CTL_READ', control, CONTROL_VALUE_SIZE, (reply) => readValue(info, reply)),
    );
  }

  *#write(control: number, value: ControlValue): Steps<void> {
    const info = yield* this.#control(control, 'WRITE');
    const payload = writeValue(this.#transport, info, value);
    yield* ask(controlCommand('CTL_WRITE', control, 0, () => undefined, payload));
  }

  *#readMetadata(control: number, size = 4096): Steps<ControlMetadata> {
    requireInteger(this.#transport, 'the size of metadata', size, 4, TLV_MAX_SIZE);
    if (size % 4 !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: the size of metadata must be a multiple of 4, not ${size}`,
      );
    }
    yield* this.#control(control, 'TLV_READ');
    return yield* ask(
      controlCommand('CTL_TLV_READ', control, TlvHeader.size + size, (reply, written) =>
        readMetadata(new DataView(reply.buffer, 0, Math.max(TlvHeader.size, written))),
      ),
    );
  }

  *#sendMetadata(
    access: 'TLV_WRITE' | 'TLV_COMMAND',
    control: number,
    metadata: ControlMetadata,
  ): Steps<void> {
    const payload = writeMetadata(this.#transport, metadata);
    yield* this.#control(control, access);
    yield* ask(controlCommand(`CTL_${access}`, control, 0, () => undefined, payload));
  }

  #id(kind: string, id: number, count: number): number {
    if (count === 0) throw this.#none(kind, id, count);
    return requireInteger(this.#transport, `the ${kind}`, id, 0, count - 1);
  }

  #none(kind: string, id: number, count: number): VirtioError {
    return new VirtioError(
      'INVALID_PARAM',
      `${this.#transport.who()}: there is no ${kind} ${String(id)}; the device has ${count}, from 0 on`,
    );
  }

  #checkParameters(info: StreamInfo, parameters: PcmParameters): void {
    const { format, rate, channels, periodBytes, bufferBytes, features = [] } = parameters;
    const refuse = (what: string, instead: string): VirtioError =>
      new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: stream ${info.id} has no ${what}; use ${instead}`,
      );
    // 5.14.6.6.3.2
    if (formatNumber(format) < 0 || !info.formats.includes(format as PcmFormatName)) {
      throw refuse(
        `format ${format}`,
        info.formats.length === 0 ? 'another stream' : `one of ${info.formats.join(', ')}`,
      );
    }
    if (rateNumber(rate) < 0 || !(info.rates as readonly number[]).includes(rate)) {
      throw refuse(
        `rate ${rate}`,
        info.rates.length === 0 ? 'another stream' : `one of ${info.rates.join(', ')} Hz`,
      );
    }
    requireInteger(this.#transport, 'channels', channels, Math.max(1, info.channelsMin), info.channelsMax);
    requireInteger(this.#transport, 'periodBytes', periodBytes, 1, 0x1000_0000);
    requireInteger(this.#transport, 'bufferBytes', bufferBytes, periodBytes, 0xffff_ffff);
    if (bufferBytes % periodBytes !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: bufferBytes must be a multiple of periodBytes (${periodBytes}), not ${bufferBytes} [5.14.6.6.3.2]`,
      );
    }
    if (!isWholeFrames({ format: format as PcmFormatName, channels }, periodBytes)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: periodBytes must hold whole frames of ${channels} ${format} samples, which ${periodBytes} does not`,
      );
    }
    for (const feature of features) {
      if (feature === 'SHMEM_HOST' || feature === 'SHMEM_GUEST' || feature === 'EVT_SHMEM_PERIODS') {
        throw new VirtioError(
          'UNSUPPORTED',
          `${this.#transport.who()}: ${feature} cannot be used, as shared memory is a placeholder in the specification [5.14.6.6.3]`,
        );
      }
      if (!info.features.includes(feature)) {
        throw refuse(
          `feature ${feature}`,
          info.features.length === 0 ? 'none' : `some of ${info.features.join(', ')}`,
        );
      }
    }
  }
}

function commandOf(step: Step): SoundCommand<unknown> {
  if ('code' in step) return step;
  throw new TypeError('a step of a control request is a command');
}
