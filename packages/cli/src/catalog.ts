/** The drivers by device type: their classes, their features, and their configuration as plain values. */
import {
  CommonFeatures,
  DeviceType,
  deviceTypeName,
  type DeviceTypeName,
  type Driver,
  type FeatureTable,
  type Hal,
  type Transport,
} from '@virtio/core';
import { usage } from './errors.ts';
import { otherFeatures } from './other-features.ts';

/** Values to print, by name. */
export type Facts = Record<string, unknown>;

/** A driver, as `probe` and `trace` use it. */
export interface Entry {
  readonly features: FeatureTable<string>;
  /** Makes the driver: negotiates, sets up the queues, and makes the device live. */
  open(transport: Transport, hal: Hal, without: readonly string[]): Driver<string>;
  /** The configuration, and the answers of the device to simple requests. */
  describe(driver: Driver<string>, signal: AbortSignal): Facts | Promise<Facts>;
}

type Class<D> = new (transport: Transport, hal: Hal, options: never) => D;

function entry<D>(
  features: FeatureTable<never> | FeatureTable<string>,
  driver: Class<D>,
  describe: (driver: D, signal: AbortSignal) => Facts | Promise<Facts>,
): Entry {
  return {
    features: features,
    open: (transport, hal, without) =>
      new driver(transport, hal, { without } as never) as unknown as Driver<string>,
    describe: (opened, signal) => describe(opened as unknown as D, signal),
  };
}

/** All drivers. Each is loaded when it is needed. */
const ENTRIES: Readonly<Partial<Record<DeviceType, () => Promise<Entry>>>> = {
  [DeviceType.Network]: async () => {
    const { formatMac, NetFeatures, VirtioNet } = await import('@virtio/net');
    return entry(NetFeatures, VirtioNet, (net) => ({
      mac: formatMac(net.macAddress),
      mtu: net.mtu,
      link: net.link,
      activePairs: net.activePairs,
      headerSize: net.headerSize,
    }));
  },
  [DeviceType.Block]: async () => {
    const { BlkFeatures, VirtioBlk } = await import('@virtio/blk');
    return entry(BlkFeatures, VirtioBlk, async (blk, signal) => ({
      serial: await blk.deviceId({ signal }),
      readOnly: blk.readOnly,
      ...blk.config,
    }));
  },
  [DeviceType.Console]: async () => {
    const { ConsoleFeatures, VirtioConsole } = await import('@virtio/console');
    return entry(ConsoleFeatures, VirtioConsole, async (device, signal) => {
      // Ports are announced one by one; the first is there, or arrives soon.
      const patience = AbortSignal.any([signal, AbortSignal.timeout(500)]);
      await device.waitForPort(() => true, { signal: patience }).catch(() => undefined);
      const ports = device.ports.map(({ id, name, isConsole, hostOpen }) => ({
        id,
        name,
        isConsole,
        hostOpen,
      }));
      return { size: device.size, maxPorts: device.maxPorts, ports };
    });
  },
  [DeviceType.EntropySource]: async () => {
    const { RngFeatures, VirtioRng } = await import('@virtio/rng');
    return entry(RngFeatures, VirtioRng, () => ({}));
  },
  [DeviceType.P9]: async () => {
    const { P9Features, Virtio9p } = await import('@virtio/9p');
    return entry(P9Features, Virtio9p, ({ mountTag }) => ({ mountTag }));
  },
  [DeviceType.FileSystem]: async () => {
    const { FsFeatures, VirtioFs } = await import('@virtio/fs');
    return entry(FsFeatures, VirtioFs, ({ tag, requestQueueCount }) => ({ tag, requestQueueCount }));
  },
  [DeviceType.Gpu]: async () => {
    const { GpuFeatures, VirtioGpu } = await import('@virtio/gpu');
    return entry(GpuFeatures, VirtioGpu, async (gpu, signal) => {
      const displays = await gpu.displays({ signal });
      const edid = await gpu.edid(0, { signal }).catch(() => undefined);
      const shown = displays.filter(({ enabled }) => enabled);
      return { scanouts: gpu.scanouts, capsets: gpu.capsets, displays: shown, monitor: edid?.name };
    });
  },
  [DeviceType.Input]: async () => {
    const { eventTypeName, VirtioInput } = await import('@virtio/input');
    return entry(CommonFeatures, VirtioInput, (input) => ({
      name: input.name(),
      serial: input.serial(),
      ids: input.ids(),
      eventTypes: input.eventTypes().map((type) => eventTypeName(type)),
    }));
  },
  [DeviceType.Socket]: async () => {
    const { VirtioSocket, VsockFeatures } = await import('@virtio/socket');
    return entry(VsockFeatures, VirtioSocket, ({ guestCid }) => ({ guestCid }));
  },
  [DeviceType.Sound]: async () => {
    const { SoundFeatures, VirtioSound } = await import('@virtio/sound');
    return entry(SoundFeatures, VirtioSound, async ({ control }, signal) => {
      const { jacks, streams, channelMaps, controls } = control;
      const infos = streams === 0 ? [] : await control.streamInfos(undefined, { signal });
      return { jacks, streams, channelMaps, controls, streamInfos: infos };
    });
  },
};

/** The driver of a device type, or `undefined` if there is none. */
export async function findEntry(type: number): Promise<Entry | undefined> {
  return ENTRIES[type as DeviceType]?.();
}

/** The feature names of a device type. */
export async function featureNames(type: number | undefined): Promise<FeatureTable<string>> {
  if (type === undefined) return CommonFeatures;
  return (await findEntry(type))?.features ?? otherFeatures(type) ?? CommonFeatures;
}

/** Short names of device types: those of the packages. */
const SHORT: Readonly<Record<string, DeviceTypeName>> = {
  net: 'Network',
  blk: 'Block',
  disk: 'Block',
  console: 'Console',
  rng: 'EntropySource',
  '9p': 'P9',
  fs: 'FileSystem',
  gpu: 'Gpu',
  input: 'Input',
  socket: 'Socket',
  vsock: 'Socket',
  sound: 'Sound',
};

/** The short names of the device types that have drivers. */
export const TYPE_NAMES: readonly string[] = Object.keys(SHORT);

/** Parses a device type: `blk`, `Block`, `2`. */
export function parseType(text: string): DeviceType {
  const short = text.toLowerCase();
  const byShort = Object.hasOwn(SHORT, short) ? SHORT[short] : undefined;
  if (byShort !== undefined) return DeviceType[byShort];
  const found = Object.entries(DeviceType).find(
    ([name, id]) => name.toLowerCase() === text.toLowerCase() || String(id) === text,
  );
  if (found !== undefined) return found[1];
  throw usage(
    `"${text}" is not a type of device`,
    `write ${TYPE_NAMES.join(', ')}, or a name or number of VIRTIO 1.4, 5`,
  );
}

/** The name of a device type, for tables. */
export function typeName(type: number | undefined): string {
  if (type === undefined) return 'unknown';
  return type === 0 ? 'empty' : deviceTypeName(type);
}
