/** What the tests of this package share: a virtio device on PCI, and the transport to it. */
import {
  CommonFeatures,
  DeviceType,
  type FeatureName,
  type FeatureSet,
  type InterruptSource,
} from '@virtio/core';
import {
  FakeDevice,
  type FakeDeviceOptions,
  FakeHal,
  FakePciDevice,
  type FakePciDeviceOptions,
} from '@virtio/testing';
import { DeviceFunction } from './src/device-function.ts';
import { InterruptLines } from './src/interrupts.ts';
import type { PciTransportOptions } from './src/pci-transport-options.ts';
import { PciTransport } from './src/pci-transport.ts';

export interface Fixture {
  readonly hal: FakeHal;
  readonly device: FakeDevice;
  readonly pci: FakePciDevice;
  readonly transport: PciTransport;
}

export interface FixtureOptions {
  readonly device?: Partial<FakeDeviceOptions>;
  readonly pci?: FakePciDeviceOptions;
  readonly transport?: Partial<PciTransportOptions>;
}

export const at = new DeviceFunction(0, 3, 0);

/** A device with two queues that sends back what it is sent, in capitals. */
export function device(options: Partial<FakeDeviceOptions> = {}): FakeDevice {
  const fake = new FakeDevice({
    type: DeviceType.Block,
    queues: [16, 8],
    config: Uint8Array.from({ length: 16 }, (_, i) => i + 1),
    hal: new FakeHal(),
    ...options,
  });
  for (let queue = 0; queue < fake.queues.length; queue += 1) {
    fake.handle(queue, (chain) => {
      chain.write(chain.bytes().map((byte) => byte & ~0x20));
    });
  }
  return fake;
}

/** Opens a device. */
export function fixture(options: FixtureOptions = {}): Fixture {
  const fake = device(options.device);
  const pci = new FakePciDevice(fake, options.pci);
  return { device: fake, hal: fake.hal, pci, transport: open(pci, options.transport) };
}

/** Opens a device on PCI. */
export function open(pci: FakePciDevice, options: Partial<PciTransportOptions> = {}): PciTransport {
  return new PciTransport({
    at,
    config: pci.config,
    mapBar: (bar, offset, length) => pci.mapBar(bar, offset, length),
    ...options,
  });
}

/** Opens a device whose interrupts reach the driver: through so many MSI-X vectors, or, with 0, through INTx. */
export function interrupting(
  vectors: number,
  options: FixtureOptions = {},
): Fixture & { readonly lines: InterruptLines } {
  const lines = new InterruptLines(vectors);
  const fixed = fixture({
    ...options,
    pci: {
      vectors: Math.max(vectors, 1),
      onVector: (vector) => lines.fire(vector),
      onIntx: () => lines.fire(0),
      ...options.pci,
    },
    transport: { interrupts: lines, ...options.transport },
  });
  if (vectors > 0) fixed.pci.enableMsix();
  return { ...fixed, lines };
}

/** Negotiates features. */
export function negotiate(transport: PciTransport, ...features: FeatureName[]): FeatureSet {
  return transport.beginInit({ table: CommonFeatures, supported: features });
}

/** The source of interrupts, which the transport must have. */
export function interruptsOf(transport: PciTransport): InterruptSource {
  if (!transport.interrupts) throw new Error('the transport has no interrupts');
  return transport.interrupts;
}

/** Gives a queue of this size to the device, without a driver for it. */
export function setQueue(
  { transport, hal }: Pick<Fixture, 'transport' | 'hal'>,
  queue: number,
  size: number,
): number[] {
  const addresses = [0, 1, 2].map(() => hal.dmaAlloc(1, 'both', false).address);
  const [descriptors = 0, driverArea = 0, deviceArea = 0] = addresses;
  transport.queueSet(queue, size, descriptors, driverArea, deviceArea);
  return addresses;
}

export const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
export const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
