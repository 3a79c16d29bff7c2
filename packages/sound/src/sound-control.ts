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
  parametersCommand,
  type PcmParameters,
  type Query,
  remapCommand,
  type SoundCommand,
  streamCommand,
} from './commands.ts';
import type { ControlQueue } from './control-queue.ts';
import { ControlElements } from './control-elements.ts';
import type { ControlMetadata, ControlValue } from './control-values.ts';
import {
  type ChannelMapInfo,
  type ControlInfo,
  type JackInfo,
  parseChannelMap,
  parseJack,
  parseStream,
  type StreamInfo,
} from './info.ts';
import { type ItemRange, Items, type SoundCounts } from './items.ts';
import { checkParameters } from './pcm-parameters.ts';
import type { PcmState } from './pcm-state.ts';
import { ChannelMapInfoLayout, JackInfoLayout, PcmInfoLayout, SoundRequest } from './protocol.ts';
import { ask, carryOut, carryOutSync, type Step, type Steps } from './steps.ts';

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
  readonly #items: Items;
  readonly #elements: ControlElements;
  /** The capabilities of streams, as first reported: QEMU's `channels_max` follows the parameters that were set last. */
  readonly #streams = new Map<number, StreamInfo>();

  /** @internal */
  constructor(transport: Transport, queue: ControlQueue, counts: SoundCounts) {
    this.#transport = transport;
    this.#queue = queue;
    this.#items = new Items(transport, counts);
    this.#elements = new ControlElements(transport, this.#items);
  }

  /** The number of jacks. */
  get jacks(): number {
    return this.#items.counts.jacks;
  }

  /** The number of PCM streams. */
  get streams(): number {
    return this.#items.counts.streams;
  }

  /** The number of channel maps. */
  get channelMaps(): number {
    return this.#items.counts.channelMaps;
  }

  /** The number of control elements; 0 unless CTLS was negotiated. */
  get controls(): number {
    return this.#items.counts.controls;
  }

  /**
   * The state of a stream after the commands that were sent.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if there is no such stream
   */
  streamState(stream: number): PcmState {
    return this.#queue.state(this.#items.requireId('stream', stream, this.#items.counts.streams));
  }

  // Items.

  /** Asks for information about jacks. */
  jackInfos(range?: ItemRange, options?: WaitOptions): Promise<JackInfo[]> {
    return this.run(this.#items.query('jacks', JACKS, range), options);
  }

  /** As {@link SoundControl.jackInfos}, spinning. */
  jackInfosSync(range?: ItemRange, options?: SpinOptions): JackInfo[] {
    return this.runSync(this.#items.query('jacks', JACKS, range), options);
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
    return this.run(this.#items.query('channelMaps', MAPS, range), options);
  }

  /** As {@link SoundControl.channelMapInfos}, spinning. */
  channelMapInfosSync(range?: ItemRange, options?: SpinOptions): ChannelMapInfo[] {
    return this.runSync(this.#items.query('channelMaps', MAPS, range), options);
  }

  /** Asks for information about control elements. */
  controlInfos(range?: ItemRange, options?: WaitOptions): Promise<ControlInfo[]> {
    return this.run(this.#elements.infos(range), options);
  }

  /** As {@link SoundControl.controlInfos}, spinning. */
  controlInfosSync(range?: ItemRange, options?: SpinOptions): ControlInfo[] {
    return this.runSync(this.#elements.infos(range), options);
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
    return this.run(this.#elements.enumItems(control), options);
  }

  /** As {@link SoundControl.controlItems}, spinning. */
  controlItemsSync(control: number, options?: SpinOptions): string[] {
    return this.runSync(this.#elements.enumItems(control), options);
  }

  /** Reads the values of an element with the access right `READ`. */
  readControl(control: number, options?: WaitOptions): Promise<ControlValue> {
    return this.run(this.#elements.read(control), options);
  }

  /** As {@link SoundControl.readControl}, spinning. */
  readControlSync(control: number, options?: SpinOptions): ControlValue {
    return this.runSync(this.#elements.read(control), options);
  }

  /** Changes the values of an element with the access right `WRITE`. */
  writeControl(control: number, value: ControlValue, options?: WaitOptions): Promise<void> {
    return this.run(this.#elements.write(control, value), options);
  }

  /** As {@link SoundControl.writeControl}, spinning. */
  writeControlSync(control: number, value: ControlValue, options?: SpinOptions): void {
    this.runSync(this.#elements.write(control, value), options);
  }

  /**
   * Reads the metadata of an element with the access right `TLV_READ`.
   *
   * @param size the largest size in bytes, a multiple of 4 up to 65536 (default 4096); the device leaves out what does not fit
   */
  readMetadata(control: number, size?: number, options?: WaitOptions): Promise<ControlMetadata> {
    return this.run(this.#elements.readMetadata(control, size), options);
  }

  /** As {@link SoundControl.readMetadata}, spinning. */
  readMetadataSync(control: number, size?: number, options?: SpinOptions): ControlMetadata {
    return this.runSync(this.#elements.readMetadata(control, size), options);
  }

  /** Changes the metadata of an element with the access right `TLV_WRITE`. */
  writeMetadata(control: number, metadata: ControlMetadata, options?: WaitOptions): Promise<void> {
    return this.run(this.#elements.sendMetadata('TLV_WRITE', control, metadata), options);
  }

  /** As {@link SoundControl.writeMetadata}, spinning. */
  writeMetadataSync(control: number, metadata: ControlMetadata, options?: SpinOptions): void {
    this.runSync(this.#elements.sendMetadata('TLV_WRITE', control, metadata), options);
  }

  /** Sends a command to an element with the access right `TLV_COMMAND`. */
  commandMetadata(control: number, command: ControlMetadata, options?: WaitOptions): Promise<void> {
    return this.run(this.#elements.sendMetadata('TLV_COMMAND', control, command), options);
  }

  /** As {@link SoundControl.commandMetadata}, spinning. */
  commandMetadataSync(control: number, command: ControlMetadata, options?: SpinOptions): void {
    this.runSync(this.#elements.sendMetadata('TLV_COMMAND', control, command), options);
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
    if (counts.streams !== this.#items.counts.streams) this.#streams.clear();
    this.#elements.forget();
    this.#items.counts = counts;
  }

  /** @internal The information about an element is out of date. */
  forgetControl(control: number): void {
    this.#elements.forget(control);
  }

  /** @internal The capabilities of a stream, as first reported. */
  *streamSteps(stream: number): Steps<StreamInfo> {
    const id = this.#items.requireId('stream', stream, this.#items.counts.streams);
    const known = this.#streams.get(id);
    if (known !== undefined) return known;
    yield* this.#streamItems({});
    const info = this.#streams.get(id);
    if (info === undefined) throw this.#items.none('stream', stream, this.#items.counts.streams);
    return info;
  }

  /** @internal */
  *parametersSteps(stream: number, parameters: PcmParameters): Steps<void> {
    const info = yield* this.streamSteps(stream);
    checkParameters(this.#transport, info, parameters);
    yield* ask(parametersCommand(stream, parameters));
  }

  *#command(stream: number, command: 'PREPARE' | 'START' | 'STOP' | 'RELEASE'): Steps<void> {
    yield* ask(streamCommand(this.#items.requireId('stream', stream, this.#items.counts.streams), command));
  }

  *#streamItems(range?: ItemRange): Steps<StreamInfo[]> {
    const infos = yield* this.#items.query('streams', STREAMS, range);
    for (const info of infos) if (!this.#streams.has(info.id)) this.#streams.set(info.id, info);
    return infos;
  }

  *#remap(jack: number, association: number, sequence: number): Steps<void> {
    this.#items.requireId('jack', jack, this.#items.counts.jacks);
    requireInteger(this.#transport, 'association', association, 0, 0xffff_ffff);
    requireInteger(this.#transport, 'sequence', sequence, 0, 0xffff_ffff);
    const [info] = yield* this.#items.query('jacks', JACKS, { start: jack, count: 1 });
    if (info?.remappable !== true) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#transport.who()}: jack ${jack} cannot be remapped, as it does not have REMAP`,
      );
    }
    yield* ask(remapCommand(jack, association, sequence));
  }
}

function commandOf(step: Step): SoundCommand<unknown> {
  if ('code' in step) return step;
  throw new TypeError('a step of a control request is a command');
}
