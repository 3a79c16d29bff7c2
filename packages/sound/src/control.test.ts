import { describe, expect, it } from 'vitest';
import {
  BAD_MSG,
  CTLS,
  IO_ERR,
  type ModelControl,
  NOT_SUPP,
  SoundModel,
  SPLIT,
} from '../test/sound-model.ts';
import {
  type ControlValue,
  PcmFormat,
  type PcmParameters,
  parametersCommand,
  SoundRequest,
  streamCommand,
} from './index.ts';

const S16 = { format: 'S16', rate: 48_000, channels: 2, periodBytes: 64, bufferBytes: 256 } as const;
const code = (expected: string): object => expect.objectContaining({ code: expected }) as object;

const words = (...values: number[]): Uint8Array =>
  new Uint8Array(Uint32Array.from(values, (value) => value >>> 0).buffer);

function control(options: Partial<ModelControl> = {}): ModelControl {
  return {
    name: 'Master Playback Volume',
    role: 2,
    type: 1,
    access: 0x7f,
    count: 2,
    range: words(0, 100, 1),
    value: new Uint8Array(512),
    tlv: new Uint8Array(0),
    commands: [],
    ...options,
  };
}

describe('jacks', () => {
  const jacks = [{ connected: true }, { remap: true, association: 2, sequence: 3 }];

  it('are told, all or some of them', async () => {
    const { driver } = new SoundModel({ jacks });
    expect(driver.control.jacks).toBe(2);
    expect(await driver.control.jackInfos()).toEqual([
      { id: 0, hdaFnNid: 7, remappable: false, connected: true, defaultConfiguration: 0, capabilities: 0x10 },
      {
        id: 1,
        hdaFnNid: 7,
        remappable: true,
        connected: false,
        defaultConfiguration: 0x23,
        capabilities: 0x11,
      },
    ]);
    expect(driver.control.jackInfosSync({ start: 1 }).map(({ id }) => id)).toEqual([1]);
    expect(driver.control.jackInfosSync({ start: 2 })).toEqual([]);
  });

  it('are never asked for beyond those that there are [5.14.6.2]', async () => {
    const model = new SoundModel({ jacks });
    for (const range of [{ start: 3 }, { start: 1, count: 2 }, { start: -1 }, { count: 1.5 }]) {
      await expect(model.driver.control.jackInfos(range)).rejects.toMatchObject(code('INVALID_PARAM'));
    }
    expect(model.requests).toEqual([]);
  });

  it('are remapped where they can be', async () => {
    const model = new SoundModel({ jacks });
    await model.driver.control.remapJack(1, 4, 5);
    expect(model.jacks[1]).toMatchObject({ association: 4, sequence: 5 });
    expect(() => model.driver.control.remapJackSync(0, 4, 5)).toThrow(code('UNSUPPORTED'));
    await expect(model.driver.control.remapJack(2, 0, 0)).rejects.toMatchObject(code('INVALID_PARAM'));
    await expect(model.driver.control.remapJack(1, -1, 0)).rejects.toMatchObject(code('INVALID_PARAM'));
  });
});

describe('streams', () => {
  it('tell what they can do, and keep bits without a name to themselves', async () => {
    const { driver } = new SoundModel({
      streams: [
        {
          output: true,
          features: 0x8000_0014,
          formats: (1n << 24n) | (1n << 5n) | (1n << 60n),
          rates: 0xffff_ffff_ffffn,
          max: 8,
        },
      ],
    });
    const [info] = await driver.control.streamInfos();
    expect(info).toMatchObject({
      id: 0,
      direction: 'output',
      formats: ['S16', 'IEC958_SUBFRAME'],
      features: ['MSG_POLLING', 'EVT_XRUNS'],
      channelsMin: 1,
      channelsMax: 8,
    });
    expect(info?.rates).toHaveLength(16);
    expect(info?.rates.at(0)).toBe(5512);
    expect(info?.rates.at(-1)).toBe(384_000);
  });

  it('are told however many there are, in parts', async () => {
    const model = new SoundModel({
      streams: Array.from({ length: 1200 }, (_, n) => ({ output: n % 2 === 0 })),
    });
    const infos = await model.driver.control.streamInfos();
    expect(infos.map(({ id }) => id)).toEqual(Array.from({ length: 1200 }, (_, n) => n));
    expect(model.requests).toHaveLength(3);
  });

  it('are told by devices that count the status alone, as QEMU before 9.0', async () => {
    const model = new SoundModel();
    model.override = (request, chain) => {
      if (request !== SoundRequest.PCM_INFO) return false;
      chain.write([0, 0x80, 0, 0]);
      const info = new Uint8Array(64);
      info.set([0x20], 8);
      info.set([0x80], 16);
      info.set([0, 1, 2], 24);
      info.set([0x20], 40);
      info.set([1, 1, 2], 56);
      chain.write(info);
      chain.complete(4);
      return true;
    };
    expect((await model.driver.control.streamInfos()).map(({ direction }) => direction)).toEqual([
      'output',
      'input',
    ]);
    expect(model.driver.quirks).toBe(1);
  });

  it.each<[string, Partial<PcmParameters>, string]>([
    ['a format that the stream does not have', { format: 'S24' }, 'INVALID_PARAM'],
    ['a format that nobody has', { format: 'MP3' }, 'INVALID_PARAM'],
    ['a rate that the stream does not have', { rate: 96_000 }, 'INVALID_PARAM'],
    ['a rate that nobody has', { rate: 48_001 }, 'INVALID_PARAM'],
    ['too many channels', { channels: 3 }, 'INVALID_PARAM'],
    ['no channel', { channels: 0 }, 'INVALID_PARAM'],
    ['a part of a channel', { channels: 1.5 }, 'INVALID_PARAM'],
    ['a period of no bytes', { periodBytes: 0 }, 'INVALID_PARAM'],
    ['periods that do not divide the buffer [5.14.6.6.3.2]', { bufferBytes: 100 }, 'INVALID_PARAM'],
    ['a buffer smaller than a period', { bufferBytes: 32 }, 'INVALID_PARAM'],
    ['a period of broken frames', { periodBytes: 62, bufferBytes: 124 }, 'INVALID_PARAM'],
    ['a feature that the stream does not have', { features: ['EVT_XRUNS'] }, 'INVALID_PARAM'],
    ['shared memory of the host, a placeholder', { features: ['SHMEM_HOST'] }, 'UNSUPPORTED'],
    ['shared memory of the guest, a placeholder', { features: ['SHMEM_GUEST'] }, 'UNSUPPORTED'],
  ])('refuse %s before anything is sent', async (_what, parameters, expected) => {
    const model = new SoundModel();
    await expect(model.driver.control.setParameters(0, { ...S16, ...parameters })).rejects.toMatchObject(
      code(expected),
    );
    expect(() => model.driver.control.setParametersSync(0, { ...S16, ...parameters })).toThrow(
      code(expected),
    );
    await expect(model.driver.openPlayback({ ...S16, ...parameters } as object)).rejects.toMatchObject(
      code(expected),
    );
    expect(model.commands).toEqual([]);
  });

  it('get their parameters as they are laid out [5.14.6.6.3]', async () => {
    const model = new SoundModel({
      streams: [{ output: true, features: 0x14, formats: 1n << BigInt(PcmFormat.U8), rates: 1n << 15n }],
    });
    await model.driver.control.setParameters(0, {
      format: 'U8',
      rate: 24_000,
      channels: 1,
      periodBytes: 10,
      bufferBytes: 40,
      features: ['EVT_XRUNS', 'MSG_POLLING'],
    });
    expect(model.stream(0).params).toEqual({
      buffer: 40,
      period: 10,
      features: 0x14,
      channels: 1,
      format: 4,
      rate: 15,
    });
  });

  it('go through their life by promises', async () => {
    const model = new SoundModel();
    const { control: card } = model.driver;
    await card.setParameters(0, S16);
    await card.setParameters(0, S16);
    await card.prepare(0);
    await card.setParameters(0, S16);
    await card.prepare(0);
    await card.start(0);
    await card.stop(0);
    await card.start(0);
    await card.stop(0);
    await card.release(0);
    await card.prepare(0);
    expect(card.streamState(0)).toBe('prepared');
    expect(model.stream(0).state).toBe('prepared');
  });

  it('go through their life by spinning, and without waiting', () => {
    const model = new SoundModel({ interrupts: false });
    const { control: card } = model.driver;
    card.setParametersSync(1, S16);
    card.prepareSync(1);
    card.startSync(1);
    card.stopSync(1);
    card.releaseSync(1);
    const tokens = [
      card.submit(parametersCommand(1, S16), { kick: false }),
      card.submit(streamCommand(1, 'PREPARE'), { kick: false }),
      card.submit(streamCommand(1, 'START'), { kick: false }),
    ];
    expect(model.stream(1).state).toBe('released');
    card.kick();
    expect([card.poll(), card.poll(), card.poll(), card.poll()]).toEqual([...tokens, -1]);
    for (const token of tokens) card.complete(token);
    expect([card.streamState(1), model.stream(1).state]).toEqual(['running', 'running']);
  });

  it('refuse a command out of order, with the way out, before it is sent', async () => {
    const model = new SoundModel();
    const { control: card } = model.driver;
    await expect(card.start(0)).rejects.toThrow(/first SET_PARAMS, then PREPARE/);
    await expect(card.prepare(0)).rejects.toMatchObject(code('INVALID_PARAM'));
    expect(() => card.submit(streamCommand(0, 'STOP'))).toThrow(code('INVALID_PARAM'));
    await card.setParameters(0, S16);
    expect(() => card.releaseSync(0)).toThrow(code('INVALID_PARAM'));
    await expect(card.prepare(2)).rejects.toMatchObject(code('INVALID_PARAM'));
    expect(() => card.streamState(-1)).toThrow(code('INVALID_PARAM'));
    expect(model.commands).toEqual(['SET_PARAMS']);
  });

  it.each([
    [BAD_MSG, 'IO_ERROR', 'set'],
    [NOT_SUPP, 'UNSUPPORTED', 'set'],
    [IO_ERR, 'IO_ERROR', 'set'],
    [0, 'DEVICE_MISBEHAVED', 'unknown'],
    [0x12345678, 'DEVICE_MISBEHAVED', 'unknown'],
  ])(
    'stay in their state when the device refuses, which is unknown after nonsense (%i)',
    async (status, expected, state) => {
      const model = new SoundModel();
      const { control: card } = model.driver;
      await card.setParameters(0, S16);
      model.override = (_code, chain) => {
        chain.write(words(status));
        return true;
      };
      await expect(card.prepare(0)).rejects.toMatchObject(code(expected));
      expect(() => card.prepareSync(0)).toThrow(code(expected));
      const token = card.submit(streamCommand(0, 'PREPARE'));
      expect(() => card.complete(token)).toThrow(code(expected));
      expect(card.streamState(0)).toBe(state);
      model.override = undefined;
      await card.prepare(0);
    },
  );

  it('are in an unknown state when nobody waited for the answer, and the device is asked whatever comes', async () => {
    const model = new SoundModel();
    const { control: card } = model.driver;
    await card.setParameters(0, S16);
    model.override = (_code, chain) => {
      chain.defer();
      return true;
    };
    expect(() => card.prepareSync(0, { timeoutMs: 2 })).toThrow(code('NOT_READY'));
    expect(card.streamState(0)).toBe('unknown');
    const controller = new AbortController();
    const waiting = card.stop(0, { signal: controller.signal });
    controller.abort();
    await expect(waiting).rejects.toMatchObject(code('ABORTED'));
    card.cancel(card.submit(streamCommand(0, 'START')));
    expect(card.streamState(0)).toBe('unknown');
    model.override = undefined;
    await expect(card.start(0)).rejects.toMatchObject(code('IO_ERROR'));
    // Opening makes order.
    const stream = await model.driver.openPlayback(S16);
    expect(stream.state).toBe('prepared');
  });

  it('cannot be opened twice, nor in the wrong direction, nor where there are none', async () => {
    const model = new SoundModel();
    const first = model.driver.openPlayback({ ...S16, stream: 0 });
    await expect(model.driver.openPlayback({ ...S16, stream: 0 })).rejects.toMatchObject(
      code('ALREADY_USED'),
    );
    await first;
    await expect(model.driver.openPlayback(S16)).rejects.toMatchObject(code('ALREADY_USED'));
    await expect(model.driver.openPlayback({ stream: 1 })).rejects.toMatchObject(code('INVALID_PARAM'));
    await expect(model.driver.openCapture({ stream: 9 })).rejects.toMatchObject(code('INVALID_PARAM'));
    const deaf = new SoundModel({ streams: [{ output: true }] });
    await expect(deaf.driver.openCapture()).rejects.toMatchObject(code('UNSUPPORTED'));
  });

  it('are opened with 20 ms a period and 5 periods, unless it is said otherwise', async () => {
    const { driver } = new SoundModel();
    const stream = await driver.openPlayback();
    expect(stream.parameters).toEqual({
      format: 'S16',
      rate: 48_000,
      channels: 2,
      periodBytes: 3840,
      bufferBytes: 19_200,
      features: [],
    });
    expect(stream.frameBytes).toBe(4);
  });
});

describe('channel maps', () => {
  it('are told by the names of their positions', async () => {
    const { driver } = new SoundModel({
      maps: [
        { direction: 0, positions: [3, 4] },
        { direction: 1, positions: [2, 200] },
      ],
    });
    expect(await driver.control.channelMapInfos()).toEqual([
      { id: 0, hdaFnNid: 7, direction: 'output', positions: ['FL', 'FR'] },
      { id: 1, hdaFnNid: 7, direction: 'input', positions: ['MONO', 'NONE'] },
    ]);
    expect(driver.control.channelMapInfosSync({ start: 1, count: 1 })).toHaveLength(1);
  });

  it('with more channels than there can be, or of no direction, are refused', async () => {
    for (const map of [
      { direction: 0, positions: [3], channels: 19 },
      { direction: 2, positions: [3] },
    ]) {
      const { driver } = new SoundModel({ maps: [map] });
      await expect(driver.control.channelMapInfos()).rejects.toMatchObject(code('DEVICE_MISBEHAVED'));
    }
  });
});

describe('control elements', () => {
  const withControls = (...controls: ModelControl[]): SoundModel =>
    new SoundModel({ features: SPLIT | CTLS, controls });

  it('are there with CTLS only: without, not even their number is read [5.14.5.1]', async () => {
    const model = new SoundModel({ controls: [control()] });
    const read: number[] = [];
    model.device.onConfigRead = (offset) => read.push(offset);
    expect(model.driver.control.controls).toBe(0);
    expect(read.some((offset) => offset >= 12)).toBe(false);
    await expect(model.driver.control.readControl(0)).rejects.toMatchObject(code('INVALID_PARAM'));
    const declined = new SoundModel({
      features: SPLIT | CTLS,
      controls: [control()],
      options: { controls: false },
    });
    expect(declined.driver.features.has('CTLS')).toBe(false);
  });

  it('tell what they are', async () => {
    const { driver } = withControls(
      control(),
      control({ name: 'Mic Boost', role: 7, index: 3, range: words(-64, 0, 2), access: 1, count: 1 }),
      control({ name: 'Wide', type: 2, role: 0, range: words(0xffff_fff0, 0xffff_ffff, 16, 0, 1, 0) }),
      control({ name: 'Source', type: 3, role: 0, count: 1, range: words(2), items: ['Mic', 'Line'] }),
      control({ name: 'Switch', type: 0, role: 4, count: 1 }),
      control({ name: 'Big', range: words(0, 0xffff_ffff, 0) }),
    );
    const infos = await driver.control.controlInfos();
    expect(infos[0]).toEqual({
      id: 0,
      hdaFnNid: 7,
      name: 'Master Playback Volume',
      index: 0,
      role: 'VOLUME',
      direction: 'output',
      type: 'INTEGER',
      access: ['READ', 'WRITE', 'VOLATILE', 'INACTIVE', 'TLV_READ', 'TLV_WRITE', 'TLV_COMMAND'],
      count: 2,
      range: { min: 0, max: 100, step: 1 },
      range64: undefined,
      items: undefined,
    });
    expect(infos[1]).toMatchObject({
      role: 'GAIN',
      direction: 'input',
      index: 3,
      range: { min: -64, max: 0, step: 2 },
    });
    expect(infos[2]).toMatchObject({
      type: 'INTEGER64',
      role: 'UNDEFINED',
      direction: undefined,
      range64: { min: -16n, max: 16n, step: 1n },
    });
    expect(infos[3]).toMatchObject({ type: 'ENUMERATED', items: 2 });
    expect(infos[4]).toMatchObject({ type: 'BOOLEAN', role: 'MUTE', range: { min: 0, max: 1, step: 1 } });
    expect(infos[5]?.range).toEqual({ min: 0, max: 0xffff_ffff, step: 0 });
    expect(driver.control.controlItemsSync(3)).toEqual(['Mic', 'Line']);
    await expect(driver.control.controlItems(0)).rejects.toMatchObject(code('INVALID_PARAM'));
  });

  it.each<[string, Partial<ModelControl>, ControlValue]>([
    ['integers', {}, [7, 100]],
    ['signed integers', { range: words(-64, 0, 1) }, [-64, -1]],
    ['large integers', { range: words(0, 0xffff_ffff, 1) }, [0xffff_ffff, 0]],
    ['wide integers', { type: 2, range: words(0, 0x8000_0000, 0, 0x7fff_ffff, 1, 0) }, [-(2n ** 63n), 5n]],
    ['booleans', { type: 0 }, [1, 0]],
    ['choices', { type: 3, range: words(3) }, [2, 0]],
    ['bytes', { type: 4 }, Uint8Array.of(1, 255)],
    [
      'digital audio',
      { type: 5, count: 1 },
      {
        status: new Uint8Array(24).fill(1),
        subcode: new Uint8Array(147).fill(2),
        digSubframe: Uint8Array.of(3, 4, 5, 6),
      },
    ],
  ])('have values that are written and read: %s', async (_what, options, value) => {
    const { driver } = withControls(control(options));
    await driver.control.writeControl(0, value);
    expect(await driver.control.readControl(0)).toEqual(value);
    driver.control.writeControlSync(0, value);
    expect(driver.control.readControlSync(0)).toEqual(value);
  });

  it.each<[Partial<ModelControl>, unknown]>([
    [{}, [1]],
    [{}, [1, 101]],
    [{}, [1, -1]],
    [{}, [1, 1.5]],
    [{}, 'loud'],
    [{}, [1n, 2n]],
    [{ type: 2, range: words(0, 0, 5, 0, 1, 0) }, [1n, 6n]],
    [{ type: 2, range: words(0, 0, 5, 0, 1, 0) }, [1, 2]],
    [{ type: 3, range: words(3) }, [0, 3]],
    [{ type: 4 }, Uint8Array.of(1)],
    [{ type: 4 }, [1, 2]],
    [{ type: 5, count: 1 }, { status: new Uint8Array(24) }],
    [
      { type: 5, count: 1 },
      { status: new Uint8Array(25), subcode: new Uint8Array(1), digSubframe: new Uint8Array(1) },
    ],
  ])('refuse values that they cannot have (%#)', async (options, value) => {
    const model = withControls(control(options));
    await expect(model.driver.control.writeControl(0, value as ControlValue)).rejects.toMatchObject(
      code('INVALID_PARAM'),
    );
    expect(model.requests.map((request) => request.code)).toEqual([SoundRequest.CTL_INFO]);
  });

  it('are asked for anew if they have changed, or the device was reset, while it told what they were', async () => {
    const model = withControls(control({ count: 2 }));
    const { driver } = model;
    const asked = async (): Promise<number> => {
      model.requests.length = 0;
      await driver.control.readControl(0);
      return model.requests.filter(({ code: each }) => each === SoundRequest.CTL_INFO).length;
    };
    // The event is behind the answer, and is heard before it.
    const infos = driver.control.controlInfos();
    model.event(0x1200, 0x0002_0000);
    expect(driver.popNotification()).toMatchObject({ type: 'control', changed: ['INFO'] });
    await infos;
    expect(await asked()).toBe(1);
    expect(await asked()).toBe(0);
    const other = driver.control.controlInfos();
    driver.pollEvents();
    driver.reset();
    await other.catch(() => undefined);
    expect(await asked()).toBe(1);
  });

  it('of a role that nobody knows have none', async () => {
    const { driver } = withControls(control({ role: 9 }), control());
    expect(await driver.control.controlInfos()).toMatchObject([
      { role: 'UNDEFINED', direction: undefined, type: 'INTEGER' },
      { role: 'VOLUME' },
    ]);
  });

  it('are not asked for what there is no right to [5.14.6.10.2.1, 5.14.6.10.3.2]', async () => {
    const model = withControls(control({ access: 0 }));
    const { control: card } = model.driver;
    const metadata = { type: 1, value: Uint32Array.of(1) };
    for (const asked of [
      () => card.readControl(0),
      () => card.writeControl(0, [1, 1]),
      () => card.readMetadata(0),
      () => card.writeMetadata(0, metadata),
      () => card.commandMetadata(0, metadata),
    ]) {
      await expect(asked()).rejects.toMatchObject(code('UNSUPPORTED'));
    }
    expect(model.requests.map((request) => request.code)).toEqual([SoundRequest.CTL_INFO]);
  });

  it('have metadata, of at most 65536 bytes [5.14.6.10.3.2]', async () => {
    const model = withControls(control());
    const { control: card } = model.driver;
    const metadata = { type: 1, value: Uint32Array.of(0xffff_d8f0, 100) };
    await card.writeMetadata(0, metadata);
    expect(await card.readMetadata(0)).toEqual(metadata);
    card.writeMetadataSync(0, { type: 2, value: Uint32Array.from({ length: 16_384 }, (_, n) => n) });
    expect(card.readMetadataSync(0, 65_536).value).toHaveLength(16_384);
    // What does not fit is left out, whatever the length says.
    expect((await card.readMetadata(0, 8)).value).toEqual(Uint32Array.of(0, 1));
    await card.commandMetadata(0, metadata);
    card.commandMetadataSync(0, metadata);
    expect(model.controls[0]?.commands).toHaveLength(2);
    await expect(card.writeMetadata(0, { type: 1, value: new Uint32Array(16_385) })).rejects.toMatchObject(
      code('INVALID_PARAM'),
    );
    await expect(card.readMetadata(0, 65_540)).rejects.toMatchObject(code('INVALID_PARAM'));
    await expect(card.readMetadata(0, 7)).rejects.toMatchObject(code('INVALID_PARAM'));
    await expect(
      card.writeMetadata(0, { type: 1, value: [1] as unknown as Uint32Array }),
    ).rejects.toMatchObject(code('INVALID_PARAM'));
  });

  it.each<Partial<ModelControl>>([{ type: 6 }, { count: 0 }, { count: 129 }, { type: 5, count: 2 }])(
    'that cannot be are refused (%j)',
    async (options) => {
      const { driver } = withControls(control(options));
      await expect(driver.control.controlInfos()).rejects.toMatchObject(code('DEVICE_MISBEHAVED'));
    },
  );
});
