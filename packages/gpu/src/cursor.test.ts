import { describe, expect, it } from 'vitest';
import { failure, picture, setUp, settle } from '../test/set-up.ts';
import type { RgbaImage } from './index.ts';

const image = (size: number, fill = 255): RgbaImage => ({
  width: size,
  height: size,
  data: new Uint8Array(size * size * 4).fill(fill),
});

describe('a cursor', () => {
  it('is shown with its image, place and hot spot in all three forms [5.7.6.6] [5.7.6.10]', async () => {
    using rig = setUp({ scanouts: 2 });
    const { gpu, host } = rig;
    const cursor = await gpu.createCursor({
      image: { width: 64, height: 64, data: picture(64, 64) },
      hotX: 3,
      hotY: 4,
    });
    await cursor.show({ x: 10, y: 20 });
    expect(host.cursors.get(0)).toMatchObject({
      resourceId: cursor.resourceId,
      x: 10,
      y: 20,
      hotX: 3,
      hotY: 4,
    });
    cursor.showSync({ scanout: 1, x: 30, y: 40 });
    expect(host.cursors.get(1)).toMatchObject({ x: 30, y: 40 });
    const token = cursor.submitShow({ x: 50, y: 60 });
    expect(gpu.isDone(token)).toBe(true);
    gpu.complete(token);
    expect(host.cursors.get(0)).toMatchObject({ x: 50, y: 60 });
    const [pixel] = [picture(64, 64).subarray(4 * 100, 4 * 101)];
    const alpha = pixel[3] ?? 0;
    expect([...(host.cursors.get(0)?.image?.subarray(4 * 100, 4 * 101) ?? [])]).toEqual([
      ...[2, 1, 0].map((part) => Math.round(((pixel[part] ?? 0) * alpha) / 255)),
      alpha,
    ]);
  });

  it('needs no memory of the guest once the host has its image', async () => {
    using rig = setUp();
    const { regions } = rig.host.device.hal;
    const cursor = await rig.gpu.createCursor({ image: image(8) });
    expect(rig.host.device.hal.regions.length).toBe(regions.length);
    expect(rig.host.resources.get(cursor.resourceId)?.backing).toBeUndefined();
  });

  it('is transferred with a fence, whose answer comes before it is shown [5.7.6.10]', async () => {
    using rig = setUp();
    rig.host.held.add(0x105);
    const shown = rig.gpu.createCursor({ image: image(8) }).then((cursor) => cursor.show({ x: 1, y: 1 }));
    await settle();
    expect(rig.host.log.at(-1)).toMatchObject({ type: 0x105, flags: 1 });
    expect(rig.host.cursors.size).toBe(0);
    rig.host.release();
    await shown;
    expect(rig.host.cursors.size).toBe(1);
  });

  it('smaller than 64 by 64 is filled up with nothing', async () => {
    using rig = setUp();
    const cursor = await rig.gpu.createCursor({ image: image(2) });
    await cursor.show({ x: 0, y: 0 });
    const pixels = rig.host.cursors.get(0)?.image ?? new Uint8Array(0);
    expect(pixels).toHaveLength(64 * 64 * 4);
    const lit = [...pixels.keys()].filter((i) => pixels[i] !== 0);
    expect(lit).toEqual([0, 1, 2, 3, 4, 5, 6, 7, ...[0, 1, 2, 3, 4, 5, 6, 7].map((i) => 256 + i)]);
  });

  it('moves without its image being sent again, and keeps it', async () => {
    using rig = setUp();
    const cursor = await rig.gpu.createCursor({ image: image(8), hotX: 1, hotY: 2 });
    await cursor.show({ x: 0, y: 0 });
    await rig.gpu.moveCursor({ x: 100, y: 200 });
    expect(rig.host.log.at(-1)).toMatchObject({ type: 0x301 });
    // QEMU hides a cursor that is moved with resource 0.
    expect(new DataView(rig.host.log.at(-1)?.bytes.buffer as ArrayBuffer).getUint32(40, true)).toBe(
      cursor.resourceId,
    );
    rig.gpu.moveCursorSync({ x: 101, y: 201 });
    expect(rig.host.cursors.get(0)).toMatchObject({ x: 101, y: 201, hotX: 1, hotY: 2 });
    const token = rig.gpu.submitMoveCursor({ x: -5, y: 0 }, { kick: false });
    expect(rig.gpu.isDone(token)).toBe(false);
    rig.gpu.kick();
    expect(rig.gpu.poll()).toBe(token);
    rig.gpu.complete(token);
    expect(rig.host.cursors.get(0)?.x).toBe(2 ** 32 - 5);
  });

  it('is hidden where it was, in all three forms', async () => {
    using rig = setUp();
    const cursor = await rig.gpu.createCursor({ image: image(8) });
    for (const hide of [
      () => rig.gpu.hideCursor(),
      async () => {
        rig.gpu.hideCursorSync();
      },
      async () => {
        rig.gpu.complete(rig.gpu.submitHideCursor());
      },
    ]) {
      await cursor.show({ x: 7, y: 8 });
      await hide();
      expect(rig.host.cursors.get(0)).toMatchObject({ resourceId: 0, x: 7, y: 8, image: undefined });
    }
    expect(rig.host.resources.size).toBe(1);
  });

  it('is hidden before its image is destroyed', async () => {
    using rig = setUp({ scanouts: 2 });
    for (const how of ['async', 'sync'] as const) {
      const cursor = await rig.gpu.createCursor({ image: image(8) });
      await cursor.show({ x: 1, y: 1 });
      await cursor.show({ scanout: 1, x: 2, y: 2 });
      if (how === 'async') await cursor.destroy();
      else cursor.destroySync();
      expect([rig.host.cursors.get(0)?.resourceId, rig.host.cursors.get(1)?.resourceId]).toEqual([0, 0]);
      expect(rig.host.resources.size).toBe(0);
      await cursor.destroy();
      expect(cursor.live).toBe(false);
      expect(await failure(() => cursor.show({ x: 1, y: 1 }))).toMatchObject({ code: 'DISPOSED' });
      expect(() => cursor.showSync({ x: 1, y: 1 })).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    }
  });

  it('cannot be shown any more once it is being destroyed', async () => {
    using rig = setUp();
    const cursor = await rig.gpu.createCursor({ image: image(8) });
    await cursor.show({ x: 1, y: 1 });
    const destroyed = Promise.all([cursor.destroy(), cursor.destroy()]);
    expect(await failure(() => cursor.show({ x: 5, y: 5 }))).toMatchObject({ code: 'DISPOSED' });
    await destroyed;
    expect(rig.host.cursors.get(0)?.resourceId).toBe(0);
    expect(rig.host.resources.size).toBe(0);
    rig.gpu.moveCursorSync({ x: 2, y: 2 });
    const { bytes } = rig.host.log.at(-1) as { bytes: Uint8Array };
    expect(new DataView(bytes.buffer).getUint32(40, true)).toBe(0);
  });

  it.each(['async', 'sync'])('is destroyed though its display is gone (%s)', async (how) => {
    using rig = setUp();
    const cursor = await rig.gpu.createCursor({ image: image(8) });
    await cursor.show({ x: 1, y: 1 });
    rig.host.displays.length = 0;
    if (how === 'async') await cursor.destroy();
    else cursor.destroySync();
    expect(rig.host.resources.size).toBe(0);
    expect(cursor.live).toBe(false);
  });

  it('does not hide another that took its place on a second display while it was being hidden on the first', async () => {
    using rig = setUp({ scanouts: 2 });
    const [first, second] = [
      await rig.gpu.createCursor({ image: image(8) }),
      await rig.gpu.createCursor({ image: image(8) }),
    ];
    await first.show({ scanout: 0, x: 1, y: 1 });
    await first.show({ scanout: 1, x: 1, y: 1 });
    await Promise.all([first.destroy(), second.show({ scanout: 1, x: 2, y: 2 })]);
    expect(rig.host.cursors.get(0)?.resourceId).toBe(0);
    expect(rig.host.cursors.get(1)?.resourceId).toBe(second.resourceId);
  });

  it('that another has taken the place of is destroyed without a word to the display', async () => {
    using rig = setUp();
    const [first, second] = [
      await rig.gpu.createCursor({ image: image(8) }),
      await rig.gpu.createCursor({ image: image(8) }),
    ];
    await first.show({ x: 1, y: 1 });
    await second.show({ x: 2, y: 2 });
    await first.destroy();
    expect(rig.host.cursors.get(0)?.resourceId).toBe(second.resourceId);
    expect(rig.host.resources.size).toBe(1);
  });

  it('can be made and destroyed without end', async () => {
    using rig = setUp({ hostMemory: 3 * 16384 });
    for (let n = 0; n < 500; n += 1) {
      await using cursor = await rig.gpu.createCursor({ image: image(8) });
      if (n % 5 === 0) await cursor.show({ x: n, y: n });
    }
    expect(rig.host.resources.size).toBe(0);
  });

  it('works on devices that answer nothing on that queue, as QEMU does', async () => {
    using rig = setUp({ answersCursor: false });
    const cursor = await rig.gpu.createCursor({ image: image(8) });
    await cursor.show({ x: 1, y: 2 });
    rig.gpu.moveCursorSync({ x: 3, y: 4 });
    expect(rig.host.cursors.get(0)).toMatchObject({ x: 3, y: 4 });
    expect(rig.gpu.quirks).toBe(0);
  });

  it.each([
    [{ image: image(65) }],
    [{ image: { width: 64, height: 65, data: new Uint8Array(64 * 65 * 4) } }],
    [{ image: { width: 0, height: 1, data: new Uint8Array(4) } }],
    [{ image: { width: 8, height: 8, data: new Uint8Array(8 * 8 * 4 - 1) } }],
    [{ image: image(8), hotX: 64 }],
    [{ image: image(8), hotY: -1 }],
  ])('that cannot be is refused', async (options) => {
    using rig = setUp();
    expect(await failure(() => rig.gpu.createCursor(options))).toMatchObject({ code: 'INVALID_PARAM' });
    expect(() => rig.gpu.createCursorSync(options)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    expect(rig.host.log).toHaveLength(0);
  });

  it.each([
    [{ x: 0.5, y: 0 }],
    [{ x: 0, y: 2 ** 32 }],
    [{ x: -(2 ** 31) - 1, y: 0 }],
    [{ scanout: 1, x: 0, y: 0 }],
    [{ scanout: -1, x: 0, y: 0 }],
  ])('at %j is refused', async (position) => {
    using rig = setUp();
    const cursor = await rig.gpu.createCursor({ image: image(1) });
    const sent = rig.host.log.length;
    for (const attempt of [
      () => cursor.show(position),
      () => cursor.showSync(position),
      () => cursor.submitShow(position),
      () => rig.gpu.moveCursor(position),
      () => rig.gpu.moveCursorSync(position),
      () => rig.gpu.submitMoveCursor(position),
    ]) {
      expect(await failure(attempt)).toMatchObject({ code: 'INVALID_PARAM' });
    }
    expect(rig.host.log).toHaveLength(sent);
  });

  it.each([0x101, 0x106, 0x105, 0x107])(
    'whose command 0x%s is refused leaves nothing behind',
    async (type) => {
      using rig = setUp();
      const { regions } = rig.host.device.hal;
      let refusals = 1;
      rig.host.meddle = (answer, command) => {
        if (command.type === type && refusals-- > 0) new DataView(answer.buffer).setUint32(0, 0x1201, true);
        return answer;
      };
      expect(await failure(() => rig.gpu.createCursor({ image: image(8) }))).toMatchObject({
        response: 'ERR_OUT_OF_MEMORY',
      });
      await settle();
      expect(rig.host.resources.size).toBe(0);
      expect(rig.host.device.hal.regions.length).toBe(regions.length);
    },
  );

  it('is gone after a reset', async () => {
    using rig = setUp();
    const cursor = await rig.gpu.createCursor({ image: image(8) });
    await cursor.show({ x: 1, y: 1 });
    rig.gpu.reset();
    expect(cursor.live).toBe(false);
    expect(await failure(() => cursor.show({ x: 1, y: 1 }))).toMatchObject({ code: 'DEVICE_RESET' });
    await cursor.destroy();
    const next = rig.gpu.createCursorSync({ image: image(8) });
    next.showSync({ x: 4, y: 5 });
    expect(rig.host.cursors.get(0)).toMatchObject({ x: 4, y: 5 });
  });

  it('waits for room on a queue that is full, in its order', async () => {
    using rig = setUp({ queues: [64, 4], features: 0n });
    rig.host.device.automatic = true;
    const moves = Array.from({ length: 40 }, (_, x) => rig.gpu.moveCursor({ x, y: x }));
    await Promise.all(moves);
    const xs = rig.host.log.map(({ bytes }) => new DataView(bytes.buffer as ArrayBuffer).getUint32(28, true));
    expect(xs).toEqual(Array.from({ length: 40 }, (_, x) => x));
  });
});
