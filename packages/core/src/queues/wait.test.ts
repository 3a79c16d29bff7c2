import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { abortable } from './wait.ts';
import { DeviceType } from '../device/device-type.ts';

const transport = new FakeTransport(new FakeDevice({ type: DeviceType.Input, queues: [] }));

describe('a promise with a way out', () => {
  it('settles as the promise does, and leaves no listener behind', async () => {
    const listeners = new Set<() => void>();
    const signal = {
      aborted: false,
      addEventListener: (_type: 'abort', listener: () => void) => void listeners.add(listener),
      removeEventListener: (_type: 'abort', listener: () => void) => void listeners.delete(listener),
    };
    expect(await abortable(transport, Promise.resolve(1), { signal })).toBe(1);
    await expect(abortable(transport, Promise.reject(new Error('no')), { signal })).rejects.toThrow('no');
    expect(await abortable(transport, Promise.resolve(2))).toBe(2);
    expect(listeners.size).toBe(0);
  });

  it('rejects when the signal says so, whatever becomes of the promise', async () => {
    const { promise, reject } = Promise.withResolvers<undefined>();
    const controller = new AbortController();
    const waiting = abortable(transport, promise, { signal: controller.signal });
    controller.abort('enough');
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' });
    const late = abortable(transport, promise, { signal: controller.signal });
    reject(new Error('nobody is left to hear this'));
    await expect(late).rejects.toMatchObject({ code: 'ABORTED' });
  });
});
