import { VirtioError } from '@virtio/core';
import { type FakeInterrupts, ringVariants } from '@virtio/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ADD,
  collect,
  CONSOLE,
  ConsoleModel,
  type ModelOptions,
  MULTIPORT,
  NAME,
  OPEN,
  PORT_READY,
  READY,
  REMOVE,
  RESIZE,
  SIZE,
  SPLIT,
  turns,
  utf8,
} from '../test/console-model.ts';
import type { ConsolePort, VirtioConsole } from './index.ts';

const failsWith = (code: string): Error => expect.objectContaining({ code }) as Error;

const PORTS = {
  0: { console: true, open: true },
  1: { name: 'org.example.data', open: true },
  3: { name: 'Größe 🙂' },
} as const;

const model = (options: ModelOptions = {}): ConsoleModel =>
  new ConsoleModel({ ports: PORTS, ...options, features: (options.features ?? SPLIT) | MULTIPORT });

interface Log {
  readonly events: string[];
  readonly warnings: string[];
}

function logOf(driver: VirtioConsole): Log {
  const log: Log = { events: [], warnings: [] };
  for (const event of ['portAdded', 'portRemoved', 'portChanged', 'resized'] as const) {
    driver.on(event, (port) => log.events.push(`${event} ${port.id}`));
  }
  driver.on('warning', (error) => log.warnings.push(error.message));
  return log;
}

describe.each(ringVariants)('several ports: $name', ({ features }) => {
  it('come with their names, and carry bytes apart from each other', async () => {
    const { driver, device, ...rest } = setUp(features);
    const console = await driver.waitForPort((port) => port.isConsole);
    const data = (await driver.waitForPort('org.example.data')).open();
    const third = (await driver.waitForPort(3)).open();
    expect([console.id, data.id, third.name]).toEqual([0, 1, 'Größe 🙂']);
    rest.host.setOpen(3, true);
    for (let n = 0; n < 20; n += 1) {
      await Promise.all([console.write(`c${n}`), data.write(`d${n}`), third.write(`t${n}`)]);
      for (const [id, port] of [
        [0, console],
        [1, data],
        [3, third],
      ] as const) {
        rest.host.send(id, `${id}:${n}\n`);
        expect(await port.readLine()).toBe(`${id}:${n}`);
      }
    }
    for (const port of driver.ports) port.flushSync();
    const all = Array.from({ length: 20 }, (_, n) => n);
    expect(rest.host.text(0)).toBe(all.map((n) => `c${n}`).join(''));
    expect(rest.host.text(1)).toBe(all.map((n) => `d${n}`).join(''));
    expect(rest.host.text(3)).toBe(all.map((n) => `t${n}`).join(''));
    driver[Symbol.dispose]();
    device.assertClean();
  });

  function setUp(ring: bigint) {
    const host = model({ features: ring });
    return { host, driver: host.driver, device: host.device };
  }
});

describe('initialization', () => {
  it('tells the device that the driver is ready, and then each port [5.3.6.2.2]', async () => {
    const host = model();
    await turns();
    expect(host.messages[0]).toEqual({ id: 0, event: READY, value: 1 });
    expect(host.messages.filter(({ event }) => event === PORT_READY)).toEqual(
      [0, 1, 3].map((id) => ({ id, event: PORT_READY, value: 1 })),
    );
    expect(host.driver.ports.map(({ id }) => id)).toEqual([0, 1, 3]);
    expect(host.driver.maxPorts).toBe(4);
  });

  it('answers a nomination as console with an open port, each time [5.3.6.2.2]', async () => {
    const host = model();
    await turns();
    expect(host.driver.port(0).isConsole).toBe(true);
    expect(host.driver.port(0).isOpen).toBe(true);
    expect(host.host(0).guestOpen).toBe(true);
    host.control(1, CONSOLE, 1);
    await turns();
    host.control(1, CONSOLE, 1);
    await turns();
    const opened = host.messages.filter(({ id, event }) => id === 1 && event === OPEN);
    expect(opened).toEqual([
      { id: 1, event: OPEN, value: 1 },
      { id: 1, event: OPEN, value: 1 },
    ]);
    expect(host.driver.port(1).isConsole).toBe(true);
  });

  it('loses none of the messages of a device that drops those without a buffer', async () => {
    const ports = Object.fromEntries(
      Array.from({ length: 31 }, (_, id) => [id, { name: `port ${id}`, console: id % 2 === 0, open: true }]),
    );
    const host = model({ ports, maxPorts: 31, controlSize: 32, queueSize: 4 });
    await turns(500);
    expect(host.dropped).toBe(0);
    expect(host.driver.ports.map(({ name }) => name)).toEqual(
      Array.from({ length: 31 }, (_, id) => `port ${id}`),
    );
    expect(host.driver.ports.every(({ hostOpen }) => hostOpen)).toBe(true);
    host.driver[Symbol.dispose]();
    host.device.assertClean();
  });

  it('sends messages in one descriptor each [5.3.6.4]', () => {
    const host = model({ prepare: ({ device }) => (device.automatic = false) });
    const chain = host.device.queue(3).pop();
    expect(chain?.elements).toHaveLength(1);
    expect(chain?.readable).toBe(8);
    expect(host.device.queue(2).pop()?.elements).toHaveLength(1);
  });

  it('works in an engine without interrupts, by polling', () => {
    const host = model({ interrupts: false });
    const port = host.driver.waitForPortSync('org.example.data').open();
    port.waitForHostSync();
    host.driver.pollEvents();
    port.writeSync('hello');
    port.flushSync();
    host.send(1, 'back\n');
    expect(port.readLineSync()).toBe('back');
    expect(host.text(1)).toBe('hello');
    expect(() => host.driver.waitForPortSync('nobody', { timeoutMs: 1 })).toThrow(failsWith('NOT_READY'));
  });

  it('can be declined', () => {
    const host = model({
      options: { multiport: false },
      prepare: (m) => m.device.handle(1, () => undefined),
    });
    expect(host.driver.features.has('MULTIPORT')).toBe(false);
    expect(host.driver.ports.map(({ id, isOpen }) => [id, isOpen])).toEqual([[0, true]]);
    expect(host.messages).toEqual([]);
    host.driver.port().writeSync('hello');
    host.driver.port().flushSync();
  });

  it('refuses a device that has no port, and does with fewer queues than the device boasts of', async () => {
    expect(() => model({ maxPorts: 0 })).toThrow(failsWith('INVALID_DEVICE'));
    const host = model({
      prepare: ({ device }) => new DataView(device.config.buffer).setUint32(4, 0xffffffff, true),
    });
    expect(host.driver.maxPorts).toBe(4);
    await turns();
    expect(host.driver.ports).toHaveLength(3);
  });

  it('gives everything back when memory runs out at any point, and does without a port for which there is none', async () => {
    let failed = 0;
    let warned = 0;
    for (let after = 0; ; after += 1) {
      let built: ConsoleModel | undefined;
      const warnings: string[] = [];
      try {
        const host = model({
          queueSize: 4,
          prepare: (m) => {
            built = m;
            m.device.hal.failAlloc({ after });
          },
        });
        host.driver.on('warning', (error) => warnings.push(error.code));
        await turns(100);
        if (warnings.length > 0) {
          warned += 1;
          expect(warnings).toEqual(['DMA_ERROR']);
          expect(host.driver.ports).toHaveLength(2);
          expect(
            host.messages.filter(({ event, value }) => event === PORT_READY && value === 0),
          ).toHaveLength(1);
        }
        host.driver[Symbol.dispose]();
        host.device.assertClean();
        if (warnings.length === 0) break;
      } catch (error) {
        expect(VirtioError.is(error, 'DMA_ERROR')).toBe(true);
        built?.device.assertClean();
        failed += 1;
      }
    }
    expect(failed).toBeGreaterThan(10);
    // The buffers of three ports, in two directions each.
    expect(warned).toBe(6);
  });
});

describe('ports', () => {
  it('appear when they are plugged, and disappear when they are unplugged', async () => {
    const host = model();
    const log = logOf(host.driver);
    await turns();
    const waiting = host.driver.waitForPort('late');
    await turns();
    expect((host.transport.interrupts as FakeInterrupts).holds).toBe(1);
    host.plug(2, { name: 'late', open: true });
    const port = await waiting;
    await turns();
    expect((host.transport.interrupts as FakeInterrupts).holds).toBe(0);
    expect([port.id, port.hostOpen, port.isOpen, port.isConsole]).toEqual([2, true, false, false]);
    port.open();
    await port.write('hello');
    expect(host.text(2)).toBe('hello');
    log.events.length = 0;
    host.unplug(2);
    await turns();
    expect(log.events).toEqual(['portRemoved 2']);
    expect(port.removed).toBe(true);
    expect(host.driver.findPort(2)).toBeUndefined();
    expect(() => host.driver.port(2)).toThrow(failsWith('NOT_READY'));
    expect(() => port.tryWrite(utf8('x'))).toThrow(failsWith('DEVICE_REMOVED'));
    expect(() => port.open()).toThrow(failsWith('DEVICE_REMOVED'));
    await expect(port.readChunk()).rejects.toThrow(failsWith('DEVICE_REMOVED'));
    await expect(port.waitForHost()).rejects.toThrow(failsWith('DEVICE_REMOVED'));
    port.close();
    expect(log.warnings).toEqual([]);
  });

  it('are announced also while nobody waits', async () => {
    const host = model();
    await turns();
    const log = logOf(host.driver);
    host.plug(2, { name: 'late' });
    await turns();
    expect(log.events).toEqual(['portAdded 2', 'portChanged 2']);
    host.setOpen(2, true);
    host.setOpen(2, true);
    host.setOpen(2, false);
    await turns();
    expect(log.events.slice(2)).toEqual(['portChanged 2', 'portChanged 2']);
    expect((host.transport.interrupts as FakeInterrupts).holds).toBe(0);
  });

  it('that are removed keep what they received, and tell who waits', async () => {
    const host = model({ queueSize: 4, options: { bufferSize: 8, readAhead: 8 } });
    const port = (await host.driver.waitForPort('org.example.data')).open();
    await turns();
    expect(host.send(1, 'x'.repeat(100))).toBe(32);
    await turns();
    const control = new Set(host.driver.ports);
    expect(control.has(port)).toBe(true);
    const line = port.readLine();
    line.catch(() => undefined);
    host.host(1).throttled = true;
    const writing = port.write('y'.repeat(100));
    writing.catch(() => undefined);
    host.unplug(1);
    await expect(writing).rejects.toThrow(failsWith('DEVICE_REMOVED'));
    expect(port.available).toBe(32);
    await line.catch((error: unknown) => expect(VirtioError.is(error, 'UNSUPPORTED')).toBe(true));
    const into = new Uint8Array(100);
    expect(port.tryRead(into)).toBe(32);
    expect(() => port.tryRead(into)).toThrow(failsWith('DEVICE_REMOVED'));
    // The place is taken by another port, whose buffers are the same ones.
    host.plug(1, { name: 'second', open: true });
    const second = (await host.driver.waitForPort('second')).open();
    expect(second).not.toBe(port);
    await turns();
    for (let n = 0; n < 20; n += 1) {
      expect(host.send(1, 'again\n')).toBe(6);
      expect(await second.readLine()).toBe('again');
      await second.write('and back');
    }
    await second.flush();
    expect(host.text(1)).toBe('and back'.repeat(20));
    host.driver[Symbol.dispose]();
    host.device.assertClean();
  });

  it('are opened and closed on both sides', async () => {
    const host = model();
    const port = await host.driver.waitForPort('Größe 🙂');
    expect(() => port.tryWrite(utf8('x'))).toThrow(failsWith('NOT_READY'));
    await expect(port.readChunk()).rejects.toThrow(failsWith('NOT_READY'));
    {
      using open = port.open();
      await turns();
      expect(open.isOpen).toBe(true);
      expect(host.host(3).guestOpen).toBe(true);
      port.open();
      // Nobody has the far side open: what is written waits, and is not lost.
      expect(port.tryWrite(utf8('x'))).toBe(0);
      const writing = port.write('hello');
      const waiting = port.waitForHost();
      await turns();
      host.setOpen(3, true);
      await waiting;
      await writing;
      await port.flush();
      expect(host.text(3)).toBe('hello');
      host.send(3, 'never read');
    }
    await turns();
    expect(host.host(3).guestOpen).toBe(false);
    expect(port.available).toBe(0);
    // The device had not heard of it yet.
    host.send(3, 'late');
    port.open();
    expect(port.available).toBe(0);
    host.send(3, 'read');
    expect(await port.readChunk()).toEqual(Uint8Array.from(utf8('read')));
    const waiting = port.readChunk();
    waiting.catch(() => undefined);
    await turns();
    port.close();
    await expect(waiting).rejects.toThrow(failsWith('NOT_READY'));
    const sides = host.messages
      .filter(({ id, event }) => id === 3 && event === OPEN)
      .map(({ value }) => value);
    expect(sides).toEqual([1, 0, 1, 0]);
  });

  it('write to a console even if nobody looks', async () => {
    const host = model({ ports: { 0: { console: true } } });
    const port = await host.driver.waitForPort((one) => one.isConsole);
    expect(port.hostOpen).toBe(false);
    await port.write('into the void');
    await port.flush();
    expect(host.text(0)).toBe('');
  });

  it('end a session when the far side is closed, in order, once', async () => {
    const host = model();
    const port = (await host.driver.waitForPort('org.example.data')).open();
    await turns();
    for (const text of ['one\nlast words', 'two\n']) {
      host.setOpen(1, true);
      host.send(1, text);
      host.setOpen(1, false);
      await turns();
    }
    expect(await collect(port.lines())).toEqual(['one', 'last words']);
    const into = new Uint8Array(100);
    expect(await port.read(into)).toBe(4);
    expect(await port.read(into)).toBe(0);
    // No end is passed twice.
    const third = port.readLineSync.bind(port, { timeoutMs: 1 });
    expect(third).toThrow(failsWith('NOT_READY'));
    host.setOpen(1, true);
    host.setOpen(1, false);
    await turns();
    expect(port.readChunkSync()).toBeUndefined();
    expect(port.tryReadLine()).toBeUndefined();
    expect(port.recv()).toBe(-1);
    host.setOpen(1, true);
    host.send(1, 'a');
    host.setOpen(1, false);
    await turns();
    host.setOpen(1, true);
    host.send(1, 'b');
    await turns();
    // The forms that do not wait pass over ends, as they say nothing else with them.
    expect([port.recv(), port.recv(), port.recv()]).toEqual([97, 98, -1]);
  });

  it('end a session also while the next one fills all that is kept', async () => {
    const host = model({ options: { readAhead: 16, bufferSize: 16 } });
    const port = (await host.driver.waitForPort('org.example.data')).open();
    await turns();
    host.send(1, 'one\n');
    host.setOpen(1, false);
    await turns();
    expect(await port.readLine()).toBe('one');
    host.setOpen(1, true);
    host.send(1, 'x'.repeat(40));
    await turns();
    expect(await port.readLine()).toBeUndefined();
    await expect(port.readLine()).rejects.toThrow(failsWith('UNSUPPORTED'));
    expect(port.skip(40)).toBe(40);
  });

  it('never end a session on a console', async () => {
    const host = model();
    const port = await host.driver.waitForPort((one) => one.isConsole);
    await turns();
    host.send(0, 'a');
    host.setOpen(0, false);
    await turns();
    host.setOpen(0, true);
    host.send(0, 'b\n');
    expect(await port.readLine()).toBe('ab');
  });

  it('keep sessions apart, whatever comes in whatever pieces', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\n'), maxLength: 8 }), { maxLength: 4 }),
          {
            minLength: 1,
            maxLength: 5,
          },
        ),
        fc.boolean(),
        async (all, byLine) => {
          const sessions = all.filter((parts) => parts.join('') !== '');
          const host = model({ options: { bufferSize: 16 } });
          const port = (await host.driver.waitForPort('org.example.data')).open();
          await turns();
          const got: string[] = [];
          const reading = (async () => {
            for (let n = 0; n < sessions.length; n += 1) {
              if (byLine) got.push((await collect(port.lines())).map((line) => `${line}\n`).join(''));
              else {
                const parts = await collect(port.chunks());
                got.push(parts.map((part) => new TextDecoder().decode(part)).join(''));
              }
            }
          })();
          for (const parts of sessions) {
            for (const part of parts) {
              host.send(1, part);
              if (part.length > 4) await turns(3);
            }
            host.setOpen(1, false);
            host.setOpen(1, true);
            await turns(10);
          }
          await reading;
          const expected = sessions.map((parts) => parts.join(''));
          expect(got).toEqual(
            byLine
              ? expected.map((text) => (text === '' || text.endsWith('\n') ? text : `${text}\n`))
              : expected,
          );
        },
      ),
      { numRuns: 40 },
    );
  });

  it('have sizes, by messages or by the configuration of the device [5.3.6.2]', async () => {
    const host = model({ features: SPLIT | SIZE });
    const log = logOf(host.driver);
    await turns();
    expect(host.driver.port(0).size).toEqual({ columns: 80, rows: 25 });
    expect(host.driver.port(1).size).toBeUndefined();
    host.resize(1, 100, 40);
    await turns();
    expect(host.driver.port(1).size).toEqual({ columns: 100, rows: 40 });
    expect(host.driver.size).toEqual({ columns: 80, rows: 25 });
    host.resize(0, 120, 50);
    await turns();
    expect(host.driver.size).toEqual({ columns: 120, rows: 50 });
    host.device.changeConfig((config) => config.setUint16(0, 33, true));
    await turns();
    expect(host.driver.port(0).size?.columns).toBe(33);
    expect(log.events.filter((event) => event.startsWith('resized'))).toEqual([
      'resized 1',
      'resized 0',
      'resized 0',
    ]);
  });

  it('have the size of no port that was there before', async () => {
    const host = model();
    await turns();
    const { driver } = host;
    host.resize(0, 120, 50);
    await turns();
    expect(driver.size).toEqual({ columns: 120, rows: 50 });
    host.unplug(0);
    await turns();
    host.plug(0, { console: true });
    await turns();
    expect([driver.size, driver.port(0).size]).toEqual([undefined, undefined]);
    host.resize(0, 100, 40);
    await turns();
    driver.reset();
    await turns();
    expect([driver.size, driver.port(0).size]).toEqual([undefined, undefined]);
    const told = model({ features: SPLIT | SIZE });
    await turns();
    told.resize(0, 120, 50);
    await turns();
    told.driver.reset();
    await turns();
    expect(told.driver.port(0).size).toEqual({ columns: 80, rows: 25 });
  });

  it('can be waited for without end and cancelled', async () => {
    const host = model();
    const controller = new AbortController();
    const waiting = host.driver.waitForPort('nobody', { signal: controller.signal });
    waiting.catch(() => undefined);
    await turns();
    controller.abort();
    await expect(waiting).rejects.toThrow(failsWith('ABORTED'));
    await expect(host.driver.waitForPort(4)).rejects.toThrow(failsWith('INVALID_PARAM'));
    expect((host.transport.interrupts as FakeInterrupts).holds).toBe(0);
    // Messages are still heard of.
    const log = logOf(host.driver);
    host.plug(2);
    await turns();
    expect(log.events).toEqual(['portAdded 2']);
  });

  it('let listeners do what they like', async () => {
    const host = model({ ports: { 0: PORTS[0], 1: PORTS[1] } });
    const heard: number[] = [];
    host.driver.on('portAdded', (port) => {
      port.open();
      heard.push(host.driver.waitForPortSync(port.id).id);
      port.waitForHostSync();
      port.writeSync('from the listener');
    });
    await turns();
    host.plug(2, { name: 'late', open: true });
    await turns();
    expect(heard.toSorted()).toEqual([0, 1, 2]);
    for (const id of heard) expect(host.text(id)).toBe('from the listener');
  });
});

describe('a device that lies or fails', () => {
  it('may say what makes no sense: it is left aside and reported', async () => {
    const host = model();
    const log = logOf(host.driver);
    await turns();
    log.events.length = 0;
    const before = host.messages.length;
    host.control(4, ADD, 0);
    host.control(0xffffffff, ADD, 0);
    host.control(2, REMOVE, 0);
    host.control(2, OPEN, 1);
    host.control(2, NAME, 1, utf8('nobody'));
    host.control(1, 99, 0);
    host.control(1, READY, 0);
    host.control(1, RESIZE, 0, [80, 0]);
    await turns();
    expect(log.events).toEqual([]);
    expect(log.warnings).toHaveLength(8);
    expect(host.driver.failure).toBeUndefined();
    expect(host.messages).toHaveLength(before);
    expect(host.driver.ports).toHaveLength(3);
  });

  it('may add a port twice, as QEMU does when one is plugged while the driver starts', async () => {
    const host = model();
    const log = logOf(host.driver);
    await turns();
    const port = host.driver.port(1).open();
    host.control(1, ADD, 0);
    await turns();
    expect(host.driver.port(1)).toBe(port);
    expect(port.isOpen).toBe(true);
    expect(host.host(1).ready).toBe(2);
    expect(log.warnings).toHaveLength(1);
  });

  it.each([0, 4, 7])('is not trusted after a control message of %i bytes', async (length) => {
    const host = model();
    await turns();
    const waiting = host.driver.waitForPort('nobody');
    waiting.catch(() => undefined);
    await turns();
    host.device.queue(2).pop()?.complete(length);
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_MISBEHAVED'));
    expect(String(host.device.status)).toContain('FAILED');
    host.driver[Symbol.dispose]();
    host.device.hal.assertClean();
  });

  it.each([2, 3])(
    'is not trusted after it used a chain of control queue %i that does not exist',
    async (queue) => {
      const host = model();
      await turns();
      host.device.queue(queue).forceUsed(999, 8);
      host.driver.pollEvents();
      expect(host.driver.failure?.code).toBe('DEVICE_MISBEHAVED');
      await expect(host.driver.waitForPort('nobody')).rejects.toThrow(failsWith('DEVICE_MISBEHAVED'));
    },
  );

  it('cannot fill the memory with answers that it does not take', async () => {
    const host = model();
    await turns();
    const { automatic } = host.device;
    host.device.automatic = false;
    const before = host.messages.length;
    for (let n = 0; n < 2000; n += 1) {
      host.control(1, n % 2 === 0 ? CONSOLE : ADD, 1);
      host.control(2, n % 2 === 0 ? ADD : REMOVE, 0);
      if (n % 8 === 0) host.driver.pollEvents();
    }
    await turns();
    host.device.automatic = automatic;
    host.device.run(3);
    await turns(5000);
    expect(host.dropped).toBe(0);
    // One answer was with the device; of those that waited there is one of each kind, and none for what was removed.
    const told = host.messages.slice(before).map(({ id, event, value }) => `${id}: ${event} ${value}`);
    expect(told.filter((message) => message.startsWith('1:'))).toEqual(['1: 6 1', '1: 3 1', '1: 6 1']);
    expect(told.length).toBeLessThan(6);
  });

  it('lets other work have its turn while it sends messages as fast as they are taken', async () => {
    const host = model();
    await turns();
    const interrupts = host.transport.interrupts as FakeInterrupts;
    // What is seen here is what the driver does by itself; real interrupts come between turns of the event loop.
    interrupts.masked = true;
    interrupts.defer = (callback) => void setImmediate(callback);
    let flooding = true;
    host.device.handle(2, (chain) => {
      if (flooding) chain.write([9, 0, 0, 0, 0, 0, 0, 0]);
      else chain.defer();
    });
    host.device.run(2);
    expect(host.driver.findPort(1)?.name).toBe('org.example.data');
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(host.driver.failure).toBeUndefined();
    flooding = false;
    host.driver[Symbol.dispose]();
  });

  it('is usable right after construction: port() waits for its announcement', () => {
    const host = model();
    expect(host.driver.port(3).id).toBe(3);
    expect(() => host.driver.port(2, { timeoutMs: 1 })).toThrow(failsWith('NOT_READY'));
    expect(() => host.driver.port(4)).toThrow(failsWith('INVALID_PARAM'));
  });

  it('takes names as they come: too long, empty, broken, or ended early', async () => {
    const host = model();
    await turns();
    const port = host.driver.port(1);
    host.control(1, NAME, 1, []);
    await turns();
    expect(port.name).toBe('');
    host.control(1, NAME, 1, [0xff, 65, 0, 66]);
    await turns();
    expect(port.name).toBe('\ufffdA');
    host.control(1, NAME, 1, new Uint8Array(1016).fill(65));
    await turns();
    expect(port.name).toHaveLength(1016);
    host.control(1, NAME, 1, utf8('é'.repeat(2044)));
    await turns();
    expect(port.name).toBe('é'.repeat(2044));
  });

  it('can be reset: its ports are other ones then', async () => {
    const host = model();
    const { driver } = host;
    const port = (await driver.waitForPort('org.example.data')).open();
    await turns();
    host.send(1, 'unread');
    expect(port.available).toBe(6);
    const waiting = driver.waitForPort('nobody');
    waiting.catch(() => undefined);
    const log = logOf(driver);
    await turns();
    host.device.needsReset();
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_NEEDS_RESET'));
    host.host(1).guestOpen = false;
    driver.reset();
    expect(port.removed).toBe(true);
    expect(port.tryReadChunk()).toEqual(Uint8Array.from(utf8('unread')));
    const again = (await driver.waitForPort('org.example.data')).open();
    expect(again).not.toBe(port);
    await turns();
    host.send(1, 'new\n');
    expect(await again.readLine()).toBe('new');
    await again.write('back');
    await again.flush();
    expect(host.text(1)).toBe('back');
    expect(log.events.filter((event) => event.startsWith('portRemoved'))).toHaveLength(3);
    expect(log.events.filter((event) => event.startsWith('portAdded'))).toHaveLength(3);
    driver[Symbol.dispose]();
    host.device.assertClean();
  });

  it('can have its control queues reset', async () => {
    const { CommonFeatures } = await import('@virtio/core');
    const host = model({ features: CommonFeatures.set('RING_RESET').bits });
    await turns();
    const log = logOf(host.driver);
    host.driver.resetQueue(2);
    host.plug(2, { name: 'late' });
    await turns();
    host.device.automatic = false;
    host.driver.port(1).open();
    host.driver.port(2).open();
    // The message that the device had is sent again, and the one behind it is not forgotten.
    host.driver.resetQueue(3);
    host.device.automatic = true;
    host.device.run(3);
    await turns();
    expect(log.events).toEqual(['portAdded 2', 'portChanged 2']);
    expect([host.host(1).guestOpen, host.host(2).guestOpen]).toEqual([true, true]);
    host.driver[Symbol.dispose]();
    host.device.assertClean();
  });

  it('does nothing worse than fail, whatever messages it sends', async () => {
    const message = fc.record({
      id: fc.oneof(fc.nat(5), fc.constant(0xffffffff)),
      event: fc.nat(9),
      value: fc.nat(2),
      rest: fc.uint8Array({ maxLength: 12 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(message, { maxLength: 20 }), { maxLength: 8 }), async (batches) => {
        const host = model({ queueSize: 4, options: { bufferSize: 8 } });
        const ports: ConsolePort[] = [];
        host.driver.on('portAdded', (port) => ports.push(port));
        await turns();
        for (const batch of batches) {
          for (const { id, event, value, rest } of batch) host.control(id, event, value, rest);
          await turns();
          for (const port of host.driver.ports) {
            port.open();
            port.tryWrite(utf8('hello'));
            port.recv();
          }
        }
        expect(host.driver.failure).toBeUndefined();
        host.driver[Symbol.dispose]();
        for (const port of ports) expect(() => port.tryWrite(utf8('x'))).toThrow(VirtioError);
        host.device.assertClean();
      }),
      { numRuns: 60 },
    );
  });
});
