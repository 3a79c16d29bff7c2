/** What a viewer of the display does and sees: other sizes, and the cursor. */
import { VirtioError } from '@virtio/core';
import type { Display } from '@virtio/gpu';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { guestTest, type HostEnv } from '../../framework/define.ts';
import { makePicture, type Picture } from './_picture.ts';
import { expectShown, gpuDevice, host, openGpu } from './_screen.ts';
import { VncViewer } from './_vnc.ts';

const viewers = new Map<string, VncViewer>();

const viewer = {
  connect: async (_args: null, env: HostEnv): Promise<void> => {
    viewers.set(env.directory, await VncViewer.connect(`${env.directory}/vnc`));
  },
  resize: async ({ width, height }: { width: number; height: number }, env: HostEnv): Promise<number> =>
    viewerOf(env).resize(width, height),
  cursor: async (_args: null, env: HostEnv): Promise<{ size: string; hot: string; hash: string }> => {
    const { width, height, hotX, hotY, pixels } = await viewerOf(env).nextCursor();
    return { size: `${width}x${height}`, hot: `${hotX},${hotY}`, hash: hashOf(pixels) };
  },
  /** Has QEMU say what it does with cursors. */
  traceCursor: ({ enable }: { enable: boolean }, env: HostEnv): Promise<unknown> =>
    env.qmp('trace-event-set-state', { name: 'virtio_gpu_update_cursor', enable }),
  /** The last words of QEMU on cursors. */
  lastCursors: ({ count }: { count: number }, env: HostEnv): readonly string[] =>
    [...env.complaints().matchAll(/virtio_gpu_update_cursor (scanout \d+, x -?\d+, y -?\d+, \w+)/g)]
      .map(([, what = '']) => what)
      .slice(-count),
  close: (_args: null, env: HostEnv): void => {
    viewers.get(env.directory)?.close();
    viewers.delete(env.directory);
  },
};

function viewerOf(env: HostEnv): VncViewer {
  const found = viewers.get(env.directory);
  if (found === undefined) throw new Error('connect first');
  return found;
}

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const withViewer = gpuDevice({}, { after: ['-vnc', 'unix:{dir}/vnc,display={id},share=ignore'] });

/** What the host should have of a cursor's image: 64 by 64 pixels B, G, R, A, multiplied by alpha. */
function onHost({ width, height, data }: Picture): Uint8Array {
  const pixels = new Uint8Array(64 * 64 * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = 4 * (y * width + x);
      const alpha = data[from + 3] ?? 0;
      const part = (i: number): number => Math.round(((data[from + i] ?? 0) * alpha) / 255);
      pixels.set([part(2), part(1), part(0), alpha], 4 * (y * 64 + x));
    }
  }
  return pixels;
}

/** A cursor's image: a picture of which a part is transparent. */
function cursorImage(size: number, seed: number): Picture {
  const picture = makePicture({ width: size, height: size, seed });
  for (let i = 0; i < size * size; i++) picture.data[4 * i + 3] = (i * 3 + seed) & 255;
  return picture;
}

export default [
  guestTest({
    device: 'gpu',
    name: 'is told of the size that a viewer asks for, and fills it',
    long: true,
    devices: { gpu: withViewer },
    host: { ...host, ...viewer },
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      let screen = await gpu.setUpFramebuffer();
      deepEqual([screen.width, screen.height], [1280, 800]);
      await screen.flush();
      await context.host('connect', null);
      for (const [width, height] of [
        [1366, 768],
        [700, 500],
        [1920, 1080],
      ] as const) {
        const { promise, resolve } = Promise.withResolvers<readonly Display[]>();
        const stop = gpu.on('display', resolve);
        // Where there are no interrupts, the driver looks when it is told to.
        const timer =
          context.cell.transport === 'pci-vfio' ? undefined : setInterval(() => gpu.pollEvents(), 20);
        try {
          equal(await context.host('resize', { width, height }), 4, "the viewer's request was not passed on");
          const [display] = await promise;
          deepEqual([display?.width, display?.height, display?.enabled], [width, height, true]);
        } finally {
          clearInterval(timer);
          stop();
        }
        // What was there goes on until it is changed.
        const old = { width: screen.width, height: screen.height, seed: 60 };
        screen.drawImage(makePicture(old));
        await screen.flush();
        await expectShown(context, { expected: old });
        const edid = await gpu.edid();
        deepEqual([edid?.detailed[0]?.width, edid?.detailed[0]?.height], [width, height], 'EDID');
        screen = await gpu.setUpFramebuffer();
        const spec = { width, height, seed: 61 };
        screen.drawImage(makePicture(spec));
        await screen.flush();
        await expectShown(context, {
          expected: spec,
          ...(width === 700 ? { title: 'the size that a viewer asked for' } : {}),
        });
      }
      await context.host('close', null);
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'has a cursor with its image, hot spot and place, as QEMU and a viewer see it',
    devices: { gpu: withViewer },
    host: { ...host, ...viewer },
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      const screen = await gpu.setUpFramebuffer({ width: 640, height: 480 });
      await screen.flush();
      await context.host('connect', null);
      await context.host('traceCursor', { enable: true });
      const images = [cursorImage(64, 1), cursorImage(24, 2), cursorImage(1, 3)];
      const cursors = [];
      for (const [n, image] of images.entries()) {
        const cursor = await gpu.createCursor({ image, hotX: n, hotY: 2 * n });
        cursors.push(cursor);
        await cursor.show({ x: 100 + n, y: 200 + n });
        deepEqual(await context.host('cursor', null), {
          size: '64x64',
          hot: `${n},${2 * n}`,
          hash: hashOf(onHost(image)),
        });
      }
      // Back to the first one, in the other two forms.
      const [first, second] = cursors;
      first?.showSync({ x: 5, y: 6 });
      equal((await context.host('cursor', null)).hash, hashOf(onHost(images[0] ?? cursorImage(64, 1))));
      const token = second?.submitShow({ x: 7, y: 8 }) ?? -1;
      while (!gpu.isDone(token));
      gpu.complete(token);
      equal((await context.host('cursor', null)).hash, hashOf(onHost(images[1] ?? cursorImage(24, 2))));
      await gpu.moveCursor({ x: 639, y: 479 });
      gpu.moveCursorSync({ x: 0, y: 0 });
      for (let n = 0; n < 50;) {
        try {
          gpu.cancel(gpu.submitMoveCursor({ x: n, y: 2 * n }));
          n++;
        } catch (error) {
          // More moves than the queue has room for, on a busy host.
          if (!VirtioError.is(error, 'QUEUE_FULL')) throw error;
        }
      }
      await gpu.moveCursor({ x: 33, y: 44 });
      await gpu.hideCursor();
      const seen = await context.host('lastCursors', { count: 55 });
      await context.host('traceCursor', { enable: false });
      context.note(`QEMU: ${seen.slice(-2).join('; ')}`);
      deepEqual(seen.slice(-2), ['scanout 0, x 33, y 44, move', 'scanout 0, x 33, y 44, update']);
      ok(seen.includes('scanout 0, x 639, y 479, move'), 'the move to 639, 479');
      ok(seen.includes('scanout 0, x 49, y 98, move'), 'the last of 50 moves');
      ok(seen.includes('scanout 0, x 7, y 8, update'), 'the cursor at 7, 8');
      for (const cursor of cursors) await cursor.destroy();
      await context.host('close', null);
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'makes and destroys 300 cursors without filling the host',
    long: true,
    devices: { gpu: gpuDevice({ max_hostmem: 1 << 20 }) },
    timeoutS: 120,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      const image = cursorImage(64, 4);
      // The host has room for 63.
      for (let n = 0; n < 300; n++) {
        const cursor = n % 2 === 0 ? await gpu.createCursor({ image }) : gpu.createCursorSync({ image });
        if (n % 10 === 0) cursor.showSync({ x: n, y: n });
        if (n % 3 === 0) cursor.destroySync();
        else await cursor.destroy();
      }
      equal(gpu.quirks, 0);
    },
  }),
];
