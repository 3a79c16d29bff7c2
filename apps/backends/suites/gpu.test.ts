/** A graphics card of QEMU's vhost-user-gpu (Debian 13: qemu-system-gui). What it shows comes over its display channel. */
import { type Rect, VirtioGpu } from '@virtio/gpu';
import { BackendDisplay, openDriver, type ScanoutUpdate } from '@virtio/vhost-user';
import { expect, it } from 'vitest';
import { makePicture, type Picture } from '../../qemu-harness/src/suites/gpu/_picture.ts';
import { Folder } from '../src/backend.ts';
import { GpuBackend } from '../src/gpu.ts';

/** Waits until the card has shown so many updates, which come in order but by another way than the answers to commands. */
function updates(display: BackendDisplay, count: number): Promise<ScanoutUpdate[]> {
  const seen: ScanoutUpdate[] = [];
  return new Promise((resolve) => {
    const remove = display.on('update', (update) => {
      seen.push(update);
      if (seen.length < count) return;
      remove();
      resolve(seen);
    });
  });
}

/** How many pixels of a scanout are not those of a picture, in colour. */
function differences(display: BackendDisplay, scanout: number, { width, height, data }: Picture): number {
  const shown = display.scanout(scanout);
  if (shown?.width !== width || shown.height !== height) return Infinity;
  let count = 0;
  for (let at = 0; at < data.length; at += 4) {
    const { pixels } = shown;
    const same =
      pixels[at] === data[at + 2] && pixels[at + 1] === data[at + 1] && pixels[at + 2] === data[at];
    if (!same) count += 1;
  }
  return count;
}

it('a picture is shown pixel for pixel, and of a change what was flushed and nothing else', async () => {
  using folder = new Folder();
  await using card = await GpuBackend.start(folder);
  const display = new BackendDisplay({ displays: [{ width: 641, height: 479 }] });
  using gpu = await openDriver(VirtioGpu, `vhost-user:${card.socket}`, { display });
  expect(await gpu.displays()).toMatchObject([{ enabled: true, width: 641, height: 479 }]);
  expect(await gpu.edid()).toMatchObject({ checksumOk: true, detailed: [{ width: 641, height: 479 }] });

  const picture = makePicture({ width: 641, height: 479, seed: 1 });
  const screen = await gpu.setUpFramebuffer();
  expect([screen.width, screen.height]).toEqual([641, 479]);
  screen.drawImage(picture);
  let shown = updates(display, 1);
  await screen.flush();
  await shown;
  expect(differences(display, 0, picture)).toBe(0);

  // Another picture everywhere, of which two rectangles are flushed.
  screen.drawImage(makePicture({ width: 641, height: 479, seed: 2 }));
  const rects: Rect[] = [
    { x: 10, y: 20, width: 31, height: 7 },
    { x: 600, y: 400, width: 41, height: 79 },
  ];
  shown = updates(display, rects.length);
  await screen.flush(rects);
  expect(await shown).toEqual(rects.map((rect) => ({ scanout: 0, ...rect })));
  expect(differences(display, 0, picture)).toBeGreaterThan(0);
  // The first picture again, flushed there alone, is whole.
  screen.drawImage(picture);
  shown = updates(display, rects.length);
  await screen.flush(rects);
  await shown;
  expect(differences(display, 0, picture)).toBe(0);
});

it('two displays show different pictures, one of them large, and are set up anew after a reset', async () => {
  using folder = new Folder();
  await using card = await GpuBackend.start(folder);
  const sizes = [
    { width: 1920, height: 1200 },
    { width: 17, height: 3 },
  ];
  const display = new BackendDisplay({ displays: sizes });
  using gpu = await openDriver(VirtioGpu, `vhost-user:${card.socket}`, { display });
  expect(gpu.scanouts).toBe(2);
  for (const seed of [3, 4]) {
    const pictures = sizes.map((size, scanout) => makePicture({ ...size, seed: seed * 10 + scanout }));
    for (const [scanout, picture] of pictures.entries()) {
      const screen = await gpu.setUpFramebuffer({ scanout });
      screen.drawImage(picture);
      const shown = updates(display, 1);
      await screen.flush();
      await shown;
    }
    expect(pictures.map((picture, scanout) => differences(display, scanout, picture))).toEqual([0, 0]);
    gpu.reset();
  }
});

it('a cursor is shown with its picture where it was put, moved and hidden', async () => {
  using folder = new Folder();
  await using card = await GpuBackend.start(folder);
  const display = new BackendDisplay();
  using gpu = await openDriver(VirtioGpu, `vhost-user:${card.socket}`, { display });
  const moved = (): Promise<number> =>
    new Promise((resolve) => {
      const remove = display.on('cursor', (scanout) => {
        remove();
        resolve(scanout);
      });
    });
  const data = Uint8Array.from({ length: 64 * 64 * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * 7) % 251));
  const cursor = await gpu.createCursor({ image: { width: 64, height: 64, data }, hotX: 3, hotY: 4 });
  let next = moved();
  await cursor.show({ x: 100, y: 200 });
  expect(await next).toBe(0);
  expect(display.cursor(0)).toMatchObject({ visible: true, x: 100, y: 200, hotX: 3, hotY: 4 });
  // Red and blue change places.
  const expected = data.map((_, i) => data[i - (i % 4) + ([2, 1, 0, 3][i % 4] ?? 0)] ?? 0);
  expect(display.cursor(0).pixels).toEqual(expected);
  next = moved();
  await gpu.moveCursor({ x: 7, y: 8 });
  await next;
  expect(display.cursor(0)).toMatchObject({ visible: true, x: 7, y: 8, hotX: 3, pixels: expected });
  next = moved();
  await gpu.hideCursor();
  await next;
  // vhost-user-gpu says so by a picture without a visible pixel.
  expect(display.cursor(0).pixels).toEqual(new Uint8Array(64 * 64 * 4));
});

it('a card that is killed with a picture on its way is gone', async () => {
  using folder = new Folder();
  await using card = await GpuBackend.start(folder);
  const display = new BackendDisplay();
  using gpu = await openDriver(VirtioGpu, `vhost-user:${card.socket}`, { display });
  const screen = await gpu.setUpFramebuffer();
  await screen.flush();
  const flushed = screen.flush().then(
    () => screen.flush(),
    (error: unknown) => Promise.reject(error as Error),
  );
  flushed.catch(() => undefined);
  await card.kill();
  await expect(flushed.then(() => screen.flush())).rejects.toMatchObject({ code: 'DEVICE_REMOVED' });
});
