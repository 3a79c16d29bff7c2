/** The device of the fuzzer: slow, answering at any moment, and lying. */
import type { Chain } from '../chain.ts';
import type { ContractDriver } from '../contract/subject.ts';
import type { World } from './world.ts';

/** The device of the fuzzer. */
export class FuzzDevice<D extends ContractDriver> {
  readonly #world: World<D>;
  /** The configuration space before random bytes were written to it. */
  #honest: Uint8Array | undefined;

  constructor(world: World<D>) {
    this.#world = world;
  }

  /** The device answers some of the requests that it has. */
  answer(): void {
    const { held } = this.#world.scene;
    if (this.#world.deaf || held.length === 0 || this.#world.scene.device.removed) return;
    const random = this.#world.random;
    this.#world.did('answer');
    const some = random.oneIn(3) ? [...held] : held.slice(0, 1 + random.below(held.length));
    if (!this.#world.options.ring.inOrder && random.oneIn(2)) some.reverse();
    for (const one of some) {
      if (!held.includes(one)) continue;
      if (this.#world.options.lying && random.oneIn(10)) this.#answerBadly(one.chain, one.mark);
      this.#world.scene.answer([one]);
    }
  }

  /** Answers with random bytes in some places, or with a wrong length, which the driver must cut. */
  #answerBadly(chain: Chain, mark: number): void {
    const random = this.#world.random;
    if (!chain.pending || (chain.readable === 0 && chain.writable === 0)) return;
    this.#world.did(`answer ${mark} badly`);
    this.#world.bad.add(mark);
    this.#world.causes.happened('lie');
    const length = random.pick([
      0,
      random.below(chain.writable + 1),
      chain.writable,
      chain.writable + 1 + random.below(1000),
      0xffffffff,
    ]);
    chain.writeAt(
      0,
      Uint8Array.from({ length: Math.min(length, chain.writable) }, () => random.bits() & 0xff),
    );
    chain.complete(length);
  }

  /** Lies about the ring. The device then does not know the state of the ring, and does nothing until it is reset. */
  lie(): void {
    const { device } = this.#world.scene;
    if (this.#world.deaf || device.removed) return;
    const queues = [...this.#world.kinds, ...this.#world.receives, ...this.#world.transmits].map(
      ({ queue }) => queue,
    );
    const ring = device.queues[this.#world.random.pick(queues)]?.ring;
    if (ring === undefined) return;
    this.#world.did('lie');
    this.#world.causes.happened('lie');
    this.#world.deaf = true;
    device.automatic = false;
    const { size } = ring;
    const id = this.#world.random.pick([
      0xfffe,
      size,
      this.#world.random.below(size),
      this.#world.random.below(size),
      0x10000,
    ]);
    ring.forceUsed(id, this.#world.random.pick([0, 1, this.#world.random.below(5000), 0xffffffff]));
  }

  /** Lets the device act between two accesses of the driver's next operations. */
  soon(): void {
    const { device } = this.#world.scene;
    this.#world.moments?.at(1 + this.#world.random.below(this.#world.random.pick([4, 40])), () => {
      if (this.#world.quiet || this.#world.deaf || device.removed) return;
      this.#world.counts.moments += 1;
      this.#world.did('at a moment');
      if (this.#world.options.lying && this.#world.random.oneIn(8)) this.lie();
      else if (this.#world.random.oneIn(8)) this.provoke();
      else this.answer();
    });
  }

  /** The device says something that makes the driver ask of its own accord. */
  provoke(): void {
    const { device, subject } = this.#world.scene;
    const { own = [] } = subject;
    if (own.length === 0 || device.removed) return;
    this.#world.did('provoke');
    this.#world.random.pick(own).provoke(device);
  }

  /** Writes random bytes to the configuration space, until the device is reset. */
  garble(): void {
    const { device } = this.#world.scene;
    const { config } = device;
    if (device.removed || config.length === 0) return;
    this.#world.did('garble');
    for (const cause of ['lie', 'garble'] as const) this.#world.causes.happened(cause);
    this.#honest ??= config.slice();
    device.changeConfig(() => {
      for (let n = this.#world.random.below(4); n >= 0; n -= 1) {
        config[this.#world.random.below(config.length)] = this.#world.random.bits();
      }
    });
  }

  /** The device was reset: its configuration is that of an honest device again. */
  restore(): void {
    if (this.#honest !== undefined) this.#world.scene.device.config.set(this.#honest);
    this.#honest = undefined;
  }

  /** The device needs a reset. */
  needReset(): void {
    this.#world.did('device needs reset');
    this.#world.causes.happened('needs reset');
    this.#world.scene.device.needsReset();
  }

  /** The device is unplugged. */
  remove(): void {
    this.#world.did('device removed');
    this.#world.causes.happened('removed');
    this.#world.moments?.clear();
    this.#world.scene.device.remove();
  }
}
