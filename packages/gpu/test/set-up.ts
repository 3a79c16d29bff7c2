/** A driver with the model of a GPU behind it. */
import { CommonFeatures } from '@virtio/core';
import { FakeTransport, type FakeTransportOptions } from '@virtio/testing';
import { VirtioGpu, type GpuOptions } from '../src/index.ts';
import { EDID, GpuDevice, type GpuDeviceOptions } from './gpu-device.ts';

/** What most devices have. */
export const usual: bigint = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits | EDID;

export interface Rig extends Disposable {
  readonly host: GpuDevice;
  readonly transport: FakeTransport;
  readonly gpu: VirtioGpu;
}

export function setUp(options: GpuDeviceOptions & FakeTransportOptions = {}, driver: GpuOptions = {}): Rig {
  const { interrupts, ...device } = options;
  const host = new GpuDevice({ features: usual, ...device });
  const transport = new FakeTransport(host.device, interrupts === undefined ? {} : { interrupts });
  const gpu = new VirtioGpu(transport, host.device.hal, driver);
  return {
    ...{ host, transport, gpu },
    /** Checks that all memory was given back and no rule broken. */
    [Symbol.dispose]() {
      gpu[Symbol.dispose]();
      host.device.assertClean();
    },
  };
}

/** The error that a call rejects with, or throws. */
export async function failure(attempt: () => unknown): Promise<unknown> {
  try {
    await attempt();
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}

/** Lets everything go on that is ready to. */
export async function settle(turns = 20): Promise<void> {
  for (let i = 0; i < turns; i += 1) await Promise.resolve();
}

/** A picture whose pixels all differ. */
export function picture(width: number, height: number, seed = 0): Uint8Array {
  const data = new Uint8Array(width * height * 4);
  for (let i = 0; i < width * height; i += 1) {
    data.set([i & 255, (i >> 8) & 255, (seed + (i >> 16)) & 255, 255 - (i & 127)], 4 * i);
  }
  return data;
}
