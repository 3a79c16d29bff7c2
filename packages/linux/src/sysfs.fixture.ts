/** For tests: a folder that looks like the root of a machine. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** A PCI function of a {@link FakeMachine}. */
export interface PciFixture {
  readonly device: string;
  readonly driver?: string;
  readonly group?: number;
  readonly vendor?: string;
  readonly subsystem?: string;
}

/** A temporary folder with parts of sysfs and procfs. */
export class FakeMachine implements Disposable {
  readonly root = mkdtempSync(join(tmpdir(), 'virtio-linux-'));

  /** Writes files; a value `-> target` makes a symbolic link. */
  tree(files: Readonly<Record<string, string | Uint8Array>>): void {
    for (const [path, contents] of Object.entries(files)) {
      const full = join(this.root, path);
      mkdirSync(dirname(full), { recursive: true });
      if (typeof contents === 'string' && contents.startsWith('-> ')) symlinkSync(contents.slice(3), full);
      else writeFileSync(full, contents);
    }
  }

  /** Adds a PCI function. */
  pci(address: string, { device, driver, group, vendor = '0x1af4', subsystem = '0x1100' }: PciFixture): void {
    const path = `sys/bus/pci/devices/${address}`;
    this.tree({
      'sys/bus/pci/drivers_probe': '',
      [`${path}/vendor`]: `${vendor}\n`,
      [`${path}/device`]: `${device}\n`,
      [`${path}/subsystem_device`]: `${subsystem}\n`,
      [`${path}/driver_override`]: '(null)\n',
      [`${path}/config`]: '',
      ...(driver !== undefined && {
        [`sys/bus/pci/drivers/${driver}/unbind`]: '',
        [`${path}/driver`]: `-> ../../../../bus/pci/drivers/${driver}`,
      }),
      ...(group !== undefined && {
        [`${path}/iommu_group`]: `-> ../../../../kernel/iommu_groups/${group}`,
        [`sys/kernel/iommu_groups/${group}/devices/${address}`]: `-> ../../../../devices/${address}`,
      }),
    });
  }

  /** Removes a file, a link or a folder. */
  remove(path: string): void {
    rmSync(join(this.root, path), { recursive: true });
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}
