/** What callers, listeners and devices do at the worst moment. */
import { CommonFeatures, type VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import {
  ADD,
  ConsoleModel,
  EMERG_WRITE,
  type ModelOptions,
  MULTIPORT,
  NAME,
  OPEN,
  REMOVE,
  SIZE,
  SPLIT,
  turns,
  utf8,
} from '../test/console-model.ts';
import type { ConsolePort } from './index.ts';

const failsWith = (code: string): Error => expect.objectContaining({ code }) as Error;

const several = (options: ModelOptions = {}): ConsoleModel =>
  new ConsoleModel({
    ports: { 0: { console: true, open: true }, 1: { name: 'data', open: true } },
    ...options,
    features: (options.features ?? SPLIT) | MULTIPORT,
  });

describe('a caller that has cancelled takes nothing', () => {
  const reads: Readonly<Record<string, (port: ConsolePort, signal: AbortSignal) => Promise<unknown>>> = {
    read: (port, signal) => port.read(new Uint8Array(4), { signal }),
    readChunk: (port, signal) => port.readChunk({ signal }),
    readExact: (port, signal) => port.readExact(2, { signal }),
    readLine: (port, signal) => port.readLine({ signal }),
    lines: (port, signal) => port.lines({ signal }).next(),
    chunks: (port, signal) => port.chunks({ signal }).next(),
  };

  it.each(Object.entries(reads))('%s: before the call, although data is there', async (_name, read) => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    model.send(0, 'abc\n');
    await expect(read(port, AbortSignal.abort())).rejects.toThrow(failsWith('ABORTED'));
    expect(port.available).toBe(4);
    await expect(read(port, 'no signal' as unknown as AbortSignal)).rejects.toThrow(
      failsWith('INVALID_PARAM'),
    );
    expect(port.available).toBe(4);
  });

  it.each(Object.entries(reads))('%s: in the turn in which data comes', async (_name, read) => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    const controller = new AbortController();
    const reading = read(port, controller.signal);
    reading.catch(() => undefined);
    await turns();
    model.send(0, 'abc\n');
    expect(port.available).toBe(4);
    controller.abort();
    await expect(reading).rejects.toThrow(failsWith('ABORTED'));
    expect(port.available).toBe(4);
    expect(port.tryReadLine()).toBe('abc');
    expect(model.transport.interrupts?.holds).toBe(0);
  });

  it('a stream that is cancelled in that turn leaves the data with the port', async () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    const reader = port.readable(ReadableStream<Uint8Array<ArrayBuffer>>).getReader();
    const reading = reader.read();
    await turns();
    model.send(0, 'abc');
    expect(port.available).toBe(3);
    await reader.cancel();
    expect((await reading).done).toBe(true);
    await turns();
    expect(await port.readChunk()).toEqual(utf8('abc'));
  });

  it('a write sends nothing more, although there is room in that turn', async () => {
    const model = new ConsoleModel({ queueSize: 2, options: { bufferSize: 8 } });
    const port = model.driver.port();
    model.host(0).throttled = true;
    const controller = new AbortController();
    const writing = port.write('b'.repeat(20), { signal: controller.signal });
    writing.catch(() => undefined);
    await turns();
    model.unthrottle(0);
    expect(port.flushed).toBe(true);
    controller.abort();
    await expect(writing).rejects.toThrow(failsWith('ABORTED'));
    expect(model.text(0)).toBe('b'.repeat(16));
  });
});

describe('an array that changes while data is waited for', () => {
  it.each(['transferred', 'resized to nothing'])(
    '%s: the read does not end as a session does',
    async (how) => {
      const model = new ConsoleModel();
      const port = model.driver.port();
      const buffer = new ArrayBuffer(8, { maxByteLength: 8 });
      const reading = port.read(new Uint8Array(buffer));
      reading.catch(() => undefined);
      await turns();
      if (how === 'transferred') buffer.transfer();
      else buffer.resize(0);
      model.send(0, 'abc');
      await expect(reading).rejects.toThrow(failsWith('INVALID_PARAM'));
      expect(port.available).toBe(3);
    },
  );
});

describe('an array that a listener changes while a call spins', () => {
  /** Calls `act` from inside of the next call that looks for messages. */
  const inside = (model: ConsoleModel, act: () => void): void => {
    const remove = model.driver.on('portChanged', () => {
      remove();
      act();
    });
    model.control(1, NAME, 1, [...utf8('other'), 0]);
  };

  it('does not end a read as the end of a session does', async () => {
    const model = several();
    await turns();
    const port = model.driver.port(1).open();
    await turns();
    const into = new Uint8Array(8);
    inside(model, () => {
      into.buffer.transfer();
      model.send(1, 'abc');
    });
    expect(() => port.readSync(into)).toThrow(failsWith('INVALID_PARAM'));
    expect(port.readSync(new Uint8Array(8))).toBe(3);
  });

  it.each(['transferred', 'resized to what was sent'])('%s: the write is not taken for done', async (how) => {
    const model = several({ options: { bufferSize: 8, buffers: 2 } });
    await turns();
    const port = model.driver.port(1).open();
    await turns();
    model.host(1).throttled = true;
    const buffer = new ArrayBuffer(20, { maxByteLength: 20 });
    const bytes = new Uint8Array(buffer);
    inside(model, () => {
      if (how === 'transferred') buffer.transfer();
      else buffer.resize(16);
      model.unthrottle(1);
    });
    expect(() => {
      port.writeSync(bytes, { timeoutMs: 5000 });
    }).toThrow(failsWith('INVALID_PARAM'));
    expect(model.host(1).received).toHaveLength(16);
    port.writeSync('more');
    expect(model.host(1).received).toHaveLength(20);
  });
});

describe('listeners', () => {
  it('may open a port again while it is closed: what came since is kept', async () => {
    const model = several();
    await turns();
    const port = model.driver.port(1).open();
    await turns();
    model.driver.on('portChanged', () => {
      if (port.isOpen) return;
      port.open();
      model.send(1, 'new');
    });
    model.send(1, 'old');
    // The host hangs up and comes back as soon as it hears that the port is closed.
    model.device.handle(3, (chain) => {
      const header = chain.header();
      if (header.getUint16(4, true) !== OPEN || header.getUint16(6, true) !== 0) return;
      model.setOpen(1, false);
      model.setOpen(1, true);
    });
    port.close();
    expect(port.isOpen).toBe(true);
    expect(port.tryReadChunk()).toEqual(utf8('new'));
  });

  it('hear nothing of a port that was gone before they could hear that it was added', async () => {
    const model = several();
    await turns();
    const heard: string[] = [];
    model.driver.on('portAdded', (port) => heard.push(`added ${port.open().id}`));
    model.driver.on('portChanged', (port) => heard.push(`changed ${port.id}`));
    model.driver.on('portRemoved', (port) => heard.push(`removed ${port.id}`));
    model.control(2, ADD, 0);
    model.control(2, OPEN, 1);
    model.control(2, REMOVE, 0);
    model.control(1, OPEN, 0);
    model.control(1, REMOVE, 0);
    await turns();
    expect(heard).toEqual(['removed 1']);
  });

  it('hear of no port any more when one of them has disposed the driver', async () => {
    const model = several();
    await turns();
    const heard: number[] = [];
    model.driver.on('portAdded', (port) => {
      heard.push(port.open().id);
      model.driver[Symbol.dispose]();
    });
    model.control(2, ADD, 0);
    model.control(3, ADD, 0);
    await turns();
    expect(heard).toEqual([2]);
    model.device.assertClean();
  });

  it('are called one after another, however often they look and a device floods', async () => {
    const model = several();
    await turns();
    let depth = 0;
    let deepest = 0;
    const warnings: VirtioError[] = [];
    model.driver.on('warning', (warning) => {
      warnings.push(warning);
      deepest = Math.max(deepest, (depth += 1));
      model.driver.findPort(1);
      depth -= 1;
    });
    let left = 5000;
    model.device.handle(2, (chain) => {
      if (left <= 0) chain.defer();
      else chain.write([9, 0, 0, 0, 0, 0, 0, 0]);
      left -= 1;
    });
    model.device.run(2);
    model.driver.findPort(1);
    await turns();
    expect(deepest).toBe(1);
    expect(warnings.length).toBeGreaterThan(0);
    expect(model.driver.failure).toBeUndefined();
  });
});

describe('without interrupts', () => {
  it('sizes that change while nobody polls for events are not kept one by one', () => {
    const model = new ConsoleModel({ features: SPLIT | SIZE, interrupts: false });
    let resized = 0;
    model.driver.on('resized', () => (resized += 1));
    for (let columns = 1; columns <= 1000; columns += 1) {
      new DataView(model.device.config.buffer).setUint16(0, columns, true);
      expect(model.driver.size?.columns).toBe(columns);
    }
    model.device.changeConfig(() => undefined);
    model.driver.pollEvents();
    expect(resized).toBeGreaterThan(0);
    expect(resized).toBeLessThan(100);
  });
});

describe('callers without types', () => {
  it('write nothing but bytes in an emergency', () => {
    const model = new ConsoleModel({ features: SPLIT | EMERG_WRITE });
    const written: number[] = [];
    model.device.onConfigWrite = (_offset, _width, value) => written.push(value);
    for (const data of [[65, 300], 5, null, undefined, Uint16Array.of(0x4142)]) {
      expect(() => {
        model.driver.emergencyWrite(data as unknown as Uint8Array);
      }).toThrow(failsWith('INVALID_PARAM'));
    }
    expect(written).toEqual([]);
  });

  it('name a port by a number, a name or a function', async () => {
    const { driver } = several({ features: CommonFeatures.set('EVENT_IDX').bits });
    await turns();
    for (const which of [undefined, null, {}, 1n, true]) {
      expect(() => driver.findPort(which as number)).toThrow(failsWith('INVALID_PARAM'));
      await expect(driver.waitForPort(which as number)).rejects.toThrow(failsWith('INVALID_PARAM'));
    }
  });
});
