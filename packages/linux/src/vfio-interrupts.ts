/**
 * Interrupts of a VFIO device: MSI-X or INTx as eventfds, watched on Node's event loop, and the kernel's request to release a
 * device that is being unplugged.
 */
import { VirtioError } from '@virtio/core';
import { EventLines } from './event-lines.ts';
import { eventfd } from './syscalls.ts';
import { systemError } from './system-error.ts';
import { PciIrq } from './vfio-abi.ts';
import type { VfioDevice } from './vfio-device.ts';

/** The most vectors to use, as machines have few; further queues share them. */
const MOST_VECTORS = 64;

/** The interrupt lines of a VFIO device. */
export class VfioInterrupts extends EventLines {
  /** How many MSI-X vectors are enabled; 0 with INTx or without interrupts. */
  override readonly vectors: number;
  readonly #device: VfioDevice;
  readonly #onGone: () => void;

  /**
   * @param kind which interrupts to use; with `none` only removals are reported
   * @param onGone called after the driver was notified of the removal: releases the device
   * @throws {@link VirtioError} `UNSUPPORTED` if the device has no such interrupts
   */
  constructor(device: VfioDevice, kind: 'msix' | 'intx' | 'none', onGone: () => void) {
    super(0);
    this.#device = device;
    this.#onGone = onGone;
    try {
      this.vectors = kind === 'msix' ? this.#enableMsix() : 0;
      if (kind === 'intx') this.#enableIntx();
      for (const index of [PciIrq.REQ, PciIrq.ERR]) {
        if (device.irqCount(index) > 0) device.setIrqs(index, [this.#eventfd(this.#gone)]);
      }
    } catch (error) {
      this[Symbol.dispose]();
      if (VirtioError.is(error)) throw error;
      throw systemError(
        `the interrupts of PCI ${device.address} could not be set up`,
        error,
        "open the device with { interrupts: 'polling' } to do without",
      );
    }
  }

  /** The kinds of interrupts that a device has, the better one first. */
  static kinds(device: VfioDevice): ('msix' | 'intx')[] {
    return [
      ...(device.irqCount(PciIrq.MSIX) > 0 ? (['msix'] as const) : []),
      ...(device.irqCount(PciIrq.INTX) > 0 ? (['intx'] as const) : []),
    ];
  }

  #enableMsix(): number {
    let wanted = Math.min(this.#device.irqCount(PciIrq.MSIX), MOST_VECTORS);
    const eventfds: number[] = [];
    while (wanted > 0) {
      while (eventfds.length < wanted) {
        const line = eventfds.length;
        const descriptor = this.#eventfd(() => this.fire(line));
        this.describeLine(line, descriptor);
        eventfds.push(descriptor);
      }
      const possible = this.#device.setIrqs(PciIrq.MSIX, eventfds.slice(0, wanted));
      if (possible === 0) return wanted;
      wanted = Math.min(possible, wanted - 1);
    }
    throw new VirtioError(
      'UNSUPPORTED',
      `PCI ${this.#device.address} cannot interrupt by MSI-X: the device has none, or the machine has no vector left; ` +
        "open it with { interrupts: 'intx' } or 'polling'",
    );
  }

  #enableIntx(): void {
    if (this.#device.irqCount(PciIrq.INTX) === 0) {
      throw new VirtioError(
        'UNSUPPORTED',
        `PCI ${this.#device.address} has no INTx line; open it with { interrupts: 'msix' } or 'polling'`,
      );
    }
    const fd = this.#eventfd(() => {
      try {
        // Reading the ISR status in the handler de-asserts the line.
        this.fire(0);
      } finally {
        // The kernel masked the line when it fired; unmasked before the handler ran, it would fire again at once.
        if (!this.disposed) this.#device.unmaskIrq(PciIrq.INTX);
      }
    });
    this.#device.setIrqs(PciIrq.INTX, [fd]);
  }

  #eventfd(handler: () => void): number {
    const fd = eventfd();
    this.watch(fd, handler);
    return fd;
  }

  readonly #gone = (): void => {
    try {
      this.remove();
    } finally {
      this.#onGone();
    }
  };
}
