import { describe, expect, it } from 'vitest';
import { DEFAULT_CONFIG, qemuArguments, type GuestConfig } from './qemu-args.ts';

const IMAGE = { key: 'k', kernel: '/k', initramfs: '/i', kernelRelease: '6.1', nodeVersion: 'v24' };
const build = (config: Pick<GuestConfig, 'machine' | 'transport'> & Partial<GuestConfig>): string =>
  qemuArguments({ ...DEFAULT_CONFIG, accelerator: 'tcg', ...config }, IMAGE, '/run', {
    channel: '/c,1',
    qmp: '/q',
  }).join(' ');

describe('qemuArguments', () => {
  it('puts PCI devices behind a virtual IOMMU for VFIO', () => {
    const line = build({ machine: 'q35', transport: 'pci-vfio' });
    expect(line).toContain('-machine q35,kernel-irqchip=split -device intel-iommu,intremap=on');
    expect(line).toContain('-global virtio-device.iommu_platform=on');
    expect(line).toContain('intel_iommu=on iommu=pt');
  });

  it('has no IOMMU where addresses are physical', () => {
    const line = build({ machine: 'q35', transport: 'pci-physical' });
    expect(line).not.toMatch(/iommu/);
    expect(line).toContain('-global virtio-blk-pci.disable-legacy=on');
  });

  it('chooses the version of MMIO devices', () => {
    expect(build({ machine: 'microvm', transport: 'mmio-v1' })).toContain('virtio-mmio.force-legacy=on');
    expect(build({ machine: 'microvm', transport: 'mmio-v2' })).toContain('virtio-mmio.force-legacy=off');
  });

  it('shares the guest’s memory only for devices that are programs of their own', () => {
    const guest = { machine: 'q35', transport: 'pci-physical', memoryMiB: 512 } as const;
    expect(build(guest)).not.toContain('share=on');
    expect(build({ ...guest, sharedMemory: true })).toContain(
      '-object memory-backend-memfd,id=memory,size=512M,share=on -machine memory-backend=memory',
    );
  });

  it('opens no network port, and doubles commas in paths', () => {
    const line = build({ machine: 'q35', transport: 'pci-vfio' });
    expect(line).not.toMatch(/-net\w* |tcp:|host=/);
    expect(line).toContain('path=/c,,1');
  });
});
