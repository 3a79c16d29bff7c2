/**
 * What a period costs in the driver: 20 ms of stereo at 48 kHz, written without waiting and captured without waiting. The device is next to
 * nothing: it writes the statuses and moves the used index.
 */
import { CommonFeatures } from '@virtio/core';
import { measureAll, printMeasurements } from '@virtio/checks/measure';
import { FakeTransport } from '@virtio/testing';
import { SoundModel } from '../test/sound-model.ts';

const PERIOD = 3840;
const PERIODS = 8;
const ROUNDS = 200;
/** The second byte of the status. */
const OK = 0x80;
const OPEN = {
  format: 'S16',
  rate: 48_000,
  channels: 2,
  periodBytes: PERIOD,
  bufferBytes: PERIODS * PERIOD,
} as const;

/** Calls the device without looking at features, once a bench has begun. */
class BenchTransport extends FakeTransport {
  kicked: (() => void) | undefined;

  override notify(queue: number, next: number): void {
    if (this.kicked === undefined) super.notify(queue, next);
    else this.kicked();
  }
}

async function bench(title: string, features: bigint): Promise<void> {
  const model = new SoundModel({ features });
  const transport = new BenchTransport(model.device);
  model.transport = transport;
  const playback = model.driver.openPlaybackSync(OPEN);
  const capture = model.driver.openCaptureSync(OPEN);
  // One round with the model, to learn where the statuses lie: slots are used again and again.
  const period = new Uint8Array(PERIOD);
  for (let n = 0; n < PERIODS; n += 1) playback.submitWrite(period);
  playback.startSync();
  capture.startSync();
  const statuses = [0, 1].flatMap((id) =>
    model.stream(id).waiting.map((chain) => {
      const { address, length } = chain.elements.at(-1) ?? { address: 0, length: 8 };
      return model.device.hal.view(address, length, 'write');
    }),
  );
  for (let n = 0; n < PERIODS; n += 1) model.play(0);
  for (let n = 0; n < PERIODS; n += 1) model.capture(1, period);
  const sent = model.device.queue(2);
  const received = model.device.queue(3);
  transport.kicked = () => {
    for (let n = 0; n < statuses.length; n += 1) (statuses[n] as Uint8Array)[1] = OK;
    sent.drain(8);
    received.drain(PERIOD + 8);
  };
  const into = new Uint8Array(PERIOD);
  const found = await measureAll([
    [
      'a period played',
      ROUNDS * PERIODS,
      () => {
        for (let n = 0; n < ROUNDS * PERIODS; n += 1) playback.submitWrite(period);
      },
    ],
    [
      'a period captured',
      ROUNDS * PERIODS,
      () => {
        for (let n = 0; n < ROUNDS * PERIODS; n += 1) capture.submitRead(into);
      },
    ],
  ]);
  printMeasurements(title, found);
}

const split = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits;
await bench('3840 bytes a period, split ring', split);
await bench('3840 bytes a period, packed ring', split | CommonFeatures.mask('RING_PACKED'));
