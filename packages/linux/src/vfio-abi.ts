/**
 * The kernel's VFIO interface as tables: requests, flags and structures of `<linux/vfio.h>`. They are the same on all
 * architectures, and little-endian on those that this package knows.
 */
import { Layout } from '@virtio/core';

/** `_IO(VFIO_TYPE, VFIO_BASE + n)`: `';'` and 100. */
const request = (n: number): number => (0x3b << 8) | (100 + n);

/** Requests of `ioctl`. */
export const Vfio = {
  GET_API_VERSION: request(0),
  CHECK_EXTENSION: request(1),
  SET_IOMMU: request(2),
  GROUP_GET_STATUS: request(3),
  GROUP_SET_CONTAINER: request(4),
  GROUP_GET_DEVICE_FD: request(6),
  DEVICE_GET_INFO: request(7),
  DEVICE_GET_REGION_INFO: request(8),
  DEVICE_GET_IRQ_INFO: request(9),
  DEVICE_SET_IRQS: request(10),
  DEVICE_RESET: request(11),
  IOMMU_GET_INFO: request(12),
  IOMMU_MAP_DMA: request(13),
  IOMMU_UNMAP_DMA: request(14),
} as const;

/** `VFIO_API_VERSION`. */
export const VFIO_API_VERSION = 0;
/** `VFIO_TYPE1v2_IOMMU`. */
export const TYPE1V2_IOMMU = 3;

/** `VFIO_GROUP_FLAGS_*`. */
export const GroupFlags = { VIABLE: 1, CONTAINER_SET: 2 } as const;
/** `VFIO_DEVICE_FLAGS_*`. */
export const DeviceFlags = { RESET: 1, PCI: 2 } as const;
/** `VFIO_REGION_INFO_FLAG_*`. */
export const RegionFlags = { READ: 1, WRITE: 2, MMAP: 4, CAPS: 8 } as const;
/** `VFIO_IRQ_INFO_*`. */
export const IrqFlags = { EVENTFD: 1, MASKABLE: 2, AUTOMASKED: 4, NORESIZE: 8 } as const;
/** `VFIO_IRQ_SET_*`. */
export const IrqSet = {
  DATA_NONE: 1,
  DATA_EVENTFD: 4,
  ACTION_UNMASK: 16,
  ACTION_TRIGGER: 32,
} as const;
/** `VFIO_DMA_MAP_FLAG_*`. */
export const DmaMapFlags = { READ: 1, WRITE: 2 } as const;
/** `VFIO_IOMMU_INFO_*`. */
export const IommuInfoFlags = { PGSIZES: 1, CAPS: 2 } as const;

/** Capability ids: `VFIO_REGION_INFO_CAP_SPARSE_MMAP`, `VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE`. */
export const SPARSE_MMAP_CAP = 1;
/** See {@link SPARSE_MMAP_CAP}. */
export const IOVA_RANGE_CAP = 1;

/** `VFIO_PCI_*_REGION_INDEX`; BARs 0 to 5 are regions 0 to 5. */
export const PciRegion = { CONFIG: 7 } as const;
/** `VFIO_PCI_*_IRQ_INDEX`. */
export const PciIrq = { INTX: 0, MSIX: 2, ERR: 3, REQ: 4 } as const;

/** `struct vfio_group_status`. */
export const GroupStatus = new Layout('vfio_group_status', { argsz: 'u32', flags: 'u32' });

/** `struct vfio_device_info`. */
export const DeviceInfo = new Layout('vfio_device_info', {
  argsz: 'u32',
  flags: 'u32',
  num_regions: 'u32',
  num_irqs: 'u32',
});

/** `struct vfio_region_info`. */
export const RegionInfo = new Layout('vfio_region_info', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32',
  cap_offset: 'u32',
  size: 'u64',
  offset: 'u64',
});

/** `struct vfio_irq_info`. */
export const IrqInfo = new Layout('vfio_irq_info', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32',
  count: 'u32',
});

/** `struct vfio_irq_set`, which eventfds of 4 bytes each may follow. */
export const IrqSetHeader = new Layout('vfio_irq_set', {
  argsz: 'u32',
  flags: 'u32',
  index: 'u32',
  start: 'u32',
  count: 'u32',
});

/** `struct vfio_iommu_type1_info`; the structure in C ends with 4 bytes of padding. */
export const IommuInfo = new Layout('vfio_iommu_type1_info', {
  argsz: 'u32',
  flags: 'u32',
  iova_pgsizes: 'u64',
  cap_offset: 'u32',
  pad: 'u32',
});

/** `struct vfio_iommu_type1_dma_map`. */
export const DmaMap = new Layout('vfio_iommu_type1_dma_map', {
  argsz: 'u32',
  flags: 'u32',
  vaddr: 'u64',
  iova: 'u64',
  size: 'u64',
});

/** `struct vfio_iommu_type1_dma_unmap`. */
export const DmaUnmap = new Layout('vfio_iommu_type1_dma_unmap', {
  argsz: 'u32',
  flags: 'u32',
  iova: 'u64',
  size: 'u64',
});

/** `struct vfio_info_cap_header`. */
export const CapHeader = new Layout('vfio_info_cap_header', { id: 'u16', version: 'u16', next: 'u32' });

/** What `vfio_region_info_cap_sparse_mmap` and `vfio_iommu_type1_info_cap_iova_range` have after their header. */
export const CapList = new Layout('capability with a list', {
  id: 'u16',
  version: 'u16',
  next: 'u32',
  count: 'u32',
  reserved: 'u32',
});

/** An entry of such a list: `vfio_region_sparse_mmap_area` (offset, size) or `vfio_iova_range` (first, last). */
export const CapListEntry = new Layout('entry of a capability', { first: 'u64', second: 'u64' });

/** One pair of numbers of a capability's list. */
export interface CapPair {
  readonly first: number;
  readonly second: number;
}

/**
 * Finds a capability in what an INFO request returned and reads its list. Offsets count from the start of the structure.
 *
 * @returns `undefined` if there is no such capability
 */
export function readCapList(
  view: DataView,
  firstCap: number,
  wanted: number,
): readonly CapPair[] | undefined {
  let at = firstCap;
  // A chain cannot have more capabilities than the structure has room for headers.
  for (let left = view.byteLength / CapHeader.size; at > 0 && left > 0; left -= 1) {
    if (at + CapHeader.size > view.byteLength) return undefined;
    const { id, next } = CapHeader.read(view, at);
    if (id === wanted) {
      const { count } = CapList.read(view, at);
      const start = at + CapList.size;
      const room = Math.floor((view.byteLength - start) / CapListEntry.size);
      return Array.from({ length: Math.min(count, room) }, (_, i) => {
        const { first, second } = CapListEntry.read(view, start + i * CapListEntry.size);
        return { first: Number(first), second: Number(second) };
      });
    }
    at = next;
  }
  return undefined;
}
