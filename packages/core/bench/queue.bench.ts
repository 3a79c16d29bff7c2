/** What a queue costs: one chain from `begin` to `pop`. The share of the device, which only moves ids, is in the figures. */
import { measure, type Measurement, printMeasurements } from '@virtio/checks/measure';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { CommonFeatures, createQueue, DeviceType, type FeatureName, RequestQueue } from '@virtio/core';

const SIZE = 256;
const OPERATIONS = 100_000;

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

const split: FeatureName[] = ['EVENT_IDX'];
const packed: FeatureName[] = ['EVENT_IDX', 'RING_PACKED'];
const rows: Measurement[] = [];
const batches = [1, 8, 32, 128];
for (const [format, features] of [
  ['split', split],
  ['packed', packed],
] as const) {
  for (const [kind, more] of [
    ['direct', []],
    ['indirect', ['INDIRECT_DESC']],
    ['in order', ['IN_ORDER']],
  ] as const) {
    for (const batch of batches) {
      // A ring of 256 descriptors holds 85 direct chains of three.
      if (kind !== 'indirect' && batch * 3 > SIZE) continue;
      rows.push(
        await measure(
          `${format}, ${kind}, batch of ${batch}`,
          OPERATIONS,
          chains([...features, ...more], batch),
        ),
      );
    }
  }
}
printMeasurements('begin, push 3, submit, publish, kick, pop', rows);

/** The same three ways that drivers offer, on a split ring with indirect descriptors. */
function forms(batch: number) {
  const { queue, ring, transport, address } = make([...split, 'INDIRECT_DESC']);
  const requests = new RequestQueue(queue, transport, () => undefined);
  const submit = () => {
    const slot = requests.begin(3);
    queue.pushReadable(address, 16);
    queue.pushWritable(address + 4096, 4096);
    queue.pushWritable(address + 16, 1);
    requests.submit(slot);
    return slot;
  };
  const one = async () => {
    const slot = submit();
    requests.flushSoon();
    await requests.done(slot);
    requests.release(slot);
  };
  return {
    'non-blocking': () => {
      for (let n = 0; n < OPERATIONS; n += batch) {
        for (let i = 0; i < batch; i += 1) submit();
        requests.flush();
        ring.drain(4097);
        for (let i = 0; i < batch; i += 1) requests.release(requests.poll());
      }
    },
    synchronous: () => {
      for (let n = 0; n < OPERATIONS; n += 1) {
        const slot = submit();
        requests.flush();
        ring.drain(4097);
        requests.waitSync(slot);
        requests.release(slot);
      }
    },
    promises: async () => {
      const pending: Promise<void>[] = [];
      for (let n = 0; n < OPERATIONS; n += batch) {
        for (let i = 0; i < batch; i += 1) pending.push(one());
        requests.flush();
        ring.drain(4097);
        requests.drain();
        await Promise.all(pending);
        pending.length = 0;
      }
    },
  };
}

const byForm: Measurement[] = [];
for (const batch of [1, 32]) {
  for (const [name, loop] of Object.entries(forms(batch))) {
    if (name === 'synchronous' && batch > 1) continue;
    byForm.push(await measure(`${name}, batch of ${batch}`, OPERATIONS, loop));
  }
}
printMeasurements('request and reply, by form', byForm);
