/**
 * What one packet costs in the driver, each way, in batches of 1, 32 and 256. The device is next to nothing: it moves the used index, so
 * that what is measured is the driver and its queue.
 */
import { CommonFeatures, DeviceType } from '@virtio/core';
import { measureAll, printMeasurements } from '@virtio/checks/measure';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { VirtioNet } from '../src/index.ts';

const BATCHES = [1, 32, 256];
const PACKETS = 4096;
const HEADER = 12;

/** Calls the device without looking at features. */
class BenchTransport extends FakeTransport {
  sent: () => void = () => undefined;

  override notify(queue: number): void {
    if (queue === 1) this.sent();
  }
}

async function bench(title: string, ring: bigint, size: number): Promise<void> {
  const device = new FakeDevice({ type: DeviceType.Network, features: ring, queues: [256, 256] });
  const transport = new BenchTransport(device);
  const net = new VirtioNet(transport, device.hal);
  const received = device.queue(0);
  const sent = device.queue(1);
  transport.sent = () => {
    sent.drain(0);
  };
  const frame = new Uint8Array(size);
  const late = { kick: false };
  let bytes = 0;
  const take = ({ length }: { readonly length: number }): void => {
    bytes += length;
  };
  printMeasurements(
    title,
    await measureAll([
      ...BATCHES.map((batch): [string, number, () => void] => [
        `sent, ${batch} at a time`,
        PACKETS,
        () => {
          for (let n = 0; n < PACKETS; n += batch) {
            for (let i = 0; i < batch; i += 1) {
              if (!net.trySend(frame, late)) throw new Error('there is no room');
            }
            net.kick();
          }
        },
      ]),
      [
        'received, 256 at a time, lent to a handler',
        PACKETS,
        () => {
          for (let n = 0; n < PACKETS; n += 256) {
            received.drain(HEADER + size);
            if (net.poll(take) !== 256) throw new Error('a packet is missing');
          }
        },
      ],
      [
        'received, 256 at a time, each taken and given back',
        PACKETS,
        () => {
          for (let n = 0; n < PACKETS; n += 256) {
            received.drain(HEADER + size);
            for (let i = 0; i < 256; i += 1) {
              using packet = net.tryReceive();
              if (packet === undefined) throw new Error('a packet is missing');
              take(packet);
            }
          }
        },
      ],
    ]),
  );
  if (bytes === 0) throw new Error('nothing was received');
  net[Symbol.dispose]();
}

const split = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits;
await bench('64 bytes, split ring', split, 64);
await bench('1500 bytes, split ring', split, 1500);
await bench('64 bytes, packed ring', split | CommonFeatures.mask('RING_PACKED'), 64);
