/** One driver with its device, from construction to disposal, with random steps in between. */
import { LISTENER_ERROR } from '../contract/behaviour.ts';
import { check, describeError, equal } from '../contract/check.ts';
import { Scene } from '../contract/scene.ts';
import type { ContractDriver, Requests, Subject } from '../contract/subject.ts';
import { FakeTransport } from '../fake-transport.ts';
import type { FuzzCounts } from './fuzz-counts.ts';
import { FuzzDevice } from './fuzz-device.ts';
import { FuzzMessages } from './fuzz-messages.ts';
import { FuzzRequests } from './fuzz-requests.ts';
import { Moments } from './moments.ts';
import { type LifeOptions, World } from './world.ts';

/** How deep calls from inside may be nested. */
const MAX_DEPTH = 3;
/** The longest time of a step; a longer one counts as a hang. */
const STEP_MS = 20_000;

/** One life of a driver. */
export class Life<D extends ContractDriver> {
  step = 0;

  readonly #world: World<D>;
  readonly #requests: FuzzRequests<D>;
  readonly #messages: FuzzMessages<D>;
  readonly #device: FuzzDevice<D>;
  readonly #clock: () => number;
  readonly #capacities = new Map<Requests<D>, number>();
  /** Of listeners for what is used. */
  readonly #removers: (() => void)[] = [];
  #failuresSinceReset = 0;
  /** Whether the last reset failed, which its caller knows. */
  #resetFailed = false;

  constructor(subject: Subject<D>, options: LifeOptions, counts: FuzzCounts, clock: () => number) {
    this.#clock = clock;
    const { ring, wake, queueSize } = options;
    // With interrupts inside calls the driver would be called from within itself, which no device can do.
    const moments = wake === 'interrupts inside of calls' ? undefined : new Moments();
    const onLook = (): void => this.#insideOfSpin();
    const scene = new Scene(subject, {
      ring,
      wake,
      queueSize,
      transport: (device, transportOptions) =>
        new (class extends FakeTransport {
          override checkAlive(): void {
            onLook();
            super.checkAlive();
          }
        })(device, transportOptions),
    });
    this.#world = new World(subject, options, counts, scene, moments);
    this.#requests = new FuzzRequests(this.#world);
    this.#messages = new FuzzMessages(this.#world);
    this.#device = new FuzzDevice(this.#world);
    scene.device.recordNotifications = false;
    const { onReset } = scene.device;
    scene.device.onReset = () => {
      onReset?.();
      this.#deviceWasReset();
    };
  }

  /** What was done last. */
  get trace(): readonly string[] {
    return this.#world.trace;
  }

  async run(): Promise<void> {
    const { scene, options, counts, causes, random, moments, kinds } = this.#world;
    const { subject } = scene;
    try {
      await scene.ready();
      causes.happened('ready');
      for (const requests of kinds) this.#capacities.set(requests, await scene.capacity(requests));
      scene.received.length = 0;
      this.#listen();
      scene.onRequest = () => this.#insideOfDevice();
      for (; this.step < options.steps && !causes.disposed; this.step += 1) {
        counts.steps += 1;
        const start = this.#clock();
        if (subject.ready !== undefined && causes.restarted(causes.since().ready)) await this.#ready();
        await this.#act();
        this.#look();
        // After the device is removed there is not much more to test.
        if (causes.removed && random.oneIn(20)) break;
        check(this.#clock() - start < STEP_MS, 'a step took longer than 20 s');
      }
      await this.#end();
    } finally {
      moments?.[Symbol.dispose]();
      counts.accesses += scene.device.hal.counts.deviceAccesses;
    }
  }

  async #act(): Promise<void> {
    const random = this.#world.random;
    const { troubled, lying } = this.#world.options;
    const { kinds } = this.#world;
    if (this.#world.deaf && random.oneIn(15)) {
      this.#reset();
      await this.#ready();
      return;
    }
    const what = random.below(27);
    if (kinds.length === 0 && what < 10) {
      if (random.oneIn(2)) this.#messages.receive();
      else this.#messages.transmit();
      return;
    }
    switch (what) {
      case 0:
      case 1:
      case 2:
        for (let n = random.below(4); n >= 0; n -= 1) this.#requests.promise();
        return;
      case 3:
      case 4:
        this.#requests.sync();
        return;
      case 5:
      case 6:
        for (let n = random.below(3); n >= 0; n -= 1) this.#requests.submit();
        return;
      case 7:
      case 8:
        this.#requests.poll();
        return;
      case 9:
        this.#requests.useToken();
        return;
      case 10:
        if (random.oneIn(6)) this.#requests.transfer();
        else this.#requests.abort();
        return;
      case 11:
      case 12:
      case 13:
        this.#device.answer();
        return;
      case 14:
      case 15:
        await this.#world.scene.turn();
        return;
      case 16:
        for (let n = random.below(6); n >= 0; n -= 1) await Promise.resolve();
        return;
      case 17:
        this.#messages.receive();
        return;
      case 18:
        this.#messages.receive();
        return;
      case 19:
        this.#messages.transmit();
        return;
      case 20:
        this.#messages.transmit();
        return;
      case 21:
        this.#nuisance();
        return;
      case 22:
        this.#device.soon();
        return;
      case 23:
        if (random.oneIn(6)) await this.#check();
        return;
      case 24:
        if (!lying || !random.oneIn(4)) return;
        if (random.oneIn(2)) this.#device.lie();
        else this.#device.garble();
        return;
      case 25:
        this.#device.provoke();
        return;
      default:
        if (troubled && random.oneIn(4)) await this.#trouble();
    }
  }

  /** Something that changes the life of the driver. */
  async #trouble(): Promise<void> {
    const { random, scene } = this.#world;
    const what = random.below(60);
    if (what < 20 || (what > 50 && scene.driver.failure !== undefined)) {
      this.#reset();
      await this.#ready();
    } else if (what < 34) {
      this.#resetQueue();
      await this.#ready();
    } else if (what < 43) this.#device.needReset();
    else if (what === 43) this.#device.remove();
    else if (what === 44) this.#dispose();
  }

  /** Calls the driver from within a listener, the device, or a call that spins. */
  #inside(where: string): void {
    const random = this.#world.random;
    if (
      !this.#world.options.reentrant ||
      this.#world.quiet ||
      this.#world.depth >= MAX_DEPTH ||
      !random.oneIn(6)
    ) {
      return;
    }
    this.#world.depth += 1;
    this.#world.counts.inside += 1;
    this.#world.trace.push(`(${where}:`);
    const spinning = this.#world.spinning;
    this.#world.spinning = false;
    try {
      switch (random.below(13)) {
        case 0:
          this.#device.provoke();
          return;
        case 1:
        case 12:
          this.#requests.promise();
          return;
        case 2:
          this.#requests.submit();
          return;
        case 3:
          this.#requests.poll();
          return;
        case 4:
          this.#requests.useToken();
          return;
        case 5:
          if (random.oneIn(4)) this.#requests.transfer();
          else this.#requests.abort();
          return;
        case 6:
          this.#requests.abort();
          return;
        case 7:
          this.#messages.receive();
          return;
        case 8:
          this.#messages.transmit();
          return;
        case 9:
          if (this.#world.options.troubled && random.oneIn(3)) this.#reset();
          return;
        case 10:
          if (this.#world.options.troubled && random.oneIn(30)) this.#dispose();
          return;
        default:
          if (this.#world.options.troubled && random.oneIn(4)) {
            this.#device.needReset();
          }
      }
    } finally {
      this.#world.spinning = spinning;
      this.#world.depth -= 1;
      this.#world.trace.push(')');
    }
  }

  /** Handles that the device got a request; returns false if it shall not answer. */
  #insideOfDevice(): boolean {
    const scene = this.#world.scene;
    if (this.#world.quiet) return true;
    scene.answering = this.#world.random.oneIn(this.#world.spinning ? 2 : 3);
    this.#inside('device');
    return !this.#world.deaf;
  }

  /** A call that spins checks whether the device still works. */
  #insideOfSpin(): void {
    if (!this.#world.spinning || this.#world.quiet) return;
    const random = this.#world.random;
    if (random.oneIn(2)) this.#device.answer();
    if (this.#world.options.lying && random.oneIn(20)) this.#device.lie();
    if (this.#world.options.troubled && random.oneIn(20)) {
      this.#device.needReset();
    }
    this.#inside('spin');
  }

  #listen(): void {
    const { driver } = this.#world.scene;
    driver.on('quirk', () => {
      if (this.#world.quiet || !this.#world.options.reentrant) return;
      this.#inside('listener');
      if (this.#world.random.oneIn(8)) this.#reset();
    });
    driver.on('failure', () => {
      this.#failuresSinceReset += 1;
      this.#inside('listener');
      if (!this.#world.quiet && this.#world.options.reentrant && this.#world.random.oneIn(4)) this.#reset();
      if (!this.#world.quiet && this.#world.options.throwing && this.#world.random.oneIn(4)) {
        throw new Error(LISTENER_ERROR);
      }
    });
  }

  /** Adds or removes a listener for used buffers. */
  #listenForUsed(): void {
    const remove = this.#removers.pop();
    if (remove !== undefined && this.#world.random.oneIn(2)) {
      remove();
      return;
    }
    if (remove !== undefined) this.#removers.push(remove);
    this.#world.did('listen for used');
    this.#world.call('on used', () => {
      const added = this.#world.scene.driver.on('used', () => {
        if (this.#world.quiet) return;
        this.#world.guard(() => {
          if (this.#world.random.oneIn(2)) this.#requests.poll();
          this.#inside('used');
        });
      });
      this.#removers.push(added);
    });
  }

  #nuisance(): void {
    const { interrupts, driver, device } = this.#world.scene;
    const random = this.#world.random;
    switch (random.below(6)) {
      case 0:
        if (interrupts) interrupts.masked = !interrupts.masked;
        return;
      case 4:
        this.#listenForUsed();
        return;
      case 1:
        this.#world.did('pollEvents');
        this.#world.call('pollEvents', () => driver.pollEvents());
        return;
      case 2:
        if (device.removed) return;
        this.#world.did('interrupt');
        interrupts?.fireQueue(random.below(device.queues.length));
        return;
      case 3:
        interrupts?.fireConfig();
        return;
      default:
        this.#world.causes.happened('share');
        device.hal.failShare({ after: random.below(3), count: random.below(3) });
    }
  }

  #reset(): void {
    this.#world.did('reset');
    // Requests in flight end; failures from before remain until the device is reset.
    this.#world.causes.happened('queue reset');
    const since = this.#world.causes.since();
    const spinning = this.#world.spinning;
    this.#world.spinning = false;
    try {
      this.#world.scene.driver.reset();
    } catch (error) {
      // Another reset from within this one may have overtaken it.
      this.#world.judge(error, { ...since, reset: 0 }, 'reset', ['DEVICE_RESET']);
      this.#resetFailed = true;
    } finally {
      this.#world.spinning = spinning;
    }
  }

  #resetQueue(): void {
    const { driver, device } = this.#world.scene;
    if (driver.resetQueue === undefined || !device.has('RING_RESET') || this.#world.causes.tainted) return;
    const queue = this.#world.random.pick([
      ...this.#world.kinds,
      ...this.#world.receives,
      ...this.#world.transmits,
    ]).queue;
    this.#world.did(`reset of queue ${queue}`);
    this.#world.causes.happened('queue reset');
    this.#world.call('resetQueue', () => {
      driver.resetQueue?.(queue);
      this.#requests.void(queue);
      this.#messages.void(this.#world.scene.subject.queuesAreOne === true ? undefined : queue);
    });
  }

  #deviceWasReset(): void {
    const { device } = this.#world.scene;
    this.#device.restore();
    if (this.#world.causes.tainted || this.#world.deaf) {
      device.violations.length = 0;
      this.#world.dirty = true;
    }
    this.#world.deaf = false;
    device.automatic = true;
    this.#failuresSinceReset = 0;
    this.#resetFailed = false;
    // The driver's own part of the reset follows; what matters is that nothing from before reaches a caller.
    this.#world.causes.happened('reset');
    this.#requests.void();
    this.#messages.void();
  }

  #dispose(): void {
    this.#world.did('dispose');
    this.#world.causes.happened('disposed');
    this.#world.spinning = false;
    this.#world.call('dispose', () => this.#world.scene.driver[Symbol.dispose]());
  }

  async #ready(): Promise<void> {
    const { causes, scene, moments } = this.#world;
    if (causes.disposed || causes.removed || scene.driver.failure !== undefined || this.#world.deaf) return;
    const since = causes.since();
    if (!causes.restarted(since.ready)) return;
    const { quiet } = this.#world;
    const { answering } = scene;
    // The device is honest meanwhile.
    this.#world.quiet = true;
    scene.answering = true;
    moments?.clear();
    scene.device.hal.failShare({ count: 0 });
    if (scene.interrupts) scene.interrupts.masked = false;
    try {
      // Requests that are left in other queues may take the room that is needed.
      for (let n = 0; scene.subject.ready !== undefined && n < 4; n += 1) {
        scene.answer();
        scene.driver.pollEvents();
        this.#requests.completeAll();
        await scene.turn();
      }
      await scene.ready();
      causes.happened('ready');
    } catch (error) {
      // A device may need a reset of which its driver learns only now.
      causes.judge(error, since, 'making the driver ready', []);
    } finally {
      this.#world.quiet = quiet;
      scene.answering = answering;
    }
  }

  /** Checks that the messages that the device got through transmit queues were sent. */
  #look(): void {
    const scene = this.#world.scene;
    this.#messages.look();
    const [finding] = this.#world.findings;
    if (finding !== undefined) throw finding as Error;
    const { failure } = scene.driver;
    check(
      failure === undefined ||
        this.#failuresSinceReset > 0 ||
        this.#resetFailed ||
        this.#world.causes.disposed,
      `the driver has failed without reporting it: ${describeError(failure)}`,
    );
    check(
      this.#failuresSinceReset <= 1,
      `${this.#failuresSinceReset} failures were reported without a reset in between`,
    );
    if (!this.#world.causes.tainted) {
      scene.device.assertObeyed();
      equal(scene.device.hal.counts.faults, 0, 'accesses of the device to memory that it was not offered');
    } else {
      scene.device.hal.counts.faults = 0;
    }
    equal(scene.device.hal.misuse.join(), '', 'what the driver did wrong with memory');
  }

  /** Checks, with an honest device and nothing in flight, that nothing is lost. */
  async #check(): Promise<void> {
    const scene = this.#world.scene;
    if (this.#world.causes.disposed || this.#world.causes.removed) return;
    this.#world.did('check');
    this.#world.quiet = true;
    try {
      this.#world.moments?.clear();
      for (const remove of this.#removers.splice(0)) remove();
      scene.device.hal.failShare({ count: 0 });
      if (scene.interrupts) scene.interrupts.masked = false;
      scene.answering = true;
      await scene.settle();
      if (scene.driver.failure !== undefined || this.#world.causes.tainted || scene.device.status.has(0x40)) {
        this.#reset();
        await scene.settle();
      }
      // A reset from within the last call may have ended what stands on the driver.
      await this.#ready();
      await this.#drain();
      this.#look();
      this.#world.counts.checks += 1;
      for (const requests of this.#world.kinds) {
        equal(
          await scene.capacity(requests),
          this.#capacities.get(requests),
          'requests that the device gets at once',
        );
      }
      await scene.works(3);
      await this.#messages.check();
      await scene.idle();
      scene.received.length = 0;
    } finally {
      this.#world.quiet = false;
      scene.answering = this.#world.random.oneIn(2);
    }
  }

  /** Lets all that is in flight end. */
  async #drain(): Promise<void> {
    const scene = this.#world.scene;
    // Callers that wait for messages would wait for ever.
    for (const canceller of this.#messages.receiving ? this.#world.cancellers : []) canceller.abort();
    const { counts } = scene.device.hal;
    for (let n = 0; n < 200; n += 1) {
      const before = counts.deviceAccesses;
      scene.answer();
      scene.driver.pollEvents();
      this.#requests.completeAll();
      await scene.turn();
      const over = this.#requests.pending + scene.held.length + this.#messages.sending === 0;
      // What the driver asks of its own accord may wait for room, one request behind the other.
      if (over && n > 3 && counts.deviceAccesses === before) break;
    }
    this.#requests.checkEnded('though the device answered');
    this.#messages.checkEnded('though the device takes all');
    this.#world.cancellers.length = 0;
    this.#requests.checkOver();
  }

  async #end(): Promise<void> {
    const scene = this.#world.scene;
    if (!this.#world.causes.disposed && this.#world.random.oneIn(2)) await this.#check();
    this.#world.moments?.clear();
    this.#world.quiet = true;
    const tainted = this.#world.causes.tainted;
    if (!this.#world.causes.disposed) this.#dispose();
    await scene.settle();
    if (scene.interrupts) scene.interrupts.masked = false;
    await scene.settle();
    const [finding] = this.#world.findings;
    if (finding !== undefined) throw finding as Error;
    this.#requests.void();
    this.#requests.checkEnded('after dispose');
    this.#messages.checkEnded('after dispose');
    this.#requests.checkOver();
    if (tainted) scene.device.violations.length = 0;
    await scene.end();
  }
}
