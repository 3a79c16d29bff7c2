import { CommonFeatures, DeviceType, VirtioError } from '@virtio/core';
import { FakeDevice, type FakeInterrupts, FakeTransport, ringVariants } from '@virtio/testing';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { ConsoleModel, EMERG_WRITE, SIZE, SPLIT, turns, utf8 } from '../test/console-model.ts';
import { type ConsolePort, emergencyWrite, VirtioConsole } from './index.ts';

const failsWith = (code: string): Error => expect.objectContaining({ code }) as Error;

function readAll(port: ConsolePort): string {
  const parts: number[] = [];
  for (let chunk = port.tryReadChunk(); chunk; chunk = port.tryReadChunk()) parts.push(...chunk);
  return new TextDecoder().decode(Uint8Array.from(parts));
}

describe.each(ringVariants)('a console with one port: $name', ({ features }) => {
  it('carries bytes both ways in each of the three forms over many laps', async () => {
    const model = new ConsoleModel({ features, queueSize: 4, options: { bufferSize: 16 } });
    const port = model.driver.port();
    let sent = '';
    for (let n = 0; n < 30; n += 1) {
      const text = `line ${n} ${'x'.repeat(n)}\n`;
      sent += text;
      if (n % 3 === 0) {
        const bytes = utf8(text);
        for (let at = 0; at < bytes.length;) at += port.tryWrite(bytes.subarray(at));
      } else if (n % 3 === 1) port.writeSync(text);
      else await port.write(text);
      expect(model.send(0, text)).toBe(text.length);
      if (n % 3 === 0) expect(port.tryReadLine()).toBe(text.slice(0, -1));
      else if (n % 3 === 1) expect(port.readLineSync()).toBe(text.slice(0, -1));
      else expect(await port.readLine()).toBe(text.slice(0, -1));
    }
    await port.flush();
    expect(model.text(0)).toBe(sent);
    expect(port.available).toBe(0);
    model.driver[Symbol.dispose]();
    model.device.assertClean();
  });

  it('loses nothing, whatever is written and read in whatever pieces', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.record({ send: fc.integer({ min: 1, max: 60 }) }),
            fc.record({ read: fc.integer({ min: 1, max: 60 }) }),
            fc.record({ write: fc.integer({ min: 1, max: 60 }) }),
            fc.constant({ recv: true }),
            fc.constant({ turn: true }),
          ),
          { maxLength: 60 },
        ),
        async (steps) => {
          const model = new ConsoleModel({
            features,
            queueSize: 4,
            options: { bufferSize: 8, readAhead: 20 },
          });
          const port = model.driver.port();
          let next = 0;
          const bytes = (length: number): Uint8Array => Uint8Array.from({ length }, () => (next += 1) & 0xff);
          const sent: number[] = [];
          const got: number[] = [];
          const written: number[] = [];
          for (const step of steps) {
            if ('send' in step) {
              const data = bytes(step.send);
              sent.push(...data.subarray(0, model.send(0, data)));
            } else if ('read' in step) {
              const into = new Uint8Array(step.read);
              got.push(...into.subarray(0, port.tryRead(into)));
            } else if ('write' in step) {
              const data = bytes(step.write);
              written.push(...data.subarray(0, port.tryWrite(data)));
            } else if ('recv' in step) {
              const byte = port.recv(false);
              expect(port.recv()).toBe(byte);
              if (byte >= 0) got.push(byte);
            } else await turns(2);
          }
          for (let byte = port.recv(); byte >= 0; byte = port.recv()) got.push(byte);
          expect(got).toEqual(sent);
          port.flushSync();
          expect(model.host(0).received).toEqual(written);
          model.driver[Symbol.dispose]();
          model.device.assertClean();
        },
      ),
      { numRuns: 30 },
    );
  });
});

describe('reading', () => {
  it('takes a byte, or leaves it there', () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    expect(port.recv()).toBe(-1);
    model.send(0, 'ab');
    expect(port.recv(false)).toBe(97);
    expect(port.recv(false)).toBe(97);
    expect(port.recv()).toBe(97);
    expect(port.recv()).toBe(98);
    expect(port.recv(false)).toBe(-1);
  });

  it('shows what there is, and passes over it, without taking more', async () => {
    const model = new ConsoleModel({ options: { readAhead: 16, bufferSize: 8 } });
    const port = model.driver.port();
    const seen = new Uint8Array(32);
    expect(port.peek(seen)).toBe(0);
    expect(port.skip(5)).toBe(0);
    const waiting = port.waitForData();
    const text = 'abcdefghijklmnopqrst';
    model.send(0, text);
    await waiting;
    // No more than the driver keeps; the rest is still in the buffers of the queue.
    expect(port.peek(seen)).toBe(16);
    expect(new TextDecoder().decode(seen.subarray(0, 16))).toBe(text.slice(0, 16));
    expect(port.available).toBe(20);
    expect(port.skip(18)).toBe(18);
    port.waitForDataSync();
    expect(port.peek(seen.subarray(0, 1))).toBe(1);
    expect(port.recv()).toBe(text.charCodeAt(18));
    expect(port.skip(9)).toBe(1);
    expect(() => port.waitForDataSync({ timeoutMs: 1 })).toThrow(failsWith('NOT_READY'));
    expect(() => port.readLineSync({ timeoutMs: 1 })).toThrow(
      'Console device (fake): a line of port 0 did not come within 1 ms; wait longer, or check the host',
    );
  });

  it('is from buffers that the device may only write, and writing from such that it may only read [5.3.6.1]', () => {
    const model = new ConsoleModel();
    const received = Array.from({ length: 16 }, () => model.device.queue(0).pop());
    expect(received.map((chain) => [chain?.readable, chain?.writable])).toEqual(
      new Array(16).fill([0, 4096]),
    );
    model.device.automatic = false;
    model.driver.port().tryWrite(utf8('hello'));
    const sent = model.device.queue(1).pop();
    expect([sent?.readable, sent?.writable]).toEqual([5, 0]);
  });

  it('holds the host up when nobody reads, and lets it go on as bytes are read', () => {
    const model = new ConsoleModel({ queueSize: 4, options: { bufferSize: 10, readAhead: 15 } });
    const port = model.driver.port();
    let sent = 0;
    for (let round = 0; round < 10; round += 1) {
      sent += model.send(0, new Uint8Array(100));
      expect(port.available).toBe(sent);
    }
    // The ring holds one buffer and a half: one has gone back, and was filled again.
    expect(sent).toBe(50);
    const into = new Uint8Array(5);
    expect(port.tryRead(into)).toBe(5);
    sent += model.send(0, new Uint8Array(100));
    expect(sent).toBe(60);
    expect(readAll(port)).toHaveLength(55);
    expect(model.send(0, new Uint8Array(100))).toBe(40);
  });

  it('does not hold a whole buffer for a key press', () => {
    const model = new ConsoleModel({ queueSize: 4 });
    const port = model.driver.port();
    for (let n = 0; n < 100; n += 1) {
      expect(model.send(0, 'k')).toBe(1);
      expect(port.available).toBe(n + 1);
    }
  });

  it('passes over buffers that the device used for nothing', () => {
    const model = new ConsoleModel({ queueSize: 4 });
    const port = model.driver.port();
    for (let n = 0; n < 20; n += 1) model.device.send(0, []);
    expect(port.recv()).toBe(-1);
    model.send(0, 'a');
    expect(port.recv()).toBe(97);
  });

  it('is by lines, however they end and arrive, and leaves the rest', async () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    const lines: string[] = [];
    const loop = (async () => {
      for await (const line of port.lines()) {
        lines.push(line);
        if (line === 'end') break;
      }
    })();
    for (const part of ['fir', 'st\nsecond\r', '\n\n\r\nGrüße 🙂', '\nend\nrest']) {
      model.send(0, part);
      await turns();
    }
    await loop;
    expect(lines).toEqual(['first', 'second', '', '', 'Grüße 🙂', 'end']);
    expect(readAll(port)).toBe('rest');
  });

  it('refuses a line that is longer than what it keeps, and loses nothing of it', async () => {
    const model = new ConsoleModel({ options: { readAhead: 16, bufferSize: 8 } });
    const port = model.driver.port();
    model.send(0, 'x'.repeat(20));
    expect(() => port.tryReadLine()).toThrow(failsWith('UNSUPPORTED'));
    await expect(port.readLine()).rejects.toThrow(failsWith('UNSUPPORTED'));
    model.send(0, 'y\n');
    expect(readAll(port)).toBe(`${'x'.repeat(20)}y\n`);
    model.send(0, `${'z'.repeat(15)}\n`);
    expect(port.tryReadLine()).toBe('z'.repeat(15));
  });

  it('waits while there is nothing, holds the event loop only then, and can be cancelled', async () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    const interrupts = model.transport.interrupts as FakeInterrupts;
    const controller = new AbortController();
    const into = new Uint8Array(8);
    const cancelled = port.read(into, { signal: controller.signal });
    const waiting = port.readChunk();
    await turns();
    expect(interrupts.holds).toBe(1);
    controller.abort();
    await expect(cancelled).rejects.toThrow(failsWith('ABORTED'));
    model.send(0, 'abc');
    expect(await waiting).toEqual(Uint8Array.from(utf8('abc')));
    expect(interrupts.holds).toBe(0);
    model.send(0, 'later');
    await turns();
    expect(await port.read(into)).toBe(5);
    expect(await port.read(new Uint8Array(0))).toBe(0);
    expect(port.readSync(new Uint8Array(0))).toBe(0);
  });

  it('sees bytes that came just before interrupts were asked for [2.7.14]', async () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    const interrupts = model.transport.interrupts as FakeInterrupts;
    interrupts.masked = true;
    const hold = interrupts.hold.bind(interrupts);
    interrupts.hold = () => {
      hold();
      model.send(0, 'a');
    };
    expect(await port.readChunk()).toEqual(Uint8Array.of(97));
  });

  it('works without interrupts but for promises, and gives up in time', async () => {
    const model = new ConsoleModel({ interrupts: false });
    const port = model.driver.port();
    expect(() => port.readSync(new Uint8Array(1), { timeoutMs: 1 })).toThrow(failsWith('NOT_READY'));
    await expect(port.readChunk()).rejects.toThrow(failsWith('UNSUPPORTED'));
    model.send(0, 'abc\n');
    expect(port.readChunkSync()).toEqual(Uint8Array.from(utf8('abc\n')));
    model.send(0, 'def\n');
    expect(port.readLineSync()).toBe('def');
  });
});

describe('writing', () => {
  it('and reading refuse what are no bytes, and send nothing of it', async () => {
    const model = new ConsoleModel({});
    const port = model.driver.port();
    for (const wrong of [undefined, 5, new ArrayBuffer(4), new Uint32Array(4)] as unknown as Uint8Array[]) {
      for (const name of ['tryWrite', 'writeSync', 'tryRead', 'peek', 'readSync'] as const) {
        expect(() => port[name](wrong)).toThrow(failsWith('INVALID_PARAM'));
      }
      await expect(port.write(wrong)).rejects.toThrow(failsWith('INVALID_PARAM'));
      await expect(port.read(wrong)).rejects.toThrow(failsWith('INVALID_PARAM'));
    }
    await port.write('after');
    await port.flush();
    expect(Buffer.from(model.host(0).received).toString()).toBe('after');
  });

  it('waits for a device that does not take what it has, and loses nothing', async () => {
    const model = new ConsoleModel({ queueSize: 4, options: { bufferSize: 8 } });
    const port = model.driver.port();
    const data = Uint8Array.from({ length: 100 }, (_, n) => n);
    model.host(0).throttled = true;
    let done = false;
    const writing = port.write(data).then(() => {
      done = true;
    });
    await turns();
    expect(done).toBe(false);
    expect(port.flushed).toBe(false);
    expect(port.tryWrite(data)).toBe(0);
    expect(() => port.writeSync(data, { timeoutMs: 1 })).toThrow(failsWith('ALREADY_USED'));
    expect(() => port.flushSync({ timeoutMs: 1 })).toThrow(failsWith('NOT_READY'));
    model.unthrottle(0);
    await writing;
    await port.flush();
    expect(port.flushed).toBe(true);
    expect(model.host(0).received).toEqual([...data]);
  });

  it('does not wait for what others go on writing', async () => {
    const model = new ConsoleModel({ queueSize: 4, options: { bufferSize: 8 } });
    const port = model.driver.port();
    model.host(0).throttled = true;
    port.writeSync('first');
    const done = vi.fn<() => void>();
    const flushed = port.flush().then(done);
    for (let n = 0; n < 50 && done.mock.calls.length === 0; n += 1) {
      // One buffer is always with the device.
      port.writeSync('more');
      const [oldest] = model.device.queue(1).chains;
      oldest?.complete();
      await turns();
    }
    expect(done).toHaveBeenCalled();
    await flushed;
    model.unthrottle(0);
  });

  it('does not mix the bytes of several writes', async () => {
    const model = new ConsoleModel({ queueSize: 2, options: { bufferSize: 8 } });
    const port = model.driver.port();
    const texts = ['a', 'b', 'c'].map((letter) => letter.repeat(100));
    await Promise.all(texts.map((text) => port.write(text)));
    expect(model.text(0)).toBe(texts.join(''));
  });

  it('goes on behind a write that was cancelled', async () => {
    const model = new ConsoleModel({ queueSize: 2, options: { bufferSize: 8 } });
    const port = model.driver.port();
    model.host(0).throttled = true;
    const controller = new AbortController();
    const first = port.write('a'.repeat(20), { signal: controller.signal });
    const second = port.write('b');
    const flushed = port.flush();
    first.catch(() => undefined);
    await turns();
    controller.abort();
    await expect(first).rejects.toThrow(failsWith('ABORTED'));
    model.unthrottle(0);
    await second;
    await flushed;
    expect(model.text(0)).toBe(`${'a'.repeat(16)}b`);
  });

  it('ends a write whose bytes are transferred meanwhile, and goes on behind it', async () => {
    const model = new ConsoleModel({ queueSize: 2, options: { bufferSize: 8 } });
    const port = model.driver.port();
    model.host(0).throttled = true;
    const bytes = new Uint8Array(40).fill(97);
    const first = port.write(bytes);
    const second = port.write('b');
    first.catch(() => undefined);
    await turns();
    bytes.buffer.transfer();
    model.unthrottle(0);
    await expect(first).rejects.toThrow(failsWith('INVALID_PARAM'));
    await expect(first).rejects.toThrow(/16 of 40 were sent/);
    await second;
    expect(model.text(0)).toBe(`${'a'.repeat(16)}b`);
  });

  it('sends nothing of a write that was cancelled before its turn, and ends it at once', async () => {
    const model = new ConsoleModel({ queueSize: 2, options: { bufferSize: 8 } });
    const port = model.driver.port();
    await expect(port.write('never', { signal: AbortSignal.abort() })).rejects.toThrow(failsWith('ABORTED'));
    model.host(0).throttled = true;
    const controller = new AbortController();
    const first = port.write('a'.repeat(20));
    const second = port.write('b', { signal: controller.signal });
    const third = port.write('c');
    second.catch(() => undefined);
    await turns();
    controller.abort();
    await expect(second).rejects.toThrow(failsWith('ABORTED'));
    model.unthrottle(0);
    await Promise.all([first, third]);
    await port.flush();
    expect(model.text(0)).toBe(`${'a'.repeat(20)}c`);
  });

  it('can give up waiting for the device to take everything', async () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    model.host(0).throttled = true;
    await port.write('x');
    const controller = new AbortController();
    const flushing = port.flush({ signal: controller.signal });
    flushing.catch(() => undefined);
    await turns();
    controller.abort();
    await expect(flushing).rejects.toThrow(failsWith('ABORTED'));
  });

  it('does not look at the lengths that a legacy device reports [5.3.6.3]', () => {
    const device = new FakeDevice({ type: DeviceType.Console, legacy: true, queues: [8, 8], config: 12 });
    device.handle(1, (chain) => chain.readable);
    const port = new VirtioConsole(new FakeTransport(device), device.hal).port();
    port.writeSync('hello');
    port.flushSync();
    expect(port.flushed).toBe(true);
  });
});

describe('size', () => {
  it('is that of the configuration if the device tells, and changes with it [5.3.6]', async () => {
    const model = new ConsoleModel({ features: SPLIT | SIZE });
    const { driver } = model;
    const port = driver.port();
    expect(driver.size).toEqual({ columns: 80, rows: 25 });
    expect(port.size).toEqual({ columns: 80, rows: 25 });
    const seen: ConsolePort[] = [];
    driver.on('resized', (resized) => seen.push(resized));
    model.device.changeConfig((config) => {
      config.setUint16(0, 132, true);
      config.setUint16(2, 43, true);
    });
    await turns();
    expect(driver.size).toEqual({ columns: 132, rows: 43 });
    expect(port.size).toEqual({ columns: 132, rows: 43 });
    model.device.changeConfig(() => undefined);
    await turns();
    expect(seen).toEqual([port]);
  });

  it('is not known if the device does not tell', () => {
    const { driver } = new ConsoleModel();
    expect(driver.size).toBeUndefined();
    expect(driver.port().size).toBeUndefined();
  });

  it('is found by polling, too', () => {
    const model = new ConsoleModel({ features: SPLIT | SIZE, interrupts: false });
    model.device.changeConfig((config) => config.setUint16(0, 99, true));
    model.driver.pollEvents();
    expect(model.driver.size?.columns).toBe(99);
  });
});

describe('emergency write', () => {
  it('needs no queue and works after a failure [5.3.5]', () => {
    const model = new ConsoleModel({ features: SPLIT | EMERG_WRITE });
    const written: number[] = [];
    model.device.onConfigWrite = (offset, width, value) => {
      expect([offset, width]).toEqual([8, 4]);
      written.push(value);
    };
    model.driver.emergencyWrite('a');
    model.driver.fail(new VirtioError('DEVICE_MISBEHAVED', 'a test says so'));
    model.driver.emergencyWrite(utf8('ü'));
    expect(written).toEqual([97, 0xc3, 0xbc]);
    model.driver[Symbol.dispose]();
    expect(() => model.driver.emergencyWrite('b')).toThrow(failsWith('DISPOSED'));
  });

  it('works without a driver, before anything is initialized [5.3.4]', () => {
    const device = new FakeDevice({
      type: DeviceType.Console,
      features: EMERG_WRITE,
      config: 12,
      queues: [2, 2],
    });
    const transport = new FakeTransport(device);
    const written: number[] = [];
    device.onConfigWrite = (_offset, _width, value) => written.push(value);
    emergencyWrite(transport, 'hi');
    expect(written).toEqual([104, 105]);
    expect(device.statusWrites).toEqual([]);
  });

  it('is refused where the device does not offer it', () => {
    const model = new ConsoleModel();
    expect(() => model.driver.emergencyWrite('a')).toThrow(failsWith('UNSUPPORTED'));
    expect(() => emergencyWrite(model.transport, 'a')).toThrow(failsWith('UNSUPPORTED'));
  });
});

describe('reading so many bytes', () => {
  it('waits for all of them, in pieces as they come, and takes nothing before', async () => {
    const model = new ConsoleModel({ options: { readAhead: 100 } });
    const port = model.driver.port();
    const reading = port.readExact(6);
    model.send(0, 'abcd');
    await turns();
    expect(port.available).toBe(4);
    model.send(0, 'efgh');
    expect(await reading).toEqual(utf8('abcdef'));
    expect(port.readExactSync(2)).toEqual(utf8('gh'));
    await expect(port.readExact(101)).rejects.toThrow(failsWith('INVALID_PARAM'));
    expect(() => port.readExactSync(0.5)).toThrow(failsWith('INVALID_PARAM'));
    expect(() => port.readExactSync(1, { timeoutMs: 1 })).toThrow(failsWith('NOT_READY'));
  });

  it('refuses to pass over part of a byte', () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    model.send(0, 'abc');
    for (const wrong of [0.5, NaN, -1, '1' as unknown as number]) {
      expect(() => port.skip(wrong)).toThrow(failsWith('INVALID_PARAM'));
    }
    expect(port.skip(2)).toBe(2);
    expect(readAll(port)).toBe('c');
  });
});

describe('a device that lies or fails', () => {
  it('is not trusted after it used a chain that does not exist, but what it sent before can be read', async () => {
    const model = new ConsoleModel();
    const { driver } = model;
    const port = driver.port();
    model.send(0, 'abc');
    expect(port.available).toBe(3);
    const waiting = (async () => {
      for (;;) await port.readLine();
    })();
    waiting.catch(() => undefined);
    await turns();
    model.device.queue(0).pop();
    model.device.queue(0).forceUsed(77, 1);
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_MISBEHAVED'));
    expect(driver.failure?.code).toBe('DEVICE_MISBEHAVED');
    expect(readAll.bind(null, port)).toThrow(failsWith('DEVICE_MISBEHAVED'));
    expect(() => port.tryWrite(utf8('x'))).toThrow(failsWith('DEVICE_MISBEHAVED'));
    driver[Symbol.dispose]();
    model.device.hal.assertClean();
  });

  it('may lie about the transmit queue', async () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    model.host(0).throttled = true;
    await port.write('x');
    const waiting = port.flush();
    waiting.catch(() => undefined);
    await turns();
    model.device.queue(1).forceUsed(99, 0);
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_MISBEHAVED'));
    expect(() => port.tryWrite(utf8('y'))).toThrow(failsWith('DEVICE_MISBEHAVED'));
  });

  it('can be reset: the port goes on with what it had received', async () => {
    const model = new ConsoleModel({ queueSize: 4, options: { bufferSize: 8, readAhead: 8 } });
    const { driver } = model;
    const port = driver.port();
    expect(model.send(0, 'x'.repeat(32))).toBe(32);
    expect(port.available).toBe(32);
    model.host(0).throttled = true;
    await port.write('y');
    const flushing = port.flush();
    flushing.catch(() => undefined);
    await turns();
    model.device.needsReset();
    await expect(flushing).rejects.toThrow(failsWith('DEVICE_NEEDS_RESET'));
    driver.reset();
    model.host(0).throttled = false;
    expect(driver.port()).toBe(port);
    expect(readAll(port)).toBe('x'.repeat(32));
    model.send(0, 'again');
    expect(readAll(port)).toBe('again');
    port.writeSync('and back');
    port.flushSync();
    expect(model.text(0)).toBe('and back');
    driver[Symbol.dispose]();
    model.device.assertClean();
  });

  it('can have one queue reset: nothing that came is lost, and who wrote is told', async () => {
    const model = new ConsoleModel({ features: CommonFeatures.set('RING_RESET').bits, queueSize: 4 });
    const { driver } = model;
    const port = driver.port();
    model.send(0, 'a');
    expect(port.available).toBe(1);
    driver.resetQueue(0);
    expect(model.send(0, 'b')).toBe(1);
    expect(readAll(port)).toBe('ab');
    model.host(0).throttled = true;
    await port.write('lost');
    const writing = port.write(new Uint8Array(4 * 4096));
    writing.catch(() => undefined);
    await turns();
    driver.resetQueue(1);
    await expect(writing).rejects.toThrow(failsWith('DEVICE_RESET'));
    driver.resetQueue(1);
    model.host(0).throttled = false;
    await port.write('found');
    port.flushSync();
    expect(model.text(0)).toBe('found');
    driver[Symbol.dispose]();
    model.device.assertClean();
  });

  it('may go away: who waits is told', async () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    const waiting = port.readLine();
    waiting.catch(() => undefined);
    await turns();
    model.device.remove();
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_REMOVED'));
    expect(() => model.driver.waitForPortSync('x')).toThrow(failsWith('DEVICE_REMOVED'));
    model.driver[Symbol.dispose]();
    model.device.hal.assertClean();
  });
});

describe('construction', () => {
  it('refuses another device, impossible sizes and a device without its queues', () => {
    const block = new FakeDevice({ type: DeviceType.Block, queues: [8, 8] });
    expect(() => new VirtioConsole(new FakeTransport(block), block.hal)).toThrow(failsWith('INVALID_PARAM'));
    for (const options of [{ buffers: 0 }, { bufferSize: 1.5 }, { readAhead: -1 }, { buffers: 65536 }]) {
      expect(() => new ConsoleModel({ options })).toThrow(failsWith('INVALID_PARAM'));
    }
    const poor = new FakeDevice({ type: DeviceType.Console, queues: [8] });
    expect(() => new VirtioConsole(new FakeTransport(poor), poor.hal)).toThrow(failsWith('UNSUPPORTED'));
    poor.assertClean();
    const small = new FakeDevice({ type: DeviceType.Console, features: SIZE, queues: [8, 8], config: 2 });
    expect(() => new VirtioConsole(new FakeTransport(small), small.hal)).toThrow(
      failsWith('CONFIG_SPACE_TOO_SMALL'),
    );
    small.assertClean();
  });

  it('has no other ports, and says so at once', async () => {
    const { driver } = new ConsoleModel();
    expect(driver.ports).toHaveLength(1);
    expect(driver.maxPorts).toBe(1);
    expect(() => driver.port(1)).toThrow(failsWith('INVALID_PARAM'));
    expect(await driver.waitForPort(0)).toBe(driver.port());
    expect(driver.waitForPortSync((port) => port.isConsole)).toBe(driver.port());
    await expect(driver.waitForPort(1)).rejects.toThrow(failsWith('INVALID_PARAM'));
    await expect(driver.waitForPort('name')).rejects.toThrow(failsWith('INVALID_PARAM'));
    expect([driver.port().hostOpen, driver.port().isOpen]).toEqual([true, true]);
    await driver.port().waitForHost();
  });

  it('gives everything back when memory runs out at any point', () => {
    let failed = 0;
    for (let after = 0; ; after += 1) {
      const device = new FakeDevice({
        type: DeviceType.Console,
        features: SPLIT,
        queues: [8, 8],
        config: 12,
      });
      device.hal.failAlloc({ after });
      let driver: VirtioConsole;
      try {
        driver = new VirtioConsole(new FakeTransport(device), device.hal);
      } catch (error) {
        expect(VirtioError.is(error, 'DMA_ERROR')).toBe(true);
        device.assertClean();
        failed += 1;
        continue;
      }
      driver[Symbol.dispose]();
      break;
    }
    expect(failed).toBe(6);
  });
});
