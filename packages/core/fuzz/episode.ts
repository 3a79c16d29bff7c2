/**
 * One episode of the queue's fuzzer: a driver, a device and a model of a correct queue take random steps, and after each
 * step the queue must be what the model says.
 *
 * While the device is honest, all is exact: tokens, order, lengths, free descriptors, and that no notification or interrupt
 * that somebody waits for is lost. Once it has lied, the queue may go on for as long as each token that it returns was in flight
 * and no length exceeds what was offered; or it throws `DEVICE_MISBEHAVED`, the device is marked as failed, and both sides
 * start over. It never does anything else.
 */
import {
  CommonFeatures,
  createQueue,
  DeviceStatus,
  DeviceType,
  type DmaRegion,
  type FeatureName,
  VirtioError,
  type VirtQueue,
} from '@virtio/core';
import { type Chain, type DeviceQueue, DriverViolation, FakeDevice, FakeTransport } from '@virtio/testing';
import { Random } from './random.ts';

/** What an episode is made of. */
export interface EpisodeOptions {
  readonly seed: number;
  readonly steps: number;
  readonly features: readonly FeatureName[];
  readonly size: number;
  readonly tableLength: number;
  /** The device lies once in so many steps; 0 for an honest device. */
  readonly lieOneIn: number;
  /** The device is reset once in so many steps; 0 for never, so that indices wrap. A device that was caught is reset in any case. */
  readonly resetOneIn: number;
}

/** What an episode saw, for people: a fuzzer that never meets a full ring or a lie shows nothing. */
export interface EpisodeCounts {
  steps: number;
  chains: number;
  full: number;
  rewound: number;
  popped: number;
  lies: number;
  caught: number;
  resets: number;
  notified: number;
  interrupted: number;
}

/** The queue did what it must not do. */
export class Finding extends Error {
  override readonly name = 'Finding';
}

interface ModelChain {
  readonly readable: number;
  readonly writable: number;
  readonly descriptors: number;
}

interface Completion {
  readonly token: number;
  readonly length: number;
}

export function emptyCounts(): EpisodeCounts {
  return {
    steps: 0,
    chains: 0,
    full: 0,
    rewound: 0,
    popped: 0,
    lies: 0,
    caught: 0,
    resets: 0,
    notified: 0,
    interrupted: 0,
  };
}

/** An address space of the driver's for buffers: the device never looks into them here. */
const BUFFER_PAGES = 16;

/**
 * Runs one episode.
 *
 * @throws {@link Finding} with the step at which the queue went wrong
 */
export function runEpisode(options: EpisodeOptions, counts: EpisodeCounts = emptyCounts()): EpisodeCounts {
  const episode = new Episode(options, counts);
  try {
    episode.run();
  } catch (error) {
    throw new Finding(
      `step ${episode.step} of ${JSON.stringify(options)}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      { cause: error },
    );
  }
  return counts;
}

class Episode {
  step = 0;
  readonly #options: EpisodeOptions;
  readonly #counts: EpisodeCounts;
  readonly #random: Random;
  readonly #fake: FakeDevice;
  readonly #transport: FakeTransport;
  readonly #queue: VirtQueue;
  readonly #buffers: DmaRegion;
  readonly #inOrder: boolean;
  readonly #tables: boolean;
  #device: DeviceQueue;

  // The model.
  readonly #published = new Map<number, ModelChain>();
  readonly #staged = new Map<number, ModelChain>();
  readonly #completed: Completion[] = [];
  /** The device found nothing and asked to be notified. */
  #deviceSleeps = false;
  /** The driver found nothing and asked to be interrupted. */
  #driverSleeps = false;
  #tainted = false;

  constructor(options: EpisodeOptions, counts: EpisodeCounts) {
    this.#options = options;
    this.#counts = counts;
    this.#random = new Random(options.seed);
    const { features: names, size, tableLength } = options;
    const bits = CommonFeatures.set(...names).bits;
    this.#fake = new FakeDevice({ type: DeviceType.EntropySource, features: bits, queues: [size] });
    this.#fake.recordNotifications = false;
    this.#transport = new FakeTransport(this.#fake, { interrupts: false });
    const { hal } = this.#fake;
    this.#buffers = hal.dmaAlloc(BUFFER_PAGES, 'both', false);
    const features = this.#transport.beginInit({ table: CommonFeatures, supported: names });
    this.#inOrder = features.has('IN_ORDER');
    this.#tables = features.has('INDIRECT_DESC');
    this.#queue = createQueue(this.#transport, hal, features, { index: 0, size, tableLength });
    this.#transport.finishInit();
    this.#device = this.#fake.queue(0);
  }

  run(): void {
    const { steps, lieOneIn, resetOneIn } = this.#options;
    for (; this.step < steps; this.step += 1) {
      this.#counts.steps += 1;
      try {
        if (this.#random.oneIn(lieOneIn)) this.#lie();
        if (this.#random.oneIn(resetOneIn)) this.#reset();
        this.#act();
      } catch (error) {
        this.#judge(error);
      }
    }
    this.#transport.reset();
    this.#queue[Symbol.dispose]();
    this.#fake.hal.dmaDealloc(this.#buffers);
    // Checks the guards around all memory, and that none is left.
    this.#fake.hal.assertClean();
  }

  /** An error is right if the device has lied, it is the one error for that, and the device is marked as failed. */
  #judge(error: unknown): void {
    // What the device itself has overwritten is no longer the driver's work.
    if (this.#tainted && error instanceof DriverViolation) return;
    if (!this.#tainted || !VirtioError.is(error, 'DEVICE_MISBEHAVED')) throw error;
    expect(this.#transport.getStatus().has(DeviceStatus.FAILED), 'the device is not marked as failed');
    expect(this.#queue.failure === error, 'the queue does not remember its failure');
    this.#counts.caught += 1;
    this.#reset();
  }

  #act(): void {
    switch (this.#random.below(12)) {
      case 0:
      case 1:
      case 2:
        this.#submit();
        return;
      case 3:
      case 4:
        this.#publishAndKick();
        return;
      case 5:
        this.#takeAvailable();
        return;
      case 6:
      case 7:
        this.#complete();
        return;
      case 8:
      case 9:
        this.#pop();
        return;
      case 10:
        this.#sleep();
        return;
      default:
        if (this.#random.oneIn(3)) this.#peek();
        else if (this.#random.oneIn(2)) this.#toggleSuppression();
        else this.#sleep();
    }
  }

  #submit(): void {
    const queue = this.#queue;
    const random = this.#random;
    const count = 1 + random.below(random.oneIn(8) ? queue.size : Math.min(4, queue.size));
    const indirect = this.#tables && count > 1 && count <= Math.min(this.#options.tableLength, queue.size);
    const descriptors = indirect ? 1 : count;
    const room = this.#freeDescriptors() >= descriptors;
    expect(queue.tryBegin(count) === room, `tryBegin(${count}) should be ${room}`);
    if (!room) {
      this.#counts.full += 1;
      return;
    }
    const readableCount = random.below(count + 1);
    const abandonAt = random.oneIn(10) ? random.below(count + 1) : -1;
    let readable = 0;
    let writable = 0;
    for (let i = 0; i < count; i += 1) {
      if (i === abandonAt) break;
      const length = 1 + random.below(4096);
      const address = this.#buffers.address + random.below(BUFFER_PAGES - 1) * 4096;
      if (i < readableCount) {
        queue.pushReadable(address, length);
        readable += length;
      } else {
        queue.pushWritable(address, length);
        writable += length;
      }
    }
    if (abandonAt >= 0) {
      queue.rewind();
      this.#counts.rewound += 1;
    } else {
      const token = queue.submit();
      expect(!this.#published.has(token) && !this.#staged.has(token), `token ${token} is in use already`);
      this.#staged.set(token, { readable, writable, descriptors });
      this.#counts.chains += 1;
    }
    this.#compare();
  }

  #publishAndKick(): void {
    const some = this.#staged.size > 0;
    this.#queue.publish();
    for (const [token, chain] of this.#staged) this.#published.set(token, chain);
    this.#staged.clear();
    const notified = this.#queue.kick();
    if (notified) this.#counts.notified += 1;
    if (some && this.#deviceSleeps && !this.#tainted) {
      expect(notified, 'the device sleeps and was not notified');
    }
    if (some || notified) this.#deviceSleeps = false;
    this.#compare();
  }

  #takeAvailable(): void {
    this.#device.enableNotifications();
    for (let n = this.#random.below(8); n >= 0; n -= 1) {
      const chain: Chain | undefined = this.#device.pop();
      if (chain === undefined) {
        this.#deviceSleeps = true;
        return;
      }
      if (this.#tainted) continue;
      const expected = this.#published.get(chain.id);
      expect(expected !== undefined, `the device sees chain ${chain.id}, which was not published`);
      expect(
        chain.readable === expected.readable && chain.writable === expected.writable,
        `the device sees ${chain.readable} + ${chain.writable} bytes in chain ${chain.id}`,
      );
    }
  }

  #complete(): void {
    const random = this.#random;
    const chains = this.#device.chains;
    if (chains.length === 0) return;
    let interrupted: boolean;
    if (random.oneIn(3)) {
      const batch = chains.slice(0, 1 + random.below(Math.min(chains.length, 8)));
      for (const chain of batch) chain.written = random.below(chain.writable + 1);
      interrupted = this.#device.completeBatch(batch);
      batch.forEach((chain, i) => {
        const skipped = this.#inOrder && i < batch.length - 1;
        this.#completed.push({ token: chain.id, length: skipped ? chain.writable : chain.written });
      });
    } else {
      const chain = this.#inOrder ? (chains[0] as Chain) : random.pick(chains);
      const length = random.below(chain.writable + 1);
      interrupted = this.#device.complete(chain, length);
      this.#completed.push({ token: chain.id, length });
    }
    if (interrupted) this.#counts.interrupted += 1;
    if (this.#driverSleeps && !this.#tainted) {
      expect(interrupted, 'the driver sleeps and was not interrupted');
    }
    this.#driverSleeps = false;
  }

  #pop(): void {
    for (let n = this.#random.below(6); n >= 0; n -= 1) if (this.#popOne() < 0) return;
  }

  #popOne(): number {
    const token = this.#queue.pop();
    const expected = this.#completed.shift();
    if (!this.#tainted) {
      expect(token === (expected?.token ?? -1), `pop() is ${token}, not ${expected?.token ?? -1}`);
      if (expected) {
        expect(
          this.#queue.usedLength === expected.length,
          `length ${this.#queue.usedLength}, not ${expected.length}`,
        );
      }
    }
    if (token >= 0) {
      const chain = this.#published.get(token);
      expect(chain !== undefined, `pop() is ${token}, which is not in flight`);
      expect(
        this.#queue.usedLength >= 0 && this.#queue.usedLength <= chain.writable,
        `length ${this.#queue.usedLength} of ${chain.writable}`,
      );
      this.#published.delete(token);
      this.#counts.popped += 1;
    }
    this.#compare();
    return token;
  }

  #peek(): void {
    const token = this.#queue.peek();
    if (!this.#tainted) expect(token === (this.#completed[0]?.token ?? -1), `peek() is ${token}`);
    else if (token >= 0) expect(this.#published.has(token), `peek() is ${token}, which is not in flight`);
    this.#compare();
  }

  /** The driver asks for interrupts, after it has popped all there is. */
  #sleep(): void {
    if (this.#random.oneIn(4)) {
      this.#queue.disableInterrupts();
      this.#driverSleeps = false;
      return;
    }
    const pending = this.#queue.enableInterrupts();
    if (!this.#tainted) expect(pending === this.#completed.length > 0, `enableInterrupts() is ${pending}`);
    this.#driverSleeps = !pending;
  }

  #toggleSuppression(): void {
    if (this.#random.oneIn(2)) {
      this.#device.suppressNotifications();
      this.#deviceSleeps = false;
    } else {
      this.#device.enableNotifications();
    }
  }

  #lie(): void {
    const random = this.#random;
    this.#tainted = true;
    this.#counts.lies += 1;
    const areas = this.#device.areas;
    switch (random.below(4)) {
      case 0: {
        const id = random.oneIn(2) ? random.below(this.#queue.size + 2) : random.bits();
        this.#device.forceUsed(id, random.oneIn(2) ? random.below(4096) : random.bits());
        return;
      }
      case 1: {
        // Any word of the ring.
        const area = random.pick(areas);
        const bytes = this.#fake.hal.view(area.address, area.length, 'any');
        bytes[random.below(bytes.length)] = random.bits();
        return;
      }
      case 2: {
        // The first words of an area hold its indices and flags.
        const area = random.pick(areas);
        const bytes = this.#fake.hal.view(area.address, Math.min(8, area.length), 'any');
        bytes[random.below(bytes.length)] = random.oneIn(2) ? random.bits() : random.below(3);
        return;
      }
      default: {
        const area = random.pick(areas);
        const bytes = this.#fake.hal.view(area.address, area.length, 'any');
        const start = random.below(bytes.length);
        for (let i = start; i < Math.min(bytes.length, start + 64); i += 1) bytes[i] = random.bits();
      }
    }
  }

  #reset(): void {
    this.#counts.resets += 1;
    this.#transport.reset();
    this.#transport.beginInit({ table: CommonFeatures, supported: this.#options.features });
    this.#queue.reset();
    this.#transport.finishInit();
    this.#device = this.#fake.queue(0);
    this.#published.clear();
    this.#staged.clear();
    this.#completed.length = 0;
    this.#deviceSleeps = false;
    this.#driverSleeps = false;
    this.#tainted = false;
    this.#compare();
  }

  #freeDescriptors(): number {
    let free = this.#queue.size;
    for (const { descriptors } of this.#staged.values()) free -= descriptors;
    for (const { descriptors } of this.#published.values()) free -= descriptors;
    return free;
  }

  #compare(): void {
    const free = this.#freeDescriptors();
    expect(
      this.#queue.availableDescriptors === free,
      `${this.#queue.availableDescriptors} free, not ${free}`,
    );
    expect(
      this.#queue.inFlight === this.#published.size,
      `${this.#queue.inFlight} in flight, not ${this.#published.size}`,
    );
    expect(this.#queue.failure === undefined, 'the queue failed without a word');
  }
}

function expect(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise);
}
