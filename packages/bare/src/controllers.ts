/**
 * Interrupt controllers, for the processor that runs the script: RISC-V's PLIC, and ARM's GICv2 with its frame for MSI (GICv2m).
 */
import { type RegisterWindow, requireInteger, VirtioError } from '@virtio/core';
import type { InterruptController } from './router.ts';

/** Offsets in a PLIC; each context (a processor in a mode) has its own enable bits and its own claim register. */
const PLIC = {
  ENABLE: 0x2000,
  ENABLE_STRIDE: 0x80,
  CONTEXT: 0x20_0000,
  CONTEXT_STRIDE: 0x1000,
  CLAIM: 4,
  MAX_SOURCE: 1023,
  MAX_CONTEXT: 15_871,
} as const;

/**
 * The platform-level interrupt controller of RISC-V.
 *
 * @see RISC-V Platform-Level Interrupt Controller 1.0
 */
export class Plic implements InterruptController {
  /** The size of the register window that a PLIC needs for `context`, in bytes. */
  static windowSize(context: number): number {
    return PLIC.CONTEXT + (context + 1) * PLIC.CONTEXT_STRIDE;
  }

  readonly #registers: RegisterWindow;
  readonly #enables: number;
  readonly #claim: number;
  /** A copy of the context's enable bits. */
  readonly #enabled = new Uint32Array((PLIC.MAX_SOURCE + 1) / 32);

  /** @param context the context, a processor in a mode; on the boards in use, 0 is the first processor in machine mode */
  constructor(registers: RegisterWindow, context: number) {
    requireInteger('PLIC', 'context', context, 0, PLIC.MAX_CONTEXT);
    this.#registers = registers;
    this.#enables = PLIC.ENABLE + context * PLIC.ENABLE_STRIDE;
    const base = PLIC.CONTEXT + context * PLIC.CONTEXT_STRIDE;
    this.#claim = base + PLIC.CLAIM;
    registers.write32(base, 0); // accept every priority above 0
  }

  /** @throws VirtioError `INVALID_PARAM` for a source that a PLIC cannot have */
  enable(source: number): void {
    requireInteger('PLIC', 'the interrupt', source, 1, PLIC.MAX_SOURCE);
    this.#registers.write32(4 * source, 1); // its priority
    this.#change(source, true);
  }

  disable(source: number): void {
    requireInteger('PLIC', 'the interrupt', source, 1, PLIC.MAX_SOURCE);
    this.#change(source, false);
  }

  claim(): number {
    return this.#registers.read32(this.#claim) || -1;
  }

  complete(source: number): void {
    // The PLIC ignores the completion of a disabled source, which would never be pending again; a handler may have disabled it.
    const disabled = !this.#isEnabled(source);
    if (disabled) this.#change(source, true);
    this.#registers.write32(this.#claim, source);
    if (disabled) this.#change(source, false);
  }

  #isEnabled(source: number): boolean {
    return ((this.#enabled[source >>> 5] ?? 0) & (1 << (source & 31))) !== 0;
  }

  #change(source: number, on: boolean): void {
    const bit = 1 << (source & 31);
    const before = this.#enabled[source >>> 5] ?? 0;
    const word = (on ? before | bit : before & ~bit) >>> 0;
    this.#enabled[source >>> 5] = word;
    this.#registers.write32(this.#enables + 4 * (source >>> 5), word);
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

function requireSource(source: number): void {
  requireInteger('GICv2', 'the interrupt', source, 0, NO_INTERRUPT - 1);
}

/**
 * ARM's generic interrupt controller, version 2. Sources are interrupt ids: the id of a shared interrupt (SPI) is its number in the
 * device tree plus 32.
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

  /** @throws VirtioError `INVALID_PARAM` for a source that a GIC cannot have */
  enable(source: number): void {
    requireSource(source);
    this.#distributor.write8(GICD.IPRIORITYR + source, 0x80);
    this.#distributor.write8(GICD.ITARGETSR + source, 1);
    this.#distributor.write32(GICD.ISENABLER + 4 * (source >>> 5), (1 << (source & 31)) >>> 0);
  }

  /** Makes a source edge-triggered, as messages (MSI) are. By default sources are level-triggered. */
  edgeTriggered(source: number): void {
    requireSource(source);
    const offset = GICD.ICFGR + 4 * (source >>> 4);
    const word = this.#distributor.read32(offset);
    this.#distributor.write32(offset, (word | (2 << (2 * (source & 15)))) >>> 0);
  }

  disable(source: number): void {
    requireSource(source);
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

/** Registers of a GICv2m frame. */
const V2M = { TYPER: 0x8, SETSPI: 0x40 } as const;
const FIRST_SHARED = 32;

/**
 * A GICv2m frame: PCI functions write messages (MSI) to it, which it turns into shared interrupts of a {@link GicV2}.
 *
 * @see ARM, Server Base System Architecture, appendix E
 */
export class GicV2m {
  /** The address to which messages are written. */
  readonly messageAddress: number;
  readonly #gic: GicV2;
  readonly #end: number;
  #next: number;

  /**
   * @param address the frame's physical address
   * @throws VirtioError `INVALID_DEVICE` if it has interrupts that a GIC cannot have
   */
  constructor(frame: RegisterWindow, address: number, gic: GicV2) {
    const type = frame.read32(V2M.TYPER);
    const [first, count] = [(type >>> 16) & 0x3ff, type & 0x3ff];
    if (first < FIRST_SHARED || first + count > NO_INTERRUPT) {
      throw new VirtioError(
        'INVALID_DEVICE',
        `GICv2m: the frame has ${count} interrupts from ${first} on, which a GIC cannot have; check its address`,
      );
    }
    this.messageAddress = address + V2M.SETSPI;
    this.#gic = gic;
    this.#next = first;
    this.#end = first + count;
  }

  /**
   * Takes interrupts for the vectors of a function; they cannot be given back. The number of each is also the data of its message.
   *
   * @returns the sources; `undefined` if there are not enough left
   */
  take(count: number): readonly number[] | undefined {
    requireInteger('GICv2m', 'count', count, 1, NO_INTERRUPT);
    if (this.#next + count > this.#end) return undefined;
    const sources = Array.from({ length: count }, (_, index) => this.#next + index);
    this.#next += count;
    for (const source of sources) this.#gic.edgeTriggered(source);
    return sources;
  }
}
