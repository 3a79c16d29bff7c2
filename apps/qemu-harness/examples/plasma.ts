/**
 * A plasma on the display, as fast as it goes, in whatever size the viewer gives it:
 *
 *     npm run guest -- --display apps/qemu-harness/examples/plasma.ts [seconds]
 */
import { DeviceType } from '@virtio/core';
import { type Framebuffer, packPixel, VirtioGpu } from '@virtio/gpu';
import { listDevices, openDriver } from '@virtio/linux';

const SECONDS = Number(process.argv[2] ?? 60);

const found = listDevices().find(({ deviceType }) => deviceType === DeviceType.Gpu);
if (found === undefined) {
  throw new Error("there is no GPU: add --display, or --qemu '-device virtio-gpu-pci'");
}
using gpu = openDriver(VirtioGpu, found, { unsafePhysicalMemory: found.kind === 'mmio' });

let screen = await gpu.setUpFramebuffer();
let resizes = 0;
let seen = 0;
gpu.on('display', () => {
  resizes += 1;
});

// A wave, and a circle of colours.
const wave = Int32Array.from({ length: 1024 }, (_, i) =>
  Math.round(63.5 * (1 + Math.sin((i * 2 * Math.PI) / 1024))),
);
const palette = (format: Framebuffer['format']): Uint32Array =>
  Uint32Array.from({ length: 256 }, (_, i) => {
    const part = (shift: number): number =>
      Math.round(127.5 * (1 + Math.sin(((i + shift) * 2 * Math.PI) / 256)));
    return packPixel(format, part(0), part(85), part(170));
  });

function draw({ width, height, pixels, format }: Framebuffer, time: number): void {
  const colours = palette(format);
  const columns = Int32Array.from(
    { length: width },
    (_, x) => (wave[(x * 3 + time * 5) & 1023] ?? 0) + (wave[(x + time * 2) & 1023] ?? 0),
  );
  for (let y = 0; y < height; y++) {
    const row = (wave[(y * 4 - time * 3) & 1023] ?? 0) + time;
    const bend = wave[(y * 2 + time * 7) & 1023] ?? 0;
    for (let x = 0; x < width; x++) {
      pixels[y * width + x] =
        colours[((columns[x] ?? 0) + row + (wave[(x + bend * 4) & 1023] ?? 0)) & 255] ?? 0;
    }
  }
}

const began = performance.now();
let shown = began;
let frames = 0;
for (let time = 0; performance.now() - began < SECONDS * 1000; time += 2) {
  if (resizes !== seen) {
    seen = resizes;
    screen = await gpu.setUpFramebuffer();
  }
  draw(screen, time);
  await screen.flush();
  frames += 1;
  const now = performance.now();
  if (now - shown < 2000) continue;
  console.log(
    `${screen.width} × ${screen.height}: ${((frames * 1000) / (now - shown)).toFixed(1)} pictures a second`,
  );
  shown = now;
  frames = 0;
}
