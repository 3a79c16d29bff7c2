/** The driver of console devices: one port, or many that come and go. */
import {
  DeviceType,
  Driver,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  OwningQueue,
  type SpinOptions,
  type Transport,
  VirtioError,
  type VirtQueue,
  Waiters,
  type WaitOptions,
} from '@virtio/core';
import type { ConsolePort, ConsoleSize, PortHost } from './console-port.ts';
import { CONTROL_BUFFER, ControlLink } from './control.ts';
import { noEmergencyWrite, writeEmergency } from './emergency-write.ts';
import { PortSlot } from './port-slot.ts';
import { PortTable } from './port-table.ts';
import {
  ConsoleConfig,
  type ConsoleFeature,
  ConsoleFeatures,
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

const DEFAULT_BUFFERS = 16;
const DEFAULT_BUFFER_SIZE = 4096;
const DEFAULT_READ_AHEAD = 65536;
/** More ports than any device has; QEMU's limit is 511. */
const MAX_PORTS = 512;
/** How many messages from the device there is room for. No more than QEMU's queue has by default. */
const CONTROL_COUNT = 32;
/** How often in a row there may be more messages after all were taken. */
const MAX_EAGER = 4096;

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
  readonly #table: PortTable;
  readonly #control: ControlLink | undefined;
  readonly #watchers: Waiters;
  #live = false;
  #eager = 0;

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
    const { table, control } = this.setUp(() => this.#makeQueues());
    this.#table = table;
    this.#control = control;
    this.#watchers = control
      ? new Waiters(transport, control.receive.queue, {
          drain: this.#lookForMessages,
          report: this.#lied,
          always: true,
        })
      : table.first.readers;
    if (control) transport.interrupts?.onQueue(control.transmit.index, this.#lookForMessages);
    this.#goLive();
  }

  /** The ports that the device has now, by number. */
  get ports(): ConsolePort[] {
    return this.#table.slots.flatMap(({ entry }) => (entry ? [entry.port] : []));
  }

  /** How many ports the device can have: their numbers are below. */
  get maxPorts(): number {
    return this.#table.slots.length;
  }

  /** The size of the console (of port 0), if the device tells. */
  get size(): ConsoleSize | undefined {
    return this.#table.size;
  }

  /**
   * A port by its number; by default the first one, which is all that a device without `MULTIPORT` has.
   *
   * @throws {@link VirtioError} `NOT_READY` if the device has no such port now
   */
  port(id = 0): ConsolePort {
    this.#look();
    const entry = this.#table.slots[id]?.entry;
    if (entry !== undefined) return entry.port;
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
      this.#table.first.receiveQueue.spin(
        () => (port = this.#find(which)) !== undefined,
        options,
        'such a port',
      );
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
    for (const port of this.ports) {
      port.lookForData();
      port.lookForRoom();
    }
  }

  protected override onConfigChange(): void {
    this.#readSize();
    this.#report();
  }

  protected override onFailure(error: VirtioError): void {
    this.#live = false;
    this.#table.fail(error);
    this.#watchers.fail(error);
  }

  protected override onReset(): void {
    this.#eager = 0;
    this.#control?.reset();
    this.#table.reset();
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
      this.#table.restart(queue);
    }
    this.#lookForMessages();
  }

  protected override onDispose(): void {
    this.#control?.receive[Symbol.dispose]();
    for (const slot of this.#table.slots) slot.receive?.[Symbol.dispose]();
  }

  #makeQueues(): { readonly table: PortTable; readonly control: ControlLink | undefined } {
    const multiport = this.features.has('MULTIPORT');
    const size = this.#plan.buffers;
    const count = multiport ? this.#countPorts() : 1;
    const slots = Array.from({ length: count }, (_, id) => {
      const index = receiveQueueOf(id);
      const receive = this.createQueue({ index, size, tableLength: 0 });
      const transmit = this.createQueue({ index: index + 1, size, tableLength: 0 });
      return new PortSlot(id, this.transport, receive, transmit, this.#lied);
    });
    const table = new PortTable(slots, {
      host: this.#host,
      plan: { ...this.#plan, accessPlatform: this.accessPlatform },
      hal: this.hal,
      allocate: (bytes) => this.allocate(bytes, 'driver-to-device'),
      control: () => this.#control,
    });
    table.size = this.#sizeOfConfig();
    if (!multiport) {
      table.addOnly();
      return { table, control: undefined };
    }
    const receive = this.createQueue({ index: CONTROL_RECEIVE, size: CONTROL_COUNT, tableLength: 0 });
    const transmit = this.createQueue({ index: CONTROL_TRANSMIT, size: 2, tableLength: 0 });
    const region = this.allocate(8, 'driver-to-device');
    const { accessPlatform } = this;
    const messages = new OwningQueue(receive, this.hal, { bufferSize: CONTROL_BUFFER, accessPlatform });
    const control = new ControlLink(this.transport, messages, transmit, region, (message) =>
      table.handle(message),
    );
    return { table, control };
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
    const { entry, receive } = this.#table.first;
    if (entry && receive) {
      entry.receiver.resume(receive);
      receive.postAll();
    }
    this.#report();
  }

  #readSize(): void {
    const size = this.#sizeOfConfig();
    if (size !== undefined) this.#table.setSize(size);
  }

  /** 5.3.6: the size in the configuration is that of port 0. */
  #sizeOfConfig(): ConsoleSize | undefined {
    if (!this.features.has('SIZE')) return undefined;
    const { transport } = this;
    const { cols, rows } = ConsoleConfig.fields;
    return transport.readConsistent(() => ({
      columns: transport.readConfigSpace(cols),
      rows: transport.readConfigSpace(rows),
    }));
  }

  #find(which: PortQuery): ConsolePort | undefined {
    const port = this.findPort(which);
    if (port !== undefined) return port;
    if (this.failure !== undefined) throw this.failure;
    if (typeof which === 'number' ? this.#table.slots[which] === undefined : this.#control === undefined) {
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
    } catch (error) {
      this.fail(error as VirtioError);
    }
    this.#arm(control);
    this.#report();
  };

  /** Ports may come at any time, so interrupts for messages are always wanted; they keep no event loop alive. */
  #arm(control: ControlLink): void {
    if (this.transport.interrupts === undefined || this.failure !== undefined) return;
    try {
      const received = control.receive.queue.enableInterrupts();
      const used = control.transmit.enableInterrupts();
      this.#eager = received ? this.#eager + 1 : 0;
      if (this.#eager > MAX_EAGER) throw this.#flooded();
      if (received || used) void Promise.resolve().then(this.#lookForMessages);
    } catch (error) {
      this.fail(error as VirtioError);
    }
  }

  /** A device that sends as fast as it is listened to would keep everything else from running. */
  #flooded(): VirtioError {
    return this.transport.fail(
      new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.transport.who()} sends control messages without end, faster than they can be looked at. ` +
          'It is not trusted any more: reset or dispose its driver',
      ),
    );
  }

  /** Reports what has happened when all of it is done, so that listeners may do what they like. */
  #report(): void {
    const { events, warnings } = this.#table;
    if (events.length > 0) this.#watchers.wake();
    for (let next = warnings.shift(); next; next = warnings.shift()) this.emit('warning', next);
    for (let next = events.shift(); next; next = events.shift()) this.emit(next.name, next.port);
  }

  readonly #lied = (error: VirtioError): void => {
    this.fail(error);
  };

  readonly #host: PortHost = {
    failure: () => this.failure,
    transport: this.transport,
    fail: this.#lied,
    lookForMessages: this.#lookForMessages,
    announceOpen: (port, open) => {
      this.#table.setOpen(port, open);
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
