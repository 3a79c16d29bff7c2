/** Two interrupt controllers, for the processor that runs the script: RISC-V's PLIC and ARM's GICv2. */
import type { RegisterWindow } from '@virtio/core';
import type { InterruptController } from './router.ts';

/** Offsets in a PLIC; each context (a processor in a mode) has its own enable bits and its own claim register. */
const PLIC = {
  ENABLE: 0x2000,
  ENABLE_STRIDE: 0x80,
  CONTEXT: 0x20_0000,
  CONTEXT_STRIDE: 0x1000,
  CLAIM: 4,
} as const;

/**
 * The platform-level interrupt controller of RISC-V.
 *
 * @see RISC-V Platform-Level Interrupt Controller 1.0
 */
export class Plic implements InterruptController {
  /** The size of the register window that it needs for `context`. */
  static windowSize(context: number): number {
    return PLIC.CONTEXT + (context + 1) * PLIC.CONTEXT_STRIDE;
  }

  readonly #registers: RegisterWindow;
  readonly #enables: number;
  readonly #claim: number;

  /** @param context which processor in which mode: 0 is the first processor in machine mode on the boards in use */
  constructor(registers: RegisterWindow, context: number) {
    this.#registers = registers;
    this.#enables = PLIC.ENABLE + context * PLIC.ENABLE_STRIDE;
    const base = PLIC.CONTEXT + context * PLIC.CONTEXT_STRIDE;
    this.#claim = base + PLIC.CLAIM;
    registers.write32(base, 0); // every priority above 0 passes
  }

  enable(source: number): void {
    this.#registers.write32(4 * source, 1); // its priority
    this.#change(source, true);
  }

  disable(source: number): void {
    this.#change(source, false);
  }

  claim(): number {
    return this.#registers.read32(this.#claim) || -1;
  }

  complete(source: number): void {
    this.#registers.write32(this.#claim, source);
  }

  #change(source: number, on: boolean): void {
    const offset = this.#enables + 4 * (source >>> 5);
    const bit = 1 << (source & 31);
    const word = this.#registers.read32(offset);
    this.#registers.write32(offset, (on ? word | bit : word & ~bit) >>> 0);
  }
}

/** Distributor and processor interface of a GICv2. */
const GICD = {
  CTLR: 0,
  ISENABLER: 0x100,
  ICENABLER: 0x180,
  IPRIORITYR: 0x400,
  ITARGETSR: 0x800,
  ICFGR: 0xc00,
} as const;
const GICC = { CTLR: 0, PMR: 4, IAR: 0xc, EOIR: 0x10 } as const;
const NO_INTERRUPT = 1020;

/**
 * ARM's generic interrupt controller, version 2. Sources are interrupt ids: a shared interrupt of a device tree is its number
 * plus 32.
 *
 * @see ARM IHI 0048B
 */
export class GicV2 implements InterruptController {
  readonly #distributor: RegisterWindow;
  readonly #cpu: RegisterWindow;

  /** @param cpu the interface of the processor that runs the script, which must be processor 0 */
  constructor(distributor: RegisterWindow, cpu: RegisterWindow) {
    this.#distributor = distributor;
    this.#cpu = cpu;
    distributor.write32(GICD.CTLR, 1);
    cpu.write32(GICC.PMR, 0xff);
    cpu.write32(GICC.CTLR, 1);
  }

  enable(source: number): void {
    this.#distributor.write8(GICD.IPRIORITYR + source, 0x80);
    this.#distributor.write8(GICD.ITARGETSR + source, 1);
    this.#distributor.write32(GICD.ISENABLER + 4 * (source >>> 5), (1 << (source & 31)) >>> 0);
  }

  /** Makes a source edge-triggered, as messages (MSI) are. They are level-triggered otherwise. */
  edgeTriggered(source: number): void {
    const offset = GICD.ICFGR + 4 * (source >>> 4);
    const word = this.#distributor.read32(offset);
    this.#distributor.write32(offset, (word | (2 << (2 * (source & 15)))) >>> 0);
  }

  disable(source: number): void {
    this.#distributor.write32(GICD.ICENABLER + 4 * (source >>> 5), (1 << (source & 31)) >>> 0);
  }

  claim(): number {
    const source = this.#cpu.read32(GICC.IAR) & 0x3ff;
    return source >= NO_INTERRUPT ? -1 : source;
  }

  complete(source: number): void {
    this.#cpu.write32(GICC.EOIR, source);
  }
}
