/** Opens a device in another process: puts the parts together. */
import { DeviceType, isDeviceType, requireBytes, requireSignal, VirtioError } from '@virtio/core';
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
/** The queue size that all back ends in use support; the protocol has no request for it. */
const MAX_QUEUE_SIZE = 1024;
const SPIN_US = 50;
const LONGEST_SPIN_US = 1_000_000;
const MEMORY_SIZE = 64 * 1024 * 1024;
const LARGEST_QUEUE = 32768;

const INTERRUPTS: readonly string[] = ['eventfd', 'polling'] satisfies VhostUserOptions['interrupts'][];

/** Options of {@link openVhostUser}. */
export interface VhostUserOptions {
  /** The device type: the protocol does not give it. */
  readonly deviceType: DeviceType;
  /** Whether to listen on the socket, to which the back end connects (default false: connect to the back end). */
  readonly server?: boolean;
  /**
   * Whether to wait for another back end when the connection is lost, and to set it up as the driver had set up the last one
   * (default false: the driver fails with `DEVICE_REMOVED`).
   */
  readonly reconnect?: boolean;
  /**
   * How the back end reports used buffers (default `eventfd`). With `polling` it does not: the rings are polled at each turn of the
   * event loop while a caller waits, which keeps a processor busy.
   */
  readonly interrupts?: 'eventfd' | 'polling';
  /**
   * How long a wait spins, a turn of the event loop at a time, before it sleeps on the eventfd, in microseconds (default 50; 0: it
   * does not spin). While answers come within that time, a processor is busy; a longer wait costs at most this much processor time,
   * and if several waits in a row are longer, only one of up to 65 spins. While no caller waits, nothing runs.
   */
  readonly spinUs?: number;
  /** How long the back end may take to answer, in milliseconds (default 5000). */
  readonly timeoutMs?: number;
  /** The largest queue size of the back end in descriptors (default 1024): the protocol has no request for it. */
  readonly maxQueueSize?: number;
  /** The number of queues, for a back end that does not report it or reports a wrong number. */
  readonly queues?: number;
  /** The configuration space, for a back end that does not provide it. */
  readonly config?: Uint8Array;
  /** The size of the configuration space in bytes, up to 256, if it is not a size of the specification. */
  readonly configSize?: number;
  /** The display of a GPU device, which has none of its own. Only for `DeviceType.Gpu`. */
  readonly display?: BackendDisplay;
  /**
   * The size of the first region of shared memory in bytes (default 64 MiB). Later regions are larger. A page takes memory only
   * when it is first accessed.
   */
  readonly memorySize?: number;
  /** Whether to use huge pages if there are enough (default true). */
  readonly hugePages?: boolean;
  /** Cancels the opening. */
  readonly signal?: AbortSignal;
}

/** An open device in another process. */
export interface VhostUserDevice extends Disposable {
  /** Distinguishes it from devices of `@virtio/linux`. */
  readonly kind: 'vhost-user';
  /** The transport, for the driver. */
  readonly transport: VhostUserTransport;
  /** The platform, for the driver and for buffers that the device accesses without a copy. */
  readonly hal: VhostUserHal;
}

/**
 * Opens the device that a vhost-user back end serves at a Unix socket.
 *
 * Disposing the result ends the connection and frees all memory. Dispose the driver first, or let `using` do both in the right
 * order. A device that is still open when the process ends is disposed then.
 *
 * @param path the path of the socket, with or without the prefix `vhost-user:`
 * @throws {@link VirtioError} `NO_DEVICE` if nothing listens on the socket, `NOT_READY` if the back end does not answer,
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
  const { deviceType, server = false, reconnect = false, hugePages = true } = options;
  if (!isDeviceType(deviceType)) {
    throw new VirtioError(
      'INVALID_DEVICE_TYPE',
      `deviceType is ${String(deviceType)}, which is not a device type; see DeviceType of @virtio/core`,
    );
  }
  const given: unknown = path;
  if (typeof given !== 'string') {
    throw new VirtioError(
      'INVALID_PARAM',
      `the path of a vhost-user socket is ${String(given)}; give a string`,
    );
  }
  const socket = path.replace(/^vhost-user:/, '');
  const name = `vhost-user ${socket}`;
  const { signal } = options;
  const interrupts: string = options.interrupts ?? 'eventfd';
  if (!INTERRUPTS.includes(interrupts)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${name}: interrupts is '${interrupts}'; a device in another process has 'eventfd' or 'polling'`,
    );
  }
  requireSignal(name, signal);
  if (options.config !== undefined) requireBytes(name, options.config);
  // A copy, which is used for each back end: the caller may change the array.
  const config = options.config && Uint8Array.from(options.config);
  const timeoutMs = within(name, 'timeoutMs', options.timeoutMs ?? TIMEOUT_MS, 1, 2 ** 31 - 1);
  const maxQueueSize = within(name, 'maxQueueSize', options.maxQueueSize ?? MAX_QUEUE_SIZE, 1, LARGEST_QUEUE);
  const memorySize = within(name, 'memorySize', options.memorySize ?? MEMORY_SIZE, 1, 2 ** 40);
  const spinUs = within(name, 'spinUs', options.spinUs ?? SPIN_US, 0, LONGEST_SPIN_US);
  const queues = optional(name, 'queues', options.queues, MAX_VRINGS);
  const configSize = optional(name, 'configSize', options.configSize, MAX_CONFIG);
  const { display } = options;
  if (display !== undefined && !(display instanceof BackendDisplay && deviceType === DeviceType.Gpu)) {
    throw new VirtioError(
      'INVALID_PARAM',
      `${name}: display must be a BackendDisplay of @virtio/vhost-user, and the device a GPU (DeviceType.Gpu)`,
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
          polling: interrupts === 'polling',
          maxQueueSize,
          queues,
          config,
          display,
          configSizes: configSize === undefined ? configSizes(deviceType) : [configSize],
        },
        signal ?? new AbortController().signal,
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

/** A number from 1 to `max` that may be left out. */
function optional(name: string, option: string, value: number | undefined, max: number): number | undefined {
  return value === undefined ? undefined : within(name, option, value, 1, max);
}

function within(name: string, option: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new VirtioError('INVALID_PARAM', `${name}: ${option} is ${value}; it must be from ${min} to ${max}`);
}
