/** A PCI device through VFIO: its configuration space, BARs, interrupts and reset. */
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { FileWindow } from './file-window.ts';
import { mappedWindow } from './hal.ts';
import { Mapping } from './mapping.ts';
import { ioctl, ioctlNumber } from './syscalls.ts';
import { errorName, systemError } from './system-error.ts';
import {
  DeviceFlags,
  DeviceInfo,
  IrqFlags,
  IrqInfo,
  IrqSet,
  IrqSetHeader,
  PciRegion,
  readCapList,
  RegionFlags,
  RegionInfo,
  SPARSE_MMAP_CAP,
  Vfio,
} from './vfio-abi.ts';
import type { VfioContainer } from './vfio-container.ts';

/** A part of a region that can be mapped. */
interface Area {
  /** Bytes from the start of the region. */
  readonly offset: number;
  readonly size: number;
  mapping?: Mapping;
}

/** A region of a device: a BAR, or its configuration space. */
interface Region {
  readonly flags: number;
  readonly size: number;
  /** Where it is in the device's file. */
  readonly offset: number;
  readonly areas: readonly Area[];
}

/** A PCI device opened through VFIO. */
export class VfioDevice implements Disposable {
  /** As in sysfs: `0000:00:03.0`. */
  readonly address: string;
  /** The configuration space. */
  readonly config: RegisterWindow;
  readonly #container: VfioContainer;
  readonly #group: number;
  readonly #fd: number;
  readonly #canReset: boolean;
  readonly #regions = new Map<number, Region>();
  readonly #files: FileWindow[] = [];
  #open = true;

  /**
   * @param group the number of its IOMMU group
   * @param members describes the group's devices for messages
   * @throws {@link VirtioError} `DEVICE_BUSY`, `PERMISSION_DENIED`, `SYSTEM_ERROR`
   */
  constructor(container: VfioContainer, address: string, group: number, members: () => string) {
    this.address = address;
    this.#container = container;
    this.#group = group;
    this.#fd = container.openDevice(address, group, members);
    try {
      const info = new Uint8Array(DeviceInfo.size);
      const view = new DataView(info.buffer);
      DeviceInfo.write(view, 0, { argsz: DeviceInfo.size });
      ioctl(this.#fd, Vfio.DEVICE_GET_INFO, 'VFIO_DEVICE_GET_INFO', info);
      const flags = view.getUint32(DeviceInfo.offset.flags, true);
      if ((flags & DeviceFlags.PCI) === 0) {
        throw new VirtioError('INVALID_DEVICE', `${address} is a device of VFIO, but not a PCI device`);
      }
      this.#canReset = (flags & DeviceFlags.RESET) !== 0;
      const { offset, size } = this.#region(PciRegion.CONFIG);
      this.config = this.#file(`the configuration space of PCI ${address}`, offset, size);
    } catch (error) {
      container.closeDevice(this.#fd, address, group);
      throw error;
    }
  }

  /** Resets the function through the bus (FLR and the like), if it supports that. Returns whether it was reset. */
  reset(): boolean {
    if (!this.#canReset || !this.#open) return false;
    try {
      ioctlNumber(this.#fd, Vfio.DEVICE_RESET, 'VFIO_DEVICE_RESET');
      return true;
    } catch (error) {
      throw systemError(`PCI ${this.address} could not be reset`, error, 'unplug it, or restart its machine');
    }
  }

  /**
   * A part of a BAR: mapped where the kernel allows it, else through reads and writes of the device's file.
   *
   * @throws {@link VirtioError} `CONFIG_SPACE_TOO_SMALL`, `DEVICE_REMOVED`, `SYSTEM_ERROR`
   */
  mapBar(bar: number, offset: number, length: number): RegisterWindow {
    const what = `PCI ${this.address}: ${length} bytes at ${offset} of BAR ${bar}`;
    // The number of the descriptor may be that of another file by now.
    if (!this.#open) {
      throw new VirtioError(
        'DEVICE_REMOVED',
        `${what} were to be mapped, but the device was unplugged or closed; open it again when it is back`,
      );
    }
    try {
      const region = this.#region(bar);
      if (offset + length > region.size) {
        throw new VirtioError(
          'CONFIG_SPACE_TOO_SMALL',
          `${what} were to be mapped, which has only ${region.size} bytes`,
        );
      }
      const area = region.areas.find((a) => offset >= a.offset && offset + length <= a.offset + a.size);
      if (area === undefined) {
        return this.#file(`BAR ${bar} of PCI ${this.address}`, region.offset + offset, length);
      }
      area.mapping ??= Mapping.map({ fd: this.#fd, offset: region.offset + area.offset, size: area.size });
      return mappedWindow(area.mapping, offset - area.offset, length);
    } catch (error) {
      // Also after opening: memory that a device shares is mapped when a driver asks for it.
      throw systemError(
        `${what} could not be mapped`,
        error,
        'the device may have been unplugged; the kernel log ("dmesg") may say more',
      );
    }
  }

  /** How many interrupts there are of a kind (`PciIrq`). */
  irqCount(index: number): number {
    const info = new Uint8Array(IrqInfo.size);
    const view = new DataView(info.buffer);
    IrqInfo.write(view, 0, { argsz: IrqInfo.size, index });
    try {
      ioctl(this.#fd, Vfio.DEVICE_GET_IRQ_INFO, 'VFIO_DEVICE_GET_IRQ_INFO', info);
    } catch (error) {
      // Kinds that this device, or this kernel, does not have.
      if (errorName(error) === 'EINVAL') return 0;
      throw error;
    }
    const { flags, count } = IrqInfo.read(view);
    return (flags & IrqFlags.EVENTFD) === 0 ? 0 : count;
  }

  /**
   * Makes interrupts of a kind signal eventfds, starting with the first interrupt.
   *
   * @returns 0, or how many interrupts are available if there are fewer than eventfds
   */
  setIrqs(index: number, eventfds: readonly number[]): number {
    const size = IrqSetHeader.size + 4 * eventfds.length;
    const argument = new Uint8Array(size);
    const view = new DataView(argument.buffer);
    const flags = IrqSet.DATA_EVENTFD | IrqSet.ACTION_TRIGGER;
    IrqSetHeader.write(view, 0, { argsz: size, flags, index, count: eventfds.length });
    eventfds.forEach((fd, i) => view.setInt32(IrqSetHeader.size + 4 * i, fd, true));
    return ioctl(this.#fd, Vfio.DEVICE_SET_IRQS, 'VFIO_DEVICE_SET_IRQS', argument);
  }

  /** Unmasks an interrupt line, which VFIO masked when it interrupted. */
  unmaskIrq(index: number): void {
    if (this.#open) ioctl(this.#fd, Vfio.DEVICE_SET_IRQS, 'VFIO_DEVICE_SET_IRQS', unmaskArgument(index));
  }

  /**
   * Releases a device that is being unplugged: the kernel waits for this. Registers that were mapped read as all ones from now
   * on, which is how a driver recognises a device that is gone.
   */
  abandon(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const { mapping } of this.#areas()) mapping?.replace();
    for (const file of this.#files) file.detach();
    this.#container.closeDevice(this.#fd, this.address, this.#group);
  }

  /** Unmaps the registers and closes the device, which the kernel resets and stops from accessing memory. */
  [Symbol.dispose](): void {
    for (const area of this.#areas()) {
      area.mapping?.[Symbol.dispose]();
      delete area.mapping;
    }
    if (!this.#open) return;
    this.#open = false;
    for (const file of this.#files) file.detach();
    this.#container.closeDevice(this.#fd, this.address, this.#group);
  }

  #areas(): Area[] {
    return [...this.#regions.values()].flatMap(({ areas }) => areas);
  }

  #file(name: string, position: number, size: number): FileWindow {
    const window = new FileWindow(name, this.#fd, position, size);
    this.#files.push(window);
    return window;
  }

  #region(index: number): Region {
    const known = this.#regions.get(index);
    if (known) return known;
    let size = RegionInfo.size;
    for (;;) {
      const info = new Uint8Array(size);
      const view = new DataView(info.buffer);
      RegionInfo.write(view, 0, { argsz: size, index });
      ioctl(this.#fd, Vfio.DEVICE_GET_REGION_INFO, 'VFIO_DEVICE_GET_REGION_INFO', info);
      const values = RegionInfo.read(view);
      if (values.argsz > size) {
        size = values.argsz;
        continue;
      }
      const region = {
        flags: values.flags,
        size: Number(values.size),
        offset: Number(values.offset),
        areas: mappableAreas(view, values.flags, values.cap_offset, Number(values.size)),
      };
      this.#regions.set(index, region);
      return region;
    }
  }
}

function mappableAreas(view: DataView, flags: number, firstCap: number, size: number): Area[] {
  if ((flags & RegionFlags.MMAP) === 0) return [];
  const sparse = (flags & RegionFlags.CAPS) === 0 ? undefined : readCapList(view, firstCap, SPARSE_MMAP_CAP);
  if (sparse === undefined) return [{ offset: 0, size }];
  return sparse.map(({ first, second }) => ({ offset: first, size: second }));
}

function unmaskArgument(index: number): Uint8Array {
  const argument = new Uint8Array(IrqSetHeader.size);
  const flags = IrqSet.DATA_NONE | IrqSet.ACTION_UNMASK;
  IrqSetHeader.write(new DataView(argument.buffer), 0, { argsz: IrqSetHeader.size, flags, index, count: 1 });
  return argument;
}
