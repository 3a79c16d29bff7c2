import { rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DriverBinding, releaseDevice } from './driver-binding.ts';
import { describePciDevice } from './pci-devices.ts';
import { FakeMachine } from './sysfs.fixture.ts';
import { SystemFiles } from './system-files.ts';

let machine: FakeMachine;

beforeEach(() => {
  machine = new FakeMachine();
});
afterEach(() => {
  machine[Symbol.dispose]();
});

/** sysfs with the part of the kernel that acts on what is written. */
class Kernel extends SystemFiles {
  readonly log: string[] = [];
  readonly #address: string;
  readonly #takes: boolean;

  constructor(address: string, takes = true) {
    super(machine.root);
    this.#address = address;
    this.#takes = takes;
  }

  /** Which writes fail, and how. */
  refuse: (write: { path: string; text: string }) => string | undefined = () => undefined;

  override write(path: string, text: string): void {
    const code = this.refuse({ path, text });
    if (code !== undefined) throw Object.assign(new Error('no'), { code });
    this.log.push(`${path} <- ${JSON.stringify(text)}`);
    const driver = join(machine.root, `sys/bus/pci/devices/${this.#address}/driver`);
    if (path.endsWith('/driver/unbind')) rmSync(driver);
    else super.write(path, text);
    const override = this.text(`/sys/bus/pci/devices/${this.#address}/driver_override`) ?? '';
    if (path.endsWith('/drivers_probe') && this.#takes) {
      symlinkSync(
        `../../../../bus/pci/drivers/${['', '(null)'].includes(override) ? 'virtio-pci' : override}`,
        driver,
      );
    }
  }
}

describe('DriverBinding', () => {
  const address = '0000:00:01.0';
  const path = `/sys/bus/pci/devices/${address}`;

  beforeEach(() => {
    machine.tree({ 'sys/bus/pci/drivers_probe': '', 'sys/bus/pci/drivers/vfio-pci/bind': '' });
  });

  const bind = (kernel: Kernel, takeOver = false): DriverBinding =>
    new DriverBinding(kernel, describePciDevice(kernel, address), 'vfio-pci', { takeOver });

  it('binds a device that has no driver, and leaves it without one', () => {
    machine.pci(address, { device: '0x1042' });
    const kernel = new Kernel(address);
    const binding = bind(kernel);
    expect(describePciDevice(kernel, address).driver).toBe('vfio-pci');
    binding[Symbol.dispose]();
    binding[Symbol.dispose]();
    expect(describePciDevice(kernel, address).driver).toBeUndefined();
    expect(kernel.log).toEqual([
      `${path}/driver_override <- "vfio-pci"`,
      `/sys/bus/pci/drivers_probe <- "${address}"`,
      `${path}/driver/unbind <- "${address}"`,
      `${path}/driver_override <- "\\n"`,
    ]);
  });

  it('leaves a device alone that is bound already', () => {
    machine.pci(address, { device: '0x1042', driver: 'vfio-pci' });
    const kernel = new Kernel(address);
    bind(kernel)[Symbol.dispose]();
    expect(kernel.log).toEqual([]);
  });

  it('does not take a device from its driver unless it is told to, and gives it back', () => {
    machine.pci(address, { device: '0x1042', driver: 'virtio-pci' });
    const kernel = new Kernel(address);
    expect(() => bind(kernel)).toThrow(expect.objectContaining({ code: 'DEVICE_BUSY' }));
    expect(kernel.log).toEqual([]);
    const binding = bind(kernel, true);
    expect(describePciDevice(kernel, address).driver).toBe('vfio-pci');
    binding[Symbol.dispose]();
    expect(describePciDevice(kernel, address).driver).toBe('virtio-pci');
  });

  it('says that a module is missing, and which', () => {
    machine.remove('sys/bus/pci/drivers/vfio-pci');
    machine.pci(address, { device: '0x1042' });
    expect(() => bind(new Kernel(address))).toThrow(expect.objectContaining({ code: 'MODULE_MISSING' }));
    expect(() => bind(new Kernel(address))).toThrow('modprobe vfio-pci');
  });

  it('undoes what it did when the driver does not take the device', () => {
    machine.pci(address, { device: '0x1042' });
    const kernel = new Kernel(address, false);
    expect(() => bind(kernel)).toThrow(expect.objectContaining({ code: 'SYSTEM_ERROR' }));
    expect(kernel.text(`${path}/driver_override`)).toBe('');
  });

  it('gives a device back to its driver even if a step on the way back fails', () => {
    machine.pci(address, { device: '0x1042', driver: 'virtio-pci' });
    const kernel = new Kernel(address);
    kernel.refuse = ({ path: file }) => (file.endsWith('/driver_override') ? 'EIO' : undefined);
    expect(() => bind(kernel, true)).toThrow(
      expect.objectContaining({
        code: 'SYSTEM_ERROR',
        message: expect.stringContaining('could not be given back to virtio-pci either') as string,
      }),
    );
    expect(describePciDevice(kernel, address).driver).toBe('virtio-pci');
  });

  it('tries every step at the end, and tells of the first that failed', () => {
    machine.pci(address, { device: '0x1042', driver: 'virtio-pci' });
    const kernel = new Kernel(address);
    const binding = bind(kernel, true);
    kernel.refuse = ({ path: file }) => (file.endsWith('/driver_override') ? 'EIO' : undefined);
    expect(() => binding[Symbol.dispose]()).toThrow('driver_override could not be written (EIO)');
    expect(kernel.log.at(-1)).toBe(`/sys/bus/pci/drivers_probe <- "${address}"`);
  });

  it('does not mind that the device is gone at the end', () => {
    machine.pci(address, { device: '0x1042' });
    const binding = bind(new Kernel(address));
    machine.remove(path);
    expect(() => binding[Symbol.dispose]()).not.toThrow();
  });

  it.each([
    ['EACCES', /\(EACCES\); run as root; or have root bind the device/],
    ['EROFS', /\(EROFS\); sysfs is read-only here, as in most containers, also for root/],
  ])('reports missing rights as such: %s', (code, message) => {
    machine.pci(address, { device: '0x1042' });
    const files = new SystemFiles(machine.root);
    files.write = () => {
      throw Object.assign(new Error('no'), { code });
    };
    expect(
      () => new DriverBinding(files, describePciDevice(files, address), 'vfio-pci', { takeOver: false }),
    ).toThrow(
      expect.objectContaining({
        code: 'PERMISSION_DENIED',
        message: expect.stringMatching(message) as string,
      }),
    );
  });

  it('releases a device and offers it to its driver again', () => {
    machine.pci(address, { device: '0x1042', driver: 'virtio-pci' });
    const kernel = new Kernel(address);
    const device = describePciDevice(kernel, address);
    expect(() => releaseDevice(kernel, device, false)).toThrow(
      expect.objectContaining({ code: 'DEVICE_BUSY' }),
    );
    const released = releaseDevice(kernel, device, true);
    expect(describePciDevice(kernel, address).driver).toBeUndefined();
    machine.tree({ [`${path}/driver_override`]: '' });
    released[Symbol.dispose]();
    expect(describePciDevice(kernel, address).driver).toBe('virtio-pci');
  });
});
