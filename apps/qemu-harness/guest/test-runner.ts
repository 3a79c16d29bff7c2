/**
 * Runs one guest test in a process of its own. It is bundled with all suites; the arguments name the test. The bundle's
 * entry passes the tests in, so that this module knows no suite.
 */
import { readdirSync } from 'node:fs';
import { inspect } from 'node:util';
import type { DeviceLocation, GuestContext, GuestTest } from '../src/framework/define.ts';
import type { FromTest, PlannedLocation, ToTest } from '../src/framework/runner-protocol.ts';

/** Runs the test that the command line names. */
export function runTest(tests: readonly GuestTest[]): void {
  const [, , device, name] = process.argv;
  const test = tests.find((candidate) => candidate.device === device && candidate.name === name);
  if (test === undefined) throw new Error(`There is no test '${name ?? ''}' of ${device ?? ''}.`);
  const calls = new Map<number, PromiseWithResolvers<unknown>>();
  let nextId = 1;

  const context = ({ cell, devices }: ToTest & { type: 'start' }): GuestContext => ({
    cell,
    device: (key) => locate(key, devices[key]),
    note: (line) => say({ type: 'note', line }),
    host: (key, ...args: readonly unknown[]) => {
      const call = Promise.withResolvers<unknown>();
      const id = nextId++;
      calls.set(id, call);
      say({ type: 'call', id, name: key, args: args[0] ?? null });
      return call.promise;
    },
  });

  process.on('message', (message: ToTest) => {
    if (message.type === 'start') {
      void attempt(test, context(message));
      return;
    }
    const call = calls.get(message.id);
    calls.delete(message.id);
    if (message.type === 'result') call?.resolve(message.value);
    else call?.reject(new Error(message.message));
  });
}

async function attempt(test: GuestTest, context: GuestContext): Promise<void> {
  try {
    await test.guest(context);
    finish({ type: 'passed' });
  } catch (error) {
    finish({ type: 'failed', message: error instanceof Error ? describe(error) : inspect(error) });
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

// The verdict must be on its way before the process lets go; whatever keeps it alive then shows as a time-out.
function finish(message: FromTest): void {
  process.send?.(message, undefined, undefined, () => process.disconnect());
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
