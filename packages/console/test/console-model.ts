/** A console device for tests that does what QEMU's does, ports and control messages included. */
import { CommonFeatures, DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, FakeTransport } from '@virtio/testing';
import { type ConsoleOptions, VirtioConsole } from '../src/index.ts';

export const SIZE = 1n;
export const MULTIPORT = 2n;
export const EMERG_WRITE = 4n;
export const SPLIT = CommonFeatures.set('EVENT_IDX', 'INDIRECT_DESC').bits;

export const READY = 0;
export const ADD = 1;
export const REMOVE = 2;
export const PORT_READY = 3;
export const CONSOLE = 4;
export const RESIZE = 5;
export const OPEN = 6;
export const NAME = 7;

/** A port as the host sees it. */
export interface HostPort {
  readonly name?: string;
  readonly console?: boolean;
  /** Whether somebody has it open on the host. */
  open: boolean;
  /** What the driver said last of its side. */
  guestOpen: boolean;
  /** Whether the driver said that it is ready. */
  ready: number;
  /** What the guest wrote. */
  readonly received: number[];
  /** While true, what the guest writes is not taken. */
  throttled: boolean;
  /** Whether the device has such a port now. */
  present: boolean;
}

export interface ModelOptions {
  readonly features?: bigint;
  readonly ports?: Readonly<
    Record<number, { readonly name?: string; readonly console?: boolean; readonly open?: boolean }>
  >;
  readonly maxPorts?: number;
  readonly queueSize?: number;
  readonly controlSize?: number;
  readonly interrupts?: boolean;
  readonly options?: ConsoleOptions;
  /** Called before the driver starts. */
  readonly prepare?: (model: ConsoleModel) => void;
}

export interface Control {
  readonly id: number;
  readonly event: number;
  readonly value: number;
}

const le16 = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff];
const le32 = (value: number): number[] => [...le16(value), ...le16(value >>> 16)];

export const receiveQueue = (id: number): number => (id === 0 ? 0 : 2 + 2 * id);
export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

export class ConsoleModel {
  readonly device: FakeDevice;
  readonly transport: FakeTransport;
  readonly ports = new Map<number, HostPort>();
  /** Each control message of the driver. */
  readonly messages: Control[] = [];
  /** Control messages that the driver had no buffer for. */
  dropped = 0;
  readonly multiport: boolean;

  readonly #options: ConsoleOptions;
  #driver: VirtioConsole | undefined;

  constructor({
    features = SPLIT,
    ports = { 0: { console: true, open: true } },
    maxPorts = 4,
    queueSize = 16,
    controlSize = 32,
    interrupts = true,
    options = {},
    prepare,
  }: ModelOptions = {}) {
    this.multiport = (features & MULTIPORT) !== 0n;
    const sizes = [queueSize, queueSize];
    if (this.multiport) {
      sizes.push(controlSize, controlSize);
      for (let port = 1; port < maxPorts; port += 1) sizes.push(queueSize, queueSize);
    }
    const config = [...le16(80), ...le16(25), ...le32(maxPorts), ...le32(0)];
    this.device = new FakeDevice({
      type: DeviceType.Console,
      features,
      config: Uint8Array.from(config),
      queues: sizes,
    });
    this.transport = new FakeTransport(this.device, interrupts ? {} : { interrupts: false });
    this.#options = options;
    for (const [id, port] of Object.entries(ports)) this.plug(Number(id), port);
    if (this.multiport) this.device.handle(3, (chain) => this.#control(chain));
    else this.device.handle(1, (chain) => this.#data(0, chain));
    prepare?.(this);
    this.#driver = new VirtioConsole(this.transport, this.device.hal, options);
  }

  get driver(): VirtioConsole {
    return (this.#driver ??= new VirtioConsole(this.transport, this.device.hal, this.#options));
  }

  /** Adds a port; while the driver runs this is a hot plug. */
  plug(
    id: number,
    {
      name,
      console = false,
      open = false,
    }: { readonly name?: string; readonly console?: boolean; readonly open?: boolean } = {},
  ): HostPort {
    const port: HostPort = {
      ...(name === undefined ? {} : { name }),
      console,
      open,
      guestOpen: false,
      ready: 0,
      received: [],
      throttled: false,
      present: true,
    };
    this.ports.set(id, port);
    const output = receiveQueue(id) + 1;
    if (this.multiport) this.device.handle(output, (chain) => this.#data(id, chain));
    if (this.#driver) this.control(id, ADD, 0);
    return port;
  }

  unplug(id: number): void {
    const port = this.host(id);
    port.present = false;
    this.ports.delete(id);
    for (const chain of this.device.queue(receiveQueue(id) + 1).chains) chain.complete();
    this.control(id, REMOVE, 0);
  }

  host(id: number): HostPort {
    const port = this.ports.get(id);
    if (!port) throw new Error(`the device has no port ${id}`);
    return port;
  }

  /** Somebody opens or closes the port on the host. */
  setOpen(id: number, open: boolean): void {
    this.host(id).open = open;
    this.control(id, OPEN, open ? 1 : 0);
  }

  /** Sends a control message. */
  control(id: number, event: number, value: number, rest: ArrayLike<number> = []): boolean {
    const bytes = [...le32(id), ...le16(event), ...le16(value), ...Array.from(rest)];
    const sent = this.device.send(2, bytes);
    if (!sent) this.dropped += 1;
    return sent;
  }

  resize(id: number, columns: number, rows: number): void {
    this.control(id, RESIZE, 0, [...le16(columns), ...le16(rows)]);
  }

  /** Sends data to the guest, as much as it has buffers for; returns how much that was. */
  send(id: number, data: Uint8Array | string): number {
    const bytes = typeof data === 'string' ? utf8(data) : data;
    let sent = 0;
    while (sent < bytes.length) {
      const chain = this.device.queue(receiveQueue(id)).pop();
      if (!chain) break;
      const part = bytes.subarray(sent, sent + chain.writable);
      chain.write(part).complete();
      sent += part.length;
    }
    return sent;
  }

  text(id: number): string {
    return new TextDecoder().decode(Uint8Array.from(this.host(id).received));
  }

  /** Takes what was held back. */
  unthrottle(id: number): void {
    this.host(id).throttled = false;
    const queue = this.device.queue(receiveQueue(id) + 1);
    for (const chain of queue.chains) {
      this.host(id).received.push(...chain.bytes());
      chain.complete();
    }
  }

  #data(id: number, chain: Chain): void {
    if (chain.writable > 0) {
      throw this.device.violated(`a writable buffer in the transmit queue of port ${id} [5.3.6.1]`);
    }
    const port = this.ports.get(id);
    // QEMU discards what nobody on the host would read.
    if (!port?.open) return;
    if (port.throttled) chain.defer();
    else port.received.push(...chain.bytes());
  }

  #control(chain: Chain): void {
    const header = chain.header();
    const id = header.getUint32(0, true);
    const event = header.getUint16(4, true);
    const value = header.getUint16(6, true);
    this.messages.push({ id, event, value });
    if (event === READY) {
      for (const port of this.ports.keys()) this.control(port, ADD, 0);
      return;
    }
    const port = this.ports.get(id);
    if (!port) return;
    if (event === OPEN) port.guestOpen = value !== 0;
    if (event === PORT_READY) port.ready += 1;
    if (event !== PORT_READY || value === 0) return;
    if (port.console) this.control(id, CONSOLE, 1);
    if (port.name !== undefined) this.control(id, NAME, 1, [...utf8(port.name), 0]);
    if (port.open) this.control(id, OPEN, 1);
  }
}

/** All that an iteration yields. */
export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** Lets microtasks run. */
export async function turns(count = 30): Promise<void> {
  for (let i = 0; i < count; i += 1) await Promise.resolve();
}
