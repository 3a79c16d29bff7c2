/**
 * The driver of console devices: one port, or many that come and go.
 *
 * The device is believed what it says about ports as far as that does no harm. What makes no sense (a port that does not
 * exist, a name for nobody) is left aside and reported as a `warning`: QEMU announces a port twice, for one, if it is
 * plugged while the driver starts.
 */
import {
  DeviceType,
  type DmaRegion,
  Driver,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  OwningQueue,
  type SpinOptions,
  type Transport,
  VirtioError,
  type VirtQueue,
} from '@virtio/core';
import { ConsolePort, type ConsoleSize, type PortHost, type PortState } from './console-port.ts';
import { CONTROL_BUFFER, ControlLink, type ControlMessage } from './control.ts';
import { noEmergencyWrite, writeEmergency } from './emergency-write.ts';
import { PortSlot } from './port-slot.ts';
import { Receiver } from './receiver.ts';
import { decodeUtf8 } from './utf8.ts';
import { type WaitOptions, Waiters } from './waiters.ts';
import {
  ConsoleConfig,
  type ConsoleFeature,
  ConsoleFeatures,
  ConsoleResize,
  CONTROL_RECEIVE,
  CONTROL_TRANSMIT,
  ControlEvent,
  receiveQueueOf,
} from './wire.ts';

/** What {@link VirtioConsole} may be told. */
export interface ConsoleOptions extends DriverOptions {
  /** Whether to accept several ports if the device has them (default true). Without, there is port 0 only, and it needs no opening. */
  readonly multiport?: boolean;
  /** How many buffers each port has in each direction (default 16). */
  readonly buffers?: number;
  /** The bytes of each of them (default 4096). */
  readonly bufferSize?: number;
  /** How many bytes a port keeps for whoever reads them; also the longest line (default 65,536). */
  readonly readAhead?: number;
}

/** What {@link VirtioConsole} reports, by `on`. */
export interface ConsoleEvents extends DriverEvents {
  /** The device has a new port. Its name, and whether it is a console, may come a moment later. */
  portAdded: ConsolePort;
  /** The device has a port no more. */
  portRemoved: ConsolePort;
  /** The name of a port came, it turned out to be a console, or its far side was opened or closed. */
  portChanged: ConsolePort;
  /** The size of a console changed. */
  resized: ConsolePort;
  /** The device said something that makes no sense; it was left aside. */
  warning: VirtioError;
}

/** Names a port: by its number, its name, or something that is true of it. */
export type PortQuery = number | string | ((port: ConsolePort) => boolean);

type PortEvent = 'portAdded' | 'portRemoved' | 'portChanged' | 'resized';

const DEFAULT_BUFFERS = 16;
const DEFAULT_BUFFER_SIZE = 4096;
const DEFAULT_READ_AHEAD = 65536;
/** More ports than any device has; QEMU's limit is 511. */
const MAX_PORTS = 512;

interface Plan {
  readonly buffers: number;
  readonly bufferSize: number;
  readonly readAhead: number;
}

/**
 * A console device.
 *
 * @example
 * ```ts
 * import type { Hal, Transport } from '@virtio/core';
 * import { VirtioConsole } from '@virtio/console';
 *
 * export async function greet(transport: Transport, hal: Hal): Promise<void> {
 *   using device = new VirtioConsole(transport, hal);
 *   const port = await device.waitForPort('org.example.greeter');
 *   using open = port.open();
 *   await open.write('Who are you?\n');
 *   await open.write(`Hello, ${(await open.readLine()) ?? 'nobody'}!\n`);
 *   await open.flush();
 * }
 * ```
 *
 * @see VIRTIO 1.4, 5.3
 */
export class VirtioConsole extends Driver<ConsoleFeature, ConsoleEvents> {
  readonly #plan: Plan;
  readonly #slots: readonly PortSlot[] = [];
  readonly #control: ControlLink | undefined;
  readonly #watchers: Waiters;
  readonly #states = new Map<ConsolePort, { readonly state: PortState; readonly receiver: Receiver }>();
  readonly #pending: { readonly event: PortEvent; readonly port: ConsolePort }[] = [];
  readonly #warnings: VirtioError[] = [];
  #size: ConsoleSize | undefined;
  #live = false;

  /**
   * Initializes the device. With several ports these are announced by the device afterwards: see
   * {@link VirtioConsole.waitForPort} and the events.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `FEATURES_REFUSED`, `UNSUPPORTED` if a queue is missing, `DMA_ERROR`,
   * `INVALID_DEVICE` if the device says that it has no ports
   */
  constructor(transport: Transport, hal: Hal, options: ConsoleOptions = {}) {
    const plan = planOf(transport, options);
    const supported: readonly ConsoleFeature[] =
      options.multiport === false ? ['SIZE', 'EMERG_WRITE'] : ['SIZE', 'EMERG_WRITE', 'MULTIPORT'];
    super(transport, hal, { deviceType: DeviceType.Console, table: ConsoleFeatures, supported }, options);
    this.#plan = plan;
    const { slots, control } = this.setUp(() => this.#makeQueues());
    this.#slots = slots;
    this.#control = control;
    const first = slots[0] as PortSlot;
    this.#watchers = control
      ? new Waiters(transport, control.receive.queue, this.#lookForMessages, this.#lied, true)
      : first.readers;
    if (control) transport.interrupts?.onQueue(control.transmit.index, this.#lookForMessages);
    else this.#addPort(first);
    this.#goLive();
  }

  /** The ports that the device has now, by number. */
  get ports(): ConsolePort[] {
    return this.#slots.flatMap(({ port }) => (port ? [port] : []));
  }

  /** How many ports the device can have: their numbers are below. */
  get maxPorts(): number {
    return this.#slots.length;
  }

  /** The size of the console (of port 0), if the device tells. */
  get size(): ConsoleSize | undefined {
    return this.#size;
  }

  /**
   * A port by its number; by default the first one, which is all that a device without `MULTIPORT` has.
   *
   * @throws {@link VirtioError} `NOT_READY` if the device has no such port now
   */
  port(id = 0): ConsolePort {
    this.#look();
    const port = this.#slots[id]?.port;
    if (port !== undefined) return port;
    if (this.failure !== undefined) throw this.failure;
    throw new VirtioError(
      'NOT_READY',
      `${this.transport.who()} has no port ${id} now; wait for it with waitForPort(${id})`,
    );
  }

  /**
   * The first port that fits, if there is one.
   *
   * @param which its number, its name, or a function that is true for it
   */
  findPort(which: PortQuery): ConsolePort | undefined {
    this.#look();
    return this.ports.find((port) => fits(port, which));
  }

  /**
   * Waits for a port.
   *
   * @throws {@link VirtioError} `INVALID_PARAM` if there can be no such port, `ABORTED`, `UNSUPPORTED` without interrupts, or why
   * the device no longer works
   */
  async waitForPort(which: PortQuery, options?: WaitOptions): Promise<ConsolePort> {
    for (;;) {
      const port = this.#find(which);
      if (port !== undefined) return port;
      await this.#watchers.wait(options);
    }
  }

  /** The same as {@link VirtioConsole.waitForPort}, spinning. `NOT_READY` if it takes longer than is allowed. */
  waitForPortSync(which: PortQuery, options?: SpinOptions): ConsolePort {
    let port = this.#find(which);
    if (port === undefined) {
      const queue = (this.#slots[0] as PortSlot).receiveQueue;
      queue.spin(() => (port = this.#find(which)) !== undefined, options);
    }
    return port as ConsolePort;
  }

  /**
   * Writes through the configuration space, with no queue; it works after a failure, too. See {@link emergencyWrite} for a device
   * without a driver.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` if `EMERG_WRITE` was not negotiated, `DISPOSED`
   */
  emergencyWrite(data: Uint8Array | string): void {
    if (this.failure?.code === 'DISPOSED') throw this.failure;
    if (!this.features.has('EMERG_WRITE')) throw noEmergencyWrite(this.transport);
    writeEmergency(this.transport, data);
  }

  override pollEvents(): void {
    super.pollEvents();
    this.#lookForMessages();
    for (const { port } of this.#slots) {
      port?.lookForData();
      port?.lookForRoom();
    }
  }

  protected override onConfigChange(): void {
    this.#readSize();
    this.#report();
  }

  protected override onFailure(error: VirtioError): void {
    this.#live = false;
    for (const { receiver } of this.#states.values()) receiver.suspend();
    for (const slot of this.#slots) slot.fail(error);
    this.#watchers.fail(error);
  }

  protected override onReset(): void {
    this.#control?.reset();
    for (const slot of this.#slots) {
      slot.receive?.reclaim();
      slot.transmitter?.reset();
      // The device announces its ports anew; whether they are the same ones nobody knows.
      if (this.#control) this.#removePort(slot);
    }
    this.#readSize();
  }

  protected override onLive(): void {
    this.#goLive();
  }

  protected override onQueueReset(queue: VirtQueue): void {
    if (queue === this.#control?.receive.queue) {
      this.#control.receive.reclaim();
      this.#control.receive.postAll();
    } else if (queue === this.#control?.transmit) {
      this.#control.resend();
    } else {
      this.#restartSlot(queue);
    }
    this.#lookForMessages();
  }

  protected override onDispose(): void {
    this.#control?.receive[Symbol.dispose]();
    for (const slot of this.#slots) slot.receive?.[Symbol.dispose]();
  }

  #makeQueues(): { readonly slots: PortSlot[]; readonly control: ControlLink | undefined } {
    const multiport = this.features.has('MULTIPORT');
    const size = this.#plan.buffers;
    const count = multiport ? this.#countPorts() : 1;
    const slots = Array.from({ length: count }, (_, id) => {
      const index = receiveQueueOf(id);
      const receive = this.createQueue({ index, size, tableLength: 0 });
      const transmit = this.createQueue({ index: index + 1, size, tableLength: 0 });
      return new PortSlot(id, this.transport, receive, transmit, this.#lied);
    });
    this.#readSize();
    if (!multiport) {
      this.#prepare(slots[0] as PortSlot);
      return { slots, control: undefined };
    }
    const receive = this.createQueue({ index: CONTROL_RECEIVE, size: 64, tableLength: 0 });
    const transmit = this.createQueue({ index: CONTROL_TRANSMIT, size: 2, tableLength: 0 });
    const region = this.allocate(8, 'driver-to-device');
    const { accessPlatform } = this;
    const messages = new OwningQueue(receive, this.hal, { bufferSize: CONTROL_BUFFER, accessPlatform });
    return { slots, control: new ControlLink(this.transport, messages, transmit, region, this.#handle) };
  }

  /** How many ports there are queues for: as many as the device says, or fewer if it boasts. */
  #countPorts(): number {
    const { transport } = this;
    const max = transport.readConfigSpace(ConsoleConfig.fields.max_nr_ports);
    if (max === 0) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${transport.who()} offers MULTIPORT, and has 0 for the number of its ports; use it with multiport: false`,
      );
    }
    let count = 1;
    while (count < Math.min(max, MAX_PORTS) && transport.maxQueueSize(receiveQueueOf(count) + 1) > 0) {
      count += 1;
    }
    return count;
  }

  #goLive(): void {
    this.#live = true;
    if (this.#control) {
      this.#control.receive.postAll();
      // 5.3.6.2.2: the device is told that it can announce its ports.
      this.#control.send(0, ControlEvent.DEVICE_READY, 1);
      // What comes is not looked at before the caller had a chance to listen.
      this.#arm(this.#control);
      return;
    }
    const { port, receive } = this.#slots[0] as PortSlot;
    if (port && receive) this.#states.get(port)?.receiver.resume(receive);
    receive?.postAll();
    this.#report();
  }

  #prepare(slot: PortSlot): ReturnType<PortSlot['prepare']> {
    const { buffers: count, bufferSize: size } = this.#plan;
    const { accessPlatform } = this;
    const allocate = (bytes: number): DmaRegion => this.allocate(bytes, 'driver-to-device');
    return slot.prepare(this.hal, { count, size, accessPlatform, allocate });
  }

  #addPort(slot: PortSlot): ConsolePort {
    const { receive, transmitter } = this.#prepare(slot);
    const single = !this.features.has('MULTIPORT');
    const state: PortState = {
      name: undefined,
      isConsole: single,
      hostOpen: single,
      open: single,
      size: slot.id === 0 ? this.#size : undefined,
      removed: false,
    };
    const receiver = new Receiver(`${this.transport.who()}: port ${slot.id}`, receive, this.#plan.readAhead);
    const port = new ConsolePort(this.#host, slot, state, receiver, transmitter);
    this.#states.set(port, { state, receiver });
    slot.port = port;
    return port;
  }

  #removePort(slot: PortSlot): void {
    const { port } = slot;
    if (port === undefined) return;
    const entry = this.#states.get(port);
    if (entry) {
      entry.state.removed = true;
      entry.state.hostOpen = false;
      entry.receiver.detach();
    }
    this.#states.delete(port);
    slot.port = undefined;
    this.#control?.forget(slot.id);
    this.#pending.push({ event: 'portRemoved', port });
    slot.wake();
  }

  /** Handles one message from the device. */
  readonly #handle = ({ id, event, value, rest }: ControlMessage): void => {
    const slot = this.#slots[id];
    if (slot === undefined) {
      this.#warn(
        `sent message ${event} about port ${id}, which it cannot have; its ports are below ${this.maxPorts}`,
      );
      return;
    }
    if (event === ControlEvent.DEVICE_ADD) {
      this.#added(slot);
      return;
    }
    const { port } = slot;
    const entry = port && this.#states.get(port);
    if (port === undefined || entry === undefined) {
      this.#warn(`sent message ${event} about port ${id}, which it has not added`);
      return;
    }
    const { state } = entry;
    switch (event) {
      case ControlEvent.DEVICE_REMOVE:
        this.#removePort(slot);
        return;
      case ControlEvent.CONSOLE_PORT:
        state.isConsole = true;
        state.open = true;
        // 5.3.6.2.2: this is the answer that it must get, each time.
        this.#control?.send(id, ControlEvent.PORT_OPEN, 1);
        break;
      case ControlEvent.PORT_OPEN:
        if ((value !== 0) === state.hostOpen) return;
        state.hostOpen = value !== 0;
        if (!state.hostOpen && !state.isConsole) entry.receiver.end();
        break;
      case ControlEvent.PORT_NAME:
        state.name = textOf(rest);
        break;
      case ControlEvent.RESIZE:
        this.#resized(port, state, rest);
        return;
      default:
        this.#warn(`sent a message of the unknown kind ${event} about port ${id}`);
        return;
    }
    this.#pending.push({ event: 'portChanged', port });
    slot.wake();
  };

  /** 5.3.5: a port is made ready, and the device told so. */
  #added(slot: PortSlot): void {
    const { id } = slot;
    if (slot.port !== undefined) {
      this.#warn(`added port ${id} again`);
      this.#control?.send(id, ControlEvent.PORT_READY, 1);
      return;
    }
    try {
      this.#pending.push({ event: 'portAdded', port: this.#addPort(slot) });
    } catch (error) {
      if (!VirtioError.is(error, 'DMA_ERROR')) throw error;
      this.#warnings.push(error);
      this.#control?.send(id, ControlEvent.PORT_READY, 0);
      return;
    }
    slot.receive?.postAll();
    this.#control?.send(id, ControlEvent.PORT_READY, 1);
  }

  #resized(port: ConsolePort, state: PortState, bytes: Uint8Array): void {
    if (bytes.length < ConsoleResize.size) {
      this.#warn(`sent the size of port ${port.id} in ${bytes.length} bytes; it takes ${ConsoleResize.size}`);
      return;
    }
    const { cols, rows } = ConsoleResize.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
    state.size = { columns: cols, rows };
    if (port.id === 0) this.#size = state.size;
    this.#pending.push({ event: 'resized', port });
  }

  /** 5.3.6: the size in the configuration is that of port 0. */
  #readSize(): void {
    if (!this.features.has('SIZE')) return;
    const { transport } = this;
    const { cols, rows } = ConsoleConfig.fields;
    const size = transport.readConsistent(() => ({
      columns: transport.readConfigSpace(cols),
      rows: transport.readConfigSpace(rows),
    }));
    if (this.#size?.columns === size.columns && this.#size.rows === size.rows) return;
    this.#size = size;
    const port = this.#slots[0]?.port;
    const entry = port && this.#states.get(port);
    if (!port || !entry) return;
    entry.state.size = size;
    this.#pending.push({ event: 'resized', port });
  }

  #restartSlot(queue: VirtQueue): void {
    for (const slot of this.#slots) {
      const entry = slot.port && this.#states.get(slot.port);
      if (queue === slot.receiveQueue && slot.receive) {
        entry?.receiver.absorb();
        slot.receive.reclaim();
        slot.receive.postAll();
        slot.readers.wake();
      } else if (queue === slot.transmitQueue) {
        if (slot.transmitter?.reset() === true) slot.writers.fail(this.#bytesLost(slot));
        else slot.writers.wake();
      }
    }
  }

  #bytesLost({ id }: PortSlot): VirtioError {
    return new VirtioError(
      'DEVICE_RESET',
      `${this.transport.who()}: the transmit queue of port ${id} was reset; bytes that were on their way may be lost`,
    );
  }

  #find(which: PortQuery): ConsolePort | undefined {
    const port = this.findPort(which);
    if (port !== undefined) return port;
    if (this.failure !== undefined) throw this.failure;
    if (typeof which === 'number' ? this.#slots[which] === undefined : this.#control === undefined) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${this.transport.who()} will never have such a port; it has ${this.maxPorts}, numbered from 0` +
          (this.#control ? '' : ' and without names'),
      );
    }
    return undefined;
  }

  /** Handles messages that have come, for calls that do not wait. */
  #look(): void {
    if (this.#control) this.#lookForMessages();
  }

  readonly #lookForMessages = (): void => {
    const control = this.#control;
    if (!control || !this.#live) return;
    try {
      control.drain();
      this.#arm(control);
    } catch (error) {
      this.fail(error as VirtioError);
    }
    this.#report();
  };

  /** Ports may come at any time, so interrupts for messages are always wanted; they keep no event loop alive. */
  #arm(control: ControlLink): void {
    if (this.transport.interrupts === undefined) return;
    const received = control.receive.queue.enableInterrupts();
    const used = control.transmit.enableInterrupts();
    if (received || used) void Promise.resolve().then(this.#lookForMessages);
  }

  /** Reports what has happened when all of it is done, so that listeners may do what they like. */
  #report(): void {
    if (this.#pending.length > 0) this.#watchers.wake();
    for (let next = this.#warnings.shift(); next; next = this.#warnings.shift()) this.emit('warning', next);
    for (let next = this.#pending.shift(); next; next = this.#pending.shift()) {
      this.emit(next.event, next.port);
    }
  }

  #warn(what: string): void {
    this.#warnings.push(
      new VirtioError('DEVICE_MISBEHAVED', `${this.transport.who()} ${what}. The message was left aside`),
    );
  }

  readonly #lied = (error: VirtioError): void => {
    this.fail(error);
  };

  readonly #host: PortHost = {
    failure: () => this.failure,
    who: () => this.transport.who(),
    fail: this.#lied,
    lookForMessages: this.#lookForMessages,
    announceOpen: (port, open) => {
      const entry = this.#states.get(port);
      if (!entry) return;
      entry.state.open = open;
      this.#control?.send(port.id, ControlEvent.PORT_OPEN, open ? 1 : 0);
      this.#lookForMessages();
    },
  };
}

function planOf(
  transport: Transport,
  {
    buffers = DEFAULT_BUFFERS,
    bufferSize = DEFAULT_BUFFER_SIZE,
    readAhead = DEFAULT_READ_AHEAD,
  }: ConsoleOptions,
): Plan {
  for (const [name, value, max] of [
    ['buffers', buffers, 32768],
    ['bufferSize', bufferSize, 2 ** 24],
    ['readAhead', readAhead, 2 ** 30],
  ] as const) {
    if (Number.isInteger(value) && value >= 1 && value <= max) continue;
    throw new VirtioError('INVALID_PARAM', `${transport.who()}: ${name} is ${value}; it takes 1 to ${max}`);
  }
  return { buffers, bufferSize, readAhead };
}

/** 5.3.6.2: a name has no NUL at the end; QEMU's have one. */
function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decodeUtf8(end < 0 ? bytes : bytes.subarray(0, end));
}

function fits(port: ConsolePort, which: PortQuery): boolean {
  switch (typeof which) {
    case 'number':
      return port.id === which;
    case 'string':
      return port.name === which;
    default:
      return which(port);
  }
}
