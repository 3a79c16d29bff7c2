import { ringVariants } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { IO_ERR, OK, SoundModel, turns } from '../test/sound-model.ts';
import type { CaptureStream } from './index.ts';

const PERIOD = 64;
const OPEN = {
  format: 'S16',
  rate: 48_000,
  channels: 2,
  periodBytes: PERIOD,
  bufferBytes: 4 * PERIOD,
} as const;
const bytes = (length: number, from = 0): Uint8Array => Uint8Array.from({ length }, (_, n) => from + n);

async function open(
  options: ConstructorParameters<typeof SoundModel>[0] = {},
): Promise<{ model: SoundModel; stream: CaptureStream }> {
  const model = new SoundModel(options);
  const stream = await model.driver.openCapture(OPEN);
  return { model, stream };
}

async function readAll(stream: CaptureStream, length: number): Promise<Uint8Array> {
  const all = new Uint8Array(length);
  for (let at = 0; at < length;) at += await stream.read(all.subarray(at));
  return all;
}

describe('capture', () => {
  it.each(ringVariants)(
    'gets what was captured, in order, and gives all periods back ($name)',
    async (ring) => {
      const { model, stream } = await open({ features: ring.features });
      const reading = readAll(stream, 20 * PERIOD);
      for (let n = 0; n < 20; n += 1) {
        await turns();
        expect(model.capture(1, bytes(PERIOD, n))).toBe(true);
      }
      const all = await reading;
      for (let n = 0; n < 20; n += 1) {
        expect(all.subarray(n * PERIOD, (n + 1) * PERIOD)).toEqual(bytes(PERIOD, n));
      }
      expect(stream.overruns).toBe(0);
      expect(model.driver.quirks).toBe(0);
      await stream.close();
      expect(model.stream(1).state).toBe('released');
      model.driver[Symbol.dispose]();
      expect(model.device.hal.leaks()).toEqual([]);
    },
  );

  it('populates the queue with whole periods before the stream starts [5.14.6.8.2.2]', async () => {
    const { model, stream } = await open();
    let waiting = -1;
    model.override = (code) => {
      if (code === 0x104) waiting = model.stream(1).waiting.length;
      return false;
    };
    await stream.start();
    expect(waiting).toBe(4);
    expect(model.stream(1).waiting.map(({ readable, writable }) => [readable, writable])).toEqual(
      Array(4).fill([4, PERIOD + 8]),
    );
  });

  it.each([true, false])(
    'finds the status at the end of the buffer or behind what was captured (%s)',
    async (statusAtEnd) => {
      const { model, stream } = await open();
      model.statusAtEnd = statusAtEnd;
      await stream.start();
      model.capture(1, bytes(20));
      model.capture(1, bytes(PERIOD, 9));
      // What is captured may look like a status.
      model.capture(1, Uint8Array.of(3, 0x80, 0, 0, 0, 0, 0, 0));
      expect(await readAll(stream, 20 + PERIOD + 8)).toEqual(
        Uint8Array.from([...bytes(20), ...bytes(PERIOD, 9), 3, 0x80, 0, 0, 0, 0, 0, 0]),
      );
      expect([stream.failedPeriods, model.driver.quirks]).toEqual([0, 0]);
    },
  );

  it.each(['stream', 'control'])(
    'gives the device no period between STOP and START, and goes on when the %s starts it [5.14.6.6.1]',
    async (who) => {
      const { model, stream } = await open();
      const start = (): Promise<void> =>
        who === 'stream' ? stream.start() : model.driver.control.start(stream.id);
      await stream.start();
      for (const captured of [2, 4]) {
        for (let n = 0; n < captured; n += 1) model.capture(1, bytes(PERIOD, n));
        await stream.pause();
        expect(await readAll(stream, captured * PERIOD)).toHaveLength(captured * PERIOD);
        const reading = stream.read(new Uint8Array(PERIOD));
        await turns();
        expect(model.stream(1).waiting).toHaveLength(4 - captured);
        await start();
        await turns();
        expect(model.stream(1).waiting).toHaveLength(4);
        model.capture(1, bytes(PERIOD, 9));
        expect(await reading).toBe(PERIOD);
      }
      model.driver[Symbol.dispose]();
      model.device.assertClean();
    },
  );

  it('counts an overrun when nobody reads, and goes on', async () => {
    const { model, stream } = await open();
    await stream.start();
    for (let n = 0; n < 4; n += 1) model.capture(1, bytes(PERIOD, n));
    expect(model.capture(1, bytes(PERIOD, 99))).toBe(false);
    expect(stream.overruns).toBe(1);
    expect(stream.readableBytes).toBe(4 * PERIOD);
    expect((await readAll(stream, 4 * PERIOD))[3 * PERIOD]).toBe(3);
    model.capture(1, bytes(PERIOD, 5));
    expect((await readAll(stream, PERIOD))[0]).toBe(5);
  });

  it('reads without waiting, and by spinning', () => {
    const model = new SoundModel({ interrupts: false });
    const stream = model.driver.openCaptureSync(OPEN);
    const into = new Uint8Array(1000);
    expect(stream.submitRead(into)).toBe(0);
    expect(() => stream.readSync(into, { timeoutMs: 5 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }),
    );
    expect(model.stream(1).state).toBe('running');
    model.capture(1, bytes(PERIOD));
    model.capture(1, bytes(PERIOD, 1));
    expect(stream.submitRead(into.subarray(0, 10))).toBe(10);
    expect(stream.readSync(into)).toBe(2 * PERIOD - 10);
    expect(stream.latency).toBe(0);
    stream.closeSync();
  });

  it('gives what was captured before it was stopped, then nothing, and starts anew', async () => {
    const { model, stream } = await open();
    await stream.start();
    model.capture(1, bytes(PERIOD));
    const controller = new AbortController();
    await stream.stop();
    expect(await stream.read(new Uint8Array(1000))).toBe(PERIOD);
    expect(await stream.read(new Uint8Array(1000))).toBe(0);
    await stream.start();
    const reading = stream.read(new Uint8Array(8), { signal: controller.signal });
    await turns();
    controller.abort();
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED' });
    model.capture(1, bytes(PERIOD, 3));
    expect((await readAll(stream, 4))[0]).toBe(3);
    expect(stream.overruns).toBe(0);
  });

  it('ends a read that waits when it is stopped or closed', async () => {
    const { stream } = await open();
    const reading = stream.read(new Uint8Array(8));
    await turns();
    await stream.stop();
    expect(await reading).toBe(0);
    await stream.start();
    const second = expect(stream.read(new Uint8Array(8))).rejects.toMatchObject({ code: 'DISPOSED' });
    await turns();
    stream[Symbol.dispose]();
    await second;
  });

  it('says that a period failed, and leaves its bytes out', async () => {
    const { model, stream } = await open();
    await stream.start();
    model.status = IO_ERR;
    model.capture(1, bytes(PERIOD));
    model.status = 0x8000;
    model.capture(1, bytes(PERIOD, 8));
    await expect(stream.read(new Uint8Array(8))).rejects.toMatchObject({ code: 'IO_ERROR' });
    expect((await readAll(stream, 4))[0]).toBe(8);
    expect(stream.failedPeriods).toBe(1);
  });

  it('survives a device that uses a period without a word, or with less than a status', async () => {
    const { model, stream } = await open();
    await stream.start();
    model.stream(1).waiting.shift()?.complete(0);
    model.stream(1).waiting.shift()?.write(bytes(4)).complete(4);
    model.capture(1, bytes(PERIOD, 8));
    await expect(stream.read(new Uint8Array(8))).rejects.toMatchObject({ code: 'IO_ERROR' });
    expect((await readAll(stream, 4))[0]).toBe(8);
    expect([stream.failedPeriods, model.driver.quirks]).toEqual([2, 2]);
  });

  it('keeps its bytes in order and apart from those of a transfer that a listener takes meanwhile', async () => {
    const model = new SoundModel({ streams: [{ output: false }, { output: false }] });
    const { driver } = model;
    const stream = await driver.openCapture(OPEN);
    const { control } = driver;
    await control.setParameters(1, OPEN);
    await control.prepare(1);
    await control.start(1);
    await stream.start();
    const token = driver.submitTransfer('input', 1, new Uint8Array(PERIOD));
    let length = -1;
    driver.on('quirk', () => {
      if (length >= 0) return;
      model.status = OK;
      model.capture(1, bytes(12, 200));
      length = driver.completeTransfer('input', token).length;
    });
    // A status that is none, behind some bytes that were captured: the period counts as failed.
    model.status = 0x1234;
    model.capture(0, bytes(PERIOD, 1));
    expect(stream.failedPeriods).toBe(1);
    await Promise.resolve();
    expect(length).toBe(12);
    model.capture(0, bytes(PERIOD, 2));
    const into = new Uint8Array(2 * PERIOD);
    await expect(stream.read(into)).rejects.toMatchObject({ code: 'IO_ERROR' });
    expect(await stream.read(into)).toBe(PERIOD);
    expect(into.subarray(0, PERIOD)).toEqual(bytes(PERIOD, 2));
  });

  it('is a ReadableStream of periods that ends when the stream stops', async () => {
    const { model, stream } = await open();
    const chunks: Uint8Array[] = [];
    const reading = (async () => {
      for await (const chunk of stream.readable(ReadableStream<Uint8Array>)) chunks.push(chunk);
    })();
    for (let n = 0; n < 3; n += 1) {
      await turns();
      model.capture(1, bytes(PERIOD, n));
    }
    await turns();
    await stream.stop();
    await reading;
    expect(chunks).toEqual([0, 1, 2].map((n) => bytes(PERIOD, n)));
  });

  it('stops when its ReadableStream is cancelled', async () => {
    const { model, stream } = await open();
    const reader = stream.readable(ReadableStream<Uint8Array>).getReader();
    const reading = reader.read();
    await turns();
    await reader.cancel();
    expect((await reading).done).toBe(true);
    await turns();
    expect(model.stream(1).state).toBe('released');
  });

  it('captures and plays at once', async () => {
    const { model, stream } = await open();
    const playback = await model.driver.openPlayback(OPEN);
    const done = Promise.all([
      readAll(stream, 4 * PERIOD),
      playback.write(bytes(6 * PERIOD)).then(() => playback.drain()),
    ]);
    for (let n = 0; n < 12; n += 1) {
      await turns();
      model.play(0, 1);
      if (n < 4) model.capture(1, bytes(PERIOD, n));
    }
    const [captured] = await done;
    expect(captured[PERIOD]).toBe(1);
    expect(model.stream(0).played).toEqual([...bytes(6 * PERIOD)]);
  });
});
