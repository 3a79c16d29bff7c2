/** The fuzzer's messages in both directions, and which of them must arrive. */
import { Canceller, check, equal } from '../contract/check.ts';
import type { ContractDriver, Receive, Transmit } from '../contract/subject.ts';
import { increment } from './fuzz-counts.ts';
import type { World } from './world.ts';

/** Marks that must arrive, and marks that may. */
interface Marks {
  readonly must: Set<number>;
  readonly may: Set<number>;
}

/** Sends and receives messages. */
export class FuzzMessages<D extends ContractDriver> {
  readonly #world: World<D>;
  /** By receive queue: marks that were sent and not received, and those that need not arrive. */
  readonly #sent = new Map<Receive<D>, Marks>();
  /** By transmit queue: marks that were accepted and that the device must get, and those that it may get. */
  readonly #offered = new Map<Transmit<D>, Marks>();
  #receiving = 0;
  #sending = 0;

  constructor(world: World<D>) {
    this.#world = world;
    for (const receive of world.receives) this.#sent.set(receive, { must: new Set(), may: new Set() });
    for (const transmit of world.transmits) this.#offered.set(transmit, { must: new Set(), may: new Set() });
  }

  /** Whether a caller waits for a message. */
  get receiving(): boolean {
    return this.#receiving > 0;
  }

  /** Messages that wait for room. */
  get sending(): number {
    return this.#sending;
  }

  receive(): void {
    if (this.#world.receives.length === 0) return;
    const random = this.#world.random;
    const receive = random.pick(this.#world.receives);
    const { driver, device } = this.#world.scene;
    const state = this.#sent.get(receive);
    if (state === undefined) return;
    const since = this.#world.causes.since();
    const got = (mark: number): void => {
      if (mark === -1) return;
      const known = state.must.delete(mark) || state.may.delete(mark);
      const lied = this.#world.dirty || this.#world.causes.after('lie', since.reset);
      increment(this.#world.counts.ends, 'received');
      check(known || lied, `received ${mark}, which was not sent, or was received before`);
    };
    switch (random.below(4)) {
      case 0:
        if (this.#world.deaf || device.removed || device.queues[receive.queue]?.ring === undefined) return;
        this.#world.did('device sends');
        for (let n = random.below(4); n >= 0; n -= 1) {
          this.#send(receive, state);
        }
        return;
      case 1:
        this.#world.did('take');
        this.#world.call('take', () => {
          for (let n = random.below(4); n >= 0; n -= 1) got(receive.take(driver));
        });
        return;
      case 2: {
        if (receive.promise === undefined) return;
        this.#world.did('wait for a message');
        const canceller = new Canceller();
        this.#world.cancellers.push(canceller);
        this.#receiving += 1;
        receive.promise(driver, { signal: canceller.signal }).then(
          (mark) => {
            this.#receiving -= 1;
            this.#world.guard(() => got(mark));
          },
          (error: unknown) => {
            this.#receiving -= 1;
            const allowed = this.#world.endsOfWaits(canceller);
            this.#world.guard(() => this.#world.judge(error, since, 'a wait for a message', allowed));
          },
        );
        return;
      }
      default:
        if (receive.sync === undefined) return;
        this.#world.did('receive sync');
        this.#world.spin(() => {
          try {
            got(receive.sync?.(driver, { timeoutMs: 0 }) ?? -1);
          } catch (error) {
            this.#world.judge(error, since, 'receive sync', ['NOT_READY']);
          }
        });
    }
  }

  /** Makes the device send a message, which the driver may take before this returns. */
  #send(receive: Receive<D>, { must, may }: Marks): boolean {
    const mark = this.#world.scene.mark();
    const { made, ready } = this.#world.causes.since();
    may.add(mark);
    const sent = receive.send(this.#world.scene.device, mark);
    // A listener that is called meanwhile may have reset the driver, and the message is then lost; so it is if what stands on the driver
    // (a connection) has not been made anew since a reset.
    const { subject } = this.#world.scene;
    if (this.#world.causes.restarted(subject.ready === undefined ? made : Math.min(made, ready))) return sent;
    if (may.delete(mark) && sent) must.add(mark);
    return sent;
  }

  transmit(): void {
    if (this.#world.transmits.length === 0) return;
    const random = this.#world.random;
    const transmit = random.pick(this.#world.transmits);
    const state = this.#offered.get(transmit);
    if (state === undefined) return;
    const { driver } = this.#world.scene;
    const mark = this.#world.scene.mark();
    const since = this.#world.causes.since();
    const accepted = (): void => {
      increment(this.#world.counts.ends, 'sent');
      // It may have arrived already, or have been lost to a reset.
      if (state.may.has(mark) && !this.#world.causes.restarted(since.made)) {
        state.may.delete(mark);
        state.must.add(mark);
      }
    };
    state.may.add(mark);
    switch (random.below(3)) {
      case 0:
        if (transmit.offer === undefined) break;
        this.#world.did(`offer ${mark}`);
        this.#world.call('offer', () => {
          if (transmit.offer?.(driver, mark) === true) accepted();
        });
        return;
      case 1: {
        if (transmit.promise === undefined) break;
        this.#world.did(`send ${mark}`);
        const canceller = new Canceller();
        this.#world.cancellers.push(canceller);
        this.#sending += 1;
        transmit.promise(driver, mark, { signal: canceller.signal }).then(
          () => {
            this.#sending -= 1;
            accepted();
          },
          (error: unknown) => {
            this.#sending -= 1;
            const allowed = this.#world.endsOfWaits(canceller);
            this.#world.guard(() => this.#world.judge(error, since, `sending ${mark}`, allowed));
          },
        );
        return;
      }
      default:
        if (transmit.sync === undefined) break;
        this.#world.did(`send sync ${mark}`);
        this.#world.spin(() => {
          try {
            transmit.sync?.(driver, mark, { timeoutMs: 0 });
            accepted();
          } catch (error) {
            this.#world.judge(error, since, `sending ${mark}`, ['NOT_READY', 'QUEUE_FULL']);
          }
        });
        return;
    }
    state.may.delete(mark);
  }

  /** Takes all messages that are there. */
  async #takeAll(receive: Receive<D>): Promise<number[]> {
    const marks: number[] = [];
    for (let quiet = 0; quiet < 3;) {
      const mark = receive.take(this.#world.scene.driver);
      if (mark !== -1) marks.push(mark);
      else {
        quiet += 1;
        await this.#world.scene.turn();
      }
    }
    return marks;
  }

  /** Checks that no message is lost while the device is honest, and that it has as many buffers as at the start. */
  async check(): Promise<void> {
    for (const receive of this.#world.receives) {
      const state = this.#sent.get(receive);
      if (state === undefined) continue;
      if (this.#world.dirty) {
        // Its last bytes may be joined with the next message.
        await this.#takeAll(receive);
        this.#send(receive, state);
        await this.#takeAll(receive);
        state.must.clear();
        state.may.clear();
      }
      for (let round = 0; round < 2; round += 1) {
        for (let n = 0; n < this.#world.options.queueSize; n += 1) {
          this.#send(receive, state);
        }
        for (const mark of await this.#takeAll(receive)) {
          check(state.must.delete(mark) || state.may.delete(mark), `received ${mark}, which was not sent`);
        }
        equal([...state.must].join(), '', 'messages that were sent and did not arrive');
      }
      check(this.#send(receive, state), 'the driver has no buffer for a message');
      state.may.clear();
    }
    this.#world.dirty = false;
    this.look();
    for (const [transmit, { must, may }] of this.#offered) {
      equal([...must].join(), '', `messages that were sent by queue ${transmit.queue} and did not arrive`);
      may.clear();
    }
  }

  /** Checks that the messages that the device got through transmit queues were sent. */
  look(): void {
    for (const mark of this.#world.scene.received.splice(0)) {
      if (this.#world.causes.tainted) continue;
      const known = [...this.#offered.values()].some(
        ({ must, may }) => must.delete(mark) || may.delete(mark),
      );
      check(known, `the device got message ${mark}, which was not sent, or it got it twice`);
    }
  }

  /** Checks that no caller waits any more. */
  checkEnded(why: string): void {
    equal(this.#receiving, 0, `waits for messages that did not end ${why}`);
    equal(this.#sending, 0, `messages that were not sent ${why}`);
  }

  /** Records that messages in flight are lost, of all queues or of one. */
  void(queue?: number): void {
    for (const [kind, { must, may }] of [...this.#sent, ...this.#offered]) {
      if (queue !== undefined && kind.queue !== queue) continue;
      for (const mark of must) may.add(mark);
      must.clear();
    }
  }
}
