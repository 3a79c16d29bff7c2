import { DeviceType, VirtioError } from '@virtio/core';
import { FakeDevice, FakeInterrupts, FakeTransport } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { CTLS, type ModelOptions, SoundModel, SPLIT, turns } from '../test/sound-model.ts';
import { type SoundNotification, streamCommand, VirtioSound } from './index.ts';

const PERIOD = 64;
const OPEN = {
  format: 'S16',
  rate: 48_000,
  channels: 2,
  periodBytes: PERIOD,
  bufferBytes: 4 * PERIOD,
} as const;
const bytes = (length: number, from = 0): Uint8Array => Uint8Array.from({ length }, (_, n) => from + n);
const code = (expected: string): object => expect.objectContaining({ code: expected }) as object;

describe('the driver of sound devices', () => {
  it('takes no other device, and none without its queues or counts', () => {
    const disk = new FakeDevice({ type: DeviceType.Block, queues: [8, 8, 8, 8], config: 16 });
    expect(() => new VirtioSound(new FakeTransport(disk), disk.hal)).toThrow(code('INVALID_PARAM'));
    const deaf = new FakeDevice({ type: DeviceType.Sound, queues: [8, 8, 8], config: 16 });
    expect(() => new VirtioSound(new FakeTransport(deaf), deaf.hal)).toThrow(VirtioError);
    const small = new FakeDevice({ type: DeviceType.Sound, queues: [8, 8, 8, 8], config: 8 });
    expect(() => new VirtioSound(new FakeTransport(small), small.hal)).toThrow(
      code('CONFIG_SPACE_TOO_SMALL'),
    );
    for (const { hal } of [disk, deaf, small]) expect(hal.leaks()).toEqual([]);
  });

  it('works with a configuration that ends before the controls, as those from before 1.4 do', () => {
    const device = new FakeDevice({ type: DeviceType.Sound, queues: [8, 8, 8, 8], config: 12 });
    using sound = new VirtioSound(new FakeTransport(device), device.hal);
    expect(sound.control.controls).toBe(0);
  });

  it('populates the event queue with buffers that the device writes, of the size of an event [5.14.5.1]', () => {
    const model = new SoundModel({ queueSize: 8 });
    expect(model.driver.control.streams).toBe(2);
    const chains = Array.from({ length: 8 }, () => model.device.queue(1).pop());
    expect(chains.every((chain) => chain?.readable === 0 && chain.writable === 8)).toBe(true);
  });

  it('refuses sizes of queues that are none', () => {
    for (const queueSize of [0, 3, 1.5, NaN, 65_536]) {
      const model = new SoundModel({ options: { queueSize } });
      expect(() => model.driver).toThrow(code('INVALID_PARAM'));
    }
  });

  it('does not believe in more items than anybody can have', async () => {
    const model = new SoundModel();
    new DataView(model.device.config.buffer).setUint32(4, 0xffff_ffff, true);
    await expect(model.driver.control.streamInfos()).rejects.toMatchObject(code('DEVICE_MISBEHAVED'));
    await expect(model.driver.openPlayback()).rejects.toMatchObject(code('DEVICE_MISBEHAVED'));
    expect(model.requests).toEqual([]);
  });
});

describe('notifications', () => {
  const options: ModelOptions = {
    features: SPLIT | CTLS,
    jacks: [{}],
    controls: [
      {
        name: 'Volume',
        role: 2,
        type: 1,
        access: 3,
        count: 1,
        range: new Uint8Array(24).fill(1, 4, 5),
        value: new Uint8Array(512),
        tlv: new Uint8Array(0),
        commands: [],
      },
    ],
  };

  it('are not taken by who has cancelled, not even in the turn in which they come', async () => {
    const model = new SoundModel(options);
    const cancelled = new AbortController();
    const next = model.driver.nextNotification({ signal: cancelled.signal });
    await turns();
    model.event(0x1000, 0);
    cancelled.abort();
    await expect(next).rejects.toThrow(code('ABORTED'));
    await expect(model.driver.nextNotification({ signal: cancelled.signal })).rejects.toThrow(
      code('ABORTED'),
    );
    expect(model.driver.popNotification()).toEqual({ type: 'jack', jack: 0, connected: true });
  });

  it('that never end give other work its turn', async () => {
    const model = new SoundModel(options);
    const { driver } = model;
    const interrupts = model.transport.interrupts as FakeInterrupts;
    let given = 0;
    interrupts.defer = (callback) => {
      given += 1;
      void Promise.resolve().then(callback);
    };
    for (let n = 0; n < 600; n += 1) {
      model.event(0x1000, 0);
      await driver.nextNotification();
    }
    expect(given).toBe(2);
  });

  it('are told to listeners, and kept for who asks', async () => {
    const model = new SoundModel(options);
    const told: SoundNotification[] = [];
    model.driver.on('notification', (one) => told.push(one));
    const next = model.driver.nextNotification();
    model.event(0x1000, 0);
    model.event(0x1001, 0);
    model.event(0x1100, 1);
    model.event(0x1200, 0x0005_0000);
    expect(await next).toEqual({ type: 'jack', jack: 0, connected: true });
    expect(model.driver.popNotification()).toEqual({ type: 'jack', jack: 0, connected: false });
    expect(model.driver.nextNotificationSync()).toEqual({ type: 'period', stream: 1 });
    expect(model.driver.popNotification()).toEqual({
      type: 'control',
      control: 0,
      changed: ['VALUE', 'TLV'],
    });
    expect(model.driver.popNotification()).toBeUndefined();
    expect(told).toHaveLength(4);
    expect(() => model.driver.nextNotificationSync({ timeoutMs: 2 })).toThrow(code('NOT_READY'));
  });

  it('are told no more once a listener to the same event has reset the driver, or disposed it', async () => {
    for (const end of ['reset', 'dispose'] as const) {
      const model = new SoundModel(options);
      const { driver } = model;
      const told: SoundNotification[] = [];
      driver.on('notification', (one) => told.push(one));
      driver.on('xrun', () => {
        if (end === 'reset') driver.reset();
        else driver[Symbol.dispose]();
      });
      model.event(0x1101, 0);
      await turns();
      driver.pollEvents();
      expect(told).toEqual([]);
    }
  });

  it('of a change of what an element is have it asked again', async () => {
    const model = new SoundModel(options);
    await model.driver.control.readControl(0);
    await model.driver.control.readControl(0);
    const queries = (): number => model.requests.filter((request) => request.code === 0x300).length;
    expect(queries()).toBe(1);
    model.event(0x1200, 0x0002_0000);
    await turns();
    await model.driver.control.readControl(0);
    expect(queries()).toBe(2);
  });

  it('of what there is not, or too short, are left out and counted', async () => {
    const model = new SoundModel(options);
    const quirks: string[] = [];
    model.driver.on('quirk', ({ message }) => quirks.push(message));
    model.event(0x1000, 1);
    model.event(0x1101, 2);
    model.event(0x1200, 1);
    model.event(0x9999, 0);
    model.device.send(1, [0, 0x10, 0, 0]);
    model.event(0x1000, 0);
    await turns();
    expect(model.driver.popNotification()).toMatchObject({ type: 'jack' });
    expect([quirks.length, model.driver.quirks]).toEqual([5, 5]);
  });

  it('are kept up to 256, and the device gets its buffers back', async () => {
    const model = new SoundModel(options);
    expect(model.driver.lostNotifications).toBe(0);
    for (let n = 0; n < 300; n += 1) {
      expect(model.event(0x1000 + (n % 2), 0)).toBe(true);
      await turns(5);
    }
    expect(model.driver.lostNotifications).toBe(44);
    let count = 0;
    while (model.driver.popNotification() !== undefined) count += 1;
    expect(count).toBe(256);
  });
});

describe('single transfers', () => {
  async function prepared(model = new SoundModel()): Promise<SoundModel> {
    const { control } = model.driver;
    for (const id of [0, 1]) {
      await control.setParameters(id, OPEN);
      await control.prepare(id);
      await control.start(id);
    }
    return model;
  }

  it('play and capture in all three ways', async () => {
    const model = await prepared();
    const { driver } = model;
    const promise = driver.transfer('output', 0, bytes(PERIOD));
    await turns();
    model.latency = 99;
    model.play(0);
    expect(await promise).toEqual({ length: PERIOD, latencyBytes: 99 });
    model.device.onNotify = () => void model.play(0);
    expect(() => driver.transferSync('output', 0, bytes(PERIOD), { timeoutMs: 2 })).toThrow(
      code('NOT_READY'),
    );
    model.device.onNotify = undefined;
    const into = new Uint8Array(PERIOD);
    const token = driver.submitTransfer('input', 1, into);
    expect(driver.pollTransfer('input')).toBe(-1);
    expect(() => driver.completeTransfer('input', token)).toThrow(code('NOT_READY'));
    model.capture(1, bytes(20, 5));
    expect(driver.pollTransfer('input')).toBe(token);
    expect(driver.completeTransfer('input', token)).toMatchObject({ length: 20 });
    expect(into.subarray(0, 20)).toEqual(bytes(20, 5));
    expect(() => driver.completeTransfer('input', token)).toThrow(code('WRONG_TOKEN'));
  });

  it('that are given up reach nobody', async () => {
    const model = await prepared();
    const into = new Uint8Array(PERIOD);
    const token = model.driver.submitTransfer('input', 1, into);
    model.driver.cancelTransfer('input', token);
    model.capture(1, bytes(PERIOD, 1));
    expect(model.driver.pollTransfer('input')).toBe(-1);
    expect(into).toEqual(new Uint8Array(PERIOD));
    expect(() => model.driver.cancelTransfer('input', token)).toThrow(code('WRONG_TOKEN'));
  });

  it('that were done are gone when the driver is disposed', async () => {
    const model = await prepared();
    const tokens = [1, 1].map(() => model.driver.submitTransfer('input', 1, new Uint8Array(PERIOD)));
    for (let n = 0; n < tokens.length; n += 1) model.capture(1, bytes(20, 5));
    expect(model.driver.pollTransfer('input')).toBe(tokens[0]);
    model.driver[Symbol.dispose]();
    expect(() => model.driver.pollTransfer('input')).toThrow(code('DISPOSED'));
  });

  it('and commands that are answered inside the notification can be taken there', async () => {
    const inside = new SoundModel();
    inside.transport = new FakeTransport(inside.device, {
      interrupts: new FakeInterrupts({ synchronous: true }),
    });
    const model = await prepared(inside);
    const { driver } = model;
    const taken: unknown[] = [];
    driver.on('used', () => {
      for (let token = driver.pollTransfer('output'); token >= 0; token = driver.pollTransfer('output')) {
        taken.push(driver.completeTransfer('output', token).length);
      }
      for (let token = driver.control.poll(); token >= 0; token = driver.control.poll()) {
        expect(() => driver.control.complete(token)).toThrow(code('IO_ERROR'));
        taken.push('refused');
      }
    });
    model.eager = true;
    const token = driver.submitTransfer('output', 0, bytes(PERIOD));
    expect(taken).toEqual([PERIOD]);
    expect(() => driver.cancelTransfer('output', token)).toThrow(code('WRONG_TOKEN'));
    expect(() => driver.completeTransfer('output', token)).toThrow(code('WRONG_TOKEN'));
    expect(driver.pollTransfer('output')).toBe(-1);
    model.override = (_code, chain) => {
      chain.write(Uint8Array.of(1, 0x80, 0, 0));
      chain.complete();
      return true;
    };
    driver.control.submit(streamCommand(0, 'STOP'));
    expect(taken.at(-1)).toBe('refused');
    // The device refused it, so it runs on.
    expect(driver.control.streamState(0)).toBe('running');
  });

  it('that fail say so', async () => {
    const model = await prepared();
    const failing = expect(model.driver.transfer('output', 0, bytes(PERIOD))).rejects.toMatchObject(
      code('IO_ERROR'),
    );
    await turns();
    model.status = 0x8003;
    model.play(0);
    await failing;
    await expect(model.driver.transfer('output', 5, bytes(4))).rejects.toMatchObject(code('INVALID_PARAM'));
    await expect(model.driver.transfer('output', 0, new Uint8Array(0))).rejects.toMatchObject(
      code('INVALID_PARAM'),
    );
    expect(() => model.driver.submitTransfer('output', 0, 'x' as unknown as Uint8Array)).toThrow(
      code('INVALID_PARAM'),
    );
    expect(() => model.driver.submitTransfer('output', -1, bytes(4))).toThrow(code('INVALID_PARAM'));
  });

  it('are refused where there is no stream', async () => {
    const model = new SoundModel({ streams: [] });
    for (const direction of ['output', 'input'] as const) {
      await expect(model.driver.transfer(direction, 0, bytes(4))).rejects.toMatchObject(
        code('INVALID_PARAM'),
      );
      expect(() => model.driver.submitTransfer(direction, 0, bytes(4))).toThrow(code('INVALID_PARAM'));
    }
  });

  it('go on beside an open stream, each to its own', async () => {
    const model = new SoundModel({ streams: [{ output: true }, { output: true }] });
    const stream = await model.driver.openPlayback(OPEN);
    const { control } = model.driver;
    await control.setParameters(1, OPEN);
    await control.prepare(1);
    await control.start(1);
    const token = model.driver.submitTransfer('output', 1, bytes(PERIOD, 7));
    const writing = stream.write(bytes(8 * PERIOD)).then(() => stream.drain());
    for (let n = 0; n < 10; n += 1) {
      await turns();
      model.play(0, 1);
      model.play(1, 1);
    }
    await writing;
    expect(model.driver.pollTransfer('output')).toBe(token);
    expect(model.driver.completeTransfer('output', token).length).toBe(PERIOD);
    expect(model.stream(1).played).toEqual([...bytes(PERIOD, 7)]);
    expect(model.stream(0).played).toEqual([...bytes(8 * PERIOD)]);
  });
});

describe('failure, reset and disposal', () => {
  it('end what waits, and streams have to be opened anew after a reset', async () => {
    const model = new SoundModel();
    const { driver } = model;
    const playback = await driver.openPlayback(OPEN);
    const capture = await driver.openCapture(OPEN);
    const lost = Promise.all(
      [
        playback.write(bytes(8 * PERIOD)),
        playback.drain(),
        capture.read(new Uint8Array(4)),
        driver.nextNotification(),
      ].map(async (promise) => expect(promise).rejects.toMatchObject(code('DEVICE_RESET'))),
    );
    await turns();
    driver.reset();
    await lost;
    expect([playback.closed, capture.closed, playback.state]).toEqual([true, true, 'initial']);
    await expect(playback.write(bytes(4))).rejects.toMatchObject(code('DEVICE_RESET'));
    expect(() => capture.submitRead(bytes(4))).toThrow(code('DEVICE_RESET'));
    const again = await driver.openPlayback(OPEN);
    await again.write(bytes(4 * PERIOD));
    model.play(0);
    expect(model.stream(0).played).toEqual([...bytes(4 * PERIOD)]);
    await playback.close();
    playback[Symbol.dispose]();
    expect(model.stream(0).state).toBe('running');
  });

  it('end what waits when the device asks for a reset, is unplugged, or the driver is disposed', async () => {
    const ways: [string, (model: SoundModel) => void][] = [
      ['DEVICE_NEEDS_RESET', ({ device }) => device.needsReset()],
      ['DEVICE_REMOVED', ({ device }) => device.remove()],
      ['DISPOSED', ({ driver }) => driver[Symbol.dispose]()],
    ];
    for (const [expected, way] of ways) {
      const model = new SoundModel();
      const playback = await model.driver.openPlayback(OPEN);
      const capture = await model.driver.openCapture(OPEN);
      const lost = Promise.all(
        [playback.write(bytes(8 * PERIOD)), capture.read(new Uint8Array(4))].map(async (promise) =>
          expect(promise).rejects.toMatchObject(code(expected)),
        ),
      );
      await turns();
      way(model);
      await turns();
      model.driver.pollEvents();
      await lost;
      expect(() => playback.submitWrite(bytes(4))).toThrow(code(expected));
      expect(() => model.driver.popNotification()).toThrow(code(expected));
      playback[Symbol.dispose]();
      model.driver[Symbol.dispose]();
      expect(model.device.hal.leaks()).toEqual([]);
    }
  });

  it('end a stream that is just being opened', async () => {
    for (let moment = 0; moment < 30; moment += 1) {
      const model = new SoundModel();
      const opening = model.driver.openPlayback(OPEN).then(
        // Before the parameters were set, a reset is no matter.
        (stream) => stream.closed || (stream.state === 'prepared' && model.stream(0).state === 'prepared'),
        (error: unknown) => VirtioError.is(error, 'DEVICE_RESET'),
      );
      await turns(moment);
      model.driver.reset();
      expect(await opening).toBe(true);
    }
  });

  it('may come from a listener in the middle of a call', async () => {
    for (const action of ['reset', 'dispose', 'close'] as const) {
      const model = new SoundModel();
      const stream = await model.driver.openPlayback(OPEN);
      await stream.write(bytes(4 * PERIOD));
      model.driver.on('xrun', () => {
        if (action === 'reset') model.driver.reset();
        else if (action === 'dispose') model.driver[Symbol.dispose]();
        else stream[Symbol.dispose]();
      });
      model.play(0);
      expect(() => stream.submitWrite(bytes(4))).toThrow(VirtioError);
      expect(stream.latency).toBeGreaterThanOrEqual(0);
      expect(model.device.violations).toEqual([]);
    }
  });

  it('leave nothing to a stream of a device that gives its periods back after its release, or never', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(bytes(4 * PERIOD, 1));
    const kept = model.stream(0).waiting.splice(0);
    await stream.stop();
    expect(model.driver.quirks).toBe(1);
    await stream.write(bytes(4 * PERIOD, 100));
    // The late ones are answered with an error, which is nobody's.
    for (const chain of kept) chain.write([3, 0x80, 0, 0, 0, 0, 0, 0]).complete();
    model.play(0);
    expect(model.stream(0).played).toEqual([...bytes(4 * PERIOD, 100)]);
    expect([stream.failedPeriods, stream.underruns]).toEqual([0, 1]);
  });

  it('a device that answers inside of the notification is no matter', async () => {
    const model = new SoundModel();
    const stream = await model.driver.openPlayback(OPEN);
    model.eager = true;
    await stream.write(bytes(40 * PERIOD));
    await stream.drain();
    expect(model.stream(0).played).toEqual([...bytes(40 * PERIOD)]);
  });

  it('ends with NOT_READY when a query is never answered, and the late answer reaches nobody', () => {
    const model = new SoundModel({ interrupts: false });
    const held: { complete: () => unknown }[] = [];
    model.override = (_code, chain) => {
      chain.defer();
      held.push(chain);
      return true;
    };
    expect(() => model.driver.control.streamInfosSync({}, { timeoutMs: 2 })).toThrow(code('NOT_READY'));
    model.override = undefined;
    for (const chain of held) chain.complete();
    expect(model.driver.control.streamInfosSync()).toHaveLength(2);
  });

  it('keeps no event loop alive while nobody waits', async () => {
    const model = new SoundModel();
    const { interrupts } = model.transport;
    if (interrupts === undefined) throw new Error('the fake has interrupts');
    const hold = vi.spyOn(interrupts, 'hold');
    const release = vi.spyOn(interrupts, 'release');
    const stream = await model.driver.openPlayback(OPEN);
    await stream.write(bytes(4 * PERIOD));
    const controller = new AbortController();
    const waiting = stream.write(bytes(8 * PERIOD), { signal: controller.signal }).catch(() => undefined);
    await turns();
    expect(hold.mock.calls.length).toBe(release.mock.calls.length + 1);
    controller.abort();
    await waiting;
    expect(hold.mock.calls.length).toBe(release.mock.calls.length);
  });
});
