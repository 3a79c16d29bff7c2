/** Stands for `@virtio/linux` in tests that run in a bare guest: the same functions, over the board's devices. */
import type { Transport } from '@virtio/core';
import type { BareHal } from '@virtio/bare';
import { type BareDevice, hal, listDevices } from '../board.ts';
import { NotHere } from '../not-here.ts';
import { openDriver as openBare, type DriverClass } from '../index.ts';

export { listDevices } from '../board.ts';

type Address = string | { readonly kind: 'mmio'; readonly address: number } | Opened;

interface Opened extends Disposable {
  readonly transport: Transport;
  readonly hal: BareHal;
}

const PAGE = 4096;

const withAlloc = Object.assign(hal, {
  alloc(size: number) {
    const region = hal.dmaAlloc(Math.ceil(size / PAGE));
    let freed = false;
    return {
      bytes: region.bytes.subarray(0, size),
      address: region.address,
      [Symbol.dispose]: () => {
        if (!freed) hal.dmaDealloc(region);
        freed = true;
      },
    };
  },
});

function find(where: Exclude<Address, Opened>): BareDevice {
  const name = typeof where === 'string' ? `PCI ${where}` : `MMIO 0x${where.address.toString(16)}`;
  const device = listDevices().find((one) => one.name === name);
  if (device === undefined) {
    throw new Error(
      `there is no ${name}; there are ${listDevices()
        .map((one) => one.name)
        .join(', ')}`,
    );
  }
  return device;
}

export function openTransport(where: Exclude<Address, Opened>): Opened {
  const transport = find(where).open();
  return { transport, hal: withAlloc, [Symbol.dispose]: () => transport[Symbol.dispose]() };
}

export function openDriver<D extends Disposable>(
  driver: DriverClass<D, object>,
  where: Address,
  options?: object,
): D {
  if (typeof where === 'object' && 'transport' in where) {
    return new driver(where.transport, where.hal, options);
  }
  return openBare(driver, find(where), options);
}

/** Threads are the operating system's. */
export function openQueue(): never {
  throw new NotHere('@virtio/linux', 'openQueue');
}

export function toDuplex(): never {
  throw new NotHere('@virtio/linux', 'toDuplex');
}
