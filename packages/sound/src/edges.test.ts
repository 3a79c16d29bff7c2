import type { VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { SoundModel, turns } from '../test/sound-model.ts';
import { fillSilence, type PcmFormatName, SoundRequest } from './index.ts';

const OPEN = { format: 'S16', rate: 48_000, channels: 2, periodBytes: 16, bufferBytes: 64 } as const;
const code = (value: VirtioError['code']): VirtioError =>
  expect.objectContaining({ code: value }) as VirtioError;
const filled = (length: number, value: number): Uint8Array<ArrayBuffer> => new Uint8Array(length).fill(value);

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
    expect(model.stream(0).played).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
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
