/**
 * A VFIO container: an IOMMU address space of this process. Groups of devices join it; memory that is mapped in it is accessible
 * to all of them.
 */
import { closeSync, openSync } from 'node:fs';
import { VirtioError } from '@virtio/core';
import { BLOCK_SIZE, type DmaBlock, type DmaSource } from './dma-memory.ts';
import { mapDmaMemory } from './dma-pages.ts';
import { type AddressRange, IovaSpace } from './iova-space.ts';
import { closeDescriptor, ioctl, ioctlNumber } from './syscalls.ts';
import { Resources } from './resources.ts';
import { errorName, systemError } from './system-error.ts';
import {
  DmaMap,
  DmaMapFlags,
  DmaUnmap,
  GroupFlags,
  GroupStatus,
  IommuInfo,
  IommuInfoFlags,
  IOVA_RANGE_CAP,
  readCapList,
  TYPE1V2_IOMMU,
  Vfio,
  VFIO_API_VERSION,
} from './vfio-abi.ts';

const CONTAINER = '/dev/vfio/vfio';

interface Group {
  readonly fd: number;
  /** The addresses of its devices that are open. */
  readonly devices: Set<string>;
}

/** The IOMMU address space of a process's devices. */
export class VfioContainer implements DmaSource {
  readonly name = 'the IOMMU';
  readonly #fd: number;
  readonly #groups = new Map<number, Group>();
  readonly #blocks = new Set<DmaBlock>();
  #space: IovaSpace | undefined;
  #disposed = false;

  /** @throws {@link VirtioError} `MODULE_MISSING`, `PERMISSION_DENIED`, `UNSUPPORTED` */
  constructor() {
    try {
      this.#fd = openSync(CONTAINER, 'r+');
    } catch (error) {
      const missing = ['ENOENT', 'ENODEV', 'ENXIO'].includes(errorName(error) ?? '');
      throw missing
        ? systemError(
            `${CONTAINER} could not be opened`,
            error,
            'load VFIO: "modprobe vfio-pci", and in a container pass /dev/vfio in',
            'MODULE_MISSING',
          )
        : systemError(
            `${CONTAINER} could not be opened`,
            error,
            'by default everybody may open it; check its permissions',
          );
    }
    try {
      const version = ioctlNumber(this.#fd, Vfio.GET_API_VERSION, 'VFIO_GET_API_VERSION');
      if (version !== VFIO_API_VERSION) {
        throw new VirtioError(
          'UNSUPPORTED',
          `the kernel has version ${version} of VFIO's interface; version 0 is needed`,
        );
      }
      if (ioctlNumber(this.#fd, Vfio.CHECK_EXTENSION, 'VFIO_CHECK_EXTENSION', TYPE1V2_IOMMU) <= 0) {
        throw new VirtioError(
          'MODULE_MISSING',
          'the kernel has VFIO, but not its driver of x86 and ARM IOMMUs; load it: "modprobe vfio_iommu_type1"',
        );
      }
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /**
   * Opens a device, whose group joins the container with the first of its devices.
   *
   * @param address as in sysfs: `0000:00:03.0`
   * @param group the number of its IOMMU group
   * @param members describes the group's devices for messages
   * @returns the descriptor of the device; to be closed by {@link VfioContainer.closeDevice}
   * @throws {@link VirtioError} `DEVICE_BUSY`, `PERMISSION_DENIED`, `IOMMU_MISSING`, `SYSTEM_ERROR`
   */
  openDevice(address: string, group: number, members: () => string): number {
    const joined = this.#groups.get(group) ?? this.#join(group, members);
    if (joined.devices.has(address)) {
      throw new VirtioError(
        'DEVICE_BUSY',
        `PCI ${address} is open already in this process; a device has one driver`,
      );
    }
    try {
      const fd = ioctl(
        joined.fd,
        Vfio.GROUP_GET_DEVICE_FD,
        'VFIO_GROUP_GET_DEVICE_FD',
        zeroTerminated(address),
      );
      joined.devices.add(address);
      return fd;
    } catch (error) {
      if (joined.devices.size === 0) this.#leave(group, joined);
      throw systemError(
        `PCI ${address} could not be opened through VFIO`,
        error,
        'check that it is bound to vfio-pci and used by no other process',
      );
    }
  }

  /** Closes a device's descriptor. The group leaves the container with the last of its devices. */
  closeDevice(fd: number, address: string, group: number): void {
    closeDescriptor(fd);
    const joined = this.#groups.get(group);
    if (!joined) return;
    joined.devices.delete(address);
    if (joined.devices.size === 0) this.#leave(group, joined);
  }

  /** Maps zeroed memory: huge pages if there are any left, ordinary ones otherwise. */
  map(size: number): DmaBlock {
    if (!this.#space) {
      throw new VirtioError(
        'NOT_READY',
        'the IOMMU is set up with the first device; open one before allocating DMA memory',
      );
    }
    const address = this.#space.take(size, BLOCK_SIZE);
    const resources = new Resources();
    const space = this.#space;
    resources.defer(() => {
      space.give(address, size);
    });
    const block = resources.keepUnlessThrown(() => {
      const made = { mapping: resources.add(mapDmaMemory(size)), address };
      this.#mapDma(made);
      return made;
    });
    this.#blocks.add(block);
    return block;
  }

  unmap(block: DmaBlock): void {
    const { mapping, address } = block;
    this.#blocks.delete(block);
    if (this.#groups.size > 0) {
      const argument = new Uint8Array(DmaUnmap.size);
      const values = { argsz: DmaUnmap.size, iova: BigInt(address), size: BigInt(mapping.size) };
      DmaUnmap.write(new DataView(argument.buffer), 0, values);
      ioctl(this.#fd, Vfio.IOMMU_UNMAP_DMA, 'VFIO_IOMMU_UNMAP_DMA', argument);
    }
    this.#space?.give(address, mapping.size);
    mapping[Symbol.dispose]();
  }

  /** Closes the container. All devices must have been closed. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const [id, group] of this.#groups) this.#leave(id, group);
    closeSync(this.#fd);
  }

  #join(id: number, members: () => string): Group {
    const path = `/dev/vfio/${id}`;
    let fd: number;
    try {
      fd = openSync(path, 'r+');
    } catch (error) {
      throw openGroupError(path, error);
    }
    try {
      const status = new Uint8Array(GroupStatus.size);
      const view = new DataView(status.buffer);
      GroupStatus.write(view, 0, { argsz: GroupStatus.size });
      ioctl(fd, Vfio.GROUP_GET_STATUS, 'VFIO_GROUP_GET_STATUS', status);
      if ((view.getUint32(GroupStatus.offset.flags, true) & GroupFlags.VIABLE) === 0) {
        throw new VirtioError(
          'DEVICE_BUSY',
          `IOMMU group ${id} cannot be used, since the kernel drives other devices of it: ${members()}. All devices of a group ` +
            'reach the same memory, so bind each of them to vfio-pci, or to no driver',
        );
      }
      const container = new Uint8Array(4);
      new DataView(container.buffer).setInt32(0, this.#fd, true);
      ioctl(fd, Vfio.GROUP_SET_CONTAINER, 'VFIO_GROUP_SET_CONTAINER', container);
    } catch (error) {
      closeSync(fd);
      if (VirtioError.is(error)) throw error;
      throw systemError(`IOMMU group ${id} could not be used`, error, 'check that no other process uses it');
    }
    const group: Group = { fd, devices: new Set() };
    this.#groups.set(id, group);
    if (this.#groups.size === 1) {
      try {
        this.#enable();
      } catch (error) {
        this.#leave(id, group);
        throw error;
      }
    }
    return group;
  }

  /** The container has its IOMMU only while it has groups; what was mapped before is mapped again. */
  #enable(): void {
    try {
      ioctlNumber(this.#fd, Vfio.SET_IOMMU, 'VFIO_SET_IOMMU', TYPE1V2_IOMMU);
    } catch (error) {
      throw systemError(
        'the IOMMU could not be set up for VFIO',
        error,
        'if interrupts cannot be remapped on this machine, "options vfio_iommu_type1 allow_unsafe_interrupts=1" allows it',
      );
    }
    this.#space ??= new IovaSpace(this.#ranges());
    for (const block of this.#blocks) this.#mapDma(block);
  }

  #leave(id: number, group: Group): void {
    this.#groups.delete(id);
    closeSync(group.fd);
  }

  #mapDma({ mapping, address }: DmaBlock): void {
    const argument = new Uint8Array(DmaMap.size);
    DmaMap.write(new DataView(argument.buffer), 0, {
      argsz: DmaMap.size,
      flags: DmaMapFlags.READ | DmaMapFlags.WRITE,
      vaddr: BigInt(mapping.address),
      iova: BigInt(address),
      size: BigInt(mapping.size),
    });
    try {
      ioctl(this.#fd, Vfio.IOMMU_MAP_DMA, 'VFIO_IOMMU_MAP_DMA', argument);
    } catch (error) {
      const noMemory = errorName(error) === 'ENOMEM';
      throw systemError(
        `${mapping.size} bytes of memory could not be mapped for the device`,
        error,
        noMemory
          ? 'DMA memory is locked in RAM: raise the limit ("ulimit -l", LimitMEMLOCK= of systemd), or give the process CAP_IPC_LOCK'
          : 'free DMA memory that is no longer used',
        'DMA_ERROR',
      );
    }
  }

  /** The addresses that the IOMMU can map. */
  #ranges(): AddressRange[] {
    const view = this.#iommuInfo(IommuInfo.size);
    const { flags, cap_offset: first } = IommuInfo.read(view);
    const list = (flags & IommuInfoFlags.CAPS) === 0 ? undefined : readCapList(view, first, IOVA_RANGE_CAP);
    // Kernels before 5.4 do not report them; every IOMMU has at least 39 bits.
    return (list ?? [{ first: 0, second: 2 ** 39 - 1 }]).map(({ first: start, second: last }) => ({
      start,
      end: last + 1,
    }));
  }

  /** The answer may be longer than the structure, and contains its length. */
  #iommuInfo(size: number): DataView {
    const argument = new Uint8Array(size);
    const view = new DataView(argument.buffer);
    IommuInfo.write(view, 0, { argsz: size });
    ioctl(this.#fd, Vfio.IOMMU_GET_INFO, 'VFIO_IOMMU_GET_INFO', argument);
    const needed = view.getUint32(IommuInfo.offset.argsz, true);
    return needed > size ? this.#iommuInfo(needed) : view;
  }
}

function openGroupError(path: string, error: unknown): VirtioError {
  switch (errorName(error)) {
    case 'EACCES':
      return systemError(
        `${path} could not be opened`,
        error,
        `run as root, or give yourself the file: "chown $USER ${path}"`,
      );
    case 'EPERM':
      return systemError(
        `${path} could not be opened`,
        error,
        'the process needs CAP_SYS_RAWIO for a device without an IOMMU, or the kernel is locked down',
      );
    case 'EBUSY':
      return systemError(
        `${path} could not be opened`,
        error,
        'a group can be opened once: end the other process that has it; in one process, open its devices with the same hal',
      );
    case 'ENOENT':
      return systemError(
        `${path} could not be opened`,
        error,
        'bind the device to vfio-pci, and in a container pass /dev/vfio in',
      );
    default:
      return systemError(`${path} could not be opened`, error, 'check the kernel log ("dmesg")');
  }
}

function zeroTerminated(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}
