/** Opens the device of a test in the way of the guest it runs in. */
import type { FeatureName, FeatureSet } from '@virtio/core';
import { openTransport, type OpenOptions, type SomeTransport } from '@virtio/linux';
import { equal } from 'node:assert/strict';
import type { Cell, GuestContext } from '../framework/define.ts';

/** Opens a device: through VFIO where there is an IOMMU, with physical addresses elsewhere. */
export function open(
  context: Pick<GuestContext, 'cell' | 'device'>,
  name: string,
  options: OpenOptions = {},
): SomeTransport {
  const location = context.device(name);
  const unsafePhysicalMemory = context.cell.transport !== 'pci-vfio';
  const what = location.kind === 'pci' ? location.address : location;
  return openTransport(what, { unsafePhysicalMemory, ...options });
}

/** Whether the guest's devices show the legacy interface only. */
export function isLegacy({ transport }: Cell): boolean {
  return transport === 'mmio-v1';
}

/** Fails unless the rings that were negotiated are those for which the guest was started. */
export function expectRing(features: Pick<FeatureSet<string>, 'has'>, { ring, transport }: Cell): void {
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
