import { describe, expect, expectTypeOf, it } from 'vitest';
import { collect, ConsoleModel, MULTIPORT, SPLIT, turns, utf8 } from '../test/console-model.ts';

const text = (chunks: readonly Uint8Array[]): string =>
  new TextDecoder().decode(Uint8Array.from(chunks.flatMap((chunk) => [...chunk])));

describe('readable', () => {
  it('is a stream of chunks, and takes only what is asked for', async () => {
    const model = new ConsoleModel({ queueSize: 4, options: { bufferSize: 10, readAhead: 10 } });
    const port = model.driver.port();
    const stream = port.readable(ReadableStream<Uint8Array<ArrayBuffer>>);
    expectTypeOf(stream).toEqualTypeOf<ReadableStream<Uint8Array<ArrayBuffer>>>();
    await turns();
    let sent = 0;
    for (let n = 0; n < 20; n += 1) {
      sent += model.send(0, 'x'.repeat(10));
      await turns();
    }
    // The reader has not asked, so the host waits.
    expect(sent).toBe(40);
    const reader = stream.getReader();
    const chunks: Uint8Array[] = [];
    for (let got = 0; got < 200;) {
      const { value, done } = await reader.read();
      if (done) throw new Error('the stream ended');
      chunks.push(value);
      got += value.length;
      while (sent < 200) {
        const more = model.send(0, 'x'.repeat(Math.min(10, 200 - sent)));
        if (more === 0) break;
        sent += more;
      }
    }
    expect(text(chunks)).toBe('x'.repeat(200));
  });

  it('ends with the session and can be followed by another one', async () => {
    const model = new ConsoleModel({
      features: SPLIT | MULTIPORT,
      ports: { 1: { name: 'data', open: true } },
    });
    const port = (await model.driver.waitForPort('data')).open();
    await port.waitForHost();
    const first = collect(port.readable(ReadableStream<Uint8Array<ArrayBuffer>>));
    await turns();
    model.send(1, 'one');
    await turns();
    model.setOpen(1, false);
    expect(text(await first)).toBe('one');
    const second = collect(port.readable(ReadableStream<Uint8Array<ArrayBuffer>>));
    model.setOpen(1, true);
    model.send(1, 'two');
    await turns();
    model.setOpen(1, false);
    expect(text(await second)).toBe('two');
  });

  it('can be cancelled while it waits, and leaves what comes later', async () => {
    const model = new ConsoleModel();
    const port = model.driver.port();
    const reader = port.readable(ReadableStream<Uint8Array<ArrayBuffer>>).getReader();
    const waiting = reader.read();
    await turns();
    expect(model.transport.interrupts?.holds).toBe(1);
    await reader.cancel('enough');
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(model.transport.interrupts?.holds).toBe(0);
    model.send(0, 'later');
    expect(await port.readChunk()).toEqual(Uint8Array.from(utf8('later')));
  });

  it('fails with the device', async () => {
    const model = new ConsoleModel();
    const reader = model.driver
      .port()
      .readable(ReadableStream<Uint8Array<ArrayBuffer>>)
      .getReader();
    const waiting = reader.read();
    waiting.catch(() => undefined);
    await turns();
    model.device.remove();
    await expect(waiting).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
  });

  it('needs no more of the class than its constructor', async () => {
    class Recorder {
      readonly chunks: Uint8Array[] = [];
      readonly pull: () => Promise<void>;
      ended = false;
      constructor(source: { pull(controller: Recorder): Promise<void> }) {
        this.pull = () => source.pull(this);
      }
      enqueue(chunk: Uint8Array): void {
        this.chunks.push(chunk);
      }
      close(): void {
        this.ended = true;
      }
    }
    const model = new ConsoleModel();
    const recorder = model.driver.port().readable(Recorder);
    expectTypeOf(recorder).toEqualTypeOf<Recorder>();
    model.send(0, 'abc');
    await recorder.pull();
    expect(text(recorder.chunks)).toBe('abc');
  });
});

describe('writable', () => {
  it('sends bytes and text, and is slowed down by the device', async () => {
    const model = new ConsoleModel({ queueSize: 2, options: { bufferSize: 8 } });
    const port = model.driver.port();
    const stream = port.writable(WritableStream<Uint8Array | string>);
    expectTypeOf(stream).toEqualTypeOf<WritableStream<Uint8Array | string>>();
    model.host(0).throttled = true;
    const writer = stream.getWriter();
    let ready = false;
    void writer.write('a'.repeat(30));
    void writer.ready.then(() => {
      ready = true;
    });
    await turns();
    expect(ready).toBe(false);
    model.unthrottle(0);
    await writer.ready;
    await writer.write(utf8('b'));
    model.host(0).throttled = true;
    void writer.write('c');
    let closed = false;
    const closing = writer.close().then(() => {
      closed = true;
    });
    await turns();
    // The device has the last byte, but has not used it.
    expect(closed).toBe(false);
    model.unthrottle(0);
    await closing;
    expect(model.text(0)).toBe(`${'a'.repeat(30)}bc`);
  });

  it('can be aborted while a write waits', async () => {
    const model = new ConsoleModel({ queueSize: 2, options: { bufferSize: 8 } });
    const port = model.driver.port();
    model.host(0).throttled = true;
    const writer = port.writable(WritableStream<Uint8Array | string>).getWriter();
    const writing = writer.write('x'.repeat(30));
    writing.catch(() => undefined);
    writer.closed.catch(() => undefined);
    await turns();
    await writer.abort('enough');
    await expect(writing).rejects.toThrow();
    model.unthrottle(0);
    await port.write('y');
    await port.flush();
    expect(model.text(0)).toBe(`${'x'.repeat(16)}y`);
  });

  it('carries a pipe from one port to another with back-pressure', async () => {
    const model = new ConsoleModel({
      features: SPLIT | MULTIPORT,
      queueSize: 4,
      options: { bufferSize: 16, readAhead: 16 },
      ports: { 1: { name: 'in', open: true }, 2: { name: 'out', open: true } },
    });
    const from = (await model.driver.waitForPort('in')).open();
    const to = (await model.driver.waitForPort('out')).open();
    const piped = from
      .readable(ReadableStream<Uint8Array<ArrayBuffer>>)
      .pipeTo(to.writable(WritableStream<Uint8Array | string>));
    await from.waitForHost();
    const data = Array.from({ length: 1000 }, (_, n) => (n * 7) & 0xff);
    for (let sent = 0; sent < data.length;) {
      sent += model.send(1, Uint8Array.from(data.slice(sent, sent + 16)));
      await turns(3);
    }
    model.setOpen(1, false);
    await piped;
    expect(model.host(2).received).toEqual(data);
    model.driver[Symbol.dispose]();
    model.device.assertClean();
  });
});
