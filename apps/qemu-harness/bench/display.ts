/**
 * Pictures a second at 1920 × 1080, and the machine's copy bandwidth beside them, as all pixels are copied by the host:
 *
 *     npm run guest -- --qemu '-device virtio-gpu-pci' apps/qemu-harness/bench/display.ts [seconds]
 */
import { DeviceType } from '@virtio/core';
import { VirtioGpu } from '@virtio/gpu';
import { listDevices, openDriver } from '@virtio/linux';

const SECONDS = Number(process.argv[2] ?? 3);
const [WIDTH, HEIGHT] = [1920, 1080];
const DAMAGE = { x: 928, y: 508, width: 64, height: 64 };
const BYTES = 4 * WIDTH * HEIGHT;

const found = listDevices().find(({ deviceType }) => deviceType === DeviceType.Gpu);
if (found === undefined) throw new Error("there is no GPU: add --qemu '-device virtio-gpu-pci'");
using gpu = openDriver(VirtioGpu, found, { unsafePhysicalMemory: found.kind === 'mmio' });
const screen = await gpu.setUpFramebuffer({ width: WIDTH, height: HEIGHT });

/** How often a second something can be done, and which part of the processor of this process that takes. */
async function measure(title: string, once: () => unknown): Promise<number> {
  for (let n = 0; n < 3; n += 1) await once();
  const cpu = process.cpuUsage();
  const began = performance.now();
  let count = 0;
  let ms = 0;
  for (; ms < 1000 * SECONDS; count += 1) {
    await once();
    ms = performance.now() - began;
  }
  const { user, system } = process.cpuUsage(cpu);
  const rate = (count * 1000) / ms;
  const share = (user + system) / 10 / ms;
  console.log(
    `${title.padEnd(34)} ${rate.toFixed(1).padStart(9)} a second  ${share.toFixed(0).padStart(4)} % of a processor`,
  );
  return rate;
}

const source = new Uint8Array(BYTES);
const copies = await measure('copy of a picture, in the guest', () => screen.bytes.set(source));
const full = await measure('flush of everything', () => screen.flush());
await measure('flush of everything, spinning', () => screen.flushSync());
await measure('flush of 64 × 64', () => screen.flush(DAMAGE));
await measure('flush of 64 × 64, spinning', () => screen.flushSync(DAMAGE));
await measure('page flip', () => screen.show());
console.log(
  `copy bandwidth ${((copies * BYTES) / 1e9).toFixed(2)} GB/s; flushes of everything are ${((100 * full) / copies).toFixed(0)} % of it`,
);
