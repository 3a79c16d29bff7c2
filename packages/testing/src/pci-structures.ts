/** The places of a PCI device's virtio structures, and the BARs and capabilities that result from them [4.1.4]. */
import type { FakeDevice } from './fake-device.ts';
import type { FakeBarOptions, FakeCapability } from './fake-pci-function.ts';

/** Types of virtio capabilities [4.1.4]. */
export const TYPE = { common: 1, notify: 2, isr: 3, device: 4, pciCfg: 5, sharedMemory: 8 } as const;

const TWO_32 = 4294967296;

/** Capability ids of PCI. */
export const CAPABILITY = { powerManagement: 0x01, vendor: 0x09, msix: 0x11 } as const;

/** The BAR of each kind of structure. */
export const BAR_MSIX = 1;
const BAR_SHARED = 2;
const BAR_VIRTIO = 4;

/** Where the pending bits of MSI-X are in their BAR; the table is at 0. */
export const PBA_OFFSET = 0x8000;

/** The bytes of the whole common configuration [4.1.4.3]. */
const COMMON_SIZE = 64;

/** A structure in a BAR. */
export interface FakeStructure {
  readonly type: 'common' | 'notify' | 'isr' | 'device' | 'sharedMemory';
  readonly bar: number;
  readonly offset: number;
  readonly length: number;
  /** The id of a shared memory region. */
  readonly id?: number;
}

/** The options that matter here; see `FakePciDeviceOptions`. */
interface StructureOptions {
  readonly multiplier?: number;
  readonly notifyOffset?: (queue: number) => number;
  readonly commonLength?: number;
}

/** The places of a device's structures. */
export function structuresOf(device: FakeDevice, options: StructureOptions): FakeStructure[] {
  const { multiplier = 4, notifyOffset = (queue: number): number => queue } = options;
  const furthest = Math.max(0, ...device.queues.map((_, queue) => notifyOffset(queue)));
  const bar = BAR_VIRTIO;
  const structures: FakeStructure[] = [
    { type: 'common', bar, offset: 0, length: options.commonLength ?? COMMON_SIZE },
    { type: 'isr', bar, offset: 0x1000, length: 1 },
  ];
  if (device.config.length > 0) {
    structures.push({ type: 'device', bar, offset: 0x2000, length: device.config.length });
  }
  structures.push({ type: 'notify', bar, offset: 0x3000, length: furthest * multiplier + 4 });
  let offset = 0;
  for (const [id, { length }] of Object.entries(device.sharedMemory)) {
    structures.push({ type: 'sharedMemory', bar: BAR_SHARED, offset, length, id: Number(id) });
    offset += Math.ceil(length / 4096) * 4096;
  }
  return structures;
}

/** The BARs that hold the structures, as QEMU has them: MSI-X in BAR 1, virtio in BAR 4 (64 bits), shared memory in BAR 2. */
export function barsOf(
  structures: readonly FakeStructure[],
  vectors: number,
): Record<number, FakeBarOptions> {
  const end = (bar: number): number =>
    Math.max(0, ...structures.filter((s) => s.bar === bar).map((s) => s.offset + s.length));
  const size = (bytes: number): number => 2 ** Math.ceil(Math.log2(bytes));
  const bars: Record<number, FakeBarOptions> = {
    [BAR_VIRTIO]: { kind: 'memory64', prefetchable: true, size: size(Math.max(0x4000, end(BAR_VIRTIO))) },
  };
  if (vectors > 0) bars[BAR_MSIX] = { kind: 'memory', size: 2 * PBA_OFFSET };
  if (end(BAR_SHARED) > 0) {
    bars[BAR_SHARED] = { kind: 'memory64', prefetchable: true, size: size(Math.max(4096, end(BAR_SHARED))) };
  }
  return bars;
}

const le = (value: number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) % 256);

/** The body of a `virtio_pci_cap` [4.1.4]: all bytes after the id and the next pointer. */
export function virtioCapability(
  type: number,
  { bar = 0, id = 0, offset = 0, length = 0 }: Partial<Omit<FakeStructure, 'type'>>,
  extra: readonly number[] = [],
): FakeCapability {
  const body = [16 + extra.length, type, bar, id, 0, 0, ...le(offset, 4), ...le(length, 4), ...extra];
  return { id: CAPABILITY.vendor, body };
}

/** The capabilities that describe the structures. */
export function capabilitiesOf(
  structures: readonly FakeStructure[],
  multiplier: number,
  vectors: number,
): FakeCapability[] {
  // Power management first, as real lists do not contain virtio's capabilities alone.
  const capabilities: FakeCapability[] = [{ id: CAPABILITY.powerManagement, body: [0x03, 0, 0, 0, 0, 0] }];
  if (vectors > 0) {
    const body = [...le(vectors - 1, 2), ...le(BAR_MSIX, 4), ...le(PBA_OFFSET + BAR_MSIX, 4)];
    capabilities.push({ id: CAPABILITY.msix, body });
  }
  for (const structure of structures) {
    const { type, offset, length } = structure;
    const extra =
      type === 'notify'
        ? le(multiplier, 4)
        : type === 'sharedMemory'
          ? [...le(Math.floor(offset / TWO_32), 4), ...le(Math.floor(length / TWO_32), 4)]
          : [];
    capabilities.push(virtioCapability(TYPE[type], structure, extra));
  }
  capabilities.push(virtioCapability(TYPE.pciCfg, {}, [0, 0, 0, 0]));
  return capabilities;
}
