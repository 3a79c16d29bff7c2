import { CommonFeatures, createQueue, DeviceType, FeatureTable, QUEUE_FEATURES } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { FakeDevice } from './fake-device.ts';
import { FakeTransport } from './fake-transport.ts';
import { ringVariants } from './ring-variants.ts';

const table = new FeatureTable('TestFeatures', {});

function setUp(features = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits, size = 8) {
  const device = new FakeDevice({ type: DeviceType.Block, features, queues: [size] });
  const transport = new FakeTransport(device);
  const negotiated = transport.beginInit({ table, supported: QUEUE_FEATURES });
  const queue = createQueue(transport, device.hal, negotiated, { index: 0, size });
  transport.finishInit();
  return { device, transport, queue };
}

describe.each(ringVariants)("core's queue against the device's side: $name", ({ features }) => {
  it('carries requests there and back over several laps', () => {
    const { device, transport, queue } = setUp(features);
    device.handle(0, (chain) => {
      chain.write(chain.bytes().map((byte) => byte ^ 0xff));
    });
    for (let n = 0; n < 50; n += 1) {
      const reply = new Uint8Array(6);
      const parts = [Uint8Array.of(n, 1, 2), Uint8Array.of(3), Uint8Array.of(4, 5)];
      const readable = parts.slice(0, 1 + (n % 3));
      const length = queue.addNotifyWaitPop(readable, [reply.subarray(0, 4), reply.subarray(4)]);
      const sent = readable.flatMap((part) => [...part]);
      expect(length).toBe(sent.length);
      expect([...reply.subarray(0, length)]).toEqual(sent.map((byte) => byte ^ 0xff));
    }
    transport.reset();
    queue[Symbol.dispose]();
    device.assertClean();
  });
});
