/** When something goes wrong: bad input, resets, and removal. */
import type { VirtioError } from '@virtio/core';
import { Command, PixelFormat } from '@virtio/gpu';
import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { guestTest } from '../../framework/define.ts';
import { makePicture } from './_picture.ts';
import { expectShown, gpuDevice, host, openGpu } from './_screen.ts';

/** How a promise ends: `ok`, or its error's code. */
async function endOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'ok';
  } catch (error) {
    return (error as VirtioError).code;
  }
}

export default [
  guestTest({
    device: 'gpu',
    name: 'refuses bad requests, tells what the device refuses, and goes on',
    devices: { gpu: gpuDevice() },
    host,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      const screen = await gpu.setUpFramebuffer({ width: 320, height: 200 });
      for (const rect of [
        { x: -1, y: 0, width: 1, height: 1 },
        { x: 0, y: 0, width: 321, height: 1 },
        { x: 319, y: 199, width: 1, height: 2 },
        { x: 0, y: 0, width: 0, height: 1 },
        { x: 0.5, y: 0, width: 1, height: 1 },
      ]) {
        await rejects(screen.flush(rect), { code: 'INVALID_PARAM' });
        throws(() => screen.flushSync([rect]), { code: 'INVALID_PARAM' });
      }
      await rejects(gpu.createFramebuffer({ width: 0, height: 1 }), { code: 'INVALID_PARAM' });
      await rejects(gpu.createFramebuffer({ width: 2 ** 32, height: 2 ** 32 }), { code: 'INVALID_PARAM' });
      await rejects(screen.show(1), { code: 'INVALID_PARAM' });
      await rejects(gpu.request(Command.ctxCreate({ contextId: 1 })), { code: 'UNSUPPORTED' });
      await rejects(gpu.request(Command.resourceMapBlob(1, 0)), { code: 'UNSUPPORTED' });
      await rejects(gpu.request(Command.resourceUnref(999)), { response: 'ERR_INVALID_RESOURCE_ID' });
      await rejects(gpu.edid(7), { code: 'IO_ERROR', response: 'ERR_INVALID_PARAMETER' });
      await rejects(
        gpu.request(Command.setScanout(3, screen.resourceId, { x: 0, y: 0, width: 16, height: 16 })),
        {
          response: 'ERR_INVALID_SCANOUT_ID',
        },
      );
      await rejects(
        gpu.request(
          Command.resourceCreate2d({
            resourceId: screen.resourceId,
            format: PixelFormat.B8G8R8X8_UNORM,
            width: 1,
            height: 1,
          }),
        ),
        { response: 'ERR_INVALID_RESOURCE_ID' },
      );
      const spec = { width: 320, height: 200, seed: 70 };
      screen.drawImage(makePicture(spec));
      await screen.flush();
      await expectShown(context, { expected: spec });
      equal(gpu.failure, undefined);
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'is reset with a picture on the display, and shows another one',
    long: true,
    devices: { gpu: gpuDevice() },
    host,
    async guest(context) {
      using opened = openGpu(context);
      const { gpu } = opened;
      for (let n = 0; n < 10; n++) {
        const spec = { width: 400, height: 300, seed: 80 + n };
        const screen = await gpu.setUpFramebuffer(spec);
        screen.drawImage(makePicture(spec));
        const flushes = Array.from({ length: 8 }, () => endOf(screen.flush()));
        if (n % 2 === 0) await flushes[0];
        gpu.reset();
        const codes = await Promise.all(flushes);
        ok(
          codes.every((code) => code === 'ok' || code === 'DEVICE_RESET'),
          codes.join(),
        );
        equal(screen.live, false);
        await rejects(screen.flush(), { code: 'DEVICE_RESET' });
        await screen.destroy();
        equal(screen.bytes.length, 0);
      }
      const spec = { width: 1024, height: 768, seed: 90 };
      const screen = await gpu.setUpFramebuffer(spec);
      screen.drawImage(makePicture(spec));
      await screen.flush();
      await expectShown(context, { expected: spec });
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'is let go and opened again, ten times, with what it showed',
    long: true,
    devices: { gpu: gpuDevice() },
    host,
    async guest(context) {
      for (let n = 0; n < 10; n++) {
        using opened = openGpu(context);
        const spec = { width: 320, height: 240, seed: 100 + n };
        const screen = await opened.gpu.setUpFramebuffer(spec);
        screen.drawImage(makePicture(spec));
        // A flush that nobody waits for.
        opened.gpu.cancel(screen.submitTransfer());
        screen.flushSync();
        if (n % 3 === 0) await expectShown(context, { expected: spec });
      }
    },
  }),

  guestTest({
    device: 'gpu',
    name: 'is removed by the kernel while pictures are flushed, which reject',
    devices: { gpu: gpuDevice() },
    // QEMU does not let go of a GPU (`hotpluggable` is false): the kernel can take it from the driver.
    skip: ({ transport }) =>
      transport === 'pci-physical' ? undefined : 'only a PCI device without an IOMMU is removed in this way',
    async guest(context) {
      const location = context.device('gpu');
      if (location.kind !== 'pci') throw new Error('the GPU is not on PCI');
      {
        using opened = openGpu(context, {}, { interrupts: 'polling' });
        const { gpu } = opened;
        const screen = await gpu.setUpFramebuffer({ width: 640, height: 480 });
        const failure = new Promise<VirtioError>((resolve) => gpu.on('failure', resolve));
        const endless = async (): Promise<string> => {
          try {
            for (;;) await screen.flush();
          } catch (error) {
            return (error as VirtioError).code;
          }
        };
        const ends = Promise.all([endless(), endless(), endless()]);
        setTimeout(() => writeFileSync(`/sys/bus/pci/devices/${location.address}/remove`, '1'), 100);
        equal((await failure).code, 'DEVICE_REMOVED');
        deepEqual(new Set(await ends), new Set(['DEVICE_REMOVED']));
        await rejects(screen.flush(), { code: 'DEVICE_REMOVED' });
        throws(() => gpu.displaysSync(), { code: 'DEVICE_REMOVED' });
      }
      writeFileSync('/sys/bus/pci/rescan', '1');
      using opened = openGpu(context);
      equal((await opened.gpu.displays())[0]?.width, 1280);
    },
  }),
];
