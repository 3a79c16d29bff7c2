/**
 * Runs guest tests, one after the other, in a process of its own. It is bundled with all suites, whose tests the bundle's entry
 * passes in, so that this module knows no suite. Loading all that takes longer than most tests, so the process goes on to the
 * next test for as long as each leaves it as it found it.
 */
import { readdirSync } from 'node:fs';
import { inspect } from 'node:util';
import { type FeatureRequest, type FeatureSet, Transport } from '@virtio/core';
import type { DeviceLocation, GuestContext, GuestTest } from '../src/framework/define.ts';
import type { FromTest, PlannedLocation, ToTest } from '../src/framework/runner-protocol.ts';
import { difference, holdings } from './holdings.ts';

/** How long what a test has closed may take to be gone. */
const CLOSING_MS = 10_000;
const LOOK_MS = 5;

type Start = ToTest & { type: 'start' };

/** What stands before the arguments of a process or thread that runs a function apart. */
const APART = '--apart';

/** Runs the tests that the host names until it says that there are no more; in a process apart, the function that it is for. */
export function serveTests(tests: readonly GuestTest[]): void {
  const [flag, device, name, key = '', args = 'null'] = process.argv.slice(2);
  if (flag === APART) {
    const body = tests.find((test) => test.device === device && test.name === name)?.apart?.[key];
    if (body === undefined) throw new Error(`No test has a function '${key}' in 'apart'.`);
    void body(JSON.parse(args) as never);
    return;
  }
  let calls = new Map<number, PromiseWithResolvers<unknown>>();
  let nextId = 1;

  const context = ({ device, name, cell, devices }: Start): GuestContext => ({
    cell,
    device: (key) => locate(key, devices[key]),
    note: (line) => say({ type: 'note', line }),
    apart: (key, args = null) => [process.argv[1] ?? '', APART, device, name, key, JSON.stringify(args)],
    host: (key, ...args: readonly unknown[]) => {
      const call = Promise.withResolvers<unknown>();
      const id = nextId++;
      calls.set(id, call);
      say({ type: 'call', id, name: key, args: args[0] ?? null });
      return call.promise;
    },
  });

  const serve = async (start: Start): Promise<void> => {
    const before = await settledHoldings();
    calls = new Map();
    say(await attempt(tests, start, context(start)));
    say({ type: 'left', what: await leftovers(before) });
  };

  reportFeatures();
  process.on('message', (message: ToTest) => {
    if (message.type === 'start') {
      void serve(message);
    } else if (message.type === 'end') {
      process.disconnect();
    } else {
      const call = calls.get(message.id);
      calls.delete(message.id);
      if (message.type === 'result') call?.resolve(message.value);
      else call?.reject(new Error(message.message));
    }
  });
  say({ type: 'ready' });
}

/** Tells the host what every driver negotiates from now on, for the table of what is supported. */
function reportFeatures(): void {
  const prototype = Transport.prototype as unknown as {
    beginInit: (this: Transport, request: FeatureRequest<string>) => FeatureSet<string>;
  };
  const begin = prototype.beginInit;
  prototype.beginInit = function (request) {
    const accepted = begin.call(this, request);
    const { table, supported } = request;
    say({
      type: 'negotiated',
      what: {
        deviceType: this.deviceType,
        offered: table.names(this.readDeviceFeatures()),
        implemented: [...supported, 'VERSION_1'],
        accepted: table.names(accepted.bits),
      },
    });
    return accepted;
  };
}

async function attempt(
  tests: readonly GuestTest[],
  { device, name }: Start,
  context: GuestContext,
): Promise<FromTest> {
  try {
    const test = tests.find((candidate) => candidate.device === device && candidate.name === name);
    if (test === undefined) throw new Error(`There is no test '${name}' of ${device}.`);
    await test.guest(context);
    return { type: 'passed' };
  } catch (error) {
    return { type: 'failed', message: error instanceof Error ? describe(error) : inspect(error) };
  }
}

function describe(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? ` [${error.code}]` : '';
  const cause = error.cause === undefined ? '' : `\ncaused by ${inspect(error.cause)}`;
  return `${error.stack ?? error.message}${code}${cause}`;
}

function say(message: FromTest): void {
  process.send?.(message);
}

/** What the process holds, looked at from a timer: there, the timer itself counts always or never. */
async function settledHoldings(): Promise<ReadonlyMap<string, number>> {
  const { promise, resolve } = Promise.withResolvers<ReadonlyMap<string, number>>();
  setTimeout(() => resolve(holdings()), LOOK_MS);
  return promise;
}

/** What the process holds beyond what it held before, once that had time to go. */
async function leftovers(before: ReadonlyMap<string, number>): Promise<readonly string[]> {
  const deadline = performance.now() + CLOSING_MS;
  for (;;) {
    const left = difference(await settledHoldings(), before);
    if (left.length === 0 || performance.now() > deadline) return left;
  }
}

function locate(key: string, location: PlannedLocation | undefined): DeviceLocation {
  if (location === undefined) throw new Error(`The test has no device '${key}'.`);
  if (location.kind !== 'pci-behind-port') return location;
  const address = readdirSync(`/sys/bus/pci/devices/${location.port}`).find((name) =>
    /^[0-9a-f]{4}:[0-9a-f]{2}:00\.0$/.test(name),
  );
  if (address === undefined) throw new Error(`There is no device behind the port ${location.port}.`);
  return { kind: 'pci', address };
}
