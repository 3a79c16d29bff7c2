/** The contract: tests of what every driver must do, run on one driver with rings of all kinds and in all environments. */
import { ringVariants, type RingVariant } from '../ring-variants.ts';
import { CommonFeatures } from '@virtio/core';
import { type Behaviour, LISTENER_ERROR } from './behaviour.ts';
import { check, equal } from './check.ts';
import { ownBehaviours } from './own-behaviours.ts';
import { receiveBehaviours } from './receive-behaviours.ts';
import { requestBehaviours } from './request-behaviours.ts';
import { Scene, type Wake } from './scene.ts';
import type { ContractDriver, Subject } from './subject.ts';
import { transmitBehaviours } from './transmit-behaviours.ts';
import { collectUnhandled } from './unhandled.ts';

/** Always offered, so that a queue can be reset alone. */
const RING_RESET = CommonFeatures.set('RING_RESET').bits;

/** One test of the contract. */
export interface ContractTest {
  /** The environment, such as `split, indirect; polling`. */
  readonly surroundings: string;
  /** The behaviour. */
  readonly name: string;
  /** Runs the test. Rejects if the driver violates the contract. */
  run(): Promise<void>;
}

/** The functions of a test runner: those of vitest or `node:test` fit. */
export interface TestRunner {
  readonly describe: (name: string, body: () => void) => unknown;
  readonly it: (name: string, body: () => Promise<void>) => unknown;
}

/** Options of {@link contractTests}. */
export interface ContractOptions {
  /** The rings (default: split and packed, plain, with all features, and in order). */
  readonly rings?: readonly RingVariant[];
}

/** The rings that the contract is tested on by default. */
const DEFAULT_RINGS = ringVariants.filter(({ indirect, eventIdx, inOrder }) =>
  inOrder ? !indirect && eventIdx : indirect === eventIdx,
);

/**
 * Registers the contract's tests for a driver with a test runner.
 *
 * @example
 * ```ts
 * import { contract, type Subject, type ContractDriver } from '@virtio/testing';
 * import { describe, it } from 'node:test';
 *
 * declare const subject: Subject<ContractDriver>; // see the README
 *
 * contract(subject, { describe, it });
 * ```
 */
export function contract<D extends ContractDriver>(
  subject: Subject<D>,
  { describe, it }: TestRunner,
  options?: ContractOptions,
): void {
  const groups = new Map<string, ContractTest[]>();
  for (const test of contractTests(subject, options)) {
    const group = groups.get(test.surroundings);
    if (group) group.push(test);
    else groups.set(test.surroundings, [test]);
  }
  describe(`the contract of drivers: ${subject.name}`, () => {
    for (const [surroundings, tests] of groups) {
      describe(surroundings, () => {
        for (const test of tests) it(test.name, () => test.run());
      });
    }
  });
}

/** Returns the contract's tests for a driver, for running them without {@link contract}. */
export function contractTests<D extends ContractDriver>(
  subject: Subject<D>,
  { rings = DEFAULT_RINGS }: ContractOptions = {},
): ContractTest[] {
  const behaviours = [
    ...named(subject.requests, requestBehaviours),
    ...named(subject.receive, receiveBehaviours),
    ...named(subject.transmit, transmitBehaviours),
    ...named(subject.own, (own) => ownBehaviours(subject, own)),
  ];
  const most = Math.max(1, ...(subject.requests ?? []).map(({ descriptors }) => descriptors));
  const smallest = 2 ** Math.ceil(Math.log2(most));
  const wakes: readonly Wake[] = ['interrupts', 'polling', 'interrupts inside of calls', 'no interrupts'];
  return rings.flatMap((ring) =>
    wakes.flatMap((wake) =>
      behaviours
        .filter((behaviour) => behaviour.wakes.includes(wake))
        .map((behaviour) => ({
          surroundings: `${ring.name}; ${wake}`,
          name: behaviour.name,
          run: () => {
            const queueSize = behaviour.smallest === true ? smallest : Math.max(4, smallest);
            const features = ring.features | RING_RESET;
            const scene = new Scene(subject, { ring: { ...ring, features }, wake, queueSize });
            return behaviour.throws === true ? throwing(scene, behaviour) : attempt(scene, behaviour);
          },
        })),
    ),
  );
}

async function attempt<D extends ContractDriver>(scene: Scene<D>, behaviour: Behaviour<D>): Promise<void> {
  try {
    await scene.ready();
    await behaviour.run(scene);
    await scene.end();
  } catch (error) {
    scene.abandon();
    throw error;
  }
}

/** Runs a behaviour whose listeners throw: their errors must become unhandled rejections. */
async function throwing<D extends ContractDriver>(scene: Scene<D>, behaviour: Behaviour<D>): Promise<void> {
  const errors = await collectUnhandled(() => attempt(scene, behaviour));
  if (errors === undefined) return;
  check(errors.length > 0, 'the error of a listener was swallowed');
  for (const error of errors) equal((error as Error).message, LISTENER_ERROR, 'the unhandled rejection');
}

function named<D extends ContractDriver, K extends { readonly name?: string }>(
  kinds: readonly K[] | undefined,
  behavioursOf: (kind: K) => Behaviour<D>[],
): Behaviour<D>[] {
  return (kinds ?? []).flatMap((kind) =>
    behavioursOf(kind).map((behaviour) =>
      kind.name === undefined ? behaviour : { ...behaviour, name: `${kind.name}: ${behaviour.name}` },
    ),
  );
}
