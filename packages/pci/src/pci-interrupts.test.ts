import { BufferChains, CommonFeatures, createQueue, PollingInterrupts } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { encode, fixture, interrupting, interruptsOf, negotiate } from '../fixture.ts';
import { NO_VECTOR } from './interrupts.ts';

/** Sets up both queues with handlers that note what they hear. */
function listen(fixed: ReturnType<typeof interrupting>) {
  const { transport, hal } = fixed;
  const features = negotiate(transport);
  const queues = [0, 1].map((index) => createQueue(transport, hal, features, { index, size: 8 }));
  const heard: string[] = [];
  const interrupts = interruptsOf(transport);
  for (const index of [0, 1]) interrupts.onQueue(index, () => void heard.push(`queue ${index}`));
  interrupts.onConfig(() => void heard.push('config'));
  interrupts.onRemoval(() => void heard.push('removal'));
  transport.finishInit();
  for (const queue of queues) queue.enableInterrupts();
  /** Sends something on a queue and takes the answer, which the device has interrupted for. */
  const send = async (index: number): Promise<void> => {
    const queue = queues[index];
    if (!queue) throw new Error(`no queue ${index}`);
    BufferChains.of(queue).add([encode('x')], [new Uint8Array(1)]);
    queue.publish();
    queue.kick();
    await Promise.resolve();
    await Promise.resolve();
    BufferChains.of(queue).popUsed(BufferChains.of(queue).peekUsed());
  };
  return { ...fixed, queues, heard, send };
}

describe('MSI-X', () => {
  it('maps configuration and queues, each read back, before the queue is enabled [4.1.5.1.2.2]', () => {
    const fixed = interrupting(3);
    fixed.pci.bar(4).accesses.length = 0;
    listen(fixed);
    expect(
      fixed.pci
        .bar(4)
        .trace()
        .filter((line) => /vector|enable =/.test(line)),
    ).toEqual([
      'read16 queue_enable = 0x0',
      'write16 config_msix_vector = 0x0',
      'read16 config_msix_vector = 0x0',
      'write16 queue_msix_vector = 0x1',
      'read16 queue_msix_vector = 0x1',
      'write16 queue_enable = 0x1',
      'read16 queue_enable = 0x0',
      'write16 queue_msix_vector = 0x2',
      'read16 queue_msix_vector = 0x2',
      'write16 queue_enable = 0x1',
    ]);
    expect(['config' as const, 0, 1].map((what) => fixed.pci.vectorOf(what))).toEqual([0, 1, 2]);
  });

  it('brings each interrupt to its handler, without a look at the ISR status [4.1.4.5.2]', async () => {
    const { send, heard, device, pci } = listen(interrupting(3));
    await send(1);
    expect(heard).toEqual(['queue 1']);
    await send(0);
    device.changeConfig(() => undefined);
    await Promise.resolve();
    await Promise.resolve();
    expect(heard).toEqual(['queue 1', 'queue 0', 'config']);
    expect(
      pci
        .bar(4)
        .trace()
        .filter((line) => line.includes('isr')),
    ).toEqual([]);
    device.assertObeyed();
  });

  it('works with one vector for all [4.1.5.4.2]', async () => {
    const { send, heard, pci, device } = listen(interrupting(1));
    await send(1);
    expect(heard).toEqual(['queue 0', 'queue 1', 'config']);
    expect(['config' as const, 0, 1].map((what) => pci.vectorOf(what))).toEqual([0, 0, 0]);
    device.assertObeyed();
  });

  it('falls back to a shared vector where the device refuses one [4.1.5.1.2.2]', async () => {
    const { send, heard, pci, device } = listen(interrupting(3, { pci: { refusedVectors: [2] } }));
    expect(['config' as const, 0, 1].map((what) => pci.vectorOf(what))).toEqual([0, 1, 1]);
    await send(1);
    expect(heard).toEqual(['queue 0', 'queue 1']);
    device.assertObeyed();
  });

  it.each([
    [1, [0, 0, 0], ['queue 0', 'queue 1', 'config']],
    [2, [0, 1, 1], ['queue 0', 'queue 1']],
    [3, [0, 1, 2], ['queue 1']],
  ])(
    'makes do with %d mapped vectors, one of them for the configuration [4.1.5.1.2.2]',
    async (mappableVectors, vectors, expected) => {
      const { send, heard, pci, device } = listen(interrupting(3, { pci: { mappableVectors } }));
      expect(['config' as const, 0, 1].map((what) => pci.vectorOf(what))).toEqual(vectors);
      await send(1);
      expect(heard).toEqual(expected);
      device.assertObeyed();
    },
  );

  it('takes any vector for the configuration if the device refuses the first [4.1.5.1.2.2]', () => {
    const { pci } = listen(interrupting(3, { pci: { refusedVectors: [0] } }));
    expect(['config' as const, 0, 1].map((what) => pci.vectorOf(what))).toEqual([1, 1, 2]);
  });

  it('says so if the device refuses them all [4.1.5.1.2.2]', () => {
    const { transport, hal, device } = interrupting(3, { pci: { refusedVectors: [0, 1, 2] } });
    const features = negotiate(transport);
    expect(() => createQueue(transport, hal, features, { index: 0, size: 8 })).toThrow(
      expect.objectContaining({ code: 'UNSUPPORTED' }),
    );
    expect(() => transport.finishInit()).toThrow(expect.objectContaining({ code: 'UNSUPPORTED' }));
    device.assertObeyed();
  });

  it('uses no more vectors than the platform has enabled, however many the table has', async () => {
    const { send, heard, pci } = listen(interrupting(2, { pci: { vectors: 8 } }));
    expect(['config' as const, 0, 1].map((what) => pci.vectorOf(what))).toEqual([0, 1, 1]);
    await send(0);
    expect(heard).toEqual(['queue 0', 'queue 1']);
  });

  it('maps anew after a reset, which unmaps all', async () => {
    const { transport, queues, heard, send, pci } = listen(interrupting(3));
    transport.reset();
    expect(['config' as const, 0, 1].map((what) => pci.vectorOf(what))).toEqual([
      NO_VECTOR,
      NO_VECTOR,
      NO_VECTOR,
    ]);
    negotiate(transport);
    for (const queue of queues) queue.reset();
    transport.finishInit();
    for (const queue of queues) queue.enableInterrupts();
    await send(0);
    expect(heard).toEqual(['queue 0']);
  });

  it('reports removal, also to a driver that the transport leaves behind, and ends with the transport', async () => {
    const { lines, transport, heard, device } = listen(interrupting(3));
    lines.remove();
    expect(heard).toEqual(['removal']);
    transport[Symbol.dispose]();
    expect(heard).toEqual(['removal', 'removal']);
    expect(transport.removed().message).toContain('is closed');
    expect(transport.isGone()).toBe(true);
    expect(lines.fire(1)).toBe(false);
    lines.remove();
    expect(heard).toHaveLength(2);
    await Promise.resolve();
    device.assertObeyed();
  });
});

describe('INTx', () => {
  it('is enabled, read and de-asserted by the ISR status [4.1.5.5]', async () => {
    const { send, heard, pci, device } = listen(interrupting(0));
    expect(pci.intxDisabled).toBe(false);
    pci.bar(4).accesses.length = 0;
    await send(0);
    expect(heard).toEqual(['queue 0', 'queue 1']);
    expect(pci.intxAsserted).toBe(false);
    expect(
      pci
        .bar(4)
        .trace()
        .filter((line) => line.includes('isr')),
    ).toEqual(['read8 isr = 0x1']);
    device.changeConfig(() => undefined);
    await Promise.resolve();
    await Promise.resolve();
    expect(heard.slice(2)).toEqual(['config']);
    device.assertObeyed();
  });

  it('serves a queue and the configuration in one interrupt [4.1.5.4.2]', async () => {
    const fixed = listen(interrupting(0));
    fixed.device.changeConfig(() => undefined);
    await fixed.send(1);
    expect(fixed.heard).toEqual(['queue 0', 'queue 1', 'config']);
  });

  it("is another device's if the status is 0", () => {
    const { lines, heard } = listen(interrupting(0));
    expect(lines.fire(0)).toBe(false);
    expect(heard).toEqual([]);
  });

  it('is taken for removal if the device is gone', () => {
    const { lines, heard, device } = listen(interrupting(0));
    device.remove();
    expect(lines.fire(0)).toBe(false);
    expect(heard).toEqual(['removal']);
  });

  it('maps no vectors', () => {
    const fixed = interrupting(0);
    fixed.pci.bar(4).accesses.length = 0;
    listen(fixed);
    expect(
      fixed.pci
        .bar(4)
        .trace()
        .filter((line) => line.includes('vector')),
    ).toEqual([]);
  });
});

describe('no interrupts', () => {
  it('leave INTx disabled, and the ISR status to who polls', () => {
    const { transport, pci, device, hal } = fixture();
    const queue = createQueue(transport, hal, negotiate(transport), { index: 0, size: 8 });
    transport.finishInit();
    queue.enableInterrupts();
    BufferChains.of(queue).addNotifyWaitPop([encode('x')], [new Uint8Array(1)]);
    expect(transport.interrupts).toBeUndefined();
    expect(pci.intxAsserted).toBe(false);
    expect(transport.ackInterrupt().bits).toBe(1);
    expect(transport.ackInterrupt().bits).toBe(0);
    device.assertObeyed();
  });

  it('leave room for any other source, such as polling', () => {
    const interrupts = new PollingInterrupts({ schedule: () => undefined });
    const { transport, pci } = fixture({ transport: { interrupts } });
    expect(transport.interrupts).toBe(interrupts);
    expect(pci.intxDisabled).toBe(true);
    transport.beginInit({ table: CommonFeatures, supported: [] });
    transport.finishInit();
    transport[Symbol.dispose]();
  });
});
