import { CommonFeatures, type VirtioError } from '@virtio/core';
import type { Chain } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { IO_ERR, OK, SoundModel, turns } from '../test/sound-model.ts';
import { fillSilence, type PcmFormatName, SoundRequest, streamCommand } from './index.ts';

const OPEN = { format: 'S16', rate: 48_000, channels: 2, periodBytes: 16, bufferBytes: 64 } as const;
const code = (value: VirtioError['code']): VirtioError =>
  expect.objectContaining({ code: value }) as VirtioError;
const filled = (length: number, value: number): Uint8Array<ArrayBuffer> => new Uint8Array(length).fill(value);

/** Has the model carry out the next RELEASE at once, and answer it when the returned function is called. */
function holdRelease(model: SoundModel): () => void {
  let held: Chain | undefined;
  model.override = (request, chain) => {
    if (request !== SoundRequest.PCM_RELEASE) return false;
    model.override = undefined;
    const stream = model.stream(chain.header().getUint32(4, true));
    stream.state = 'released';
    for (const period of stream.waiting.splice(0)) {
      period.write(Uint8Array.of(0, 0x80, 0, 0, 0, 0, 0, 0)).complete();
    }
    chain.defer();
    held = chain;
    return true;
  };
  return () => {
    held?.write(Uint8Array.of(0, 0x80, 0, 0)).complete();
  };
}

describe('a stream whose stop was cancelled, so that nobody knows whether the device has stopped it', () => {
  const stopped = async (stream: {
    stop(options: { signal: AbortSignal }): Promise<void>;
    state: string;
  }): Promise<void> => {
    const cancelled = new AbortController();
    const stop = stream.stop({ signal: cancelled.signal });
    cancelled.abort();
    await expect(stop).rejects.toMatchObject({ code: 'ABORTED' });
    expect(stream.state).toBe('unknown');
  };

  it('gives the device no periods when it is drained or closed', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(filled(20, 1));
    await stream.start();
    await stopped(stream);
    await expect(stream.drain()).rejects.toMatchObject({ code: 'INVALID_PARAM' });
    await stream.close();
    expect(model.stream(0).state).toBe('released');
    model.driver[Symbol.dispose]();
    model.device.assertClean();
  });

  it('gives it some when it was started again', async () => {
    const model = new SoundModel();
    const { driver } = model;
    const [output, input] = [await driver.openPlayback(OPEN), await driver.openCapture(OPEN)];
    await output.write(filled(20, 1));
    await output.start();
    await input.start();
    model.capture(1, filled(16, 1));
    await stopped(output);
    await stopped(input);
    expect(input.submitRead(new Uint8Array(16))).toBe(16);
    expect(model.stream(1).waiting).toHaveLength(3);
    await Promise.all([output.start(), input.start()]);
    expect(model.stream(1).waiting).toHaveLength(4);
    driver[Symbol.dispose]();
    model.device.assertClean();
  });
});

describe('calls at once', () => {
  it.each([
    ['stop', 'stop', 'released'],
    ['stop', 'close', 'released'],
    ['close', 'close', 'released'],
    ['stop', 'start', 'running'],
  ] as const)('%s and %s end well', async (first, second, state) => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(filled(64, 1));
    const both = Promise.all([stream[first](), stream[second]()]);
    for (let n = 0; n < 10; n += 1) {
      await turns();
      model.play(0);
    }
    await both;
    expect(stream.state).toBe(state);
    expect(stream.closed).toBe(first === 'close' || second === 'close');
    expect(model.driver.quirks).toBe(0);
  });

  it('which spin are refused while another stops the stream', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(filled(64, 1));
    const stopped = stream.stop();
    for (const call of [
      () => stream.stopSync(),
      () => stream.startSync(),
      () => stream.writeSync(filled(4, 1)),
    ]) {
      expect(call).toThrow(code('ALREADY_USED'));
    }
    await stopped;
    stream.startSync();
    expect(stream.state).toBe('running');
  });

  it('may both find the stream to be started, if the control queue is full', async () => {
    const model = new SoundModel({ queueSize: 4, features: 0n });
    const stream = await model.driver.openPlayback({ ...OPEN, bufferBytes: 16 });
    const held: (() => void)[] = [];
    model.override = (request, chain) => {
      if (request !== SoundRequest.PCM_INFO) return false;
      chain.defer();
      held.push(() =>
        chain
          .write(Uint8Array.of(0, 0x80, 0, 0))
          .write(filled(64, 0))
          .complete(),
      );
      return true;
    };
    const infos = [model.driver.control.streamInfos(), model.driver.control.streamInfos()];
    await turns();
    const calls = [stream.write(filled(16, 1)), stream.start()];
    await turns();
    for (const answer of held) answer();
    await Promise.all([...infos, ...calls]);
    expect(stream.state).toBe('running');
  });

  it('give the device no period while the stream is being released', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(filled(36, 1));
    const answer = holdRelease(model);
    const stopped = stream.stop();
    await turns();
    const drained = stream.drain();
    expect(stream.submitWrite(filled(16, 2))).toBe(0);
    await turns();
    answer();
    await Promise.all([stopped, drained]);
    expect(model.stream(0).waiting).toHaveLength(0);
    expect(model.driver.quirks).toBe(0);
  });

  it('keep their turns if a period fails', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(filled(80, 1));
    const failing = stream.write(filled(16, 2));
    const drained = stream.drain();
    const written = stream.write(filled(64, 3));
    await turns();
    model.status = IO_ERR;
    model.play(0, 1);
    model.status = OK;
    await expect(failing).rejects.toEqual(code('IO_ERROR'));
    for (let n = 0; n < 12; n += 1) {
      await turns();
      model.play(0, 1);
    }
    await Promise.all([drained, written]);
    expect(model.commands.slice(-5)).toEqual(['START', 'STOP', 'RELEASE', 'PREPARE', 'START']);
  });

  it('that are refused leave the stream open, with its frames', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(filled(64, 1));
    const writing = stream.write(filled(64, 2));
    const signal = 5 as unknown as AbortSignal;
    await expect(stream.close({ signal })).rejects.toEqual(code('INVALID_PARAM'));
    for (const call of [
      () => stream.closeSync({ timeoutMs: -1 }),
      () => stream.stopSync({ timeoutMs: NaN }),
    ]) {
      expect(call).toThrow(code('INVALID_PARAM'));
    }
    expect(stream.closed).toBe(false);
    await turns();
    model.play(0);
    await writing;
    expect(stream.state).toBe('running');
  });
});

describe('arrays that change while a call waits', () => {
  it('are refused by write, and what follows is not shifted', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    const memory = new ArrayBuffer(160, { maxByteLength: 400 });
    const writing = stream.write(new Uint8Array(memory).fill(1));
    await turns();
    memory.resize(101);
    model.play(0, 3);
    await expect(writing).rejects.toEqual(code('INVALID_PARAM'));

    const data = filled(160, 3);
    const detached = stream.write(data);
    await turns();
    data.buffer.transfer();
    model.play(0);
    await expect(detached).rejects.toEqual(code('INVALID_PARAM'));
    expect(model.stream(0).played.indexOf(3) % 4).toBe(0);
  });

  it('are refused by read, and the frames can still be read', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openCapture(OPEN);
    const into = filled(16, 0);
    const reading = stream.read(into);
    await turns();
    into.buffer.transfer();
    model.capture(1, filled(16, 7));
    await expect(reading).rejects.toEqual(code('INVALID_PARAM'));
    const again = filled(16, 0);
    expect(await stream.read(again)).toBe(16);
    expect(again).toEqual(filled(16, 7));
  });
});

describe('data of the wrong kind', () => {
  it.each([['text'], [[1, 2, 3, 4]], [5], [new ArrayBuffer(8)], [new Float32Array(1)]])(
    'are refused by a WritableStream: %s',
    async (chunk) => {
      const model = new SoundModel();
      const stream = await model.driver.openPlayback(OPEN);
      const writer = stream.writable(WritableStream<Int8Array>).getWriter();
      writer.closed.catch(() => undefined);
      await expect(writer.write(chunk as unknown as Int8Array)).rejects.toEqual(code('INVALID_PARAM'));
    },
  );

  it('are refused if they would be noise', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    for (const data of [new Float32Array(2), new Int32Array(1), new Float64Array(1), new BigInt64Array(1)]) {
      expect(() => stream.submitWrite(data as Float32Array)).toThrow(code('INVALID_PARAM'));
    }
    for (const data of [new Int16Array(2), new Int8Array(4), new Uint8ClampedArray(4), new Uint8Array(4)]) {
      expect(stream.submitWrite(data as Uint8Array)).toBe(4);
    }
    expect(() => fillSilence('X' as PcmFormatName, filled(4, 1))).toThrow(code('INVALID_PARAM'));
    expect(() => fillSilence('S16', [1] as unknown as Uint8Array)).toThrow(code('INVALID_PARAM'));
  });

  it('of a WritableStream may end within a frame, also where frames have half a byte', async () => {
    const model = new SoundModel({ streams: [{ formats: 1n, max: 3 }] });
    const stream = await model.driver.openPlayback({
      ...{ format: 'IMA_ADPCM', rate: 48_000, channels: 3 },
      ...{ periodBytes: 12, bufferBytes: 48 },
    });
    const writer = stream.writable(WritableStream<Uint8Array>).getWriter();
    await writer.write(filled(4, 1));
    await writer.write(filled(8, 2));
    const closed = writer.close();
    await turns(200);
    model.play(0);
    await closed;
    expect(model.stream(0).played).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
  });

  it('of a WritableStream may be Buffers of Node, whose slice() copies nothing', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    const writer = stream.writable(WritableStream<Uint8Array>).getWriter();
    const chunk = Uint8Array.of(1, 2, 3, 4, 5, 6);
    chunk.slice = chunk.subarray.bind(chunk);
    await writer.write(chunk);
    chunk.fill(0xee);
    await writer.write(Uint8Array.of(7, 8));
    const closed = writer.close();
    await turns(200);
    model.play(0);
    await closed;
    expect(model.stream(0).played).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
  });
});

describe('a device that captures', () => {
  it('part of a frame does not shift those that follow', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openCapture(OPEN);
    const into = filled(64, 0);
    const reading = stream.read(into);
    await turns();
    model.capture(1, filled(7, 1));
    expect(await reading).toBe(4);
    expect(model.driver.quirks).toBe(1);
    model.capture(1, filled(16, 2));
    expect(await stream.read(into)).toBe(16);
  });

  it('nothing at all gets its periods again, so that a read does not wait for ever', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openCapture(OPEN);
    const into = filled(64, 0);
    const reading = stream.read(into);
    await turns();
    for (let n = 0; n < 9; n += 1) {
      expect(model.capture(1, filled(0, 0))).toBe(true);
      await turns();
    }
    model.capture(1, filled(16, 2));
    expect(await reading).toBe(16);
  });

  it.each(['async', 'sync'])(
    'nothing but empty periods, at once, does not keep a read busy (%s)',
    async (how) => {
      const model = new SoundModel();
      const stream = await model.driver.openCapture(OPEN);
      let count = 0;
      model.device.handle(3, (chain) => {
        count += 1;
        if (count < 100_000) chain.write(Uint8Array.of(0, 0x80, 0, 0, 0, 0, 0, 0)).complete();
        else chain.defer();
      });
      const reading = new Promise<number>((resolve) => {
        resolve(how === 'sync' ? stream.readSync(filled(16, 0)) : stream.read(filled(16, 0)));
      });
      await expect(reading).rejects.toEqual(code('IO_ERROR'));
      expect(count).toBeLessThan(2000);
    },
  );
});

describe('a period that failed', () => {
  it.each(['stop', 'stopSync', 'abort', 'cancel'] as const)(
    'does not keep %s from stopping the stream',
    async (how) => {
      const model = new SoundModel();
      const { driver } = model;
      const stream = how === 'cancel' ? await driver.openCapture(OPEN) : await driver.openPlayback(OPEN);
      const { id } = stream;
      let stop = async (): Promise<void> => {
        if (how === 'stopSync') stream.stopSync();
        else await stream.stop();
      };
      if ('readable' in stream) {
        const reader = stream.readable(ReadableStream<Uint8Array>).getReader();
        const reading = reader.read();
        await turns();
        model.capture(id, filled(16, 1));
        await reading;
        stop = () => reader.cancel();
        model.status = IO_ERR;
        model.capture(id, filled(16, 1));
      } else {
        const writer = stream.writable(WritableStream<Uint8Array>).getWriter();
        writer.closed.catch(() => undefined);
        await writer.write(filled(80, 1));
        if (how === 'abort') stop = () => writer.abort();
        model.status = IO_ERR;
        model.play(id, 1);
      }
      model.status = OK;
      await turns();
      expect(stream.failedPeriods).toBe(1);
      await stop();
      expect(stream.state).toBe('released');
      expect(model.stream(id).state).toBe('released');
    },
  );
});

describe('a device that is gone', () => {
  it.each([
    ['remove', 'DEVICE_REMOVED'],
    ['needsReset', 'DEVICE_NEEDS_RESET'],
  ] as const)('fails the driver if a call that spins finds it out (%s)', (how, failure) => {
    const model = new SoundModel({ interrupts: false });
    const stream = model.driver.openPlaybackSync(OPEN);
    stream.writeSync(filled(80, 1));
    const told: string[] = [];
    model.driver.on('failure', (error) => told.push(error.code));
    model.device[how]();
    expect(() => stream.writeSync(filled(64, 2))).toThrow(code(failure));
    expect(model.driver.failure).toEqual(code(failure));
    expect(told).toEqual([failure]);
  });
});

describe('a stream that has ended', () => {
  it('sends no commands to the next one of its number', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(filled(64, 1));
    const stopped = stream.stop();
    stream[Symbol.dispose]();
    const next = await model.driver.openPlayback(OPEN);
    await expect(stopped).rejects.toEqual(code('DISPOSED'));
    expect(next.state).toBe('prepared');
    expect(model.stream(0).state).toBe('prepared');
  });

  it('by a reset while it was being opened does not disturb the next one', async () => {
    // The reset comes in each of the turns around the answer.
    for (let turn = 0; turn < 20; turn += 1) {
      const model = new SoundModel();
      const { driver } = model;
      await driver.control.setParameters(0, OPEN);
      await driver.control.prepare(0);
      const answer = holdRelease(model);
      const first = driver.openPlayback(OPEN).catch((error: unknown) => error);
      await turns();
      answer();
      await turns(turn);
      driver.reset();
      const second = driver.openPlayback({ ...OPEN, periodBytes: 32 });
      await turns(5);
      await expect(driver.openPlayback(OPEN)).rejects.toEqual(code('ALREADY_USED'));
      expect((await second).state).toBe('prepared');
      expect(model.stream(0)).toMatchObject({ state: 'prepared', params: { period: 32 } });
      await first;
    }
  });
});

describe('a reset of the control queue', () => {
  it('sends no STOP to a stream that was stopped when it was disposed, and opens it again', async () => {
    const model = new SoundModel();
    const { driver } = model;
    for (let lap = 0; lap < 3; lap += 1) {
      const stream = await driver.openPlayback(OPEN);
      await stream.write(filled(80, 1));
      expect(stream.state).toBe('running');
      stream[Symbol.dispose]();
      expect(stream.state).toBe('unknown');
    }
    const first = ['SET_PARAMS', 'PREPARE', 'START', 'STOP', 'RELEASE'];
    // Before it is opened again, the device is asked to release it once more: it refuses, if it has done so.
    expect(model.commands).toEqual([...first, 'RELEASE', ...first, 'RELEASE', ...first]);
    expect(model.stream(0).state).toBe('released');
  });

  it('stops a stream that may run, if it cannot be released', async () => {
    const model = new SoundModel();
    const { driver } = model;
    const stream = await driver.openPlayback(OPEN);
    await stream.write(filled(80, 1));
    // It refuses to stop, and nobody hears of it.
    model.override = (code, chain) => {
      if (code !== 0x0105) return false;
      const answer = new Uint8Array(4);
      new DataView(answer.buffer).setUint32(0, 0x8003, true);
      chain.write(answer).complete();
      return true;
    };
    stream[Symbol.dispose]();
    await turns();
    model.override = undefined;
    expect(model.stream(0).state).toBe('running');
    const again = await driver.openPlayback(OPEN);
    expect([again.state, model.stream(0).state]).toEqual(['prepared', 'prepared']);
  });

  it('makes the outcome of submitted commands unknown', async () => {
    const model = new SoundModel({ features: CommonFeatures.set('RING_RESET').bits });
    const { control } = model.driver;
    await control.setParameters(0, OPEN);
    await control.prepare(0);
    model.override = (_request, chain) => {
      chain.defer();
      return true;
    };
    const token = control.submit(streamCommand(0, 'START'));
    model.driver.resetQueue(0);
    expect(control.streamState(0)).toBe('unknown');
    expect(() => control.complete(token)).toThrow(code('WRONG_TOKEN'));
    model.override = undefined;
    expect((await model.driver.openPlayback(OPEN)).state).toBe('prepared');
  });
});

describe('options that no memory is enough for', () => {
  it('are refused before anything is sent', async () => {
    const model = new SoundModel();
    const wanted = { ...OPEN, periodBytes: 4, bufferBytes: 0xffff_fffc };
    await expect(model.driver.openCapture(wanted)).rejects.toEqual(code('INVALID_PARAM'));
    expect(() => model.driver.openCaptureSync(wanted)).toThrow(code('INVALID_PARAM'));
    expect(model.commands).toEqual([]);
    await model.driver.openCapture({ ...OPEN, periodBytes: 4, bufferBytes: 4 * 1000 });
  });

  it('name what was wrong, and no empty list', async () => {
    const model = new SoundModel({ streams: [{ formats: 0n }, { rates: 0n }, {}] });
    await expect(model.driver.openPlayback({ stream: 0 })).rejects.toThrow(
      /no format S16; use another stream/,
    );
    await expect(model.driver.openPlayback({ stream: 1 })).rejects.toThrow(
      /no rate 48000; use another stream/,
    );
    await expect(model.driver.openPlayback({ stream: 2, rate: Infinity })).rejects.toThrow(
      /no rate Infinity/,
    );
  });
});
