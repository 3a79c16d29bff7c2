/** A 9P device with a server in memory behind it, and what tests drive it with. */
import { CommonFeatures, DeviceType } from '@virtio/core';
import {
  FakeDevice,
  type FakeDeviceOptions,
  FakeTransport,
  type FakeTransportOptions,
} from '@virtio/testing';
import { type MountOptions, P9FileSystem, Virtio9p } from '../src/index.ts';
import { MemoryServer } from './memory-server.ts';

export const MOUNT_TAG = 1n;

/** What most devices have. */
export const usual: bigint = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits;

/** The configuration space of a device whose tag is `tag`. */
export function config(tag: string): Uint8Array {
  const bytes = new TextEncoder().encode(tag);
  return Uint8Array.of(bytes.length & 0xff, bytes.length >> 8, ...bytes);
}

export interface Rig {
  readonly device: FakeDevice;
  readonly transport: FakeTransport;
  readonly driver: Virtio9p;
  readonly server: MemoryServer;
}

export function setUp(options: Partial<FakeDeviceOptions> & FakeTransportOptions = {}): Rig {
  const device = new FakeDevice({
    type: DeviceType.P9,
    queues: [128],
    config: config('share'),
    ...options,
    features: (options.features ?? usual) | MOUNT_TAG,
  });
  const server = new MemoryServer().serve(device);
  const { interrupts } = options;
  const transport = new FakeTransport(device, interrupts === undefined ? {} : { interrupts });
  return { device, transport, server, driver: new Virtio9p(transport, device.hal) };
}

export async function mounted(
  options: Partial<FakeDeviceOptions> & FakeTransportOptions = {},
  mount: MountOptions = {},
  prepare?: (server: MemoryServer) => void,
): Promise<Rig & { readonly fs: P9FileSystem }> {
  const rig = setUp(options);
  prepare?.(rig.server);
  return { ...rig, fs: await P9FileSystem.mount(rig.driver, mount) };
}

/** Checks that the server has no fid left but those given, that no tag is in use, and that the driver kept the rules. */
export async function leavesNothing({ device, driver, server }: Rig, fs: P9FileSystem): Promise<void> {
  await fs.unmount();
  const fids = [...server.fids.keys()];
  driver[Symbol.dispose]();
  if (fids.length > 0) throw new Error(`the server still knows fids ${fids.join(', ')}`);
  device.assertClean();
}

export const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

/** Bytes that differ from place to place. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(length);
  let state = seed;
  for (let i = 0; i < length; i += 1) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    result[i] = state >>> 16;
  }
  return result;
}

/** Lets everything go on that is ready to. */
export async function settle(turns = 20): Promise<void> {
  for (let i = 0; i < turns; i += 1) await Promise.resolve();
}

/** The error that a call rejects with, or throws. */
export async function failure(attempt: () => unknown): Promise<unknown> {
  try {
    await attempt();
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}

/** Whether two arrays hold the same bytes; quicker than comparing them one by one. */
export function same(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && Buffer.compare(a, b) === 0;
}
