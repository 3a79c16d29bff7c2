/** Bytes through consoles and ports, compared on the host's side of the socket. */
import { emergencyWrite } from '@virtio/console';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { guestTest } from '../../framework/define.ts';
import { open } from '../_open.ts';
import { KIB, MIB, openConsole, sendPattern, takeHash } from './_console.ts';
import { bytesOf, consoleDevice, hashOf, host, type PortSpec } from './_host.ts';

const CONSOLE = { key: 'console', number: 0, console: true } as const;
/** A named port. No two in a guest have the same name, whichever devices they belong to. */
const data = (name: string): PortSpec => ({ key: 'data', number: 1, name: `org.example.${name}` });

export default [
  guestTest({
    device: 'console',
    name: 'carries 1 MiB each way over a console',
    timeoutS: 120,
    essential: true,
    devices: { serial: consoleDevice([CONSOLE]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      await context.host('open', { key: 'console' });
      const port = await driver.waitForPort((one) => one.isConsole);
      await port.waitForHost();
      const received = takeHash(port, MIB);
      const sent = context.host('send', { key: 'console', seed: 1, length: MIB });
      equal(await received, hashOf(1, MIB));
      await sent;
      // QEMU throws away what a guest writes to a console faster than the socket takes it, so the guest looks after itself.
      const step = 64 * KIB;
      let hash = '';
      for (let total = 0; total < MIB;) {
        await port.write(bytesOf(2, total, step));
        total += step;
        hash = await context.host('take', { key: 'console', total });
      }
      equal(hash, hashOf(2, MIB));
    },
  }),

  guestTest({
    device: 'console',
    name: 'carries 1 MiB each way over a named port, both ways at once',
    essential: 'checks',
    timeoutS: 120,
    devices: { serial: consoleDevice([data('both')]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      using port = (await driver.waitForPort('org.example.both')).open();
      const waiting = port.waitForHost();
      await context.host('open', { key: 'data' });
      await waiting;
      const began = performance.now();
      const [received, taken] = await Promise.all([
        takeHash(port, MIB),
        context.host('take', { key: 'data', total: MIB }),
        sendPattern(port, 4, MIB),
        context.host('send', { key: 'data', seed: 3, length: MIB }),
      ]);
      context.note(`${Math.round(performance.now() - began)} ms`);
      equal(received, hashOf(3, MIB));
      equal(taken, hashOf(4, MIB));
    },
  }),

  guestTest({
    device: 'console',
    name: 'carries bytes by polling and by spinning, too',
    devices: { serial: consoleDevice([data('three-forms')]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      const port = driver.waitForPortSync('org.example.three-forms').open();
      await context.host('open', { key: 'data' });
      port.waitForHostSync();
      port.writeSync('spinning\n');
      port.flushSync();
      equal(await context.host('takeText', { key: 'data', length: 9 }), 'spinning\n');
      await context.host('sendText', { key: 'data', text: 'one\ntwo\nthree' });
      equal(port.readLineSync(), 'one');
      let line: string | undefined;
      while (line === undefined) line = port.tryReadLine();
      equal(line, 'two');
      const got: number[] = [];
      while (got.length < 5) {
        const byte = port.recv(false);
        equal(port.recv(), byte);
        if (byte >= 0) got.push(byte);
      }
      equal(Buffer.from(got).toString(), 'three');
      const bytes = bytesOf(5, 0, 200 * KIB);
      const taking = context.host('take', { key: 'data', total: 9 + bytes.length });
      for (let sent = 0; sent < bytes.length;) {
        sent += port.tryWrite(bytes.subarray(sent));
        await delay(0);
      }
      await taking;
      await context.host('send', { key: 'data', seed: 6, length: 64 * KIB });
      const into = new Uint8Array(64 * KIB);
      for (let at = 0; at < into.length;) at += port.readSync(into.subarray(at));
      equal(Buffer.compare(into, bytesOf(6, 0, into.length)), 0);
    },
  }),

  guestTest({
    device: 'console',
    name: 'is slowed down by a host that does not read, and loses nothing',
    timeoutS: 120,
    devices: { serial: consoleDevice([data('slow-host')]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      const port = (await driver.waitForPort('org.example.slow-host')).open();
      await context.host('open', { key: 'data' });
      await port.waitForHost();
      let written = 0;
      const piece = 16 * KIB;
      const writing = (async () => {
        for (; written < 2 * MIB; written += piece) await port.write(bytesOf(7, written, piece));
        await port.flush();
      })();
      // The socket, QEMU and the queue hold some; when they are full nothing moves any more.
      for (let quiet = 0; quiet < 4;) {
        const before = written;
        await delay(250);
        quiet = written === before ? quiet + 1 : 0;
      }
      ok(written < 2 * MIB, 'the host did not read, and everything was written all the same');
      equal(port.flushed, false);
      context.note(`stopped after ${Math.round(written / KIB)} KiB`);
      const taken = context.host('take', { key: 'data', total: 2 * MIB });
      await writing;
      equal(await taken, hashOf(7, 2 * MIB));
    },
  }),

  guestTest({
    device: 'console',
    name: 'slows a host down that it does not read from, and loses nothing',
    long: true,
    timeoutS: 120,
    devices: { serial: consoleDevice([data('slow-guest')]) },
    host,
    async guest(context) {
      using driver = openConsole(context);
      const port = (await driver.waitForPort('org.example.slow-guest')).open();
      await context.host('open', { key: 'data' });
      await port.waitForHost();
      let sent = false;
      const sending = context.host('send', { key: 'data', seed: 8, length: 2 * MIB }).then(() => {
        sent = true;
      });
      await delay(1500);
      ok(!sent, 'the guest did not read, and everything was sent all the same');
      equal(await takeHash(port, 2 * MIB), hashOf(8, 2 * MIB));
      await sending;
    },
  }),

  guestTest({
    device: 'console',
    name: 'pipes Web Streams through ports with back-pressure',
    timeoutS: 120,
    devices: {
      serial: consoleDevice([data('stream-from'), { key: 'copy', number: 2, name: 'org.example.stream-to' }]),
    },
    host,
    async guest(context) {
      using driver = openConsole(context);
      const from = (await driver.waitForPort('org.example.stream-from')).open();
      const to = (await driver.waitForPort('org.example.stream-to')).open();
      await context.host('open', { key: 'data' });
      await context.host('open', { key: 'copy' });
      await Promise.all([from.waitForHost(), to.waitForHost()]);
      const piped = from
        .readable(ReadableStream<Uint8Array<ArrayBuffer>>)
        .pipeTo(to.writable(WritableStream<Uint8Array | string>));
      const taken = context.host('take', { key: 'copy', total: MIB });
      await context.host('send', { key: 'data', seed: 9, length: MIB });
      equal(await taken, hashOf(9, MIB));
      await context.host('close', { key: 'data' });
      await piped;
    },
  }),

  guestTest({
    device: 'console',
    name: 'works as a console with one port where it declines more, and where there is only one',
    devices: {
      serial: consoleDevice([CONSOLE]),
      single: consoleDevice([{ ...CONSOLE, key: 'single' }], { max_ports: 1 }),
    },
    host,
    async guest(context) {
      for (const [name, key, options] of [
        ['serial', 'console', { multiport: false }],
        ['single', 'single', {}],
      ] as const) {
        using driver = openConsole(context, options, name);
        equal(driver.features.has('MULTIPORT'), false);
        const port = driver.port();
        await context.host('open', { key });
        await context.host('sendText', { key, text: 'hello\n' });
        equal(await port.readLine(), 'hello');
        await port.write('and back\n');
        equal(await context.host('takeText', { key, length: 9 }), 'and back\n');
        deepEqual(driver.ports, [port]);
      }
    },
  }),

  guestTest({
    device: 'console',
    name: 'writes in an emergency: before there is a driver, without a queue and after a failure',
    devices: { serial: consoleDevice([CONSOLE]) },
    host,
    async guest(context) {
      await context.host('open', { key: 'console' });
      {
        using device = open(context, 'serial');
        emergencyWrite(device.transport, 'early ');
        equal(await context.host('takeText', { key: 'console', length: 6 }), 'early ');
      }
      using driver = openConsole(context);
      ok(driver.features.has('EMERG_WRITE'));
      const port = await driver.waitForPort((one) => one.isConsole);
      await port.waitForHost();
      driver.emergencyWrite('help');
      equal(await context.host('takeText', { key: 'console', length: 10 }), 'early help');
      driver.fail(driver.transport.removed());
      driver.emergencyWrite('!\n');
      equal(await context.host('takeText', { key: 'console', length: 12 }), 'early help!\n');
    },
  }),
];
