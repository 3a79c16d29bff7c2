/** What `share` and `unshare` cost for memory of all kinds, by how a caller holds it. No device is needed. */
import { type RegisterWindow, VirtioError } from '@virtio/core';
import { measureAll, printMeasurements, type Row } from '@virtio/checks/measure';
import { anonymousSource } from '../src/anonymous-source.fixture.ts';
import { LinuxHal } from '../src/hal.ts';

class BenchHal extends LinuxHal {
  constructor() {
    super(anonymousSource());
  }

  mapRegisters(): RegisterWindow {
    throw new VirtioError('UNSUPPORTED', 'a benchmark has no registers');
  }

  protected checkAccess(): void {
    // Every device may have the memory.
  }
}

const COUNT = 64;
const ROUNDS = 64;
const SIZE = 512;

using hal = new BenchHal();

/** Shares the buffers one after the other as a queue in flight does, then takes them back. */
const row = (name: string, buffers: (i: number) => Uint8Array): Row => {
  const addresses = new Float64Array(COUNT);
  const held: Uint8Array[] = Array.from({ length: COUNT }, (_, i) => buffers(i));
  return [
    name,
    COUNT * ROUNDS,
    () => {
      for (let round = 0; round < ROUNDS; round += 1) {
        for (let i = 0; i < COUNT; i += 1) {
          const buffer = buffers(i);
          held[i] = buffer;
          addresses[i] = hal.share(buffer, 'driver-to-device', true);
        }
        for (let i = 0; i < COUNT; i += 1) {
          hal.unshare(addresses[i] as number, held[i] as Uint8Array, 'driver-to-device', true);
        }
      }
    },
  ];
};

const one = hal.alloc(COUNT * SIZE);
const parts = Array.from({ length: COUNT }, (_, i) => one.bytes.subarray(i * SIZE, (i + 1) * SIZE));
const regions = Array.from({ length: COUNT }, () => hal.alloc(SIZE).bytes);
const ordinary = Array.from({ length: COUNT }, () => new Uint8Array(SIZE));

printMeasurements(
  'share + unshare',
  await measureAll([
    row('views of one DMA region, kept', (i) => parts[i] as Uint8Array),
    row('a DMA region each', (i) => regions[i] as Uint8Array),
    row('fresh views of one DMA region', (i) => one.bytes.subarray(i * SIZE, (i + 1) * SIZE)),
    row('ordinary memory of 512 bytes, kept (copied)', (i) => ordinary[i] as Uint8Array),
    row('ordinary memory of 512 bytes, fresh (copied)', () => new Uint8Array(SIZE)),
  ]),
);
