/** Ports that come and go, and both of their ends. */
import type { ConsolePort } from '@virtio/console';
import { VirtioError } from '@virtio/core';
import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import { guestTest } from '../../framework/define.ts';
import { KIB, openConsole, takeHash } from './_console.ts';
import { bytesOf, consoleDevice, hashOf, host, type PortSpec } from './_host.ts';

const CONSOLE = { key: 'console', number: 0, console: true } as const;
/** A named port. No two in a guest have the same name, whichever devices they belong to. */
const data = (name: string): PortSpec => ({ key: 'data', number: 1, name: `org.example.${name}` });

const MANY = Array.from({ length: 29 }, (_, n) => ({
  key: `p${n}`,
  number: n + 1,
  name: `org.example.port.${n}`,
}));

const removed = (error: unknown): boolean => VirtioError.is(error, 'DEVICE_REMOVED');

export default [
  guestTest({
    device: 'console',
    name: 'sees a port that is plugged in, uses it, and sees it go',
    timeoutS: 120,
    devices: { serial: consoleDevice([CONSOLE]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      await driver.waitForPort(0);
      for (let round = 0; round < 3; round++) {
        const key = `late${round}`;
        const name = `org.example.late.${round}`;
        const waiting = driver.waitForPort(name);
        await context.host('plug', { key, number: 5, name });
        const port = (await waiting).open();
        equal(port.id, 5);
        await context.host('open', { key });
        await port.waitForHost();
        const taken = context.host('take', { key, total: 100 * KIB });
        await port.write(bytesOf(round, 0, 100 * KIB));
        equal(await taken, hashOf(round, 100 * KIB));
        const received = takeHash(port, 100 * KIB);
        await context.host('send', { key, seed: 50 + round, length: 100 * KIB });
        equal(await received, hashOf(50 + round, 100 * KIB));

        const gone = new Promise<ConsolePort>((resolve) => driver.on('portRemoved', resolve));
        const reading = port.readChunk();
        const ends = rejects(reading, removed);
        await context.host('unplug', { key });
        equal(await gone, port);
        await ends;
        ok(port.removed);
        equal(driver.findPort(name), undefined);
        await rejects(port.write('too late'), removed);
        await context.host('close', { key });
      }
    },
  }),

  guestTest({
    device: 'console',
    name: 'learns the names of 30 ports at once, and misses no message',
    devices: { serial: consoleDevice([CONSOLE, ...MANY]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      const warnings: string[] = [];
      driver.on('warning', (error) => warnings.push(error.message));
      await Promise.all(MANY.map(({ name }) => driver.waitForPort(name)));
      deepEqual(
        driver.ports.map(({ id, name }) => [id, name]),
        [[0, undefined], ...MANY.map(({ number, name }) => [number, name])],
      );
      ok(driver.port(0).isConsole);
      deepEqual(warnings, []);
      const last = (await driver.waitForPort('org.example.port.28')).open();
      await context.host('open', { key: 'p28' });
      await last.waitForHost();
      await last.write('hello from the last one');
      equal(await context.host('takeText', { key: 'p28', length: 23 }), 'hello from the last one');
    },
  }),

  guestTest({
    device: 'console',
    name: 'keeps sessions of programs on the host apart',
    devices: { serial: consoleDevice([data('sessions')]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      const port = (await driver.waitForPort('org.example.sessions')).open();
      equal(port.hostOpen, false);
      // Nobody is there: what is written waits, and is not lost.
      equal(port.tryWrite(Buffer.from('x')), 0);
      const writing = port.write('first words\n');
      for (const session of ['one', 'two', 'three']) {
        await context.host('open', { key: 'data' });
        await port.waitForHost();
        if (session === 'one') {
          await writing;
          equal(await context.host('takeText', { key: 'data', length: 12 }), 'first words\n');
        }
        await context.host('sendText', { key: 'data', text: `${session} a\n${session} b\nrest` });
        equal(await port.readLine(), `${session} a`);
        const closing = new Promise<void>((resolve) => {
          const stop = driver.on('portChanged', () => {
            if (port.hostOpen) return;
            stop();
            resolve();
          });
        });
        equal(await port.readLine(), `${session} b`);
        const rest = port.readLine();
        await context.host('close', { key: 'data' });
        equal(await rest, 'rest');
        equal(await port.readLine(), undefined);
        await closing;
      }
    },
  }),

  guestTest({
    device: 'console',
    name: 'is reset with bytes on their way, and finds its ports again',
    long: true,
    devices: { serial: consoleDevice([data('reset')]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      await context.host('open', { key: 'data' });
      for (let round = 0; round < 3; round++) {
        const port = (await driver.waitForPort('org.example.reset')).open();
        await port.waitForHost();
        await context.host('sendText', { key: 'data', text: `round ${round}\n` });
        equal(await port.readLine(), `round ${round}`);
        const reading = port.readLine();
        const lost = rejects(reading, (error: unknown) => VirtioError.is(error, 'DEVICE_RESET'));
        driver.reset();
        await lost;
        ok(port.removed);
      }
      const port = (await driver.waitForPort('org.example.reset')).open();
      await port.waitForHost();
      await port.write('still here');
      equal(await context.host('takeText', { key: 'data', length: 10 }), 'still here');
    },
  }),

  guestTest({
    device: 'console',
    name: 'hears of a new size of the console',
    devices: { serial: consoleDevice([CONSOLE]) },
    // No cell can run it with the QEMU that the suites use; the driver's unit tests play the device.
    skip: () =>
      'QEMU (10.0, and later sources) neither offers the SIZE feature nor sends RESIZE messages, and hypervisors that do need KVM',
    guest() {
      throw new Error('QEMU cannot do this');
    },
  }),
];
