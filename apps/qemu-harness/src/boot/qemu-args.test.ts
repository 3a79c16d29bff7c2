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

  it('has the IOMMU and the interrupt controller of aarch64 that VFIO needs', () => {
    const line = build({ arch: 'aarch64', machine: 'virt', transport: 'pci-vfio' });
    expect(line).toContain('-machine virt,gic-version=3,iommu=smmuv3');
    expect(line).toContain('-global virtio-device.iommu_platform=on');
    expect(line).toContain('iommu.passthrough=1');
    expect(line).not.toMatch(/intel_iommu|no_timer_check|tsc/);
    expect(build({ arch: 'aarch64', machine: 'virt', transport: 'pci-physical' })).not.toMatch(/iommu/);
  });

  it('gives each architecture a serial port for the channel, and tells the guest its name', () => {
    const arm = build({ arch: 'aarch64', machine: 'virt', transport: 'mmio-v2' });
    expect(arm).toContain(
      '-serial chardev:console -chardev socket,id=channel,path=/c,,1 -serial chardev:channel',
    );
    expect(arm).toMatch(/console=ttyAMA0 .*guest_channel=\/dev\/ttyAMA1/);
    const riscv = build({ arch: 'riscv64', machine: 'virt', transport: 'mmio-v1' });
    expect(riscv).toContain('-device pci-serial,chardev=channel,bus=pcie.0,addr=0x1f');
    expect(riscv).toMatch(/console=ttyS0 .*guest_channel=\/dev\/ttyS1/);
    expect(riscv).toContain('virtio-mmio.force-legacy=on');
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
