/**
 * What a flush costs the driver, and what it costs to bring a picture of 1920 by 1080 pixels into a framebuffer. The share of the
 * device, which only moves ids and writes two headers, is in the figures.
 */
import { measureAll, printMeasurements, type Row } from '@virtio/checks/measure';
import { CommonFeatures, type FeatureName } from '@virtio/core';
import { FakeTransport } from '@virtio/testing';
import { type Framebuffer, VirtioGpu } from '../src/index.ts';
import { GpuDevice } from '../test/gpu-device.ts';

const FLUSHES = 10_000;
const RECT = { x: 100, y: 100, width: 64, height: 64 };
const [WIDTH, HEIGHT] = [1920, 1080];

/** The driver's memory for a command and its answer. */
const SLOT = 1216;
const ANSWER = 128;

function make(names: readonly FeatureName[]) {
  const host = new GpuDevice({ features: CommonFeatures.set(...names).bits });
  const gpu = new VirtioGpu(new FakeTransport(host.device), host.device.hal);
  const screen = gpu.setUpFramebufferSync({ width: 256, height: 256 });
  host.device.automatic = false;
  host.device.recordNotifications = false;
  const ring = host.device.queue(0);
  ring.suppressNotifications();
  const memory = host.device.hal.regions.find(({ pages }) => pages * 4096 >= 64 * SLOT);
  if (memory === undefined) throw new Error('the memory of the commands was not found');
  const view = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, memory.bytes.length);
  /** Answers the commands in the first two slots, which are the ones that are free. */
  const answer = (): void => {
    for (let at = 0; at < 2 * SLOT; at += SLOT) {
      view.setUint32(at + ANSWER, 0x1100, true);
      view.setUint32(at + ANSWER + 4, 1, true);
      view.setUint32(at + ANSWER + 8, view.getUint32(at + 8, true), true);
      view.setUint32(at + ANSWER + 12, view.getUint32(at + 12, true), true);
    }
    ring.drain(24);
  };
  return { gpu, screen, answer };
}

function flushes(names: readonly FeatureName[]): () => void {
  const { gpu, screen, answer } = make(names);
  const later = { kick: false };
  return () => {
    for (let n = 0; n < FLUSHES; n += 1) {
      const transfer = screen.submitTransfer(RECT, later);
      const flush = screen.submitResourceFlush(RECT);
      answer();
      gpu.complete(transfer);
      gpu.complete(flush);
    }
  };
}

const rows: Row[] = [
  ['split', FLUSHES, flushes(['EVENT_IDX', 'INDIRECT_DESC'])],
  ['packed', FLUSHES, flushes(['EVENT_IDX', 'INDIRECT_DESC', 'RING_PACKED'])],
];
printMeasurements('a flush: transfer, flush, both completed', await measureAll(rows));

/** A framebuffer on a device that answers nothing but what it takes to make one. */
function large(maxPiece?: number): Framebuffer {
  const host = new GpuDevice();
  const gpu = new VirtioGpu(new FakeTransport(host.device), host.device.hal);
  return gpu.createFramebufferSync({
    width: WIDTH,
    height: HEIGHT,
    ...(maxPiece === undefined ? {} : { maxPiece }),
  });
}

const screen = large();
const image = { width: WIDTH, height: HEIGHT, data: new Uint8Array(WIDTH * HEIGHT * 4).fill(77) };
const pictures: Row[] = [
  ['copying the bytes, which is the limit', 1, () => screen.bytes.set(image.data)],
  ['drawImage', 1, () => screen.drawImage(image)],
  ['fill with one colour', 1, () => screen.pixels.fill(0x00336699)],
];
printMeasurements(`a picture of ${WIDTH} by ${HEIGHT}`, await measureAll(pictures));
