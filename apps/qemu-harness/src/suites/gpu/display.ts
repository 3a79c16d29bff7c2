/** Pictures on displays: QEMU shows what the guest drew, pixel for pixel. */
import { GpuError, PixelFormat, type PixelFormatNumber, supportedResolutions } from '@virtio/gpu';
import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import { guestTest, small } from '../../framework/define.ts';
import { makePicture, type PictureSpec } from './_picture.ts';
import { expectShown, gpuDevice, host, openGpu } from './_screen.ts';

export default [
  guestTest({
    device: 'gpu',
    name: 'shows the picture that was drawn, pixel for pixel',
    essential: true,
    devices: { gpu: gpuDevice() },
    host,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      equal(gpu.scanouts, 1);
      const [display] = await gpu.displays();
      deepEqual(display, { scanout: 0, enabled: true, x: 0, y: 0, width: 1280, height: 800, flags: 0 });
      const edid = await gpu.edid();
      equal(edid?.name, 'QEMU Monitor');
      deepEqual([edid.detailed[0]?.width, edid.detailed[0]?.height], [1280, 800]);
      ok(edid.checksumOk && edid.extensions.every(({ checksumOk }) => checksumOk));
      context.note(
        `EDID ${edid.version} with ${edid.extensions.length} extensions; resolutions ${supportedResolutions(
          edid,
        )
          .slice(0, 4)
          .map(({ width, height }) => `${width}×${height}`)
          .join(', ')}, …`,
      );
      const screen = await gpu.setUpFramebuffer(small(context.cell, {}, { width: 160, height: 120 }));
      for (const [seed, flush] of [
        [1, () => screen.flush()],
        [2, () => screen.flushSync()],
        [
          3,
          () => {
            const copied = screen.submitTransfer(undefined, { kick: false });
            const flushed = screen.submitResourceFlush();
            const done = new Set<number>();
            while (done.size < 2) done.add(gpu.poll());
            done.delete(-1);
            while (done.size < 2) {
              const token = gpu.poll();
              if (token >= 0) done.add(token);
            }
            gpu.complete(copied);
            gpu.complete(flushed);
          },
        ],
      ] as const) {
        const spec = { width: screen.width, height: screen.height, seed };
        screen.drawImage(makePicture(spec));
        await flush();
        await expectShown(
          context,
          seed === 3 ? { expected: spec, title: 'the display' } : { expected: spec },
        );
      }
      equal(gpu.quirks, 0);
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'changes a rectangle that was flushed, and nothing else',
    devices: { gpu: gpuDevice() },
    host,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      const screen = await gpu.setUpFramebuffer({ width: 800, height: 600 });
      const before: PictureSpec = { width: 800, height: 600, seed: 5 };
      screen.drawImage(makePicture(before));
      await screen.flush();
      const red = { x: 100, y: 50, width: 64, height: 64, colour: [255, 0, 0] } as const;
      const green = { x: 733, y: 599, width: 67, height: 1, colour: [0, 255, 0] } as const;
      const hidden = { x: 300, y: 300, width: 200, height: 200, colour: [0, 0, 255] } as const;
      screen.drawImage(makePicture({ ...before, rects: [red, green, hidden] }));
      await screen.flush([red, green]);
      await expectShown(context, {
        expected: { ...before, rects: [red, green] },
        title: 'two rectangles flushed',
      });
      screen.flushSync({ x: 300, y: 300, width: 200, height: 1 });
      const line = { ...hidden, height: 1 };
      await expectShown(context, { expected: { ...before, rects: [red, green, line] } });
      await screen.flush();
      await expectShown(context, { expected: { ...before, rects: [red, green, hidden] } });
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'shows different pictures on two heads, one picture across both, and the same on both',
    long: true,
    devices: { gpu: gpuDevice({ max_outputs: 2 }) },
    host,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      equal(gpu.scanouts, 2);
      const specs = [
        { width: 640, height: 480, seed: 11 },
        { width: 800, height: 600, seed: 12 },
      ];
      for (const [scanout, spec] of specs.entries()) {
        const screen = await gpu.setUpFramebuffer({ scanout, ...spec });
        screen.drawImage(makePicture(spec));
        await screen.flush();
      }
      for (const [head, expected] of specs.entries()) {
        await expectShown(context, { expected, head, title: `head ${head}` });
      }
      // One picture, of which each head shows a half.
      const wide = { width: 1000, height: 300, seed: 13 };
      const both = await gpu.createFramebuffer(wide);
      const picture = makePicture(wide);
      both.drawImage(picture);
      await both.flush();
      await both.show(0, { x: 0, y: 0, width: 500, height: 300 });
      await both.show(1, { x: 500, y: 0, width: 500, height: 300 });
      deepEqual(await context.host('size', { head: 0 }), [500, 300]);
      // Mirrored.
      await both.show(0);
      await both.show(1);
      await expectShown(context, { expected: wide, head: 0 });
      await expectShown(context, { expected: wide, head: 1 });
      await gpu.disableScanout(1);
      await expectShown(context, { expected: wide, head: 0 });
      await both.destroy();
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'shows pictures of odd sizes, and is told which the device refuses',
    long: true,
    devices: { gpu: gpuDevice() },
    host,
    timeoutS: 120,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      for (const [width, height] of [
        [16, 16],
        [17, 19],
        [1366, 768],
        [1021, 3],
        [4096, 2160],
      ] as const) {
        if (height < 16) {
          // QEMU shows 16 by 16 pixels or more.
          await rejects(gpu.setUpFramebuffer({ width, height }), {
            code: 'IO_ERROR',
            response: 'ERR_INVALID_PARAMETER',
          });
          continue;
        }
        const screen = await gpu.setUpFramebuffer({ width, height });
        const spec = { width, height, seed: 20 };
        screen.drawImage(makePicture(spec));
        await screen.flush();
        await expectShown(context, { expected: spec });
      }
      await rejects(gpu.setUpFramebuffer({ width: 1, height: 1 }), { code: 'IO_ERROR' });
      // The device keeps 256 MiB for all resources.
      const error = await gpu
        .createFramebuffer({ width: 16_384, height: 4096 })
        .catch((reason: unknown) => reason);
      ok(
        GpuError.isGpuError(error, 'ERR_OUT_OF_MEMORY') || (error as { code?: string }).code === 'DMA_ERROR',
        String(error),
      );
      context.note(`16384×4096: ${String(error)}`);
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'shows all eight formats alike',
    long: true,
    devices: { gpu: gpuDevice() },
    host,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      const spec = { width: 320, height: 200, seed: 30 };
      const picture = makePicture(spec);
      for (const format of Object.values(PixelFormat) as PixelFormatNumber[]) {
        const screen = await gpu.setUpFramebuffer({ width: 320, height: 200, format });
        screen.drawImage(picture);
        await screen.flush();
        await expectShown(context, { expected: spec });
      }
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'shows a picture from many pieces of memory',
    long: true,
    devices: { gpu: gpuDevice() },
    host,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      for (const maxPiece of [4096, 12_288, 1 << 19]) {
        const spec = { width: 501, height: 301, seed: maxPiece };
        const screen = await gpu.setUpFramebuffer({ ...spec, maxPiece });
        screen.drawImage(makePicture(spec));
        await screen.flush();
        await expectShown(context, { expected: spec });
        const dot = { x: 250, y: 50, width: 3, height: 200, colour: [255, 255, 255] } as const;
        screen.drawImage(makePicture({ ...spec, rects: [dot] }));
        await screen.flush(dot);
        await expectShown(context, { expected: { ...spec, rects: [dot] } });
      }
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'flips between two framebuffers, each shown whole',
    devices: { gpu: gpuDevice() },
    host,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      const size = { width: 320, height: 200 };
      const pages = [await gpu.createFramebuffer(size), await gpu.createFramebuffer(size)] as const;
      for (let n = 0; n < 12; n++) {
        const page = pages[n % 2] ?? pages[0];
        page.drawImage(makePicture({ ...size, seed: 40 + n }));
        await page.flush();
        if (n > 0 && n % 5 === 0) await expectShown(context, { expected: { ...size, seed: 39 + n } });
        await page.show();
        if (n % 5 === 0) await expectShown(context, { expected: { ...size, seed: 40 + n } });
      }
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'changes its resolution 200 times, and nothing grows',
    long: true,
    devices: { gpu: gpuDevice({ max_hostmem: 4 << 20 }) },
    host,
    timeoutS: 180,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      // The host has room for three or four of these.
      const sizes = [
        [640, 480],
        [800, 600],
        [320, 200],
        [683, 384],
      ] as const;
      let screen = await gpu.setUpFramebuffer({ width: 640, height: 480 });
      const before = process.memoryUsage.rss();
      for (let n = 0; n < 200; n++) {
        const [width, height] = sizes[n % sizes.length] ?? sizes[0];
        screen =
          n % 2 === 0
            ? await gpu.setUpFramebuffer({ width, height })
            : gpu.setUpFramebufferSync({ width, height });
        screen.pixels[n] = n;
        await screen.flush();
      }
      const grown = process.memoryUsage.rss() - before;
      context.note(
        `resident memory ${grown >= 0 ? '+' : ''}${Math.round(grown / 1024)} KiB over 200 changes`,
      );
      ok(grown < 64 << 20, `${grown} bytes more after 200 changes`);
      const spec = { width: screen.width, height: screen.height, seed: 50 };
      screen.drawImage(makePicture(spec));
      await screen.flush();
      await expectShown(context, { expected: spec });
    },
  }),
];
