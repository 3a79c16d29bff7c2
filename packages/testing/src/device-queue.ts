/**
 * The device's side of a virtqueue, written from the specification and independent of the driver's side: it shares no code
 * and no arithmetic with it, so that an error in one does not hide in the other.
 *
 * It is strict: everything that a driver must or must not do with a ring is checked, and a violation is reported with its section.
 * And it can lie: a test can also write what a device must not write.
 */
import { Chain, type ChainElement } from './chain.ts';
import type { DeviceMemory } from './device-memory.ts';

/** The largest queue of the specification, in descriptors. */
const MAX_SIZE = 32768;
const TWO_32 = 4294967296;

/** The driver violated the specification. */
export class DriverViolation extends Error {
  override readonly name = 'DriverViolation';
}

/** The addresses of a queue and what was negotiated for it. */
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
  /** Called for each violation, before it is thrown. */
  readonly onViolation?: (violation: DriverViolation) => void;
}

/** A descriptor as it is in memory. `extra` is `next` in a split queue and the buffer id in a packed one. */
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
  /** The violations of the driver. */
  readonly violations: DriverViolation[] = [];
  /** How many interrupts were sent. */
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
   * Takes the next chain that the driver made available. If there is none, asks the driver for a notification of the next one,
   * unless {@link DeviceQueue.suppressNotifications} was called.
   *
   * @throws {@link DriverViolation}, {@link MemoryFault} if the driver broke a rule
   */
  abstract pop(): Chain | undefined;

  /** Whether there is an available chain that was not taken yet. */
  abstract available(): boolean;

  /**
   * Uses a chain: gives it back to the driver, and interrupts the driver if it asked for that.
   *
   * @param length the used length (default: what was written to the chain)
   * @returns whether the driver was interrupted
   * @throws Error if the device does not have the chain, or must use another chain first [2.7.9, 2.8.8]
   */
  complete(chain: Chain, length: number = chain.written): boolean {
    this.#give(chain);
    this.putUsed(chain, length, 1, chain.descriptors);
    this.flushUsed();
    return this.interruptIfWanted();
  }

  /**
   * Uses several chains at once. With `VIRTIO_F_IN_ORDER` one used element stands for all of them, and the driver regards all but
   * the last as completely written.
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
   * Uses all available chains without reading them and without allocating, for benchmarks. Nothing is checked, and chains must not
   * be taken in any other way.
   *
   * @param length the used length to report for each chain
   * @returns how many chains there were
   */
  abstract drain(length: number): number;

  /** Writes a used element with any id and length, makes it visible, and interrupts the driver if it asked for that: for lies. */
  abstract forceUsed(id: number, length: number): void;

  /** Asks the driver not to send notifications. */
  suppressNotifications(): void {
    this.wantsNotifications = false;
    this.writeSuppression(false);
  }

  /** Asks the driver for a notification of the next chain that it makes available. */
  enableNotifications(): void {
    this.wantsNotifications = true;
    this.writeSuppression(true);
  }

  /** Whether the driver asks for an interrupt for the chains that were used since the last call. */
  abstract wantsInterrupt(): boolean;

  /** The position of the next chain that the driver will make available, as in notification data [2.9]. */
  abstract expectedNext(): number;

  /** Reads a descriptor of the ring. */
  abstract readDescriptor(index: number): RawDescriptor;

  /** Overwrites a descriptor of the ring, or some of its fields: for lies. */
  abstract writeDescriptor(index: number, descriptor: Partial<RawDescriptor>): void;

  /** The areas of the ring: address and length in bytes. */
  abstract readonly areas: readonly { readonly address: number; readonly length: number }[];

  /** Interrupts the driver if it asked for that. */
  interruptIfWanted(): boolean {
    if (!this.wantsInterrupt()) return false;
    this.interrupts += 1;
    this.#interrupt?.();
    return true;
  }

  /** Handles a reset of the queue: the device drops its chains and no longer accesses the ring. */
  detach(): void {
    this.#live = false;
    this.taken.clear();
    this.takenDescriptors = 0;
  }

  /** Whether the device may access memory in this range: the ring, or buffers of chains that it has. */
  uses(address: number, length: number): boolean {
    if (!this.#live) return false;
    const overlaps = (area: { readonly address: number; readonly length: number }): boolean =>
      area.address < address + length && address < area.address + area.length;
    return this.areas.some(overlaps) || this.chains.some((chain) => chain.elements.some(overlaps));
  }

  /** Puts a used element for the last of `count` chains with `descriptors` descriptors in all; not visible yet. */
  protected abstract putUsed(chain: Chain, length: number, count: number, descriptors: number): void;
  /** Makes the used elements visible that were put. */
  protected abstract flushUsed(): void;
  protected abstract writeSuppression(enable: boolean): void;

  protected checkAlive(): void {
    if (!this.#live) throw new Error('the queue was reset; the device must not access it');
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
        `the ${what} is not in memory that the device can access: ${(error as Error).message}`,
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
      throw new Error(`the device does not have chain ${chain.id}; to use it nevertheless, call forceUsed`);
    }
    if (this.inOrder && this.taken.values().next().value !== chain) {
      throw new Error(
        `chain ${chain.id} is not the oldest; the device must use chains in order [2.7.9, 2.8.8]`,
      );
    }
    this.taken.delete(chain.id);
    this.takenDescriptors -= chain.descriptors;
  }
}
