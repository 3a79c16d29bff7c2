/**
 * A PCI host bridge with functions and bridges behind it: configuration space as CAM or ECAM windows, memory and I/O space in which
 * BARs respond at their addresses.
 */
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { allOnes, type FakeBarOptions, FakePciFunction } from './fake-pci-function.ts';
import { RegisterModel, type Width } from './register-model.ts';

const PRIMARY = 0x18;
const SECONDARY = 0x19;
const SUBORDINATE = 0x1a;
const FUNCTION_SIZE = { cam: 256, ecam: 4096 } as const;
const COMMAND_MEMORY_BARS = ['memory', 'memory64'];

const place = (device: number, fn: number): number => device * 8 + fn;

/** The functions on one bus. */
class Slots {
  readonly functions = new Map<number, FakePciFunction>();

  add(device: number, fn: number, added: FakePciFunction): void {
    if (device < 0 || device > 31 || fn < 0 || fn > 7) throw new Error(`there is no slot ${device}.${fn}`);
    if (this.functions.has(place(device, fn))) throw new Error(`slot ${device}.${fn} is taken`);
    this.functions.set(place(device, fn), added);
    const first = this.functions.get(place(device, 0));
    // Function 0 of a device with several functions has the multi-function bit.
    if (fn > 0) first?.poke(0x0e, 1, first.peek(0x0e, 1) | 0x80);
  }
}

/** A PCI-to-PCI bridge. Its bus numbers are registers with firmware's values at first, which the driver may change. */
export class FakePciBridge extends FakePciFunction {
  readonly #slots = new Slots();

  constructor({ secondary, subordinate, primary = 0 }: BridgeNumbers) {
    super({ vendorId: 0x1b36, deviceId: 0x0001, classCode: 0x060400, headerType: 1, interruptPin: 0 });
    this.poke(PRIMARY, 1, primary);
    this.poke(SECONDARY, 1, secondary);
    this.poke(SUBORDINATE, 1, subordinate);
    this.writable.fill(0xff, PRIMARY, SUBORDINATE + 1);
  }

  /** Plugs a function into the bus behind the bridge. */
  add<T extends FakePciFunction>(device: number, fn: number, added: T): T {
    this.#slots.add(device, fn, added);
    return added;
  }

  /** The functions directly behind the bridge, by device * 8 + function. */
  get functions(): ReadonlyMap<number, FakePciFunction> {
    return this.#slots.functions;
  }

  /** The number of the bus behind the bridge. */
  get secondary(): number {
    return this.peek(SECONDARY, 1);
  }

  /** The highest number of a bus behind the bridge. */
  get subordinate(): number {
    return this.peek(SUBORDINATE, 1);
  }
}

/** The bus numbers of a bridge. */
export interface BridgeNumbers {
  readonly primary?: number;
  readonly secondary: number;
  readonly subordinate: number;
}

/** A PCI host bridge. */
export class FakePciBus {
  readonly #slots = new Slots();

  /** What memory space reads as where no BAR responds: ones, as on PCI, or zeros, as with QEMU. */
  silentMemory: 'ones' | 'zeros' = 'ones';

  /** Plugs a function into bus 0. */
  add<T extends FakePciFunction>(device: number, fn: number, added: T): T {
    this.#slots.add(device, fn, added);
    return added;
  }

  /** The function at an address, or `undefined`. */
  find(bus: number, device: number, fn: number): FakePciFunction | undefined {
    const functions = this.#bus(bus);
    const found = functions?.get(place(device, fn));
    return found?.isPresent() === true ? found : undefined;
  }

  /** Assigns addresses to all BARs, and enables address decoding and bus mastering, as firmware does. */
  assign({ memory = 0xe000_0000, memory64 = 0x80_0000_0000, io = 0xc000 } = {}): void {
    const next = { memory, memory64, io };
    for (const fn of this.#all()) {
      for (const { index, kind, size } of fn.bars) {
        next[kind] = Math.ceil(next[kind] / size) * size;
        fn.assign(index, next[kind]);
        next[kind] += size;
      }
      fn.enable({ memory: true, io: true, busMaster: true });
    }
  }

  /**
   * A memory-mapped window to configuration space.
   *
   * @param cam the mechanism: `cam` has 256 bytes per function, `ecam` 4096
   * @param buses how many buses it covers, from 0 (default 256)
   */
  configWindow(cam: 'cam' | 'ecam', buses = 256): RegisterModel {
    return new ConfigWindow(this, FUNCTION_SIZE[cam], buses);
  }

  /** Reads configuration space; all ones where there is no function. */
  readConfig(bus: number, device: number, fn: number, offset: number, width: Width): number {
    const found = this.find(bus, device, fn);
    if (!found || offset + width > found.config.size) return allOnes(width);
    return read(found.config, offset, width);
  }

  /** Writes configuration space. */
  writeConfig(bus: number, device: number, fn: number, offset: number, width: Width, value: number): void {
    const found = this.find(bus, device, fn);
    if (found && offset + width <= found.config.size) write(found.config, offset, width, value);
  }

  /** Reads memory space: a register of the BAR at that address. */
  readMemory(address: number, width: Width): number {
    const bar = this.#decode(address, COMMAND_MEMORY_BARS);
    if (bar) return read(bar.window, bar.offset, width);
    return this.silentMemory === 'zeros' ? 0 : allOnes(width);
  }

  /** Writes memory space. */
  writeMemory(address: number, width: Width, value: number): void {
    const bar = this.#decode(address, COMMAND_MEMORY_BARS);
    if (bar) write(bar.window, bar.offset, width, value);
  }

  /** Reads I/O space. */
  readPort(port: number, width: Width): number {
    const bar = this.#decode(port, ['io']);
    return bar ? read(bar.window, bar.offset, width) : allOnes(width);
  }

  /** Writes I/O space. */
  writePort(port: number, width: Width, value: number): void {
    const bar = this.#decode(port, ['io']);
    if (bar) write(bar.window, bar.offset, width, value);
  }

  /** A window to memory space, as a `Hal` maps it. */
  mapRegisters(address: number, size: number): RegisterWindow {
    return new SpaceWindow(
      size,
      (offset, width) => this.readMemory(address + offset, width),
      (offset, width, value) => {
        this.writeMemory(address + offset, width, value);
      },
    );
  }

  /** A window to I/O space. */
  mapPorts(port: number, count: number): RegisterWindow {
    return new SpaceWindow(
      count,
      (offset, width) => this.readPort(port + offset, width),
      (offset, width, value) => {
        this.writePort(port + offset, width, value);
      },
    );
  }

  /** The functions on a bus, found through the bridges as they are set now. */
  #bus(bus: number): ReadonlyMap<number, FakePciFunction> | undefined {
    let functions: ReadonlyMap<number, FakePciFunction> = this.#slots.functions;
    if (bus === 0) return functions;
    // Each step passes one bridge; there are at most 256 buses.
    for (let depth = 0; depth < 256; depth += 1) {
      const bridge = [...functions.values()].find(
        (fn): fn is FakePciBridge =>
          fn instanceof FakePciBridge && fn.secondary > 0 && bus >= fn.secondary && bus <= fn.subordinate,
      );
      if (!bridge) return undefined;
      functions = bridge.functions;
      if (bridge.secondary === bus) return functions;
    }
    return undefined;
  }

  *#all(functions: ReadonlyMap<number, FakePciFunction> = this.#slots.functions): Generator<FakePciFunction> {
    for (const fn of functions.values()) {
      yield fn;
      if (fn instanceof FakePciBridge) yield* this.#all(fn.functions);
    }
  }

  #decode(
    address: number,
    kinds: readonly string[],
  ): { readonly window: RegisterModel; readonly offset: number } | undefined {
    for (const fn of this.#all()) {
      if (!fn.isPresent()) continue;
      for (const bar of fn.bars as readonly (FakeBarOptions & { index: number; address: number })[]) {
        const enabled = bar.kind === 'io' ? fn.ioEnabled : fn.memoryEnabled;
        if (!enabled || bar.address === 0 || !kinds.includes(bar.kind)) continue;
        const offset = address - bar.address;
        if (offset >= 0 && offset < bar.size) return { window: fn.bar(bar.index), offset };
      }
    }
    return undefined;
  }
}

class ConfigWindow extends RegisterModel {
  readonly size: number;
  readonly #bus: FakePciBus;
  readonly #functionSize: number;

  constructor(bus: FakePciBus, functionSize: number, buses: number) {
    super();
    this.#bus = bus;
    this.#functionSize = functionSize;
    this.size = buses * 256 * functionSize;
  }

  override registerName(offset: number): string {
    const [bus, device, fn, register] = this.#split(offset);
    return `${bus}:${device}.${fn} config 0x${register.toString(16)}`;
  }

  protected override load(offset: number, width: Width): number {
    const [bus, device, fn, register] = this.#split(offset);
    return this.#bus.readConfig(bus, device, fn, register, width);
  }

  protected override store(offset: number, width: Width, value: number): void {
    const [bus, device, fn, register] = this.#split(offset);
    this.#bus.writeConfig(bus, device, fn, register, width, value);
  }

  #split(offset: number): readonly [bus: number, device: number, fn: number, register: number] {
    const id = Math.floor(offset / this.#functionSize);
    return [id >>> 8, (id >>> 3) & 31, id & 7, offset % this.#functionSize];
  }
}

class SpaceWindow extends RegisterModel {
  readonly size: number;
  readonly #load: (offset: number, width: Width) => number;
  readonly #store: (offset: number, width: Width, value: number) => void;

  constructor(
    size: number,
    load: (offset: number, width: Width) => number,
    store: (offset: number, width: Width, value: number) => void,
  ) {
    super();
    this.size = size;
    this.#load = load;
    this.#store = store;
  }

  protected override load(offset: number, width: Width): number {
    return this.#load(offset, width);
  }

  protected override store(offset: number, width: Width, value: number): void {
    this.#store(offset, width, value);
  }
}

function read(window: RegisterModel, offset: number, width: Width): number {
  checkAligned(offset, width);
  if (width === 1) return window.read8(offset);
  return width === 2 ? window.read16(offset) : window.read32(offset);
}

function write(window: RegisterModel, offset: number, width: Width, value: number): void {
  checkAligned(offset, width);
  if (width === 1) window.write8(offset, value);
  else if (width === 2) window.write16(offset, value);
  else window.write32(offset, value);
}

function checkAligned(offset: number, width: Width): void {
  if (offset % width === 0) return;
  throw new VirtioError('INVALID_PARAM', `${width} bytes at ${offset} are not aligned`);
}
