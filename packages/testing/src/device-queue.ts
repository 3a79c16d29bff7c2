/**
 * The device's side of a virtqueue, written from the specification and independent of the driver's side: it shares no code
 * and no arithmetic with it, so that an error in one does not hide in the other.
 *
 * It is strict: whatever a driver must do or must not do with a ring is checked, and the first offence is reported in words
 * with its section. And it can lie: what a device has no right to write can be written, too.
 */
import { Chain, type ChainElement } from './chain.ts';
import type { DeviceMemory } from './device-memory.ts';

/** The largest queue of the specification, in descriptors. */
const MAX_SIZE = 32768;
const TWO_32 = 4294967296;

/** The driver broke a rule of the specification. */
export class DriverViolation extends Error {
  override readonly name = 'DriverViolation';
}

/** Where a queue is and what was negotiated for it. */
export interface DeviceQueueOptions {
  /** The driver's memory. */
  readonly memory: DeviceMemory;
  /** The size in descriptors. */
  readonly size: number;
  /** The address of the descriptor area. */
  readonly descriptors: number;
  /** The address of the driver area: available ring, or driver event suppression. */
  readonly driverArea: number;
  /** The address of the device area: used ring, or device event suppression. */
  readonly deviceArea: number;
  /** Whether `VIRTIO_F_INDIRECT_DESC` was negotiated (default true). */
  readonly indirect?: boolean;
  /** Whether `VIRTIO_F_EVENT_IDX` was negotiated (default false). */
  readonly eventIdx?: boolean;
  /** Whether `VIRTIO_F_IN_ORDER` was negotiated (default false). */
  readonly inOrder?: boolean;
  /** Called when a used buffer notification is due. */
  readonly interrupt?: () => void;
  /** Told of each rule that the driver broke, before it is thrown. */
  readonly onViolation?: (violation: DriverViolation) => void;
}

/** A descriptor, as it lies in memory. `extra` is `next` in a split queue and the buffer id in a packed one. */
export interface RawDescriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly extra: number;
}

/** The device's side of one virtqueue. */
export abstract class DeviceQueue {
  /** The driver's memory. */
  readonly memory: DeviceMemory;
  /** The size in descriptors. */
  readonly size: number;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
  /** The rules that the driver broke. */
  readonly violations: DriverViolation[] = [];
  /** Interrupts that were due and sent. */
  interrupts = 0;

  protected readonly options: DeviceQueueOptions;
  /** The chains that the device has, by id, oldest first. */
  protected readonly taken = new Map<number, Chain>();
  /** Ring descriptors of the chains that the device has. */
  protected takenDescriptors = 0;
  /** Whether the device wants to be notified; see {@link DeviceQueue.suppressNotifications}. */
  protected wantsNotifications = true;

  readonly #interrupt: (() => void) | undefined;
  #live = true;
  #chainBytes = 0;

  protected constructor(options: DeviceQueueOptions) {
    const { memory, size, indirect = true, eventIdx = false, inOrder = false } = options;
    this.options = options;
    this.memory = memory;
    this.size = size;
    this.indirect = indirect;
    this.eventIdx = eventIdx;
    this.inOrder = inOrder;
    this.#interrupt = options.interrupt;
    if (!(Number.isInteger(size) && size >= 1 && size <= MAX_SIZE)) {
      throw this.violated(`the queue has ${size} descriptors; it can have 1 to ${MAX_SIZE} [2.7, 2.8]`);
    }
  }

  /** Whether the queue is enabled: false once it or the device was reset. */
  get live(): boolean {
    return this.#live;
  }

  /** How many chains the device has. */
  get inFlight(): number {
    return this.taken.size;
  }

  /** The chains that the device has, oldest first. */
  get chains(): readonly Chain[] {
    return [...this.taken.values()];
  }

  /** Whether the device has this chain. */
  holds(chain: Chain): boolean {
    return this.#live && this.taken.get(chain.id) === chain;
  }

  /**
   * Takes the next chain that the driver made available. If there is none, the driver is asked to notify of the next one, unless
   * {@link DeviceQueue.suppressNotifications} was called.
   *
   * @throws {@link DriverViolation}, {@link MemoryFault} if the driver broke a rule
   */
  abstract pop(): Chain | undefined;

  /** Whether the driver has made a chain available that was not taken. */
  abstract available(): boolean;

  /**
   * Gives a chain back to the driver, and interrupts it if it wants that.
   *
   * @param length the used length (default: what was written to the chain)
   * @returns whether the driver was interrupted
   * @throws Error if the device does not have the chain, or must use another one first [2.7.9, 2.8.8]
   */
  complete(chain: Chain, length: number = chain.written): boolean {
    this.#give(chain);
    this.putUsed(chain, length, 1, chain.descriptors);
    this.flushUsed();
    return this.interruptIfWanted();
  }

  /**
   * Gives several chains back at once. In order, one used element stands for all of them, and the driver takes all but the last as
   * used completely.
   *
   * @returns whether the driver was interrupted
   */
  completeBatch(chains: readonly Chain[]): boolean {
    let count = 0;
    let descriptors = 0;
    chains.forEach((chain, i) => {
      this.#give(chain);
      count += 1;
      descriptors += chain.descriptors;
      if (this.inOrder && i < chains.length - 1) return;
      this.putUsed(chain, chain.written, count, descriptors);
      count = 0;
      descriptors = 0;
    });
    this.flushUsed();
    return this.interruptIfWanted();
  }

  /**
   * Uses all that is available without looking into it and without allocating: for benchmarks. Nothing is checked, and no
   * chain may be taken in another way.
   *
   * @param length the used length to report for each chain
   * @returns how many chains there were
   */
  abstract drain(length: number): number;

  /** Writes a used element with whatever id and length at the next place, shows it, and interrupts if wanted: for lies. */
  abstract forceUsed(id: number, length: number): void;

  /** Asks the driver not to notify. */
  suppressNotifications(): void {
    this.wantsNotifications = false;
    this.writeSuppression(false);
  }

  /** Asks the driver to notify of the next chain that it makes available. */
  enableNotifications(): void {
    this.wantsNotifications = true;
    this.writeSuppression(true);
  }

  /** Whether the driver wants to be interrupted for what was used since the last time that it was asked. */
  abstract wantsInterrupt(): boolean;

  /** The place of the next chain that the driver will make available, in the form of notification data [2.9]. */
  abstract expectedNext(): number;

  /** Reads a descriptor of the ring. */
  abstract readDescriptor(index: number): RawDescriptor;

  /** Overwrites a descriptor of the ring, or some of its fields: for lies. */
  abstract writeDescriptor(index: number, descriptor: Partial<RawDescriptor>): void;

  /** The areas of the ring: address and length in bytes. */
  abstract readonly areas: readonly { readonly address: number; readonly length: number }[];

  /** Interrupts the driver if it wants that. */
  interruptIfWanted(): boolean {
    if (!this.wantsInterrupt()) return false;
    this.interrupts += 1;
    this.#interrupt?.();
    return true;
  }

  /** The queue was reset: the device forgets its chains and touches the ring no more. */
  detach(): void {
    this.#live = false;
    this.taken.clear();
    this.takenDescriptors = 0;
  }

  /** Whether the device may touch memory in this range: the ring, or buffers of chains that it has. */
  uses(address: number, length: number): boolean {
    if (!this.#live) return false;
    const overlaps = (area: { readonly address: number; readonly length: number }): boolean =>
      area.address < address + length && address < area.address + area.length;
    return this.areas.some(overlaps) || this.chains.some((chain) => chain.elements.some(overlaps));
  }

  /** Puts a used element for the last of `count` chains with `descriptors` descriptors in all; not visible yet. */
  protected abstract putUsed(chain: Chain, length: number, count: number, descriptors: number): void;
  /** Shows the used elements that were put. */
  protected abstract flushUsed(): void;
  protected abstract writeSuppression(enable: boolean): void;

  protected checkAlive(): void {
    if (!this.#live) throw new Error('the queue was reset; the device must not touch it');
  }

  /** A view of one of the ring's areas; it must be aligned and offered for what the device does with it. */
  protected area(
    address: number,
    length: number,
    alignment: number,
    access: 'read' | 'write',
    what: string,
  ): DataView {
    if (address % alignment !== 0) {
      throw this.violated(
        `the ${what} at 0x${address.toString(16)} is not aligned to ${alignment} bytes [2.7.1, 2.8.11]`,
      );
    }
    try {
      const bytes = this.memory.view(address, length, access);
      return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    } catch (error) {
      throw this.violated(
        `the ${what} is not in memory that the device can use: ${(error as Error).message}`,
      );
    }
  }

  protected take(
    id: number,
    elements: readonly ChainElement[],
    descriptors: number,
    indirect: boolean,
  ): Chain {
    if (this.taken.has(id)) {
      throw this.violated(`chain ${id} was made available, but the device still has it`);
    }
    const chain = new Chain(this, id, elements, descriptors, indirect);
    this.taken.set(id, chain);
    this.takenDescriptors += descriptors;
    return chain;
  }

  /** Adds a buffer to a chain and checks what holds in every format. */
  protected addElement(elements: ChainElement[], address: number, length: number, writable: boolean): void {
    const last = elements.at(-1);
    if (last?.writable === true && !writable) {
      throw this.violated('a device-readable buffer follows a device-writable one [2.7.4.2, 2.8.17]');
    }
    if (length === 0) throw this.violated(`buffer ${elements.length} of the chain is empty`);
    if (elements.length === this.size) {
      throw this.violated(
        `the chain is longer than the queue of ${this.size} descriptors [2.7.5.3.1, 2.8.17]`,
      );
    }
    this.#chainBytes = (elements.length === 0 ? 0 : this.#chainBytes) + length;
    if (this.#chainBytes > TWO_32) {
      throw this.violated(`the chain has ${this.#chainBytes} bytes, more than 2^32 [2.7.5.2]`);
    }
    try {
      this.memory.view(address, length, writable ? 'write' : 'read');
    } catch (error) {
      throw this.violated(`buffer ${elements.length} of the chain: ${(error as Error).message}`);
    }
    elements.push({ address, length, writable });
  }

  /** Records a violation; the caller throws it. */
  protected violated(what: string): DriverViolation {
    const violation = new DriverViolation(what);
    this.violations.push(violation);
    this.options.onViolation?.(violation);
    return violation;
  }

  #give(chain: Chain): void {
    this.checkAlive();
    if (this.taken.get(chain.id) !== chain) {
      throw new Error(`the device does not have chain ${chain.id}; to use it all the same, call forceUsed`);
    }
    if (this.inOrder && this.taken.values().next().value !== chain) {
      throw new Error(
        `chain ${chain.id} is not the oldest; the device is to use chains in order [2.7.9, 2.8.8]`,
      );
    }
    this.taken.delete(chain.id);
    this.takenDescriptors -= chain.descriptors;
  }
}
