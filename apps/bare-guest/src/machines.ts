/** The machines that a bare guest runs on, and what each needs to be built and started. */

/** Architectures by the names of their processors. */
export const ARCHITECTURES = ['riscv64', 'aarch64', 'x86_64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

/** How the devices are reached. */
export const TRANSPORTS = ['mmio-v2', 'mmio-v1', 'pci'] as const;
export type BareTransport = (typeof TRANSPORTS)[number];

/** What an image of an architecture is made with and of. */
export interface Target {
  /** Debian's name for the architecture, and GNU's. */
  readonly debian: string;
  readonly gnu: string;
  readonly cflags: readonly string[];
  /** Where the image is loaded, and where RAM begins. */
  readonly load: number;
  readonly ram: number;
}

export const TARGETS: Readonly<Record<Architecture, Target>> = {
  riscv64: {
    debian: 'riscv64',
    gnu: 'riscv64-linux',
    cflags: ['-march=rv64gc', '-mabi=lp64d', '-mcmodel=medany', '-mno-relax'],
    load: 0x8000_0000,
    ram: 0x8000_0000,
  },
  // QEMU puts the device tree at the start of RAM.
  aarch64: {
    debian: 'arm64',
    gnu: 'aarch64-linux',
    cflags: ['-mcpu=cortex-a57'],
    load: 0x4020_0000,
    ram: 0x4000_0000,
  },
  x86_64: {
    debian: 'amd64',
    gnu: 'x86_64-linux',
    cflags: ['-mno-red-zone', '-mcmodel=small'],
    load: 0x20_0000,
    ram: 0,
  },
};

/** Where the script is, from the start of RAM; as in native/machine.h. */
export const SCRIPT_OFFSET = 0x400_0000;
export const MEMORY_MIB = 128;

/** A machine of QEMU's. */
export interface BareMachine {
  readonly arch: Architecture;
  readonly transport: BareTransport;
  /** Its name for people: `virt`. */
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  /** How many devices it has room for. */
  readonly slots: number;
  /** Where window `slot` of the MMIO devices is. */
  readonly window: (slot: number) => { readonly address: number; readonly size: number };
}

const legacy = (transport: BareTransport): string[] => [
  '-global',
  `virtio-mmio.force-legacy=${transport === 'mmio-v1' ? 'on' : 'off'}`,
];

/** The machine of an architecture that has this transport. */
export function machineFor(arch: Architecture, transport: BareTransport): BareMachine {
  const pci = transport === 'pci';
  const mmio = (base: number, size: number): BareMachine['window'] => {
    return (slot) => ({ address: base + slot * size, size });
  };
  switch (arch) {
    case 'riscv64':
      return {
        ...{ arch, transport, name: 'virt', program: 'qemu-system-riscv64' },
        args: ['-machine', 'virt', '-bios', 'none', ...legacy(transport)],
        slots: pci ? 30 : 8,
        window: mmio(0x1000_1000, 0x1000),
      };
    case 'aarch64':
      return {
        ...{ arch, transport, name: 'virt', program: 'qemu-system-aarch64' },
        args: ['-machine', 'virt,highmem=off,gic-version=2', '-cpu', 'cortex-a57', ...legacy(transport)],
        slots: pci ? 30 : 32,
        window: mmio(0x0a00_0000, 0x200),
      };
    case 'x86_64':
      return {
        ...{ arch, transport, name: pci ? 'q35' : 'microvm', program: 'qemu-system-x86_64' },
        args: pci
          ? ['-machine', 'q35', '-cpu', 'max']
          : ['-machine', 'microvm,acpi=off,rtc=on,pit=on,isa-serial=on', '-cpu', 'max', ...legacy(transport)],
        slots: pci ? 30 : 8,
        window: mmio(0xfeb0_0000, 0x200),
      };
  }
}
