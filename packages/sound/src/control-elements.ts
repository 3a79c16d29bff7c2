/** Control elements: volumes, switches, choices. What the device says about an element is kept until it says that it has changed. */
import { requireInteger, type Transport, VirtioError } from '@virtio/core';
import { controlCommand, type Query } from './commands.ts';
import {
  type ControlMetadata,
  type ControlValue,
  readMetadata,
  readValue,
  writeMetadata,
  writeValue,
} from './control-values.ts';
import { type ControlInfo, parseControl, parseEnumItem } from './info.ts';
import { type ItemRange, type Items, MAX_ITEMS } from './items.ts';
import {
  CONTROL_VALUE_SIZE,
  type ControlAccessName,
  ControlInfoLayout,
  ENUM_ITEM_SIZE,
  SoundRequest,
  TLV_MAX_SIZE,
  TlvHeader,
} from './protocol.ts';
import { ask, type Steps } from './steps.ts';

const CONTROLS: Query<ControlInfo> = {
  code: SoundRequest.CTL_INFO,
  size: ControlInfoLayout.size,
  parse: parseControl,
};

/** The control elements of a device: the steps of the requests for them. */
export class ControlElements {
  readonly #transport: Transport;
  readonly #items: Items;
  readonly #known = new Map<number, ControlInfo>();
  /** How often something was forgotten. */
  #changes = 0;

  constructor(transport: Transport, items: Items) {
    this.#transport = transport;
    this.#items = items;
  }

  /** What is known about an element, or all, is out of date. */
  forget(control?: number): void {
    this.#changes += 1;
    if (control === undefined) this.#known.clear();
    else this.#known.delete(control);
  }

  *infos(range?: ItemRange): Steps<ControlInfo[]> {
    const changes = this.#changes;
    const infos = yield* this.#items.query('controls', CONTROLS, range);
    // An answer from before a change is not kept: the event may be heard first.
    if (changes === this.#changes) for (const info of infos) this.#known.set(info.id, info);
    return infos;
  }

  *#info(control: number, access?: ControlAccessName): Steps<ControlInfo> {
    const { controls } = this.#items.counts;
    this.#items.requireId('control element', control, controls);
    const info = this.#known.get(control) ?? (yield* this.infos({ start: control, count: 1 }))[0];
    if (info === undefined) throw this.#items.none('control element', control, controls);
    // 5.14.6.10.2.1, 5.14.6.10.3.2: no request without the right to it.
    if (access !== undefined && !info.access.includes(access)) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#transport.who()}: control element ${control} (${info.name}) does not have ${access}; it has ${info.access.join(', ') || 'no rights'}`,
      );
    }
    return info;
  }

  *enumItems(control: number): Steps<string[]> {
    const { items, name } = yield* this.#info(control);
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

  *read(control: number): Steps<ControlValue> {
    const info = yield* this.#info(control, 'READ');
    return yield* ask(
      controlCommand('CTL_READ', control, CONTROL_VALUE_SIZE, (reply) => readValue(info, reply)),
    );
  }

  *write(control: number, value: ControlValue): Steps<void> {
    const info = yield* this.#info(control, 'WRITE');
    const payload = writeValue(this.#transport, info, value);
    yield* ask(controlCommand('CTL_WRITE', control, 0, () => undefined, payload));
  }

  *readMetadata(control: number, size = 4096): Steps<ControlMetadata> {
    requireInteger(this.#transport, 'the size of metadata', size, 4, TLV_MAX_SIZE);
    if (size % 4 !== 0) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.#transport.who()}: the size of metadata must be a multiple of 4, not ${size}`,
      );
    }
    yield* this.#info(control, 'TLV_READ');
    return yield* ask(
      controlCommand('CTL_TLV_READ', control, TlvHeader.size + size, (reply, written) =>
        readMetadata(new DataView(reply.buffer, 0, Math.max(TlvHeader.size, written))),
      ),
    );
  }

  *sendMetadata(
    access: 'TLV_WRITE' | 'TLV_COMMAND',
    control: number,
    metadata: ControlMetadata,
  ): Steps<void> {
    const payload = writeMetadata(this.#transport, metadata);
    yield* this.#info(control, access);
    yield* ask(controlCommand(`CTL_${access}`, control, 0, () => undefined, payload));
  }
}
