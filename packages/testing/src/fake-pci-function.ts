/**
 * A PCI function: configuration space with the bits that can be written, BARs that can be sized and moved, and a list of
 * capabilities. Subclasses add the kind of device.
 */
import { RegisterModel, type Width } from './register-model.ts';

// Registers of configuration space, in bytes.
const COMMAND = 0x04;
const STATUS = 0x06;
const HEADER_TYPE = 0x0e;
const BAR0 = 0x10;
const CAPABILITIES = 0x34;
const INTERRUPT_LINE = 0x3c;
const INTERRUPT_PIN = 0x3d;

const COMMAND_IO = 1;
const COMMAND_MEMORY = 2;
const COMMAND_BUS_MASTER = 4;
const COMMAND_INTX_DISABLE = 1 << 10;
const COMMAND_WRITABLE = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
const STATUS_INTERRUPT = 1 << 3;
const STATUS_CAPABILITIES = 1 << 4;

const FIRST_CAPABILITY = 0x40;
const TWO_32 = 4294967296;

/** A BAR. */
export interface FakeBarOptions {
  /** `memory` has 32 bits, `memory64` takes two registers, `io` is in I/O space. */
  readonly kind: 'memory' | 'memory64' | 'io';
  /** Bytes: a power of two. */
  readonly size: number;
  readonly prefetchable?: boolean;
  /** The address that firmware gave it (default 0). */
  readonly address?: number;
}

/** A capability: its id, and its bytes after id and next pointer. */
export interface FakeCapability {
  readonly id: number;
  readonly body: ArrayLike<number>;
}

/** Options of {@link FakePciFunction}. */
export interface FakePciFunctionOptions {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision?: number;
  /** Class, subclass and programming interface (default 0xff0000). */
  readonly classCode?: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /** Type and multi-function bit (default 0). */
  readonly headerType?: number;
  /** INTA to INTD are 1 to 4; 0: no INTx (default 1). */
  readonly interruptPin?: number;
  /** Bytes of configuration space: 256 or 4096 (default 256). */
  readonly configSize?: number;
  /** BARs by index. */
  readonly bars?: Readonly<Record<number, FakeBarOptions>>;
  /** Capabilities, in the order of the list. */
  readonly capabilities?: readonly FakeCapability[];
  /** What its BARs read as while it does not respond: ones (default), as on PCI, or zeros, as with QEMU. */
  readonly silentBars?: 'ones' | 'zeros';
}

/** A BAR with its address in two halves, as the registers hold it. */
class Bar implements FakeBarOptions {
  readonly index: number;
  readonly kind: FakeBarOptions['kind'];
  readonly size: number;
  readonly prefetchable: boolean;
  #low = 0;
  #high = 0;

  constructor(index: number, { kind, size, prefetchable = false, address = 0 }: FakeBarOptions) {
    if (!Number.isInteger(Math.log2(size))) throw new Error(`BAR ${index} has ${size} bytes`);
    this.index = index;
    this.kind = kind;
    this.size = size;
    this.prefetchable = prefetchable;
    this.address = address;
  }

  get address(): number {
    return this.#high * TWO_32 + this.#low;
  }

  set address(value: number) {
    this.write(false, value % TWO_32);
    this.write(true, Math.floor(value / TWO_32));
  }

  read(upper: boolean): number {
    if (upper) return this.#high;
    const flags = this.kind === 'io' ? 1 : (this.kind === 'memory64' ? 4 : 0) | (this.prefetchable ? 8 : 0);
    return this.#low + flags;
  }

  /** The lower address bits are hardwired to zero, which is how the driver finds the size. */
  write(upper: boolean, value: number): void {
    const unit = upper ? this.size / TWO_32 : this.size;
    const kept = unit < 1 ? value : unit >= TWO_32 ? 0 : value - (value % unit);
    if (upper) this.#high = this.kind === 'memory64' ? kept : 0;
    else this.#low = kept;
  }
}

/** The registers in a BAR. */
export class FakeBar extends RegisterModel {
  readonly size: number;
  readonly index: number;
  readonly #function: FakePciFunction;

  /** @internal see {@link FakePciFunction.bar} */
  constructor(owner: FakePciFunction, index: number, size: number) {
    super();
    this.#function = owner;
    this.index = index;
    this.size = size;
  }

  override registerName(offset: number): string {
    return this.#function.barRegisterName(this.index, offset);
  }

  protected override load(offset: number, width: Width): number {
    return this.#function.readBar(this.index, offset, width);
  }

  protected override store(offset: number, width: Width, value: number): void {
    this.#function.writeBar(this.index, offset, width, value);
  }
}

/** Configuration space as a window. */
class ConfigSpace extends RegisterModel {
  readonly size: number;
  readonly #function: FakePciFunction;

  constructor(owner: FakePciFunction, size: number) {
    super();
    this.#function = owner;
    this.size = size;
  }

  override registerName(offset: number): string {
    return `config 0x${offset.toString(16)}`;
  }

  protected override load(offset: number, width: Width): number {
    return this.#function.readConfigSpace(offset, width);
  }

  protected override store(offset: number, width: Width, value: number): void {
    this.#function.writeConfigSpace(offset, width, value);
  }
}

/** All ones, which is what a read without a target returns. */
export const allOnes = (width: Width): number => 2 ** (8 * width) - 1;

/** A PCI function. It has no registers in its BARs; subclasses add them. */
export class FakePciFunction {
  /** Its configuration space, as the driver accesses it. */
  readonly config: RegisterModel;
  /** The bytes of configuration space, which a test may overwrite, except BARs. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where each capability is in configuration space, in the order of the list. */
  readonly capabilityOffsets: readonly number[];
  /** What the driver did wrong, as text. */
  readonly misuse: string[] = [];

  /** By byte of configuration space: the bits that the driver can write. */
  protected readonly writable: Uint8Array;

  readonly #silentBars: 'ones' | 'zeros';
  readonly #bars: (Bar | undefined)[] = [];
  readonly #windows = new Map<number, FakeBar>();

  constructor(options: FakePciFunctionOptions) {
    const { configSize = 256, headerType = 0, bars = {}, capabilities = [], interruptPin = 1 } = options;
    this.#silentBars = options.silentBars ?? 'ones';
    this.bytes = new Uint8Array(configSize);
    this.writable = new Uint8Array(configSize);
    this.config = new ConfigSpace(this, configSize);
    this.poke(0x00, 2, options.vendorId);
    this.poke(0x02, 2, options.deviceId);
    this.poke(0x08, 4, ((options.classCode ?? 0xff0000) << 8) | (options.revision ?? 0));
    this.poke(HEADER_TYPE, 1, headerType);
    this.poke(INTERRUPT_PIN, 1, interruptPin);
    if ((headerType & 0x7f) === 0) {
      this.poke(0x2c, 2, options.subsystemVendorId ?? options.vendorId);
      this.poke(0x2e, 2, options.subsystemId ?? 0);
    }
    this.writable[COMMAND] = COMMAND_WRITABLE & 0xff;
    this.writable[COMMAND + 1] = COMMAND_WRITABLE >>> 8;
    this.writable[INTERRUPT_LINE] = 0xff;
    for (const [key, bar] of Object.entries(bars)) this.#addBar(Number(key), bar);
    this.capabilityOffsets = this.#addCapabilities(capabilities);
  }

  /** Whether the function responds at all. */
  isPresent(): boolean {
    return true;
  }

  /** Whether it decodes addresses of its memory BARs. */
  get memoryEnabled(): boolean {
    return (this.peek(COMMAND, 2) & COMMAND_MEMORY) !== 0;
  }

  /** Whether it decodes addresses of its I/O BARs. */
  get ioEnabled(): boolean {
    return (this.peek(COMMAND, 2) & COMMAND_IO) !== 0;
  }

  /** Whether it may access memory by itself. */
  get busMaster(): boolean {
    return (this.peek(COMMAND, 2) & COMMAND_BUS_MASTER) !== 0;
  }

  /** Whether INTx is disabled in the command register. */
  get intxDisabled(): boolean {
    return (this.peek(COMMAND, 2) & COMMAND_INTX_DISABLE) !== 0;
  }

  /** The BARs that the function has, with their addresses now. */
  get bars(): readonly (FakeBarOptions & { readonly index: number; readonly address: number })[] {
    return this.#bars.filter((bar) => bar !== undefined);
  }

  /** Gives a BAR an address, as firmware does. */
  assign(index: number, address: number): void {
    const bar = this.#bars[index];
    if (!bar) throw new Error(`the function has no BAR ${index}`);
    bar.address = address;
  }

  /** Sets bits of the command register, as firmware does. */
  enable(bits: { readonly memory?: boolean; readonly io?: boolean; readonly busMaster?: boolean }): void {
    let command = this.peek(COMMAND, 2);
    if (bits.memory === true) command |= COMMAND_MEMORY;
    if (bits.io === true) command |= COMMAND_IO;
    if (bits.busMaster === true) command |= COMMAND_BUS_MASTER;
    this.poke(COMMAND, 2, command);
  }

  /**
   * The registers in a BAR. They respond while the function decodes addresses of that kind.
   *
   * @throws Error if there is no such BAR
   */
  bar(index: number): FakeBar {
    const bar = this.#bars[index];
    if (!bar) throw new Error(`the function has no BAR ${index}`);
    let window = this.#windows.get(index);
    if (!window) {
      window = new FakeBar(this, index, bar.size);
      this.#windows.set(index, window);
    }
    return window;
  }

  /** Reads configuration space from the test, without the driver's side effects. */
  peek(offset: number, width: Width): number {
    let value = 0;
    for (let i = width - 1; i >= 0; i -= 1) value = value * 256 + (this.bytes[offset + i] ?? 0);
    return value;
  }

  /** Overwrites configuration space from the test, including read-only bits. */
  poke(offset: number, width: Width, value: number): void {
    for (let i = 0; i < width; i += 1) this.bytes[offset + i] = value >>> (8 * i);
  }

  /** Shows in the status register whether INTx is asserted. */
  protected showInterrupt(asserted: boolean): void {
    const status = this.peek(STATUS, 2) & ~STATUS_INTERRUPT;
    this.poke(STATUS, 2, asserted ? status | STATUS_INTERRUPT : status);
  }

  /** What an access to a register in a BAR reads. */
  protected loadBar(_bar: number, _offset: number, _width: Width): number {
    return 0;
  }

  /** What a write to a register in a BAR does. */
  protected storeBar(_bar: number, _offset: number, _width: Width, _value: number): void {
    return;
  }

  /** Called after the driver wrote to configuration space. */
  protected configWritten(_offset: number, _width: Width): void {
    return;
  }

  /** Called before the driver reads configuration space. */
  protected configReading(_offset: number, _width: Width): void {
    return;
  }

  /** The name of a register in a BAR. */
  barRegisterName(bar: number, offset: number): string {
    return `BAR${bar}+0x${offset.toString(16)}`;
  }

  /** @internal the driver reads a register in a BAR */
  readBar(index: number, offset: number, width: Width): number {
    if (this.isPresent() && this.#decodes(index)) return this.loadBar(index, offset, width);
    return this.#silentBars === 'zeros' ? 0 : allOnes(width);
  }

  /** @internal the driver writes a register in a BAR */
  writeBar(index: number, offset: number, width: Width, value: number): void {
    if (this.isPresent() && this.#decodes(index)) this.storeBar(index, offset, width, value);
  }

  /** @internal the driver reads configuration space */
  readConfigSpace(offset: number, width: Width): number {
    if (!this.isPresent()) return allOnes(width);
    this.configReading(offset, width);
    const bar = this.#barRegister(offset);
    if (!bar) return this.peek(offset, width);
    const whole = bar.read((offset - BAR0) >>> 2 !== bar.index);
    return Math.floor(whole / 2 ** (8 * (offset & 3))) % 2 ** (8 * width);
  }

  /** @internal the driver writes configuration space */
  writeConfigSpace(offset: number, width: Width, value: number): void {
    if (!this.isPresent()) return;
    const bar = this.#barRegister(offset);
    if (bar) {
      if (width !== 4) {
        this.#misused(`a BAR was written with ${8 * width} bits`);
        return;
      }
      if (bar.kind === 'io' ? this.ioEnabled : this.memoryEnabled) {
        this.#misused(`BAR ${bar.index} was written while the function decodes its addresses`);
      }
      bar.write((offset - BAR0) >>> 2 !== bar.index, value);
      return;
    }
    for (let i = 0; i < width; i += 1) {
      const at = offset + i;
      const mask = this.writable[at] ?? 0;
      this.bytes[at] = ((this.bytes[at] ?? 0) & ~mask) | ((value >>> (8 * i)) & mask);
    }
    this.configWritten(offset, width);
  }

  #decodes(index: number): boolean {
    const enabled = this.#bars[index]?.kind === 'io' ? this.ioEnabled : this.memoryEnabled;
    if (!enabled) this.#misused(`BAR ${index} was accessed while the function does not decode its addresses`);
    return enabled;
  }

  #misused(what: string): void {
    if (!this.misuse.includes(what)) this.misuse.push(what);
  }

  #barCount(): number {
    return (this.peek(HEADER_TYPE, 1) & 0x7f) === 1 ? 2 : 6;
  }

  /** The BAR whose register is at an offset. */
  #barRegister(offset: number): Bar | undefined {
    const index = Math.floor((offset - BAR0) / 4);
    if (index < 0 || index >= this.#barCount()) return undefined;
    const bar = this.#bars[index];
    if (bar) return bar;
    const below = this.#bars[index - 1];
    return below?.kind === 'memory64' ? below : undefined;
  }

  #addBar(index: number, options: FakeBarOptions): void {
    this.#bars[index] = new Bar(index, options);
  }

  #addCapabilities(capabilities: readonly FakeCapability[]): number[] {
    const offsets: number[] = [];
    let at = FIRST_CAPABILITY;
    let link = CAPABILITIES;
    for (const { id, body } of capabilities) {
      const size = Math.ceil((2 + body.length) / 4) * 4;
      if (at + size > 256) throw new Error('the capabilities do not fit 256 bytes');
      this.poke(link, 1, at);
      this.poke(at, 1, id);
      this.bytes.set(Array.from(body), at + 2);
      link = at + 1;
      offsets.push(at);
      at += size;
    }
    if (offsets.length > 0) this.poke(STATUS, 2, STATUS_CAPABILITIES);
    return offsets;
  }
}
