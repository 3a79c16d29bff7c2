import { CommonFeatures } from '@virtio/core';
import { FakeTransport, ringVariants } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { emptyEdid, qemuEdid } from '../test/edids.ts';
import {
  ALL_FEATURES,
  BLOB_ALIGNMENT,
  CONTEXT_INIT,
  EDID,
  GpuDevice,
  RESOURCE_BLOB,
  VIRGL,
} from '../test/gpu-device.ts';
import { failure, setUp, settle, usual } from '../test/set-up.ts';
import { type Display, GpuCommandType, VirtioGpu } from './index.ts';

describe('VirtioGpu', () => {
  it('refuses devices of other types, and unknown features', () => {
    const host = new GpuDevice();
    const transport = new FakeTransport(host.device);
    vi.spyOn(transport, 'deviceType', 'get').mockReturnValue(2);
    expect(() => new VirtioGpu(transport, host.device.hal)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    expect(() => setUp({}, { without: ['NONE' as 'EDID'] })).toThrow(
      /without "NONE", which is not a feature that can be left out; these are VIRGL, EDID, .*, EVENT_IDX, /,
    );
    expect(() => setUp({}, { without: 'EDID' as unknown as [] })).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
  });

  it('accepts all features of GPU devices', () => {
    using rig = setUp({ features: ALL_FEATURES, blobAlignment: 4096 });
    for (const name of [
      'VIRGL',
      'EDID',
      'RESOURCE_UUID',
      'RESOURCE_BLOB',
      'CONTEXT_INIT',
      'BLOB_ALIGNMENT',
    ] as const) {
      expect(rig.gpu.features.has(name), name).toBe(true);
    }
  });

  it('accepts no feature without the one that it needs [2.2.1] [5.7.3]', () => {
    using rig = setUp({ features: EDID | CONTEXT_INIT | BLOB_ALIGNMENT });
    expect(rig.host.device.accepted & ALL_FEATURES).toBe(EDID);
    using less = setUp({ features: ALL_FEATURES }, { without: ['VIRGL', 'RESOURCE_BLOB', 'EDID'] });
    expect(less.host.device.accepted & ALL_FEATURES).toBe(4n);
  });

  it('leaves out common features that it is told to', () => {
    using rig = setUp({ features: usual }, { without: ['EVENT_IDX', 'EDID'] });
    expect(rig.gpu.features.has('EVENT_IDX')).toBe(false);
    expect(rig.gpu.features.has('EDID')).toBe(false);
    expect(rig.gpu.features.has('INDIRECT_DESC')).toBe(true);
  });

  it('tells what the configuration says, as far as features make it valid [5.7.4]', () => {
    using rig = setUp({
      ...{ features: VIRGL | RESOURCE_BLOB | BLOB_ALIGNMENT, scanouts: 3, blobAlignment: 65_536 },
      ...{ hostVisible: 1 << 20, capsets: [{ id: 1, version: 1, data: new Uint8Array(4) }] },
    });
    const { gpu } = rig;
    expect([gpu.scanouts, gpu.capsets, gpu.blobAlignment]).toEqual([3, 1, 65_536]);
    expect(gpu.hostVisible).toEqual({ address: 0x8_0000_0000, length: 1 << 20 });
    using plain = setUp({ blobAlignment: 65_536, capsets: [{ id: 1, version: 1, data: new Uint8Array(4) }] });
    expect([plain.gpu.capsets, plain.gpu.blobAlignment, plain.gpu.hostVisible]).toEqual([0, 1, undefined]);
    expect(plain.gpu.quirks).toBe(0);
  });

  it('makes the best of a configuration that is not what it should be', () => {
    const host = new GpuDevice({ features: RESOURCE_BLOB | BLOB_ALIGNMENT, blobAlignment: 4097 });
    new DataView(host.device.config.buffer).setUint32(8, 17, true);
    using gpu = new VirtioGpu(new FakeTransport(host.device), host.device.hal);
    expect([gpu.scanouts, gpu.blobAlignment, gpu.quirks]).toEqual([16, 1, 2]);
  });

  it.each([0, 8, 11])('refuses a configuration of %d bytes', (length) => {
    const host = new GpuDevice();
    const transport = new FakeTransport(host.device);
    vi.spyOn(transport, 'configSize', 'get').mockReturnValue(length);
    expect(() => new VirtioGpu(transport, host.device.hal)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^CONFIG_SPACE_/) as string }),
    );
    host.device.hal.assertClean();
  });

  it('gives all back if a queue is missing, or there is no memory', () => {
    const host = new GpuDevice({ queues: [64] });
    expect(() => new VirtioGpu(new FakeTransport(host.device), host.device.hal)).toThrow();
    host.device.hal.assertClean();
    for (let after = 0; after < 12; after += 1) {
      const other = new GpuDevice();
      other.device.hal.failAlloc({ after });
      try {
        new VirtioGpu(new FakeTransport(other.device), other.device.hal)[Symbol.dispose]();
      } catch (error) {
        expect(error).toMatchObject({ code: 'DMA_ERROR' });
      }
      other.device.hal.assertClean();
    }
  });

  it.each(ringVariants)('works with $name rings', async ({ features }) => {
    using rig = setUp({ features: features | EDID });
    const screen = await rig.gpu.setUpFramebuffer({ width: 64, height: 32 });
    for (let n = 0; n < 200; n += 1) {
      screen.pixels[n] = 0x010203 + n;
      if (n % 3 === 0) screen.flushSync({ x: n % 64, y: n >> 6, width: 1, height: 1 });
      else await screen.flush();
    }
    expect(rig.host.pixel(0, 10, 0)).toEqual([1, 2, 13]);
    expect(rig.host.pixel(0, 199 % 64, 199 >> 6)).toEqual([1, 2, 3 + 199]);
    await screen.destroy();
    expect(rig.host.resources.size).toBe(0);
  });

  it('works with the smallest queues', async () => {
    using rig = setUp({ features: 0n, queues: [4, 2] });
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    screen.pixels.fill(0xffffff);
    await Promise.all(Array.from({ length: 20 }, () => screen.flush()));
    screen.flushSync();
    expect(rig.host.pixel(0, 7, 7)).toEqual([255, 255, 255]);
    const cursor = await rig.gpu.createCursor({ image: { width: 1, height: 1, data: new Uint8Array(4) } });
    await Promise.all(Array.from({ length: 20 }, (_, x) => cursor.show({ x, y: 0 })));
    expect(rig.host.cursors.get(0)?.x).toBe(19);
  });

  it('works through a legacy transport', async () => {
    const host = new GpuDevice({ features: 0n, legacy: true });
    {
      using gpu = new VirtioGpu(new FakeTransport(host.device), host.device.hal);
      const screen = await gpu.setUpFramebuffer({ width: 16, height: 16 });
      screen.pixels.fill(0x112233);
      await screen.flush();
      expect(host.pixel(0, 3, 3)).toEqual([0x11, 0x22, 0x33]);
    }
    host.device.assertClean();
  });
});

describe('displays', () => {
  it('are told in all three forms', async () => {
    using rig = setUp({ scanouts: 2 });
    const expected = [
      { scanout: 0, enabled: true, x: 0, y: 0, width: 1280, height: 800, flags: 0 },
      { scanout: 1, enabled: false, x: 0, y: 0, width: 0, height: 0, flags: 0 },
    ];
    expect(await rig.gpu.displays()).toEqual(expected);
    expect(rig.gpu.displaysSync()).toEqual(expected);
  });

  it('that have changed are told by an event, which is cleared [5.7.4]', async () => {
    using rig = setUp();
    const told: (readonly Display[])[] = [];
    const stop = rig.gpu.on('display', (displays) => told.push(displays));
    rig.host.resize(0, 1366, 768);
    await settle();
    expect(told.map(([display]) => [display?.width, display?.height])).toEqual([[1366, 768]]);
    expect(new DataView(rig.host.device.config.buffer).getUint32(0, true)).toBe(0);
    stop();
    rig.host.resize(0, 640, 480);
    await settle();
    expect(told).toHaveLength(1);
    expect(rig.gpu.failure).toBeUndefined();
  });

  it('that change again before the answer are told as they are last', async () => {
    using rig = setUp();
    const told: number[] = [];
    rig.gpu.on('display', ([display]) => told.push(display?.width ?? 0));
    rig.host.held.add(0x0100);
    rig.host.resize(0, 100, 100);
    rig.host.resize(0, 200, 200);
    rig.host.resize(0, 300, 300);
    rig.host.release();
    await settle();
    expect(told).toEqual([300]);
  });

  it('that change with every answer are told all the same, and as they are last', async () => {
    using rig = setUp();
    const told: number[] = [];
    rig.gpu.on('display', ([display]) => told.push(display?.width ?? 0));
    let changes = 100;
    rig.host.meddle = (answer) => {
      changes -= 1;
      if (changes > 0) rig.host.resize(0, 1000 - changes, 100);
      return answer;
    };
    rig.host.resize(0, 100, 100);
    for (let n = 0; n < 60 && changes > 0; n += 1) await settle(100);
    await settle(100);
    expect(changes).toBeLessThanOrEqual(0);
    expect(told.length).toBeGreaterThan(10);
    expect(told.length).toBeLessThan(15);
    expect(told.at(-1)).toBe(999);
  });

  it('are told without interrupts, when the driver looks', () => {
    using rig = setUp({ interrupts: false });
    const told: number[] = [];
    rig.gpu.on('display', ([display]) => told.push(display?.width ?? 0));
    rig.host.resize(0, 1024, 600);
    expect(told).toEqual([]);
    rig.gpu.pollEvents();
    expect(told).toEqual([1024]);
    rig.gpu.pollEvents();
    expect(told).toEqual([1024]);
  });

  it('leave the framebuffer as it is when they change', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer();
    screen.pixels.fill(0x00ff00);
    rig.host.resize(0, 320, 200);
    await settle();
    await screen.flush();
    expect([screen.width, screen.height, screen.live]).toEqual([1280, 800, true]);
    expect(rig.host.pixel(0, 1279, 799)).toEqual([0, 255, 0]);
  });

  it('whose question fails are a quirk', async () => {
    using rig = setUp();
    rig.host.meddle = (answer) => {
      new DataView(answer.buffer).setUint32(0, 0x1200, true);
      return answer;
    };
    const quirks: string[] = [];
    rig.gpu.on('quirk', ({ message }) => quirks.push(message));
    rig.host.resize(0, 100, 100);
    await settle();
    expect(quirks).toHaveLength(1);
    expect(rig.gpu.failure).toBeUndefined();
  });

  it.each(['reset', 'refusal'])(
    'that change while the answer is lost by a %s are asked for again',
    async (how) => {
      using rig = setUp();
      const told: number[] = [];
      rig.gpu.on('display', ([display]) => told.push(display?.width ?? 0));
      rig.host.held.add(GpuCommandType.GET_DISPLAY_INFO);
      rig.host.resize(0, 100, 100);
      await settle();
      if (how === 'reset') {
        rig.gpu.reset();
        rig.host.held.clear();
        rig.host.resize(0, 200, 100);
      } else {
        rig.host.resize(0, 200, 100);
        await settle();
        rig.host.meddle = (answer) => {
          rig.host.meddle = undefined;
          new DataView(answer.buffer).setUint32(0, 0x1200, true);
          return answer;
        };
        rig.host.release();
      }
      await settle();
      expect(told).toEqual([200]);
    },
  );

  it('may be reset by who is told', async () => {
    using rig = setUp();
    let resets = 0;
    rig.gpu.on('display', () => {
      resets += 1;
      rig.gpu.reset();
    });
    rig.host.resize(0, 100, 100);
    await settle();
    expect(resets).toBe(1);
    expect((await rig.gpu.displays())[0]?.width).toBe(100);
  });

  it('that do not exist cannot be switched off, whatever the device accepts', async () => {
    using rig = setUp();
    for (const scanout of [1, 16, 0xffff_fffe, -1, 0.5, NaN]) {
      expect(await failure(() => rig.gpu.disableScanout(scanout))).toMatchObject({ code: 'INVALID_PARAM' });
      expect(await failure(() => rig.gpu.disableScanoutSync(scanout))).toMatchObject({
        code: 'INVALID_PARAM',
      });
    }
    expect(rig.host.log).toHaveLength(0);
  });

  it('may be disposed by who is told', async () => {
    using rig = setUp();
    rig.gpu.on('display', () => rig.gpu[Symbol.dispose]());
    rig.host.resize(0, 100, 100);
    await settle();
    expect(await failure(() => rig.gpu.displays())).toMatchObject({ code: 'DISPOSED' });
  });
});

describe('EDID', () => {
  it('is told for each scanout', async () => {
    using rig = setUp({ scanouts: 2 });
    rig.host.edids.set(0, qemuEdid());
    rig.host.edids.set(1, emptyEdid());
    expect(await rig.gpu.edid()).toMatchObject({
      name: 'QEMU Monitor',
      detailed: [{ width: 1920, height: 1080 }],
    });
    expect(rig.gpu.edidSync(1)?.bytes).toHaveLength(128);
    expect(rig.gpu.quirks).toBe(0);
  });

  it('is undefined where the display has none', async () => {
    using rig = setUp();
    expect(await rig.gpu.edid()).toBeUndefined();
    rig.host.edids.set(0, new Uint8Array(1024));
    expect(await rig.gpu.edid()).toBeUndefined();
  });

  it('with a wrong checksum is read, and counts as a quirk', async () => {
    using rig = setUp();
    const bytes = qemuEdid();
    bytes[127] = 7;
    rig.host.edids.set(0, bytes);
    expect(await rig.gpu.edid()).toMatchObject({ checksumOk: false });
    expect(rig.gpu.quirks).toBe(1);
  });

  it('of a scanout that there is not is refused by the device', async () => {
    using rig = setUp();
    expect(await failure(() => rig.gpu.edid(1))).toMatchObject({
      code: 'IO_ERROR',
      response: 'ERR_INVALID_PARAMETER',
    });
  });

  it('needs its feature', async () => {
    using rig = setUp({ features: 0n });
    expect(await failure(() => rig.gpu.edid())).toMatchObject({ code: 'UNSUPPORTED' });
    expect(() => rig.gpu.edidSync()).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
    expect(rig.host.log).toHaveLength(0);
  });

  it('that claims more bytes than it has is cut', async () => {
    using rig = setUp();
    rig.host.edids.set(0, qemuEdid());
    rig.host.meddle = (answer) => {
      new DataView(answer.buffer).setUint32(24, 0xffffffff, true);
      return answer.subarray(0, 32 + 200);
    };
    const edid = await rig.gpu.edid();
    expect(edid?.bytes).toHaveLength(200);
    expect(edid?.extensions).toHaveLength(0);
  });
});

describe('features of queues', () => {
  it('come from core', () => {
    using rig = setUp({ features: usual | CommonFeatures.set('RING_PACKED', 'IN_ORDER').bits });
    expect(rig.gpu.features.has('RING_PACKED')).toBe(true);
    expect(rig.gpu.features.has('IN_ORDER')).toBe(true);
  });
});
