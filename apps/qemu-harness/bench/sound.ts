/**
 * The share of the processor that playback takes, at 48 kHz, stereo, 16 bits:
 *
 *     npm run guest -- --sound silence.wav apps/qemu-harness/bench/sound.ts [seconds]
 */
import { DeviceType } from '@virtio/core';
import { listDevices, openDriver } from '@virtio/linux';
import { VirtioSound } from '@virtio/sound';

const SECONDS = Number(process.argv[2] ?? 10);
const RATE = 48_000;

const found = listDevices().find(({ deviceType }) => deviceType === DeviceType.Sound);
if (found === undefined) throw new Error('there is no sound device: add --sound silence.wav');
using sound = openDriver(VirtioSound, found, { unsafePhysicalMemory: found.kind === 'mmio' });

for (const periodMs of [5, 20, 100]) {
  const periodBytes = (4 * RATE * periodMs) / 1000;
  await using stream = await sound.openPlayback({
    rate: RATE,
    periodBytes,
    bufferBytes: 8 * periodBytes,
  });
  const samples = new Int16Array(periodBytes / 2);
  // What fills the buffer is not measured.
  for (let n = 0; n < 2 * stream.periods; n += 1) await stream.write(samples);
  const cpu = process.cpuUsage();
  const began = performance.now();
  const periods = Math.round((SECONDS * 1000) / periodMs);
  for (let n = 0; n < periods; n += 1) await stream.write(samples);
  const ms = performance.now() - began;
  const { user, system } = process.cpuUsage(cpu);
  console.log(
    `periods of ${String(periodMs).padStart(3)} ms: ${((user + system) / 10 / ms).toFixed(1).padStart(5)} % of a processor, ` +
      `${((periods * periodMs) / ms).toFixed(3)} × real time, ${stream.underruns} under-runs`,
  );
}
