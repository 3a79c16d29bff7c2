/**
 * One episode of the queue's fuzzer: a driver, a device and a model of a correct queue take random steps, and after each
 * step the queue must be what the model says.
 *
 * While the device is honest, all is exact: tokens, order, lengths, what the device sees of a chain, free descriptors, and
 * that no notification or interrupt that somebody waits for is lost. After a harmless lie (see `lies.ts`) the device
 * goes on from the model, since it can no longer read the ring, and what the driver pops is as exact as before. After any
 * other the queue may go on for as long as each token that it returns was in flight and no length exceeds what was offered;
 * or it throws `DEVICE_MISBEHAVED`, the device is marked as failed, and both sides start over. It never does anything else.
 */
import {
  CommonFeatures,
  createQueue,
  DeviceStatus,
  DeviceType,
  type DmaRegion,
  VirtioError,
  type VirtQueue,
} from '@virtio/core';
import {
  type Chain,
  type DeviceQueue,
  DriverViolation,
  FakeDevice,
  FakeHal,
  FakeTransport,
  Moments,
  PackedDeviceQueue,
  Random,
} from '@virtio/testing';
import { Builder, BUFFER_PAGES } from './builder.ts';
import { harmlessLies, lies, type Scene } from './lies.ts';
import { Model } from './model.ts';
import { emptyCounts, type EpisodeCounts, type EpisodeOptions, expect, increment } from './options.ts';

/** The queue did what it must not do. */
export class Finding extends Error {
  override readonly name = 'Finding';
}

/** Above 4 GiB, so that both halves of an address count. */
const BASE = 3 * 2 ** 32 + 0x10_0000;

/** Both sides start over once in so many steps after a lie, since a device that can no longer read the ring soon stands still. */
const PATIENCE = { honest: 0, blind: 5000, tainted: 200 } as const;

/**
 * Runs one episode.
 *
 * @throws {@link Finding} with the step at which the queue went wrong
 */
export function runEpisode(options: EpisodeOptions, counts: EpisodeCounts = emptyCounts()): EpisodeCounts {
  using moments = new Moments();
  const episode = new Episode(options, counts, moments);
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
  readonly #moments: Moments;
  readonly #fake: FakeDevice;
  readonly #transport: FakeTransport;
  readonly #queue: VirtQueue;
  readonly #model: Model;
  readonly #builder: Builder;
  readonly #buffers: DmaRegion;
  readonly #tables: DmaRegion | undefined;
  readonly #inOrder: boolean;
  #device: DeviceQueue;

  /** The device found nothing and asked to be notified, or has not looked yet: it is asleep when it starts. */
  #deviceSleeps = true;
  /** Chains were published while it slept, and the driver has not looked whether to notify. */
  #mustNotify = false;
  /** The driver found nothing and asked to be interrupted. */
  #driverSleeps = false;
  /** `blind` after a harmless lie, `tainted` after any other. */
  #trust: keyof typeof PATIENCE = 'honest';
  #firstLie = '';
  #lastPopped = -1;

  constructor(options: EpisodeOptions, counts: EpisodeCounts, moments: Moments) {
    this.#options = options;
    this.#moments = moments;
    this.#counts = counts;
    this.#random = new Random(options.seed);
    const { features: names, size, tableLength, legacy } = options;
    const hal = new FakeHal(legacy ? {} : { base: BASE });
    this.#fake = new FakeDevice({
      type: DeviceType.EntropySource,
      features: CommonFeatures.set(...names).bits,
      queues: [size],
      legacy,
      hal,
    });
    this.#fake.recordNotifications = false;
    this.#transport = new FakeTransport(this.#fake, { interrupts: false });
    this.#buffers = hal.dmaAlloc(BUFFER_PAGES, 'both', false);
    const features = this.#transport.beginInit({ table: CommonFeatures, supported: names });
    this.#inOrder = features.has('IN_ORDER');
    this.#queue = createQueue(this.#transport, hal, features, { index: 0, size, tableLength });
    this.#transport.finishInit();
    this.#model = new Model(this.#queue.size);
    this.#builder = new Builder(options, counts, this.#random, this.#queue, this.#model, this.#buffers);
    this.#device = this.#fake.queue(0);
    this.#tables = hal.regions.find(
      ({ address, bytes }) =>
        address !== this.#buffers.address &&
        !this.#device.areas.some((area) => area.address >= address && area.address < address + bytes.length),
    );
  }

  run(): void {
    const { steps, lieOneIn, resetOneIn } = this.#options;
    for (; this.step < steps; this.step += 1) {
      this.#counts.steps += 1;
      try {
        if (this.#random.oneIn(lieOneIn)) this.#lieSoon();
        if (this.#random.oneIn(resetOneIn) || this.#random.oneIn(PATIENCE[this.#trust])) this.#reset();
        this.#act();
      } catch (error) {
        this.#judge(error);
      }
    }
    this.#moments.clear();
    this.#transport.reset();
    this.#queue[Symbol.dispose]();
    this.#fake.hal.dmaDealloc(this.#buffers, false);
    // Checks the guards around all memory, and that none is left.
    this.#fake.hal.assertClean();
  }

  /** An error is right if the device has lied, it is the one error for that, and the device is marked as failed. */
  #judge(error: unknown): void {
    // What the device itself has overwritten is no longer the driver's work.
    if (this.#trust !== 'honest' && error instanceof DriverViolation) return;
    if (this.#trust !== 'tainted' || !VirtioError.is(error, 'DEVICE_MISBEHAVED')) throw error;
    expect(this.#transport.getStatus().has(DeviceStatus.FAILED), 'the device is not marked as failed');
    expect(this.#queue.failure === error, 'the queue does not remember its failure');
    increment(this.#counts.caught, this.#firstLie);
    this.#reset();
  }

  #act(): void {
    switch (this.#random.below(14)) {
      case 0:
      case 1:
      case 2:
        this.#builder.build();
        this.#compare();
        return;
      case 3:
        this.#publish();
        return;
      case 4:
        this.#kick();
        return;
      case 5:
        this.#publish();
        this.#kick();
        return;
      case 6:
        this.#takeAvailable();
        return;
      case 7:
      case 8:
        this.#complete();
        return;
      case 9:
      case 10:
        this.#pop();
        return;
      case 11:
        this.#sleep();
        return;
      default:
        if (this.#random.oneIn(2)) {
          this.#builder.misuse();
          this.#compare();
        } else this.#toggleSuppression();
    }
  }

  #publish(): void {
    const some = this.#model.staged.size > 0;
    this.#queue.publish();
    this.#model.publish();
    if (some && this.#deviceSleeps) {
      this.#mustNotify = true;
      this.#deviceSleeps = false;
    }
    this.#compare();
  }

  #kick(): void {
    const notified = this.#queue.kick();
    if (notified) this.#counts.notified += 1;
    if (this.#mustNotify && this.#trust === 'honest') {
      expect(notified, 'the device sleeps and was not notified');
    }
    this.#mustNotify = false;
  }

  #takeAvailable(): void {
    if (this.#trust === 'blind') return;
    this.#mustNotify = false;
    this.#device.enableNotifications();
    for (let n = this.#random.below(8); n >= 0; n -= 1) {
      const chain: Chain | undefined = this.#device.pop();
      if (chain === undefined) {
        this.#deviceSleeps = true;
        return;
      }
      if (this.#trust === 'honest') this.#compareChain(chain);
    }
  }

  /** What the device sees must be what was pushed. */
  #compareChain({ id, elements }: Chain): void {
    const expected = this.#model.published.get(id);
    expect(expected !== undefined, `the device sees chain ${id}, which was not published`);
    const { buffers } = expected;
    expect(
      elements.length * 3 === buffers.length,
      `the device sees ${elements.length} buffers in chain ${id}`,
    );
    elements.forEach(({ address, length, writable }, i) => {
      expect(
        address === buffers[3 * i] &&
          length === buffers[3 * i + 1] &&
          Number(writable) === buffers[3 * i + 2],
        `the device sees ${length} bytes at ${address} as buffer ${i} of chain ${id}`,
      );
    });
  }

  #complete(): void {
    if (this.#trust === 'blind') {
      this.#completeUnseen();
      return;
    }
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
        this.#model.complete(chain.id, skipped ? chain.writable : chain.written);
      });
    } else {
      const chain = this.#inOrder ? (chains[0] as Chain) : random.pick(chains);
      const length = random.below(chain.writable + 1);
      interrupted = this.#device.complete(chain, length);
      this.#model.complete(chain.id, length);
    }
    if (interrupted) this.#counts.interrupted += 1;
    if (this.#driverSleeps && this.#trust === 'honest') {
      expect(interrupted, 'the driver sleeps and was not interrupted');
    }
    this.#driverSleeps = false;
  }

  /** Uses a chain that the device need not have found in the ring, where nothing can be found any more. */
  #completeUnseen(): void {
    const { unused, published } = this.#model;
    if (unused.size === 0) return;
    const token = this.#inOrder ? first(unused) : this.#random.pick([...unused]);
    const { writable, descriptors } = published.get(token) ?? { writable: 0, descriptors: 1 };
    const length = this.#random.below(writable + 1);
    this.#model.complete(token, length);
    if (this.#device instanceof PackedDeviceQueue) this.#device.forceUsed(token, length, descriptors);
    else this.#device.forceUsed(token, length);
  }

  #pop(): void {
    for (let n = this.#random.below(6); n >= 0; n -= 1) if (this.#popOne() < 0) return;
  }

  #popOne(): number {
    const token = this.#queue.pop();
    const { usedLength } = this.#queue;
    const expected = this.#model.completed.shift();
    if (this.#trust !== 'tainted') {
      expect(token === (expected?.token ?? -1), `pop() is ${token}, not ${expected?.token ?? -1}`);
      if (expected) expect(usedLength === expected.length, `length ${usedLength}, not ${expected.length}`);
    }
    if (token >= 0) {
      const chain = this.#model.pop(token);
      expect(usedLength >= 0 && usedLength <= chain.writable, `length ${usedLength} of ${chain.writable}`);
      this.#lastPopped = token;
      this.#counts.popped += 1;
      if (this.#builder.busy) this.#counts.poppedMeanwhile += 1;
    }
    this.#compare();
    return token;
  }

  /** The driver asks for interrupts, after it has popped all there is, or for none. */
  #sleep(): void {
    if (this.#random.oneIn(4)) {
      this.#queue.disableInterrupts();
      this.#driverSleeps = false;
      return;
    }
    const pending = this.#queue.enableInterrupts();
    if (this.#trust !== 'tainted') {
      expect(pending === this.#model.completed.length > 0, `enableInterrupts() is ${pending}`);
    }
    this.#driverSleeps = !pending;
  }

  #toggleSuppression(): void {
    if (this.#random.oneIn(2)) {
      this.#device.suppressNotifications();
      this.#deviceSleeps = false;
      this.#mustNotify = false;
    } else {
      this.#device.enableNotifications();
    }
  }

  /** Lies now, or in the midst of what the driver does next. */
  #lieSoon(): void {
    if (this.#random.oneIn(2)) this.#lie();
    else {
      this.#moments.at(1 + this.#random.below(6), () => {
        this.#lie();
      });
    }
  }

  #lie(): void {
    const random = this.#random;
    const harmless = random.oneIn(3);
    const [name, lie] = random.pick(Object.entries(harmless ? harmlessLies : lies));
    if (!harmless) {
      if (this.#trust !== 'tainted') this.#firstLie = name;
      this.#trust = 'tainted';
    } else if (this.#trust === 'honest') {
      this.#trust = 'blind';
    }
    increment(this.#counts.lies, name);
    const { unused, published, staged } = this.#model;
    const inFlight = unused.size > 0 ? (random.oneIn(2) ? first(unused) : random.pick([...unused])) : -1;
    const scene: Scene = {
      random,
      hal: this.#fake.hal,
      ring: this.#device,
      tables: this.#tables,
      inFlight,
      offered: published.get(inFlight)?.writable ?? 0,
      staged: staged.size > 0 ? first(staged.keys()) : -1,
      popped: this.#lastPopped,
    };
    try {
      lie(scene);
    } catch (error) {
      // The device model looks at what the driver wrote, and at what it has itself overwritten.
      if (!(error instanceof DriverViolation)) throw error;
    }
  }

  #reset(): void {
    this.#moments.clear();
    this.#counts.resets += 1;
    if (
      this.#options.features.includes('RING_RESET') &&
      this.#queue.failure === undefined &&
      this.#random.oneIn(2)
    ) {
      this.#transport.queueReset(0);
      this.#queue.reset();
    } else {
      this.#transport.reset();
      this.#transport.beginInit({ table: CommonFeatures, supported: this.#options.features });
      this.#queue.reset();
      this.#transport.finishInit();
    }
    this.#device = this.#fake.queue(0);
    this.#model.clear();
    this.#builder.forget();
    this.#deviceSleeps = true;
    this.#mustNotify = false;
    this.#driverSleeps = false;
    this.#trust = 'honest';
    this.#lastPopped = -1;
    this.#compare();
  }

  #compare(): void {
    const { free, published } = this.#model;
    const { availableDescriptors, inFlight, failure } = this.#queue;
    expect(availableDescriptors === free, `${availableDescriptors} free, not ${free}`);
    expect(inFlight === published.size, `${inFlight} in flight, not ${published.size}`);
    expect(failure === undefined, 'the queue failed without a word');
  }
}

function first(tokens: Iterable<number>): number {
  for (const token of tokens) return token;
  return -1;
}
