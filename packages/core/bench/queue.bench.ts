/** What a queue costs: one chain from `begin` to `pop`. The share of the device, which only moves ids, is in the figures. */
import { measureAll, printMeasurements, type Row } from '@virtio/checks/measure';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import {
  CommonFeatures,
  createQueue,
  DeviceType,
  Driver,
  type FeatureName,
  FeatureTable,
  type Hal,
  type RequestQueue,
} from '@virtio/core';

/** Holds 170 chains of three descriptors. */
const SIZE = 512;
const OPERATIONS = 128 * 100;
const BATCHES = [1, 8, 32, 128];

function make(names: readonly FeatureName[], tableLength = 16) {
  const features = CommonFeatures.set(...names).bits;
  const device = new FakeDevice({ type: DeviceType.Block, features, queues: [SIZE] });
  device.automatic = false;
  device.recordNotifications = false;
  const transport = new FakeTransport(device);
  const negotiated = transport.beginInit({ table: CommonFeatures, supported: names });
  const queue = createQueue(transport, device.hal, negotiated, { index: 0, size: SIZE, tableLength });
  transport.finishInit();
  // A fake device that is notified allocates; the driver still looks whether it is to notify.
  device.queue(0).suppressNotifications();
  const { address } = device.hal.dmaAlloc(4, 'both', false);
  return { device, transport, queue, ring: device.queue(0), address };
}

/** A chain as a disk's: header, data, status. */
function chains(names: readonly FeatureName[], batch: number, tableLength = 16): () => void {
  const { queue, ring, address } = make(names, tableLength);
  return () => {
    for (let n = 0; n < OPERATIONS; n += batch) {
      for (let i = 0; i < batch; i += 1) {
        queue.begin(3);
        queue.pushReadable(address, 16);
        queue.pushWritable(address + 4096, 4096);
        queue.pushWritable(address + 16, 1);
        queue.submit();
      }
      queue.publish();
      queue.kick();
      ring.drain(4097);
      for (let i = 0; i < batch; i += 1) queue.pop();
    }
  };
}

const formats: readonly (readonly [string, readonly FeatureName[]])[] = [
  ['split', ['EVENT_IDX']],
  ['packed', ['EVENT_IDX', 'RING_PACKED']],
];
const kinds: readonly (readonly [string, readonly FeatureName[]])[] = [
  ['direct', []],
  ['indirect', ['INDIRECT_DESC']],
  ['in order', ['IN_ORDER']],
];
const rows: Row[] = [];
for (const [kind, more] of kinds) {
  for (const batch of BATCHES) {
    for (const [format, features] of formats) {
      rows.push([`${kind}, batch of ${batch}, ${format}`, OPERATIONS, chains([...features, ...more], batch)]);
    }
  }
}
printMeasurements('begin, push 3, submit, publish, kick, pop', await measureAll(rows));

/** A driver with one request queue and a device that answers each with nothing. */
class Bench extends Driver<never> {
  readonly requests: RequestQueue<number>;

  constructor(transport: FakeTransport, hal: Hal, without: readonly FeatureName[]) {
    super(transport, hal, { deviceType: DeviceType.Block, table: None, supported: [] }, { without });
    this.requests = this.setUp(() =>
      this.createRequestQueue({ index: 0, size: SIZE }, { result: (_slot, usedLength) => usedLength }),
    );
    this.start();
  }
}

const None = new FeatureTable<never>('None', {});

/** The same three ways that drivers offer, with indirect descriptors. */
function forms(names: readonly FeatureName[], batch: number): [string, () => unknown][] {
  const features = CommonFeatures.set(...names, 'INDIRECT_DESC').bits;
  const device = new FakeDevice({ type: DeviceType.Block, features, queues: [SIZE] });
  device.automatic = false;
  device.recordNotifications = false;
  const { requests } = new Bench(new FakeTransport(device), device.hal, []);
  const { queue } = requests;
  const ring = device.queue(0);
  ring.suppressNotifications();
  const { address } = device.hal.dmaAlloc(4, 'both', false);
  const start = (): number => {
    const slot = requests.begin(3);
    queue.pushReadable(address, 16);
    queue.pushWritable(address + 4096, 4096);
    queue.pushWritable(address + 16, 1);
    requests.submit(slot);
    return slot;
  };
  const nonBlocking = (): void => {
    for (let n = 0; n < OPERATIONS; n += batch) {
      for (let i = 0; i < batch; i += 1) start();
      requests.kick();
      ring.drain(4097);
      for (let i = 0; i < batch; i += 1) requests.complete(requests.poll());
    }
  };
  const synchronous = (): void => {
    for (let n = 0; n < OPERATIONS; n += 1) {
      const slot = start();
      requests.kick();
      ring.drain(4097);
      requests.waitSync(slot);
    }
  };
  const promises = async (): Promise<void> => {
    const pending: Promise<number>[] = [];
    for (let n = 0; n < OPERATIONS; n += batch) {
      for (let i = 0; i < batch; i += 1) pending.push(requests.settled(start()));
      requests.kick();
      ring.drain(4097);
      requests.drain();
      await Promise.all(pending);
      pending.length = 0;
    }
  };
  const found: [string, () => unknown][] = [
    ['non-blocking', nonBlocking],
    ['promises', promises],
  ];
  // One call, one request: there is no batch.
  return batch === 1 ? [...found, ['synchronous', synchronous]] : found;
}

const byForm: Row[] = [];
for (const batch of BATCHES) {
  for (const [format, features] of formats) {
    for (const [form, loop] of forms(features, batch)) {
      byForm.push([`${form}, batch of ${batch}, ${format}`, OPERATIONS, loop]);
    }
  }
}
byForm.sort(([a], [b]) => (a.split(',')[0] ?? '').localeCompare(b.split(',')[0] ?? ''));
printMeasurements('request and reply, by form', await measureAll(byForm));
