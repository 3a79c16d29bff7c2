import { VirtioError } from '@virtio/core';
import { ringVariants } from '@virtio/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { IO_ERR, SoundModel, turns } from '../test/sound-model.ts';
import type { PlaybackStream } from './index.ts';

const PERIOD = 64;
const OPEN = {
  format: 'S16',
  rate: 48_000,
  channels: 2,
  periodBytes: PERIOD,
  bufferBytes: 4 * PERIOD,
} as const;
const bytes = (length: number, from = 0): Uint8Array => Uint8Array.from({ length }, (_, n) => from + n);

const filled = (length: number, value: number): number[] => Array.from({ length }, () => value);

/** What the device plays of frames: whole periods, the last one filled with silence. */
const whole = (data: ArrayLike<number>): number[] => [
  ...Array.from(data),
  ...filled((PERIOD - (data.length % PERIOD)) % PERIOD, 0),
];

async function open(
  options: ConstructorParameters<typeof SoundModel>[0] = {},
  parameters = {},
): Promise<{ model: SoundModel; stream: PlaybackStream }> {
  const model = new SoundModel(options);
  const stream = await model.driver.openPlayback({ ...OPEN, ...parameters });
  return { model, stream };
}

describe('playback', () => {
  it.each(ringVariants)(
    'plays all that was written, in order, in whole periods, and silence at the end [5.14.6.8.1.2] ($name)',
    async (ring) => {
      const { model, stream } = await open({ features: ring.features });
      const data = bytes(1000);
      const written = stream.write(data).then(() => stream.drain());
      while (model.stream(0).state !== 'stopped') {
        await turns();
        model.play(0, 1);
      }
      await written;
      expect(model.stream(0).played).toEqual(whole(data));
      // crosvm refuses shorter ones, at the end, too.
      expect(model.stream(0).sizes).toEqual(filled(16, PERIOD));
      expect(model.commands).toEqual(['SET_PARAMS', 'PREPARE', 'START', 'STOP']);
      expect(stream.underruns).toBe(0);
      expect(model.driver.quirks).toBe(0);
      expect(model.device.violations).toEqual([]);
      model.driver[Symbol.dispose]();
      expect(model.device.hal.leaks()).toEqual([]);
    },
  );

  it('publishes periods only when they are full, and their frames in buffers that the device reads [5.14.6.8.1.2]', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(PERIOD - 4));
    expect(model.stream(0).waiting).toHaveLength(0);
    await stream.write(bytes(4));
    expect(model.stream(0).waiting.map(({ readable, writable }) => [readable, writable])).toEqual([
      [4 + PERIOD, 8],
    ]);
  });

  it('starts when the buffer is full, not before', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(3 * PERIOD));
    expect(model.stream(0).state).toBe('prepared');
    await stream.write(bytes(PERIOD));
    expect(model.stream(0).state).toBe('running');
  });

  it('waits for room, and goes on when the device has played', async () => {
    const { model, stream } = await open();
    let done = false;
    const writing = stream.write(bytes(8 * PERIOD)).then(() => (done = true));
    await turns();
    expect([done, model.stream(0).waiting.length]).toEqual([false, 4]);
    model.play(0, 2);
    await turns();
    expect([done, model.stream(0).waiting.length]).toEqual([false, 4]);
    model.play(0, 1);
    await writing;
    // One period is gathered and waits for its turn.
    expect(stream.writableBytes).toBe(0);
    expect(stream.latency).toBe((5 * PERIOD) / 4);
  });

  it('takes writes in turn, and any array of the format', async () => {
    const { model, stream } = await open();
    const done = Promise.all([
      stream.write(new Int16Array(PERIOD).fill(0x0101)),
      stream.write(new Int16Array(2 * PERIOD).fill(0x0202)),
      stream.write(Uint8Array.of(3, 3, 3, 3)),
      stream.drain(),
    ]);
    for (let n = 0; n < 10; n += 1) {
      await turns();
      model.play(0, 1);
    }
    await done;
    expect(model.stream(0).played).toEqual(
      whole([...filled(2 * PERIOD, 1), ...filled(4 * PERIOD, 2), ...filled(4, 3)]),
    );
  });

  it('counts an underrun when the device has nothing left, tells of it, and goes on', async () => {
    const { model, stream } = await open();
    const told: number[] = [];
    model.driver.on('xrun', (id) => told.push(id));
    await stream.write(bytes(4 * PERIOD));
    model.play(0);
    expect(stream.underruns).toBe(1);
    expect(told).toEqual([0]);
    await stream.write(bytes(4 * PERIOD, 100));
    model.play(0, 3);
    expect(stream.underruns).toBe(1);
    const drained = stream.drain();
    await turns();
    model.play(0);
    await drained;
    expect(stream.underruns).toBe(1);
    expect(model.stream(0).played).toHaveLength(8 * PERIOD);
  });

  it('may be written, and waited for, by who is told of an underrun', async () => {
    const { model, stream } = await open();
    let told = 0;
    model.driver.on('xrun', () => {
      told += 1;
      if (told > 1) return;
      model.eager = true;
      stream.writeSync(bytes(9 * PERIOD, 1), { timeoutMs: 500 });
      stream.drainSync({ timeoutMs: 500 });
    });
    stream.writeSync(bytes(4 * PERIOD));
    model.play(0);
    expect(stream.underruns).toBeGreaterThan(0);
    expect(model.stream(0).played).toHaveLength(13 * PERIOD);
    expect(stream.failedPeriods).toBe(0);
  });

  it('counts the underruns that a device tells, where it does', async () => {
    const { model, stream } = await open({ streams: [{ output: true, features: 1 << 4 }] });
    expect(stream.parameters.features).toEqual(['EVT_XRUNS']);
    expect(model.stream(0).params?.features).toBe(1 << 4);
    await stream.write(bytes(4 * PERIOD));
    model.play(0);
    expect(stream.underruns).toBe(0);
    model.event(0x1101, 0);
    await turns();
    expect(stream.underruns).toBe(1);
  });

  it('does not notify a device that polls', async () => {
    const { model, stream } = await open({ streams: [{ output: true, features: 1 << 2 }] });
    const before = model.device.queues[2]?.notifications;
    await stream.write(bytes(2 * PERIOD));
    expect(model.device.queues[2]?.notifications).toBe(before);
    model.device.run();
    expect(model.stream(0).waiting).toHaveLength(2);
  });

  it('pauses and goes on with what was in the buffer', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(4 * PERIOD));
    model.play(0, 1);
    await stream.pause();
    expect(model.stream(0).state).toBe('stopped');
    await expect(stream.drain()).rejects.toMatchObject({ code: 'INVALID_PARAM' });
    // What is written now fills the buffer and does not start the stream.
    await stream.write(bytes(PERIOD));
    expect(model.stream(0).state).toBe('stopped');
    await stream.start();
    const drained = stream.drain();
    await turns();
    model.play(0);
    await turns();
    model.play(0);
    await drained;
    expect(model.stream(0).played).toEqual([...bytes(4 * PERIOD), ...bytes(PERIOD)]);
  });

  it('gives the device no period between STOP and START [5.14.6.6.1]', async () => {
    const { model, stream } = await open();
    const drain = async (): Promise<void> => {
      const drained = stream.drain();
      for (let n = 0; n < 4; n += 1) {
        await turns();
        model.play(0);
      }
      await drained;
    };
    await stream.write(bytes(4 * PERIOD));
    await drain();
    // It was drained, so it is prepared again before there are periods.
    expect(stream.writableBytes).toBe(PERIOD);
    await stream.write(bytes(2 * PERIOD, 50));
    expect([stream.state, model.stream(0).waiting.length]).toEqual(['prepared', 2]);
    await drain();
    expect(model.commands.slice(4)).toEqual(['RELEASE', 'PREPARE', 'START', 'STOP']);
    // The same where the caller starts it.
    expect(stream.submitWrite(bytes(3 * PERIOD, 60))).toBe(PERIOD);
    await stream.start();
    expect(model.stream(0).waiting).toHaveLength(1);
    expect(stream.submitWrite(bytes(3 * PERIOD, 70))).toBe(3 * PERIOD);
    // It is paused: writers wait until it goes on, whoever starts it.
    for (const start of [() => stream.start(), () => model.driver.control.start(0)]) {
      await stream.pause();
      const writing = stream.write(bytes(3 * PERIOD, 80));
      await turns();
      expect(model.stream(0).state).toBe('stopped');
      await start();
      for (let n = 0; n < 4; n += 1) {
        await turns();
        model.play(0, 2);
      }
      await writing;
    }
    await stream.start();
    await drain();
    expect(model.stream(0).played).toEqual([
      ...[...bytes(4 * PERIOD), ...bytes(2 * PERIOD, 50), ...bytes(PERIOD, 60), ...bytes(3 * PERIOD, 70)],
      ...[...bytes(3 * PERIOD, 80), ...bytes(3 * PERIOD, 80)],
    ]);
    expect(stream.failedPeriods).toBe(0);
    model.driver[Symbol.dispose]();
    model.device.assertClean();
  });

  it('stays paused, and released, while others write', async () => {
    const { model, stream } = await open();
    const writing = stream.write(bytes(12 * PERIOD));
    await turns();
    model.play(0, 2);
    // The device has played, so the writer goes on as soon as it can: in the middle of the command.
    const pausing = stream.pause();
    model.play(0, 1);
    await pausing;
    await turns();
    expect([stream.state, model.stream(0).state]).toEqual(['stopped', 'stopped']);
    expect(model.commands.filter((command) => command === 'START')).toHaveLength(1);
    const lost = expect(writing).rejects.toMatchObject({ code: 'ABORTED' });
    const stopping = stream.stop();
    const next = stream.write(bytes(PERIOD, 77));
    await Promise.all([stopping, lost, next]);
    expect(model.stream(0).waiting).toHaveLength(1);
    expect(model.driver.quirks).toBe(0);
  });

  it('stops at once, throws away what was not played, and can be written again', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(4 * PERIOD + 8));
    model.play(0, 1);
    const waiting = stream.write(bytes(4 * PERIOD));
    const lost = expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    await turns();
    await stream.stop();
    await lost;
    expect([stream.state, stream.latency, stream.underruns]).toEqual(['released', 0, 0]);
    expect(stream.failedPeriods).toBe(0);
    expect(() => stream.submitWrite(bytes(4))).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    await stream.write(bytes(4 * PERIOD, 50));
    model.play(0);
    expect(model.stream(0).played.slice(PERIOD)).toEqual([...bytes(4 * PERIOD, 50)]);
    expect(model.commands.slice(3)).toEqual(['STOP', 'RELEASE', 'PREPARE', 'START']);
  });

  it('closes after playing out, and frees the number of the stream', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(PERIOD + 4));
    const closed = stream.close();
    await turns();
    model.play(0);
    await closed;
    expect(model.stream(0)).toMatchObject({ state: 'released', sizes: [PERIOD, PERIOD] });
    expect(stream.closed).toBe(true);
    await expect(stream.write(bytes(4))).rejects.toMatchObject({ code: 'DISPOSED' });
    await stream.close();
    await model.driver.openPlayback(OPEN);
  });

  it('closes, and says so, when the device failed to play the last of it', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(2 * PERIOD));
    model.status = IO_ERR;
    const closed = expect(stream.close()).rejects.toMatchObject({ code: 'IO_ERROR' });
    await turns();
    model.play(0);
    await closed;
    expect([stream.closed, model.stream(0).state]).toEqual([true, 'released']);
  });

  it('is stopped, and written again, after nobody waited for the answer to a command', async () => {
    const { model, stream } = await open();
    model.override = (code, chain) => {
      if (code !== 0x104) return false;
      chain.defer();
      return true;
    };
    const controller = new AbortController();
    const writing = stream.write(bytes(4 * PERIOD), { signal: controller.signal });
    await turns();
    controller.abort();
    await expect(writing).rejects.toMatchObject({ code: 'ABORTED' });
    model.override = undefined;
    expect(stream.state).toBe('unknown');
    await expect(stream.write(bytes(4))).rejects.toMatchObject({ code: 'INVALID_PARAM' });
    await stream.stop();
    await stream.write(bytes(4 * PERIOD, 9));
    model.play(0);
    expect(model.stream(0).played).toEqual([...bytes(4 * PERIOD, 9)]);
  });

  it('disposes without playing out, and can be opened again', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(4 * PERIOD));
    const waiting = expect(stream.write(bytes(4 * PERIOD))).rejects.toMatchObject({ code: 'DISPOSED' });
    await turns();
    stream[Symbol.dispose]();
    await waiting;
    expect(model.stream(0)).toMatchObject({ state: 'released', played: [] });
    const again = await model.driver.openPlayback(OPEN);
    await again.write(bytes(4 * PERIOD));
    model.play(0);
    expect(model.stream(0).played).toEqual([...bytes(4 * PERIOD)]);
  });

  it('is an asynchronous disposable that plays out', async () => {
    const model = new SoundModel();
    const used = (async () => {
      await using stream = await model.driver.openPlayback(OPEN);
      await stream.write(bytes(8));
    })();
    for (let n = 0; n < 5; n += 1) {
      await turns();
      model.play(0);
    }
    await used;
    expect(model.stream(0).played).toEqual(whole(bytes(8)));
  });

  it('spins: writes, drains, pauses, stops and closes', () => {
    const model = new SoundModel({ interrupts: false });
    model.device.onNotify = () => {
      model.play(0, 1);
    };
    const stream = model.driver.openPlaybackSync(OPEN);
    stream.writeSync(bytes(4 * PERIOD));
    expect(model.stream(0).state).toBe('running');
    expect(() => stream.writeSync(bytes(8 * PERIOD), { timeoutMs: 5 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }),
    );
    stream.pauseSync();
    stream.startSync();
    model.play(0);
    model.play(0);
    stream.stopSync();
    stream.writeSync(bytes(4));
    expect(() => stream.drainSync({ timeoutMs: 5 })).toThrow(expect.objectContaining({ code: 'NOT_READY' }));
    model.play(0);
    stream.drainSync();
    stream.closeSync();
    expect(model.stream(0).state).toBe('released');
  });

  it('refuses promises without interrupts before anything is sent', async () => {
    const model = new SoundModel({ interrupts: false });
    const stream = model.driver.openPlaybackSync(OPEN);
    const sent = model.requests.length;
    await expect(stream.write(bytes(4))).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(stream.stop()).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(model.driver.openCapture(OPEN)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(model.requests).toHaveLength(sent);
  });

  it('takes what fits without waiting, and says how much that was', async () => {
    const { model, stream } = await open();
    expect(stream.submitWrite(bytes(200))).toBe(200);
    expect(stream.submitWrite(bytes(200))).toBe(5 * PERIOD - 200);
    expect(stream.submitWrite(bytes(200))).toBe(0);
    stream.startSync();
    model.play(0, 2);
    expect(stream.submitWrite(bytes(200))).toBe(2 * PERIOD);
  });

  it('leaves nothing behind for a signal of the caller’s own that aborts while its listener is added', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(4 * PERIOD));
    model.play(0, 4);
    await turns();
    const holds = model.transport.interrupts?.holds;
    await stream.write(bytes(4 * PERIOD));
    const signal = {
      aborted: false,
      addEventListener(_type: 'abort', listener: () => void): void {
        signal.aborted = true;
        listener();
      },
      removeEventListener: () => undefined,
    };
    await expect(stream.write(bytes(8 * PERIOD), { signal })).rejects.toMatchObject({ code: 'ABORTED' });
    await turns();
    expect(model.transport.interrupts?.holds).toBe(holds);
  });

  it('can be aborted while it waits', async () => {
    const { model, stream } = await open();
    const controller = new AbortController();
    const first = stream.write(bytes(8 * PERIOD), { signal: controller.signal });
    const second = stream.write(bytes(PERIOD, 7));
    await turns();
    controller.abort(new Error('enough'));
    await expect(first).rejects.toMatchObject({ code: 'ABORTED' });
    model.play(0, 2);
    await second;
  });

  it('says that the device failed to play a period, once, and goes on', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(4 * PERIOD));
    model.status = IO_ERR;
    model.play(0, 1);
    model.status = 0x8000;
    await expect(stream.write(bytes(4))).rejects.toMatchObject({ code: 'IO_ERROR' });
    expect(stream.failedPeriods).toBe(1);
    await stream.write(bytes(4));
  });

  it.each([0, 0xffff_ffff, 12_345])(
    'believes a latency of %i up to the size of the buffer only',
    async (latency) => {
      const { model, stream } = await open();
      await stream.write(bytes(4 * PERIOD));
      model.latency = latency;
      model.play(0, 2);
      expect(stream.latency).toBe((2 * PERIOD + Math.min(latency, 4 * PERIOD)) / 4);
    },
  );

  it('refuses what is no whole frame, and what is no array', async () => {
    const { stream } = await open();
    await expect(stream.write(bytes(6))).rejects.toMatchObject({ code: 'INVALID_PARAM' });
    expect(() => stream.submitWrite('abcd' as unknown as Uint8Array)).toThrow(VirtioError);
  });

  it('shares the queue with other streams, however full it is', async () => {
    const model = new SoundModel({
      queueSize: 8,
      features: 0n,
      streams: [{ output: true }, { output: true }],
    });
    const one = await model.driver.openPlayback(OPEN);
    const two = await model.driver.openPlayback(OPEN);
    expect([one.id, two.id]).toEqual([0, 1]);
    const done = Promise.all(
      [one, two].map((stream) => stream.write(bytes(20 * PERIOD, stream.id)).then(() => stream.drain())),
    );
    for (let n = 0; n < 200; n += 1) {
      await turns(10);
      model.play(n % 2, 1);
    }
    await done;
    for (const id of [0, 1]) expect(Uint8Array.from(model.stream(id).played)).toEqual(bytes(20 * PERIOD, id));
  });

  it('allocates nothing of the platform for a period, whatever comes and goes', async () => {
    const { model, stream } = await open();
    await stream.write(bytes(4 * PERIOD));
    const { regions, shares } = model.device.hal;
    const before = [regions.length, shares.length];
    for (let n = 0; n < 100; n += 1) {
      model.play(0, 2);
      await stream.write(bytes(2 * PERIOD));
    }
    expect([model.device.hal.regions.length, model.device.hal.shares.length]).toEqual(before);
  });

  it('is a WritableStream that takes frames cut anywhere, with back-pressure', async () => {
    const { model, stream } = await open();
    const writer = stream.writable(WritableStream<Uint8Array>).getWriter();
    const data = bytes(901);
    const done = (async () => {
      for (let at = 0; at < 900; at += 7) await writer.write(data.subarray(at, Math.min(at + 7, 900)));
      await writer.close();
    })();
    for (let n = 0; n < 200 && model.stream(0).state !== 'stopped'; n += 1) {
      await turns(100);
      model.play(0, 1);
    }
    await done;
    expect(model.stream(0).played).toEqual(whole(data.subarray(0, 900)));
  });

  it('is a WritableStream that stops when it is aborted', async () => {
    const { model, stream } = await open();
    const writer = stream.writable(WritableStream<Uint8Array>).getWriter();
    const writing = expect(writer.write(bytes(8 * PERIOD))).rejects.toThrow();
    await turns();
    await writer.abort(new Error('no more'));
    await writing;
    expect(model.stream(0).state).toBe('released');
  });

  it('is a WritableStream that stops when it is aborted while it ends', async () => {
    const { model, stream } = await open();
    const writer = stream.writable(WritableStream<Uint8Array>).getWriter();
    await writer.write(bytes(2 * PERIOD));
    const ending = expect(writer.close()).rejects.toMatchObject({ code: 'ABORTED' });
    await turns();
    await writer.abort().catch(() => undefined);
    await ending;
    expect(model.stream(0).state).toBe('released');
    expect(stream.state).toBe('released');
  });

  it('plays what was written, however it is cut and whenever the device plays', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(300), { minLength: 1, maxLength: 12 }),
        fc.array(fc.nat(3), { minLength: 1, maxLength: 30 }),
        async (sizes, plays) => {
          const { model, stream } = await open();
          const parts = sizes.map((size, n) => bytes(4 * (size >> 2), n));
          const done = Promise.all([...parts.map((part) => stream.write(part)), stream.drain()]);
          for (const count of plays) {
            await turns(5);
            model.play(0, count);
          }
          for (let n = 0; n < 60 && stream.state !== 'stopped'; n += 1) {
            await turns(20);
            model.play(0);
          }
          await done;
          expect(model.stream(0).played).toEqual(whole(parts.flatMap((part) => [...part])));
          expect(model.device.violations).toEqual([]);
        },
      ),
      { numRuns: 60 },
    );
  });
});
