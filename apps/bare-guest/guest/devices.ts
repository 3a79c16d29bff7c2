/** Devices of any board: their DMA memory, and how one is opened by its window of registers or its PCI function. */
import { BareHal, type InterruptRouter } from '@virtio/bare';
import { type DeviceType, type InterruptSource, PollingInterrupts, type RegisterWindow } from '@virtio/core';
import { type MmioInterrupt, MmioTransport } from '@virtio/mmio';
import {
  type ConfigAccess,
  type DeviceFunction,
  MsixCapability,
  physicalFunction,
  type PciInterrupts,
  type PciRoot,
  PciTransport,
  virtioDeviceType,
} from '@virtio/pci';
import { machine } from './machine.ts';
import { loop } from './prelude.ts';

/** A device, not opened. */
export interface BareDevice {
  /** `MMIO 0x10001000` or `PCI 0000:00:01.0`. */
  readonly name: string;
  readonly deviceType: DeviceType;
  /** Opens it, with interrupts where the board has them. */
  open(): MmioTransport | PciTransport;
}

/** The DMA memory of the board. */
export const hal = new BareHal({
  dma: machine.map(machine.dmaAddress, machine.dmaSize),
  dmaAddress: machine.dmaAddress,
  mapDevice: (address, size) => machine.map(address, size),
});

/** Interrupts for a device that has no line here: asks at each turn while somebody waits. */
export function polling(configChanged?: () => boolean): InterruptSource {
  return new PollingInterrupts({ schedule: loop.schedule, ...(configChanged && { configChanged }) });
}

/** A window of registers, if a virtio device is there. */
export function* mmioDevice(
  address: number,
  size: number,
  interrupts: () => MmioInterrupt | InterruptSource,
): Generator<BareDevice> {
  const window = hal.mapRegisters(address, size);
  const identity = MmioTransport.probe(window);
  if (identity === undefined) return;
  const name = `MMIO 0x${address.toString(16)}`;
  yield {
    name,
    deviceType: identity.deviceType,
    open: () => new MmioTransport(window, { name, interrupts: interrupts() }),
  };
}

/** All virtio functions of a PCI host bridge. */
export function* pciDevices(
  root: PciRoot,
  mapPorts: ((port: number, count: number) => RegisterWindow) | undefined,
  interrupts: (at: DeviceFunction) => PciInterrupts | InterruptSource,
): Generator<BareDevice> {
  const space = {
    mapRegisters: (address: number, size: number) => hal.mapRegisters(address, size),
    ...(mapPorts && { mapPorts }),
  };
  for (const [at, info] of root.virtioDevices()) {
    const deviceType = virtioDeviceType(info);
    if (deviceType === undefined) continue;
    yield {
      name: `PCI ${at.toString()}`,
      deviceType,
      open: () => PciTransport.open(root.access, at, space, interrupts(at)),
    };
  }
}

/** Where messages of MSI-X go: interrupts are taken for good, and the number of each is the data of its message. */
export interface MessageTarget {
  readonly messageAddress: number;
  take(count: number): readonly number[] | undefined;
}

/** The interrupts that a function's vectors have: they stay when it is opened again. */
const taken = new Map<string, readonly number[]>();

/** MSI-X: each vector of a function gets an interrupt of its own. `undefined` if it has none, or the target has not so many left. */
export function messages(
  access: ConfigAccess,
  at: DeviceFunction,
  router: InterruptRouter,
  target: MessageTarget,
): PciInterrupts | undefined {
  const name = String(at);
  const { config, bars, mapBar } = physicalFunction(access, at, hal);
  const msix = bars && MsixCapability.find(config, bars, mapBar, name);
  const sources = msix && (taken.get(name) ?? target.take(msix.size));
  if (msix === undefined || sources?.length !== msix.size) return undefined;
  taken.set(name, sources);
  sources.forEach((source, vector) => {
    msix.setMessage(vector, target.messageAddress, source);
    msix.unmask(vector);
  });
  msix.enable();
  return router.msix(sources);
}
