/** Runs the guest's half of tests, one after the other, as the host asks, in one boot. */
import './globals.ts';
import type { DeviceLocation, GuestContext, GuestTest } from '@virtio/qemu-harness/src/framework/define.ts';
import type { FromTest, ToTest } from '@virtio/qemu-harness/src/framework/runner-protocol.ts';
import { onMessage, send } from '../channel.ts';
import { format } from '../format.ts';
import { machine } from '../machine.ts';
import { NotHere } from '../not-here.ts';
import { catchUncaught, loop } from '../prelude.ts';

/** What a guest says besides what tests say: where it stands. */
export type FromBare = FromTest | { readonly type: 'not-here'; readonly message: string } | BareState;

/** Measures, sent with `ready` and at the end. */
export interface BareState {
  readonly type: 'state';
  /** Milliseconds since reset. */
  readonly ms: number;
  readonly heap: { readonly used: number; readonly peak: number };
}

type Start = ToTest & { type: 'start' };

const state = (): void => say({ type: 'state', ms: machine.now(), heap: machine.heap() });

/** Loads suites when a test of theirs is asked for: a module that cannot be loaded here fails its own tests alone. */
export function serveTests(
  suites: Readonly<Record<string, () => Promise<{ default: readonly GuestTest[] }>>>,
): void {
  const calls = new Map<number, PromiseWithResolvers<unknown>>();
  let nextId = 1;
  // The loop lives until the host ends it.
  loop.hold();

  const context = ({ cell, devices }: Start): GuestContext => ({
    cell,
    device: (key) => {
      const found = devices[key];
      if (found === undefined) throw new Error(`The test has no device '${key}'.`);
      return found as DeviceLocation;
    },
    note: (line) => say({ type: 'note', line }),
    apart: () => {
      throw new NotHere('the harness', 'process apart');
    },
    host: (key, ...args: readonly unknown[]) => {
      const call = Promise.withResolvers<unknown>();
      calls.set(nextId, call);
      say({ type: 'call', id: nextId, name: key, args: args[0] ?? null });
      nextId += 1;
      return call.promise;
    },
  });

  const run = async (start: Start & { suite?: string }): Promise<void> => {
    const { device, name, suite = '' } = start;
    const holds = loop.holds;
    try {
      const tests = (await suites[suite]?.())?.default;
      const test = tests?.find((one) => one.device === device && one.name === name);
      if (test === undefined) throw new Error(`There is no test '${name}' of ${device}.`);
      await test.guest(context(start));
      if (loop.holds !== holds) throw new Error(`It left ${loop.holds - holds} holds on the event loop.`);
      say({ type: 'passed' });
    } catch (error) {
      report(error);
    }
    machine.collect();
  };

  const report = (error: unknown): void => {
    if (error instanceof NotHere) say({ type: 'not-here', message: error.message });
    else say({ type: 'failed', message: format(error) });
  };
  catchUncaught(report);

  onMessage((message) => {
    const order = message as ToTest;
    if (order.type === 'start') {
      void run(order);
    } else if (order.type === 'end') {
      state();
      machine.exit(0);
    } else {
      const call = calls.get(order.id);
      calls.delete(order.id);
      if (order.type === 'result') call?.resolve(order.value);
      else call?.reject(new Error(order.message));
    }
  });
  state();
  say({ type: 'ready' });
}

function say(message: FromBare): void {
  send(message);
}
