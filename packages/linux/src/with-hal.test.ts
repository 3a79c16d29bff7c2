import { DeviceType, type RegisterWindow, type Transport, VirtioError } from '@virtio/core';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { type AnonymousSource, anonymousSource } from './anonymous-source.fixture.ts';
import { LinuxHal } from './hal.ts';
import { SystemCallError } from './system-error.ts';
import { withHal } from './with-hal.ts';

class TestHal extends LinuxHal {
  static of(source: AnonymousSource): TestHal {
    return new TestHal(source);
  }

  mapRegisters(): RegisterWindow {
    throw new Error('no registers');
  }

  protected checkAccess(): void {
    // Any device may have this memory.
  }
}

const isTestHal = (hal: LinuxHal): hal is TestHal => hal instanceof TestHal;

function open(dispose: (transport: Transport) => void) {
  const source = anonymousSource();
  const transport = new FakeTransport(new FakeDevice({ type: DeviceType.Block }));
  const close = transport[Symbol.dispose].bind(transport);
  // As real transports: disposed once, whether that succeeds or not.
  let disposed = false;
  transport[Symbol.dispose] = () => {
    if (disposed) return;
    disposed = true;
    close();
    dispose(transport);
  };
  const device = withHal(
    {},
    isTestHal,
    () => TestHal.of(source),
    () => transport,
  );
  return { source, device };
}

describe('withHal', () => {
  it('closes the device, then its memory, once', () => {
    const { source, device } = open(() => {
      expect(source.disposed).toBe(false);
    });
    device[Symbol.dispose]();
    device[Symbol.dispose]();
    expect(source.disposed).toBe(true);
    expect(process.listenerCount('SIGINT')).toBe(0);
  });

  it('keeps the memory of a device that did not stop, however often it is disposed', () => {
    const { source, device } = open(() => {
      throw new VirtioError('NOT_READY', 'it hangs');
    });
    expect(() => device[Symbol.dispose]()).toThrow('it hangs');
    expect(source.disposed).toBe(false);
    device[Symbol.dispose]();
    expect(source.disposed).toBe(false);
    expect(process.listenerCount('SIGINT')).toBe(0);
  });

  it('has an error of its own for each failure of the system, such as that of a device unplugged meanwhile', () => {
    const cause = new SystemCallError('VFIO_DEVICE_GET_INFO', 19);
    const opening = () =>
      withHal(
        {},
        isTestHal,
        () => TestHal.of(anonymousSource()),
        () => {
          throw cause;
        },
      );
    expect(opening).toThrow(VirtioError);
    expect(opening).toThrow(expect.objectContaining({ code: 'SYSTEM_ERROR', cause }));
  });

  it('closes the memory if the device cannot be opened', () => {
    const source = anonymousSource();
    const opening = () =>
      withHal(
        {},
        isTestHal,
        () => TestHal.of(source),
        () => {
          throw new Error('no device');
        },
      );
    expect(opening).toThrow('no device');
    expect(source.disposed).toBe(true);
  });
});
