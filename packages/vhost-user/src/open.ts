/** Opens a device in another process: the one place that knows which parts belong together. */
import { DeviceType, isDeviceType, VirtioError } from '@virtio/core';
import { disposeAtExit, EventPoller, Resources } from '@virtio/linux';
import { configSizes } from './config-size.ts';
import { Client, Server } from './dial.ts';
import { BackendDisplay } from './display.ts';
import { VhostUserHal } from './hal.ts';
import { VhostMemory } from './memory.ts';
import { MAX_CONFIG, MAX_VRINGS } from './protocol.ts';
import { VhostUserTransport } from './transport.ts';

/** Time-out for an answer of the back end, in milliseconds. */
const TIMEOUT_MS = 5000;
/** Queues that the back ends in use have at the least; the protocol has no question for it. */
const MAX_QUEUE_SIZE = 1024;
const SPIN_US = 50;
const LONGEST_SPIN_US = 1_000_000;
const MEMORY_SIZE = 64 * 1024 * 1024;
const LARGEST_QUEUE = 32768;

/** How {@link openVhostUser} opens a device. */
export interface VhostUserOptions {
  /** What the device is: the protocol does not tell. */
  readonly deviceType: DeviceType;
  /** We listen at the socket and the back end connects to it (default false: we connect to the back end). */
  readonly server?: boolean;
  /**
   * Whether to wait for the back end when it is lost, and to tell the next one all that the driver set up (default false: the
   * driver fails with `DEVICE_REMOVED`).
   */
  readonly reconnect?: boolean;
  /**
   * How the back end tells of used buffers (default `eventfd`). With `polling` it does not, and the rings are looked at at each turn
   * of the event loop while somebody waits, which keeps a processor busy.
   */
  readonly interrupts?: 'eventfd' | 'polling';
  /**
   * How long a wait spins, a turn of the event loop at a time, before it sleeps on the eventfd, in microseconds (default 50; 0: not at
   * all). While answers come within that time a processor is busy; a wait that is longer costs so much of it at most, and when several were
   * longer, only one of up to 65 spins. Where nobody waits, nothing runs.
   */
  readonly spinUs?: number;
  /** How long the back end may take to answer, in milliseconds (default 5000). */
  readonly timeoutMs?: number;
  /** The largest queue of the back end in descriptors (default 1024): it cannot be asked. */
  readonly maxQueueSize?: number;
  /** How many queues the device has, where the back end cannot be asked or is wrong. */
  readonly queues?: number;
  /** The configuration space, for a back end that has none. */
  readonly config?: Uint8Array;
  /** The size of the configuration space in bytes, up to 256, where it is not what the specification has. */
  readonly configSize?: number;
  /** Where a graphics card shows its pictures: it has no display of its own. Only for `DeviceType.Gpu`. */
  readonly display?: BackendDisplay;
  /** Bytes of the first region of shared memory (default 64 MiB). Later ones are larger. Pages take memory when they are touched. */
  readonly memorySize?: number;
  /** Whether the memory is taken from huge pages if there are enough (default true). */
  readonly hugePages?: boolean;
  /** Cancels the opening. */
  readonly signal?: AbortSignal;
}

/** An open device in another process. */
export interface VhostUserDevice extends Disposable {
  /** Tells it from devices of `@virtio/linux`. */
  readonly kind: 'vhost-user';
  /** The way to the device, for its driver. */
  readonly transport: VhostUserTransport;
  /** The memory that the device reaches, for its driver and for buffers without a copy. */
  readonly hal: VhostUserHal;
}

/**
 * Opens the device that a vhost-user back end serves at a Unix socket.
 *
 * Disposing the result ends the connection and gives all memory back. Dispose the driver first, or let `using` do it in order.
 * What is open when the process ends is disposed then.
 *
 * @param path of the socket, with or without `vhost-user:` before it
 * @throws {@link VirtioError} `NO_DEVICE` if nobody listens there, `NOT_READY` if the back end does not answer,
 * `DEVICE_REMOVED` if it ends the connection, `DEVICE_MISBEHAVED`, `PERMISSION_DENIED`, `INVALID_PARAM`, `ABORTED`
 *
 * @example
 * ```ts
 * import { VirtioBlk } from '@virtio/blk';
 * import { DeviceType } from '@virtio/core';
 * import { openVhostUser } from '@virtio/vhost-user';
 *
 * using device = await openVhostUser('/tmp/vhost.sock', { deviceType: DeviceType.Block });
 * using disk = new VirtioBlk(device.transport, device.hal);
 * await disk.read(0, new Uint8Array(512));
 * ```
 */
export async function openVhostUser(path: string, options: VhostUserOptions): Promise<VhostUserDevice> {
  const { deviceType, server = false, reconnect = false, hugePages = true, config } = options;
  if (!isDeviceType(deviceType)) {
    throw new VirtioError(
      'INVALID_DEVICE_TYPE',
      `${String(deviceType)} is no device type; see DeviceType of @virtio/core`,
    );
  }
  const socket = path.replace(/^vhost-user:/, '');
  const name = `vhost-user ${socket}`;
  const timeoutMs = within(name, 'timeoutMs', options.timeoutMs ?? TIMEOUT_MS, 1, 2 ** 31 - 1);
  const maxQueueSize = within(name, 'maxQueueSize', options.maxQueueSize ?? MAX_QUEUE_SIZE, 1, LARGEST_QUEUE);
  const memorySize = within(name, 'memorySize', options.memorySize ?? MEMORY_SIZE, 1, 2 ** 40);
  const spinUs = within(name, 'spinUs', options.spinUs ?? SPIN_US, 0, LONGEST_SPIN_US);
  const queues = options.queues && within(name, 'queues', options.queues, 1, MAX_VRINGS);
  const configSize = options.configSize && within(name, 'configSize', options.configSize, 1, MAX_CONFIG);
  const { display } = options;
  if (display !== undefined && !(display instanceof BackendDisplay && deviceType === DeviceType.Gpu)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${name}: display is for graphics cards (DeviceType.Gpu), and is a BackendDisplay of @virtio/vhost-user`,
    );
  }
  const resources = new Resources();
  try {
    const memory = new VhostMemory(name, memorySize, hugePages);
    const hal = resources.add(new VhostUserHal(memory));
    const poller = resources.add(new EventPoller());
    const dialer = resources.add(server ? new Server(socket, poller) : new Client(socket, timeoutMs));
    const transport = resources.add(
      await VhostUserTransport.open(
        {
          deviceType,
          name,
          poller,
          dialer,
          memory,
          timeoutMs,
          reconnect,
          spinUs,
          polling: options.interrupts === 'polling',
          maxQueueSize,
          queues,
          config,
          display,
          configSizes: configSize === undefined ? configSizes(deviceType) : [configSize],
        },
        options.signal ?? new AbortController().signal,
      ),
    );
    const forget = disposeAtExit(resources);
    return {
      kind: 'vhost-user',
      transport,
      hal,
      [Symbol.dispose]: () => {
        forget();
        resources[Symbol.dispose]();
      },
    };
  } catch (error) {
    resources[Symbol.dispose]();
    throw error;
  }
}

function within(name: string, option: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new VirtioError('INVALID_PARAM', `${name}: ${option} is ${value}; it can be ${min} to ${max}`);
}
