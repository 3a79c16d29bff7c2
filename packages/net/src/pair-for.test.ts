import { CommonFeatures, forThreads, openQueuePlan, type VirtioError } from '@virtio/core';
import { FakeThread } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { F, frame, NetModel, QEMU, SPLIT } from '../test/net-model.ts';
import { NetControl, VirtioNet, VirtioNetRaw } from './index.ts';

const code = (name: string): Error => expect.objectContaining({ code: name }) as Error;
const turns = async (count = 8): Promise<void> => {
  for (let n = 0; n < count; n += 1) await new Promise((resolve) => setTimeout(resolve, 0));
};

/** A device with two pairs, the second of which another thread drives, played here. */
function lend(ring: bigint) {
  const model = new NetModel({ features: (QEMU & ~SPLIT) | ring | F.MQ, maxPairs: 2 });
  const { transport, device } = model;
  const options = { threadPairs: forThreads(1), queueSize: 16 };
  const net = new VirtioNet(transport, device.hal, options);
  const plan = structuredClone(net.pairFor(1, { memory: 4096 }));
  const far = openQueuePlan(VirtioNet, plan, new FakeThread(transport, plan));
  const failures: VirtioError[] = [];
  far.on('failure', (error) => failures.push(error));
  return { model, net, far, failures, plan };
}

function close({ model, net, far }: ReturnType<typeof lend>): void {
  far[Symbol.dispose]();
  net[Symbol.dispose]();
  model.device.assertClean();
}

describe.each([
  ['split', SPLIT],
  ['packed', CommonFeatures.set('RING_PACKED', 'EVENT_IDX').bits],
] as const)('a pair for another thread, %s', (_name, ring) => {
  it('sends and receives', async () => {
    const open = lend(ring);
    const { model, net, far } = open;
    expect([net.queuePairs, net.activePairs, far.queuePairs, far.maxQueuePairs]).toEqual([1, 1, 1, 1]);
    expect(far.macAddress).toEqual(net.macAddress);
    await net.control(NetControl.setQueuePairs(2));
    expect(net.activePairs).toBe(1);
    for (let n = 0; n < 40; n += 1) {
      const sent = frame(60 + n, n);
      await far.send(sent);
      await far.flush();
      expect(model.sent.at(-1)).toEqual(expect.objectContaining({ pair: 1, frame: sent }));
      expect(model.deliver(frame(70 + n, n), { pair: 1 })).toBe(true);
      using packet = await far.receive();
      expect(packet.data).toEqual(frame(70 + n, n));
    }
    close(open);
  });

  it('ends waits with DEVICE_RESET when the device is reset, and works again', async () => {
    const open = lend(ring);
    const { model, net, far, failures } = open;
    for (let lap = 1; lap < 4; lap += 1) {
      const waiting = far.receive();
      await turns(1);
      net.reset();
      await expect(waiting).rejects.toThrow(code('DEVICE_RESET'));
      expect(failures).toHaveLength(lap);
      await net.control(NetControl.setQueuePairs(2));
      await far.send(frame(60, lap));
      await far.flush();
      expect(model.sent.at(-1)?.pair).toBe(1);
      expect(model.deliver(frame(61, lap), { pair: 1 })).toBe(true);
      using packet = await far.receive();
      expect(packet.data).toEqual(frame(61, lap));
    }
    close(open);
  });
});

describe('a pair for another thread', () => {
  it('hears of the link, and of the removal of the device', async () => {
    const open = lend(SPLIT);
    const { model, net, far } = open;
    const links: boolean[] = [];
    far.on('link', ({ up }) => links.push(up));
    model.device.changeConfig((config) => {
      config.setUint16(6, 0, true);
    });
    await turns();
    expect(links).toEqual([false]);
    const waiting = far.receive();
    await turns(1);
    model.device.remove();
    await expect(waiting).rejects.toThrow(code('DEVICE_REMOVED'));
    far[Symbol.dispose]();
    net[Symbol.dispose]();
  });

  it.each([
    [8, 16],
    [16, 8],
  ])('has queues of %i and %i descriptors, as the device has them', async (queueSize, transmitSize) => {
    const model = new NetModel({ features: QEMU | F.MQ, maxPairs: 2, queueSize, transmitSize });
    const { transport, device } = model;
    const net = new VirtioNet(transport, device.hal, { threadPairs: forThreads(1) });
    const plan = structuredClone(net.pairFor(1, { memory: 4096 }));
    expect(plan.queues.map(({ size }) => size)).toEqual([queueSize, transmitSize]);
    const far = openQueuePlan(VirtioNet, plan, new FakeThread(transport, plan));
    await net.control(NetControl.setQueuePairs(2));
    await far.send(frame(60, 1));
    await far.flush();
    expect(model.sent.at(-1)?.pair).toBe(1);
    far[Symbol.dispose]();
    net[Symbol.dispose]();
    device.assertClean();
  });

  it('is refused where it makes no sense', () => {
    const open = lend(SPLIT);
    const { model, net, far, plan } = open;
    for (const pair of [0, 2, 0.5, NaN]) expect(() => net.pairFor(pair)).toThrow(code('INVALID_PARAM'));
    expect(() => net.pairFor(1)).toThrow(code('ALREADY_USED'));
    expect(() => net.resetQueue(3)).toThrow(code('UNSUPPORTED'));
    far[Symbol.dispose]();
    net.reset();
    for (const memory of [0, -1, 1.5, NaN, 2 ** 50]) {
      expect(() => net.pairFor(1, { memory })).toThrow(code('INVALID_PARAM'));
    }
    // Its headers would not be those that were agreed on.
    const again = net.pairFor(1);
    const thread = new FakeThread(model.transport, again);
    expect(() => openQueuePlan(VirtioNetRaw, again, thread)).toThrow(code('FEATURES_REFUSED'));
    expect(thread.closed).toBe(1);
    expect(plan.queues.map(({ index }) => index)).toEqual([2, 3]);
    net[Symbol.dispose]();
    model.device.assertClean();
  });
});
