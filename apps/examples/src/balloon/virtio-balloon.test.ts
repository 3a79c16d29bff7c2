import { CommonFeatures, DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { BalloonConfig, BalloonFeatures, DEFLATE, INFLATE } from './protocol.ts';
import { VirtioBalloon } from './virtio-balloon.ts';

/** A device that knows which pages it has. */
function setUp() {
  const features = BalloonFeatures.set('MUST_TELL_HOST').bits | CommonFeatures.set('EVENT_IDX').bits;
  const config = BalloonConfig.size;
  const device = new FakeDevice({ type: DeviceType.MemoryBallooning, queues: [16, 16], features, config });
  const pages = new Set<number>();
  const numbers = (bytes: Uint8Array<ArrayBuffer>) => new Uint32Array(bytes.buffer, 0, bytes.length / 4);
  device.handle(INFLATE, (chain) => {
    for (const page of numbers(chain.read())) pages.add(page);
  });
  device.handle(DEFLATE, (chain) => {
    for (const page of numbers(chain.read())) pages.delete(page);
  });
  const balloon = new VirtioBalloon(new FakeTransport(device), device.hal);
  const actual = () => new DataView(device.config.buffer).getUint32(BalloonConfig.offset.actual, true);
  return { device, pages, balloon, actual };
}

describe('VirtioBalloon', () => {
  it('gives pages and takes them back', () => {
    const { device, pages, balloon, actual } = setUp();
    balloon.resizeSync(600);
    expect([pages.size, balloon.actual, actual()]).toEqual([600, 600, 600]);
    balloon.resizeSync(10);
    expect([pages.size, balloon.actual, actual()]).toEqual([10, 10, 10]);
    balloon[Symbol.dispose]();
    device.assertClean();
  });

  it('tells when the device would like another size', async () => {
    const { device, balloon } = setUp();
    const targets: number[] = [];
    balloon.on('target', (pages) => targets.push(pages));
    device.changeConfig((config) => config.setUint32(BalloonConfig.offset.numPages, 77, true));
    await expect.poll(() => targets).toEqual([77]);
    expect(balloon.target).toBe(77);
    balloon[Symbol.dispose]();
    device.assertClean();
  });

  it('keeps pages from use that a device took without an answer', () => {
    const { device, balloon } = setUp();
    device.handle(INFLATE, (chain) => chain.defer());
    expect(() => balloon.resizeSync(3, { timeoutMs: 1 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }),
    );
    expect(balloon.actual).toBe(0);
    balloon[Symbol.dispose]();
  });

  it('survives a reset, and a sloppy device', () => {
    const { device, pages, balloon } = setUp();
    balloon.resizeSync(5);
    pages.clear();
    balloon.reset();
    expect(balloon.actual).toBe(0);
    // It claims to have written to a buffer that it may only read: sloppy, and nothing is at risk.
    device.handle(INFLATE, (chain) => void chain.complete(1 << 30));
    balloon.resizeSync(1);
    expect([balloon.actual, balloon.quirks]).toEqual([1, 1]);
    balloon[Symbol.dispose]();
    device.assertObeyed();
  });
});
