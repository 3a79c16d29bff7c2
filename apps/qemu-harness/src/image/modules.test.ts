import { describe, expect, it } from 'vitest';
import { moduleName, parseModulesDep, selectModules } from './modules.ts';

const DEP = `kernel/drivers/vfio/vfio.ko:
kernel/drivers/vfio/pci/vfio-pci-core.ko.xz: kernel/virt/lib/irqbypass.ko.xz kernel/drivers/vfio/vfio.ko
kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/pci/vfio-pci-core.ko.xz kernel/virt/lib/irqbypass.ko.xz kernel/drivers/vfio/vfio.ko
kernel/virt/lib/irqbypass.ko.xz:
kernel/drivers/net/tun.ko:
`;

describe('selectModules', () => {
  it('takes the wanted modules with all they need, each once', () => {
    expect(selectModules(parseModulesDep(DEP), ['vfio_pci', 'vfio'])).toEqual([
      'kernel/drivers/vfio/pci/vfio-pci.ko.xz',
      'kernel/drivers/vfio/pci/vfio-pci-core.ko.xz',
      'kernel/virt/lib/irqbypass.ko.xz',
      'kernel/drivers/vfio/vfio.ko',
    ]);
  });

  it('leaves out what the kernel has built in', () => {
    expect(selectModules(parseModulesDep(DEP), ['virtio_ring'])).toEqual([]);
  });
});

describe('moduleName', () => {
  it('is the same for a path, a compressed file and either spelling', () => {
    expect(['kernel/a/vfio-pci.ko.xz', 'vfio-pci.ko', 'vfio_pci'].map(moduleName)).toEqual(
      Array(3).fill('vfio_pci'),
    );
  });
});
