/** Opens the device of a test in the way of the guest it runs in. */
import type { DriverOptions, FeatureName, FeatureSet } from '@virtio/core';
import {
  type DeviceAddress,
  type DriverClass,
  type LinuxHal,
  type OpenDevice,
  openDriver,
  type OpenDriver,
  type OpenOptions,
  openTransport,
  type SomeTransport,
} from '@virtio/linux';
import { equal } from 'node:assert/strict';
import type { Cell, GuestContext } from '../framework/define.ts';

type Where = Pick<GuestContext, 'cell' | 'device'>;

/** A device's address, and how to open it: through VFIO where there is an IOMMU, with physical addresses elsewhere. */
function place({ cell, device }: Where, name: string): [DeviceAddress, OpenOptions] {
  const location = device(name);
  return [
    location.kind === 'pci' ? location.address : location,
    { unsafePhysicalMemory: cell.transport !== 'pci-vfio' },
  ];
}

/** Opens a device. */
export function open(context: Where, name: string, options: OpenOptions = {}): SomeTransport {
  const [address, how] = place(context, name);
  return openTransport(address, { ...how, ...options });
}

/** A driver of a device, over the rings for which the guest was started. It closes the device. */
export function openWith<
  D extends OpenDevice & { readonly features: Features },
  O extends DriverOptions<string>,
>(
  context: Where,
  name: string,
  driver: DriverClass<D, O>,
  options?: OpenOptions & NoInfer<O>,
): OpenDriver<D, LinuxHal> {
  const [address, how] = place(context, name);
  const opened = openDriver<D, O>(driver, address, { ...how, ...options } as OpenOptions & NoInfer<O>);
  expectRing(opened.features, context.cell);
  return opened;
}

/** Whether the guest's devices show the legacy interface only. */
export function isLegacy({ transport }: Cell): boolean {
  return transport === 'mmio-v1';
}

type Features = Pick<FeatureSet<string>, 'has'>;

/** Fails unless the rings that were negotiated are those for which the guest was started. */
export function expectRing(features: Features, { ring, transport }: Cell): void {
  const { packed = false, event_idx = true, indirect_desc = true, in_order = false } = ring.properties;
  const expected = {
    RING_PACKED: packed,
    EVENT_IDX: event_idx,
    INDIRECT_DESC: indirect_desc,
    IN_ORDER: in_order,
    VERSION_1: transport !== 'mmio-v1',
    ACCESS_PLATFORM: transport === 'pci-vfio',
  } satisfies Partial<Record<FeatureName, unknown>>;
  for (const [name, wanted] of Object.entries(expected)) equal(features.has(name), wanted, name);
}
