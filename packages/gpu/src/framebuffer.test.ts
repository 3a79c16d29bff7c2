import { FakeInterrupts } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { FORMATS } from '../test/gpu-device.ts';
import { failure, picture, setUp, settle } from '../test/set-up.ts';
import { type Framebuffer, packPixel, PixelFormat, type PixelFormatNumber, type Rect } from './index.ts';

const RECT = { x: 3, y: 2, width: 5, height: 4 };

/** Whether the viewer of a scanout sees a picture of bytes R, G, B, A, alpha apart. */
function shows(rgba: Uint8Array | undefined, expected: Uint8Array): boolean {
  return rgba?.every((value, i) => i % 4 === 3 || value === expected[i]) === true;
}

describe('a framebuffer', () => {
  it('is set up in the size of the display, black, and shown [5.7.6.1]', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer();
    expect([screen.width, screen.height, screen.stride]).toEqual([1280, 800, 5120]);
    expect(screen.format).toBe(PixelFormat.B8G8R8X8_UNORM);
    expect([screen.bytes.length, screen.pixels.length]).toEqual([1280 * 800 * 4, 1280 * 800]);
    expect(rig.host.screens.get(0)).toMatchObject({
      resourceId: screen.resourceId,
      rect: { x: 0, y: 0, width: 1280, height: 800 },
    });
    expect(rig.host.pixel(0, 0, 0)).toEqual([0, 0, 0]);
    expect(rig.host.log.map(({ type }) => type)).toEqual([0x100, 0x101, 0x106, 0x105, 0x103, 0x104]);
  });

  it('has a size all the same where no display tells one [5.7.5]', async () => {
    using rig = setUp({ scanouts: 2 });
    const second = await rig.gpu.setUpFramebuffer({ scanout: 1 });
    expect([second.width, second.height]).toEqual([1024, 768]);
    expect(rig.host.screens.get(1)?.resourceId).toBe(second.resourceId);
    expect(rig.host.screens.has(0)).toBe(false);
  });

  it('says that there is nothing to show it on', async () => {
    using rig = setUp({ scanouts: 0 });
    await expect(rig.gpu.setUpFramebuffer()).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(() => rig.gpu.moveCursorSync({ x: 0, y: 0 })).toThrow(/no scanouts/);
  });

  it.each([
    [0, 800],
    [1280, 0],
    [0xffff_ffff, 0xffff_ffff],
    [65_536, 65_536],
    [0x4000_0001, 1],
  ])('has a size all the same where the display claims %i by %i', async (width, height) => {
    using rig = setUp();
    rig.host.displays[0] = { x: 0, y: 0, width, height, enabled: true };
    const screen = await rig.gpu.setUpFramebuffer();
    expect([screen.width, screen.height]).toEqual([1024, 768]);
    expect(rig.gpu.quirks).toBe(1);
  });

  it('takes the one side that it is not told from the display', async () => {
    using rig = setUp();
    const wide = await rig.gpu.setUpFramebuffer({ height: 100 });
    expect([wide.width, wide.height]).toEqual([1280, 100]);
    const tall = rig.gpu.setUpFramebufferSync({ width: 100 });
    expect([tall.width, tall.height]).toEqual([100, 800]);
  });

  it('is shown when it is flushed, in all three forms', async () => {
    using rig = setUp();
    const screen = rig.gpu.setUpFramebufferSync({ width: 40, height: 30 });
    const seen = (): readonly number[] => rig.host.pixel(0, 39, 29);
    screen.pixels.fill(0x010203);
    expect(seen()).toEqual([0, 0, 0]);
    await screen.flush();
    expect(seen()).toEqual([1, 2, 3]);
    screen.pixels.fill(0x040506);
    screen.flushSync();
    expect(seen()).toEqual([4, 5, 6]);
    screen.pixels.fill(0x070809);
    const tokens = [screen.submitTransfer(undefined, { kick: false }), screen.submitResourceFlush()];
    for (const token of tokens) {
      expect(rig.gpu.isDone(token)).toBe(true);
      expect(rig.gpu.complete(token)).toBeUndefined();
    }
    expect(seen()).toEqual([7, 8, 9]);
    expect(rig.gpu.poll()).toBe(-1);
  });

  it('copies and shows what was flushed, and nothing else', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 16, height: 16 });
    screen.drawImage({ width: 16, height: 16, data: picture(16, 16, 1) });
    const expected = new Uint8Array(16 * 16 * 4);
    const copy = ({ x, y, width, height }: Rect): void => {
      for (let row = y; row < y + height; row += 1) {
        const [from, to] = [4 * (row * 16 + x), 4 * (row * 16 + x + width)];
        expected.set(picture(16, 16, 1).subarray(from, to), from);
      }
    };
    await screen.flush(RECT);
    copy(RECT);
    expect(shows(rig.host.screens.get(0)?.rgba, expected)).toBe(true);
    const more = [
      { x: 0, y: 15, width: 16, height: 1 },
      { x: 15, y: 0, width: 1, height: 16 },
    ];
    screen.flushSync(more);
    more.forEach(copy);
    expect(shows(rig.host.screens.get(0)?.rgba, expected)).toBe(true);
    await screen.flush([]);
    expect(shows(rig.host.screens.get(0)?.rgba, expected)).toBe(true);
    expect(shows(rig.host.screens.get(0)?.rgba, picture(16, 16, 1))).toBe(false);
  });

  it.each(Object.entries(PixelFormat))('of %s looks like the others', async (_name, format) => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 20, height: 10, format });
    screen.drawImage({ width: 20, height: 10, data: picture(20, 10) });
    await screen.flush();
    expect(rig.host.resources.get(screen.resourceId)?.format).toBe(format);
    expect(FORMATS[format]).toBeDefined();
    expect(shows(rig.host.screens.get(0)?.rgba, picture(20, 10))).toBe(true);
    screen.pixels[21] = packPixel(format, 9, 8, 7);
    screen.flushSync({ x: 1, y: 1, width: 1, height: 1 });
    expect(rig.host.pixel(0, 1, 1)).toEqual([9, 8, 7]);
  });

  it('takes images that lie partly or wholly outside', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    const red = { width: 4, height: 4, data: new Uint8ClampedArray(64).fill(200) };
    for (const [x, y] of [
      [-2, -2],
      [6, 6],
      [-4, 0],
      [8, 0],
      [0, -4],
      [0, 8],
      [-100, 100],
    ] as const) {
      screen.drawImage(red, x, y);
    }
    screen.drawImage({ width: 0, height: 5, data: new Uint8Array(0) });
    const lit = [...screen.pixels.keys()].filter((i) => screen.pixels[i] !== 0);
    expect(lit).toEqual([0, 1, 8, 9, 54, 55, 62, 63]);
    expect(() => screen.drawImage({ width: 4, height: 5, data: red.data })).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    expect(() => screen.drawImage(red, 0.5)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
  });

  it('lies in as many pieces of memory as it has to, and looks the same', async () => {
    using rig = setUp();
    for (const maxPiece of [4096, 8192, 1 << 20]) {
      const screen = await rig.gpu.setUpFramebuffer({ width: 100, height: 61, maxPiece });
      const entries = rig.host.resources.get(screen.resourceId)?.backing ?? [];
      expect(entries).toHaveLength(Math.ceil(24_400 / maxPiece));
      expect(entries.reduce((sum, { length }) => sum + length, 0)).toBe(24_400);
      screen.drawImage({ width: 100, height: 61, data: picture(100, 61) });
      await screen.flush();
      expect(shows(rig.host.screens.get(0)?.rgba, picture(100, 61))).toBe(true);
      screen.pixels[50 * 100 + 20] = 0xaabbcc;
      screen.pixels[50 * 100 + 25] = 0xddeeff;
      await screen.flush({ x: 19, y: 30, width: 3, height: 31 });
      expect(rig.host.pixel(0, 20, 50)).toEqual([0xaa, 0xbb, 0xcc]);
      expect(rig.host.pixel(0, 25, 50)).toEqual([...picture(100, 61).subarray(4 * 5025, 4 * 5025 + 3)]);
      await screen.destroy();
    }
  });

  it('takes smaller pieces where memory is fragmented', async () => {
    using rig = setUp();
    rig.host.device.hal.failAlloc({ count: 3 });
    const screen = await rig.gpu.setUpFramebuffer({ width: 128, height: 128 });
    expect(rig.host.resources.get(screen.resourceId)?.backing).toHaveLength(8);
    rig.host.device.hal.failAlloc({ count: 100 });
    expect(await failure(() => rig.gpu.setUpFramebuffer({ width: 128, height: 128 }))).toMatchObject({
      code: 'DMA_ERROR',
    });
    rig.host.device.hal.failAlloc({ count: 0 });
    // What was shown still is.
    expect(rig.host.screens.get(0)?.resourceId).toBe(screen.resourceId);
    expect(rig.host.resources.size).toBe(1);
  });

  it('flips with another, each shown as it was flushed last [5.7.6.3]', async () => {
    using rig = setUp();
    const size = { width: 8, height: 8 };
    const pages = [await rig.gpu.createFramebuffer(size), rig.gpu.createFramebufferSync(size)] as const;
    for (let n = 1; n < 8; n += 1) {
      const page = pages[n % 2] ?? pages[0];
      page.pixels.fill(n);
      await page.flush();
      if (n > 1) expect(rig.host.pixel(0, 7, 7)).toEqual([0, 0, n - 1]);
      if (n % 3 === 0) page.showSync();
      else await page.show();
      expect(rig.host.pixel(0, 7, 7)).toEqual([0, 0, n]);
    }
  });

  it('is shown in parts on several scanouts, and mirrored [5.7.6.4]', async () => {
    using rig = setUp({ scanouts: 3 });
    const wide = await rig.gpu.createFramebuffer({ width: 30, height: 10 });
    wide.drawImage({ width: 30, height: 10, data: picture(30, 10) });
    await wide.flush();
    await wide.show(0, { x: 0, y: 0, width: 15, height: 10 });
    await wide.show(1, { x: 15, y: 0, width: 15, height: 10 });
    await wide.show(2, { x: 15, y: 0, width: 15, height: 10 });
    expect(rig.host.pixel(1, 0, 0)).toEqual([15, 0, 0]);
    expect(rig.host.pixel(2, 14, 9)).toEqual([(9 * 30 + 29) & 255, 1, 0]);
    wide.pixels[16] = 0x123456;
    await wide.flush({ x: 16, y: 0, width: 1, height: 1 });
    expect(rig.host.pixel(1, 1, 0)).toEqual([0x12, 0x34, 0x56]);
    expect(rig.host.pixel(2, 1, 0)).toEqual([0x12, 0x34, 0x56]);
    await rig.gpu.disableScanout(1);
    rig.gpu.disableScanoutSync(2);
    expect([...rig.host.screens.keys()]).toEqual([0]);
    await wide.destroy();
    expect(rig.host.screens.size).toBe(0);
  });

  it('that is shown again while its scanout is being switched off is known to be shown', async () => {
    using rig = setUp();
    const screen = await rig.gpu.createFramebuffer({ width: 64, height: 64 });
    await screen.show(0);
    rig.host.device.automatic = false;
    const all = [rig.gpu.disableScanout(0), screen.show(0)];
    rig.host.device.automatic = true;
    rig.host.device.run(0);
    await Promise.all(all);
    expect(rig.host.screens.size).toBe(1);
    rig.host.log.length = 0;
    await screen.destroy();
    expect(rig.host.log.map(({ type }) => type)).toEqual([0x103, 0x107, 0x102]);
  });

  it('is taken from the scanouts before its resource is destroyed, and its memory is given back', async () => {
    using rig = setUp({ scanouts: 2 });
    const before = rig.host.device.hal.regions.length;
    const screen = await rig.gpu.createFramebuffer({ width: 64, height: 64 });
    await screen.show(0);
    await screen.show(1);
    rig.host.log.length = 0;
    await screen.destroy();
    expect(rig.host.log.map(({ type }) => type)).toEqual([0x103, 0x103, 0x107, 0x102]);
    expect([rig.host.resources.size, rig.host.screens.size]).toEqual([0, 0]);
    expect(rig.host.device.hal.regions).toHaveLength(before);
    expect(screen.bytes).toHaveLength(0);
    await screen.destroy();
    screen.destroySync();
    expect(await failure(() => screen.flush())).toMatchObject({ code: 'DISPOSED' });
    expect(() => screen.flushSync()).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    expect(() => screen.submitTransfer()).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    expect(await failure(() => screen.show())).toMatchObject({ code: 'DISPOSED' });
  });

  it('does not disturb the one that is shown in its place when it is destroyed', async () => {
    using rig = setUp();
    const [old, next] = [
      await rig.gpu.createFramebuffer({ width: 16, height: 16 }),
      await rig.gpu.createFramebuffer({ width: 16, height: 16 }),
    ];
    await old.show();
    await next.show();
    rig.host.log.length = 0;
    await old.destroy();
    expect(rig.host.log.map(({ type }) => type)).toEqual([0x107, 0x102]);
    expect(rig.host.screens.get(0)?.resourceId).toBe(next.resourceId);
  });

  it('is destroyed where it goes out of scope', async () => {
    using rig = setUp();
    {
      await using one = await rig.gpu.createFramebuffer({ width: 16, height: 16 });
      using two = await rig.gpu.createFramebuffer({ width: 16, height: 16 });
      expect([one.live, two.live, rig.host.resources.size]).toEqual([true, true, 2]);
    }
    expect(rig.host.resources.size).toBe(0);
  });

  it('changes its resolution 1,000 times without growth', async () => {
    using rig = setUp({ hostMemory: 1 << 20 });
    await rig.gpu.setUpFramebuffer({ width: 100, height: 100 });
    const { regions } = rig.host.device.hal;
    for (let n = 0; n < 1000; n += 1) {
      const size = { width: 50 + (n % 300), height: 60 + (n % 7) };
      const screen = n % 2 === 0 ? await rig.gpu.setUpFramebuffer(size) : rig.gpu.setUpFramebufferSync(size);
      if (n % 100 === 0) {
        screen.pixels.fill(n);
        await screen.flush();
        expect(rig.host.pixel(0, 0, 0)).toEqual([0, n >> 8, n & 255]);
      }
    }
    expect(rig.host.resources.size).toBe(1);
    expect(rig.host.device.hal.regions.length).toBe(regions.length);
  });

  it('that cannot be made leaves the one that is shown, and nothing else', async () => {
    using rig = setUp({ hostMemory: 100_000 });
    const screen = await rig.gpu.setUpFramebuffer({ width: 100, height: 100 });
    const { regions } = rig.host.device.hal;
    for (const make of [
      () => rig.gpu.setUpFramebuffer({ width: 200, height: 200 }),
      () => rig.gpu.setUpFramebufferSync({ width: 200, height: 200 }),
      () => rig.gpu.createFramebuffer({ width: 200, height: 200 }),
    ]) {
      expect(await failure(make)).toMatchObject({ code: 'IO_ERROR', response: 'ERR_OUT_OF_MEMORY' });
      await settle();
      expect(rig.host.device.hal.regions.length).toBe(regions.length);
    }
    expect([...rig.host.resources.keys()]).toEqual([screen.resourceId]);
    expect(rig.host.screens.get(0)?.resourceId).toBe(screen.resourceId);
    await screen.flush();
  });

  it.each([0x101, 0x106, 0x105, 0x103, 0x104])(
    'whose command 0x%s is refused leaves nothing behind',
    async (type) => {
      using rig = setUp();
      const { regions } = rig.host.device.hal;
      rig.host.meddle = (answer, command) => {
        if (command.type === type) new DataView(answer.buffer).setUint32(0, 0x1205, true);
        return answer;
      };
      for (const make of [
        () => rig.gpu.setUpFramebuffer({ width: 10, height: 10 }),
        () => rig.gpu.setUpFramebufferSync({ width: 10, height: 10 }),
      ]) {
        expect(await failure(make)).toMatchObject({ response: 'ERR_INVALID_PARAMETER' });
        await settle();
      }
      expect(rig.host.resources.size).toBe(0);
      expect(rig.host.device.hal.regions.length).toBe(regions.length);
    },
  );

  it.each([
    [{ width: 0, height: 1 }],
    [{ width: 1, height: -1 }],
    [{ width: 1.5, height: 1 }],
    [{ width: 65_536, height: 65_536 }],
    [{ width: 2 ** 31, height: 1 }],
    [{ width: 8, height: 8, format: 5 as PixelFormatNumber }],
    [{ width: 8, height: 8, maxPiece: 100 }],
    [{ width: 8, height: 8, maxPiece: 0 }],
    [{ width: '8' as unknown as number, height: 8 }],
    [{ width: 8, height: 8, scanout: 1 }],
  ])('of %j is refused', async (options) => {
    using rig = setUp();
    expect(await failure(() => rig.gpu.setUpFramebuffer(options))).toMatchObject({ code: 'INVALID_PARAM' });
    expect(() => rig.gpu.setUpFramebufferSync(options)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    await settle();
    expect(rig.host.resources.size).toBe(0);
  });

  it.each([
    [{ x: 0, y: 0, width: 9, height: 1 }],
    [{ x: 0, y: 0, width: 0, height: 1 }],
    [{ x: 8, y: 0, width: 1, height: 1 }],
    [{ x: -1, y: 0, width: 1, height: 1 }],
    [{ x: 7, y: 7, width: 1, height: 2 }],
    [{ x: 0, y: 0, width: NaN, height: 1 }],
    [{ x: 0, y: 0, width: 2 ** 32 + 1, height: 1 }],
  ])('refuses to flush %j', async (rect) => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    const sent = rig.host.log.length;
    const refused = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;
    expect(await failure(() => screen.flush(rect))).toEqual(refused);
    expect(await failure(() => screen.flush([{ x: 0, y: 0, width: 1, height: 1 }, rect]))).toEqual(refused);
    expect(() => screen.flushSync(rect)).toThrow(refused);
    expect(() => screen.submitTransfer(rect)).toThrow(refused);
    expect(() => screen.submitResourceFlush(rect)).toThrow(refused);
    expect(await failure(() => screen.show(0, rect))).toEqual(refused);
    expect(rig.host.log).toHaveLength(sent);
  });

  it('copies the rectangle that it was given, whatever becomes of that', async () => {
    using rig = setUp({ queues: [4, 4], features: 0n });
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    screen.pixels.fill(0xff);
    rig.host.held.add(0x105).add(0x104);
    const rect = { x: 1, y: 1, width: 1, height: 1 };
    const flushes = [screen.flush(rect), screen.flush(rect), screen.flush(rect)];
    rect.x = 0;
    rect.width = 8;
    rig.host.release();
    await settle();
    rig.host.release();
    await Promise.all(flushes);
    expect(rig.host.pixel(0, 1, 1)).toEqual([0, 0, 255]);
    expect(rig.host.pixel(0, 2, 1)).toEqual([0, 0, 0]);
  });

  it('shows the rectangle that it was given, whatever becomes of that', async () => {
    using rig = setUp();
    const screen = await rig.gpu.createFramebuffer({ width: 8, height: 8 });
    const rect = { x: 1, y: 2, width: 3, height: 4 };
    const shown = screen.show(0, rect);
    rect.x = -1;
    rect.width = 100;
    await shown;
    expect(rig.host.screens.get(0)?.rect).toEqual({ x: 1, y: 2, width: 3, height: 4 });
  });

  it('reads the rectangle of its caller once', async () => {
    using rig = setUp();
    const screen = await rig.gpu.createFramebuffer({ width: 8, height: 8 });
    let reads = 0;
    const rect = {
      get x() {
        reads += 1;
        return reads === 1 ? 1 : 1e6;
      },
      ...{ y: 0, width: 1, height: 1 },
    };
    await screen.flush(rect);
    expect(reads).toBe(1);
  });

  it.each(['changes them', 'destroys it'])(
    'checks each of several rectangles if a listener %s',
    async (what) => {
      using rig = setUp({ interrupts: new FakeInterrupts({ synchronous: true }) });
      const screen = rig.gpu.setUpFramebufferSync({ width: 64, height: 64, maxPiece: 4096 });
      const rects = [RECT, { ...RECT }];
      let destroyed: Promise<void> | undefined;
      const off = rig.gpu.on('used', () => {
        off();
        if (what === 'destroys it') destroyed = screen.destroy();
        else rects[1] = { ...RECT, width: 1e6 };
      });
      const token = screen.submitTransfer(RECT, { kick: false });
      const code = what === 'destroys it' ? 'DISPOSED' : 'INVALID_PARAM';
      expect(() => screen.flushSync(rects)).toThrow(expect.objectContaining({ code }));
      rig.gpu.complete(token);
      await destroyed;
    },
  );

  it('refuses images whose pixels are not in bytes', async () => {
    using rig = setUp();
    const screen = await rig.gpu.createFramebuffer({ width: 2, height: 2 });
    const refused = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;
    for (const data of [new Float32Array(16).fill(1), new Uint16Array(16).fill(1), [1, 2, 3, 4], undefined]) {
      const image = { width: 1, height: 1, data: data as unknown as Uint8Array };
      expect(() => screen.drawImage(image)).toThrow(refused);
      expect(await failure(() => rig.gpu.createCursor({ image }))).toEqual(refused);
    }
    expect([...screen.pixels]).toEqual([0, 0, 0, 0]);
  });

  it('sends a transfer and a flush with fences, each with a number of its own [5.7.6.5]', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    rig.host.log.length = 0;
    await screen.flush();
    screen.flushSync();
    expect(rig.host.log.map(({ type, flags }) => [type, flags])).toEqual([
      ...[
        [0x105, 1],
        [0x104, 1],
      ],
      ...[
        [0x105, 1],
        [0x104, 1],
      ],
    ]);
    expect(new Set(rig.host.log.map(({ fence }) => fence)).size).toBe(4);
  });

  it('is flushed without anything allocated from DMA memory or shared', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 64, height: 64 });
    const { allocations, shares } = rig.host.device.hal.counts;
    for (let n = 0; n < 100; n += 1) screen.flushSync();
    await Promise.all(Array.from({ length: 100 }, () => screen.flush(RECT)));
    expect(rig.host.device.hal.counts).toMatchObject({ allocations, shares });
  });
});

describe('memory of a framebuffer', () => {
  const make = async (rig: ReturnType<typeof setUp>): Promise<Framebuffer> =>
    rig.gpu.createFramebuffer({ width: 32, height: 32 });

  it('is kept while the device may still read it', async () => {
    using rig = setUp();
    const screen = await make(rig);
    const { regions } = rig.host.device.hal;
    rig.host.held.add(0x107);
    const over = screen.destroy();
    await settle();
    expect(rig.host.device.hal.regions.length).toBe(regions.length);
    rig.host.release();
    await over;
    expect(rig.host.device.hal.regions.length).toBe(regions.length - 1);
  });

  it('is kept until a reset if the device never answers', async () => {
    using rig = setUp();
    const screen = await make(rig);
    const { regions } = rig.host.device.hal;
    rig.host.held.add(0x107);
    expect(() => screen.destroySync({ timeoutMs: 0 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }),
    );
    expect(rig.host.device.hal.regions.length).toBe(regions.length);
    rig.gpu.reset();
    expect(rig.host.device.hal.regions.length).toBe(regions.length - 1);
  });

  it('is not drawn into once it was given back', async () => {
    using rig = setUp();
    const image = { width: 2, height: 2, data: picture(2, 2) };
    const [destroyed, other] = [await make(rig), await make(rig)];
    destroyed.destroySync();
    expect(() => destroyed.drawImage(image)).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    other.drawImage(image);
    rig.gpu.reset();
    // Its memory is its caller's until it is destroyed.
    other.drawImage(image);
    rig.gpu[Symbol.dispose]();
    expect(() => other.drawImage(image)).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
  });

  it('is given back when the driver is disposed, whether it was destroyed or not', async () => {
    using rig = setUp();
    await make(rig);
    rig.host.held.add(0x107);
    const screen = await make(rig);
    const over = failure(() => screen.destroy());
    rig.gpu[Symbol.dispose]();
    expect(await over).toMatchObject({ code: 'DISPOSED' });
    screen[Symbol.dispose]();
    await screen[Symbol.asyncDispose]();
  });
});
