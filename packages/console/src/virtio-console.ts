/** The driver of console devices: one port, or many that come and go. */
import {
  BufferDriver,
  DeviceType,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  type ReceiveQueue,
  requireInteger,
  type SpinOptions,
  type Transport,
  VirtioError,
  type VirtQueue,
  type WaitOptions,
} from '@virtio/core';
import type { ConsolePort, ConsoleSize, PortHost } from './console-port.ts';
import { CONTROL_BUFFER, ControlLink } from './control.ts';
import { noEmergencyWrite, writeEmergency } from './emergency-write.ts';
import { PortSlot } from './port-slot.ts';
import { type PortEntry, PortTable } from './port-table.ts';
import {
  ConsoleConfig,
  type ConsoleFeature,
  ConsoleControl,
  ConsoleFeatures,
  CONTROL_RECEIVE,
  CONTROL_TRANSMIT,
  ControlEvent,
  receiveQueueOf,
} from './protocol.ts';

/** Options of {@link VirtioConsole}. */
export interface ConsoleOptions extends DriverOptions<ConsoleFeature> {
  /** Whether to accept several ports if the device has them (default true). If false, there is only port 0, which needs no opening. */
  readonly multiport?: boolean;
  /** The size of each port's queues in descriptors (default: that of `buffers`), as far as the device allows it. */
  readonly queueSize?: number;
  /** How many buffers each port has in each direction (default 16), as far as its queues hold them. */
  readonly buffers?: number;
  /** The size of each buffer in bytes (default 4096). */
  readonly bufferSize?: number;
  /** How many bytes a port keeps until they are read; also the longest line (default 65,536). */
  readonly readAhead?: number;
}

/** The events of {@link VirtioConsole}. */
export interface ConsoleEvents extends DriverEvents {
  /** The device has a new port. Its name, and whether it is a console, may come a moment later. */
  portAdded: ConsolePort;
  /** The device removed a port. */
  portRemoved: ConsolePort;
  /** The device named a port or made it a console, or its far side was opened or closed. */
  portChanged: ConsolePort;
  /** The size of a console changed. */
  resized: ConsolePort;
  /** The device sent a message that makes no sense, which was ignored. */
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
/** How many events are reported at once, before other work of the event loop has a turn. */
const MOST_REPORTS = 1024;
/** How long `port` waits for a device that is about to announce its ports, in milliseconds. */
const ANNOUNCEMENT_MS = 1000;

interface Plan {
  readonly queueSize: number;
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
export class VirtioConsole extends BufferDriver<ConsoleFeature, ConsoleEvents> {
  /** The device type: console. */
  static readonly deviceType = DeviceType.Console;

  readonly #plan: Plan;
  readonly #table: PortTable;
  readonly #control: ControlLink | undefined;
  /** The queue on which callers wait for a port. */
  readonly #watchers: ReceiveQueue;
  #reporting = false;

  /**
   * Initializes the device. With several ports these are announced by the device afterwards: see
   * {@link VirtioConsole.waitForPort} and the events.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`, `FEATURES_REFUSED`, `UNSUPPORTED` if a queue is missing, `DMA_ERROR`,
   * `INVALID_DEVICE` if the device reports that it has no ports
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
    this.#watchers = control?.receive ?? table.first.receive;
    this.start();
    // 5.3.6.2.2: the device is told that it can announce its ports.
    control?.send(0, ControlEvent.DEVICE_READY, 1);
  }

  /** The ports that the device has now, by number. */
  get ports(): ConsolePort[] {
    return this.#table.slots.flatMap(({ entry }) => (entry ? [entry.port] : []));
  }

  /** How many ports the device can have; their numbers are less than this. */
  get maxPorts(): number {
    return this.#table.slots.length;
  }

  /** The size of the console (of port 0), if the device reports it. */
  get size(): ConsoleSize | undefined {
    // Without interrupts nobody tells of a change.
    if (this.transport.interrupts === undefined && this.failure === undefined) this.#readSize();
    return this.#table.size;
  }

  /**
   * A port by its number; by default the first one, which is all that a device without `MULTIPORT` has. A device with several
   * announces its ports after the driver is ready: this spins until it has, for a second at most.
   *
   * @param options how long to wait for the device
   * @throws {@link VirtioError} `NOT_READY` if the device has no such port, `INVALID_PARAM` if there can be none
   */
  port(id = 0, options: SpinOptions = { timeoutMs: ANNOUNCEMENT_MS }): ConsolePort {
    return this.waitForPortSync(
      requireInteger(this.transport, 'the port', id, 0, this.maxPorts - 1),
      options,
    );
  }

  /**
   * The first port that matches, if there is one.
   *
   * @param which its number, its name, or a function that is true for it
   * @throws {@link VirtioError} `INVALID_PARAM` if it is none of these
   */
  findPort(which: PortQuery): ConsolePort | undefined {
    requireQuery(this.transport, which);
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

  /** The same as {@link VirtioConsole.waitForPort}, spinning. `NOT_READY` after `options.timeoutMs`. */
  waitForPortSync(which: PortQuery, options?: SpinOptions): ConsolePort {
    let port: ConsolePort | undefined;
    this.#watchers.spin(() => (port ??= this.#find(which)) !== undefined, options, 'such a port');
    return port as ConsolePort;
  }

  /**
   * Writes through the configuration space, without a queue; this also works after a failure. See {@link emergencyWrite} for a device
   * without a driver.
   *
   * @throws {@link VirtioError} `UNSUPPORTED` if `EMERG_WRITE` was not negotiated, `DISPOSED`
   */
  emergencyWrite(data: Uint8Array | string): void {
    if (this.failure?.code === 'DISPOSED') throw this.failure;
    if (!this.features.has('EMERG_WRITE')) throw noEmergencyWrite(this.transport);
    writeEmergency(this.transport, data);
  }

  protected override onConfigChange(): void {
    this.#readSize();
    this.#report();
  }

  protected override onFailure(): void {
    this.#table.fail();
  }

  protected override onReset(): void {
    this.#control?.reset();
    this.#table.reset();
    this.#readSize();
  }

  protected override onQueueReset(queue: VirtQueue): void {
    if (queue === this.#control?.transmit.queue) this.#control.resend();
  }

  protected override onLive(): void {
    this.#control?.send(0, ControlEvent.DEVICE_READY, 1);
    this.#report();
  }

  #makeQueues(): { readonly table: PortTable; readonly control: ControlLink | undefined } {
    const multiport = this.features.has('MULTIPORT');
    const { queueSize: size, buffers, bufferSize, readAhead } = this.#plan;
    const queues = { size, tableLength: 0, buffers, bufferSize, closed: true };
    const slots = Array.from({ length: multiport ? this.#countPorts() : 1 }, (_, id) => {
      const index = receiveQueueOf(id);
      const receive = this.createReceiveQueue({
        ...queues,
        index,
        receive: () => {
          slot.entry?.receiver.receive();
          return slot.entry?.receiver.ready === true;
        },
        restarted: () => {
          slot.entry?.receiver.absorb();
        },
      });
      const slot = new PortSlot<PortEntry>(
        id,
        receive,
        this.createTransmitQueue({ ...queues, index: index + 1 }),
      );
      return slot;
    });
    const table = new PortTable(slots, {
      ...{ host: this.#host, readAhead },
      ...{ control: () => this.#control, sizeOfConfig: () => this.#sizeOfConfig() },
    });
    if (!multiport) {
      table.addOnly();
      return { table, control: undefined };
    }
    // Ports may come at any time, so interrupts for messages are always wanted.
    const common = { tableLength: 0, always: true } as const;
    const receive = this.createReceiveQueue({
      ...common,
      index: CONTROL_RECEIVE,
      size: CONTROL_COUNT,
      bufferSize: CONTROL_BUFFER,
      receive: () => {
        control.take();
        return this.#report();
      },
    });
    const transmit = this.createTransmitQueue({
      ...common,
      index: CONTROL_TRANSMIT,
      size: 2,
      buffers: 1,
      bufferSize: ConsoleControl.size,
      freed: () => {
        control.used();
      },
    });
    const control: ControlLink = new ControlLink(this.transport, receive, transmit, (message) =>
      table.handle(message),
    );
    return { table, control };
  }

  /** How many ports there are queues for: as many as the device says, or fewer if it says too many. */
  #countPorts(): number {
    const { transport } = this;
    const max = transport.readConfigSpace(ConsoleConfig.fields.maxNrPorts);
    if (max === 0) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `${transport.who()} offers MULTIPORT, but reports 0 ports; use it with multiport: false`,
      );
    }
    let count = 1;
    while (count < Math.min(max, MAX_PORTS) && transport.maxQueueSize(receiveQueueOf(count) + 1) > 0) {
      count += 1;
    }
    return count;
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

  /** Takes messages that have come. */
  readonly #look = (): void => {
    const control = this.#control;
    if (control === undefined) return;
    control.transmit.drain();
    control.receive.drain();
    this.#report();
  };

  /**
   * Reports what has happened when all of it is done, so that listeners may do what they like. What happens inside of a listener is
   * reported after it has returned. Returns whether there was something.
   */
  #report(): boolean {
    const { events, warnings } = this.#table;
    if (events.length === 0 && warnings.length === 0) return false;
    if (events.length > 0) this.#watchers.wake();
    if (this.#reporting) return true;
    this.#reporting = true;
    for (let left = MOST_REPORTS; left > 0; left -= 1) {
      const warning = warnings.shift();
      const event = warning === undefined ? events.shift() : undefined;
      if (warning !== undefined) this.emit('warning', warning);
      else if (event !== undefined) this.emit(event.name, event.port);
      else break;
      // A listener has disposed the driver: there are no ports any more.
      if (this.failure?.code === 'DISPOSED') events.length = warnings.length = 0;
    }
    this.#reporting = false;
    if (events.length > 0 || warnings.length > 0) this.transport.interrupts?.defer(this.#reportRest);
    return true;
  }

  readonly #reportRest = (): void => {
    this.#report();
  };

  readonly #host: PortHost = {
    failure: () => this.failure,
    transport: this.transport,
    look: this.#look,
    announceOpen: (port, open) => {
      this.#table.setOpen(port, open);
      this.#look();
    },
  };
}

function planOf(transport: Transport, options: ConsoleOptions): Plan {
  const {
    buffers = DEFAULT_BUFFERS,
    queueSize = buffers,
    bufferSize = DEFAULT_BUFFER_SIZE,
    readAhead = DEFAULT_READ_AHEAD,
  } = options;
  requireInteger(transport, 'buffers', buffers, 1, 32768);
  requireInteger(transport, 'queueSize', queueSize, 1, 32768);
  requireInteger(transport, 'bufferSize', bufferSize, 1, 2 ** 24);
  requireInteger(transport, 'readAhead', readAhead, 1, 2 ** 30);
  return { buffers, queueSize, bufferSize, readAhead };
}

/** For callers without types. */
function requireQuery(transport: Transport, which: unknown): void {
  if (typeof which === 'number' || typeof which === 'string' || typeof which === 'function') return;
  throw new VirtioError(
    'INVALID_PARAM',
    `${transport.who()}: a port is named by its number, its name or a function, not by ${which === null ? 'null' : typeof which}`,
  );
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
