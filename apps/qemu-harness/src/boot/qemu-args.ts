/** Builds QEMU's command line for each kind of guest. */
import type { Architecture } from '../architecture.ts';
import type { GuestImage } from '../image/image.ts';
import { hostTscKhz } from './host-tsc.ts';

/** The board of the guest; `virt` is that of all architectures but x86-64. */
export type Machine = 'q35' | 'microvm' | 'virt';

/** How the driver reaches the device. */
export type TransportKind =
  /** PCI behind a virtual IOMMU, through VFIO. */
  | 'pci-vfio'
  /** PCI without an IOMMU: physical addresses. */
  | 'pci-physical'
  /** MMIO, version 1 (legacy). */
  | 'mmio-v1'
  /** MMIO, version 2. */
  | 'mmio-v2';

/** Who executes the guest's instructions. */
export type Accelerator = 'tcg' | 'kvm';

/** The transports of each machine of x86-64, the default one first. */
export const TRANSPORTS = {
  q35: ['pci-vfio', 'pci-physical'],
  microvm: ['mmio-v2', 'mmio-v1'],
} as const satisfies Partial<Record<Machine, readonly TransportKind[]>>;

/** All that decides a guest's command line. */
export interface GuestConfig {
  readonly arch: Architecture;
  readonly machine: Machine;
  readonly transport: TransportKind;
  readonly accelerator: Accelerator;
  readonly memoryMiB: number;
  /** Huge pages of 2 MiB that the guest reserves at boot. */
  readonly hugePages: number;
  readonly cpus: number;
  /**
   * How fast the guest's time-stamp counter runs, in kHz, if that is known. microvm has nothing else to measure time by at boot,
   * and a kernel that fails to measure the counter on a busy host waits forever.
   */
  readonly tscKhz: number | undefined;
  /** Show all kernel messages. */
  readonly verbose: boolean;
  /** Programs of the host reach the guest's memory: devices that are processes of their own (vhost-user). */
  readonly sharedMemory: boolean;
  /** Let Linux' own drivers of virtio have the devices once their modules are loaded, to be measured beside ours. */
  readonly kernelDrivers?: boolean;
  /** Arguments for the devices of this guest. */
  readonly devices: readonly string[];
  /** Variables of QEMU's environment, for back ends that are told by them. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** The sockets on which the harness listens; QEMU connects to them. */
export interface GuestSockets {
  readonly channel: string;
  readonly qmp: string;
}

/** Memory and processors that suit every suite so far. */
export const DEFAULT_CONFIG = {
  arch: 'x86_64',
  tscKhz: hostTscKhz(),
  memoryMiB: 1280,
  hugePages: 192,
  cpus: 2,
  verbose: false,
  sharedMemory: false,
  devices: [],
} as const;

/** The PCI devices that also show a legacy interface, unless told not to. */
const TRANSITIONAL = ['blk', 'net', 'serial', 'rng', '9p', 'scsi', 'balloon', 'input-host']
  .map((name) => `virtio-${name}-pci`)
  .concat(['vhost-vsock-pci', 'vhost-user-blk-pci', 'vhost-user-vsock-pci']);

/** What runs a guest of an architecture. */
export function qemuProgram(arch: Architecture): string {
  return `qemu-system-${arch}`;
}

/**
 * The processor under software emulation. Those of the `virt` boards have what Node.js makes use of (atomic instructions on aarch64) and
 * nothing that costs time here: pointer authentication, page tables of more levels. koffi's native part for riscv64 needs the profile RVA23.
 */
const CPUS: Readonly<Record<Architecture, string>> = {
  x86_64: 'max',
  aarch64: 'neoverse-n1',
  riscv64: 'rva23s64',
};

/** The serial ports as the kernel names them: the console's, and that of the channel to the host. */
const SERIAL: Readonly<Record<Architecture, readonly [console: string, channel: string]>> = {
  x86_64: ['ttyS0', 'ttyS1'],
  aarch64: ['ttyAMA0', 'ttyAMA1'],
  riscv64: ['ttyS0', 'ttyS1'],
};

/** The arguments of {@link qemuProgram}. The console is on its standard output. */
export function qemuArguments(
  config: GuestConfig,
  image: GuestImage,
  initramfs: string,
  sockets: GuestSockets,
): string[] {
  const chardev = (id: string, path: string): string[] => [
    '-chardev',
    `socket,id=${id},path=${escape(path)}`,
  ];
  return [
    ...['-nodefaults', '-no-user-config', '-no-reboot'],
    ...['-display', 'none'],
    ...machineArguments(config),
    ...(config.accelerator === 'kvm'
      ? ['-accel', 'kvm', '-cpu', 'host']
      : ['-accel', 'tcg,thread=multi', '-cpu', CPUS[config.arch]]),
    ...['-smp', String(config.cpus), '-m', `${config.memoryMiB}M`],
    ...(config.sharedMemory
      ? [
          ...['-object', `memory-backend-memfd,id=memory,size=${config.memoryMiB}M,share=on`],
          ...['-machine', 'memory-backend=memory'],
        ]
      : []),
    ...['-kernel', image.kernel, '-initrd', initramfs, '-append', kernelCommandLine(config)],
    ...['-chardev', 'stdio,id=console,signal=off,mux=off', '-serial', 'chardev:console'],
    ...chardev('channel', sockets.channel),
    ...channelArguments(config),
    ...chardev('qmp', sockets.qmp),
    ...['-mon', 'chardev=qmp,mode=control'],
    ...config.devices,
  ];
}

/** The second serial port: microvm and riscv64's `virt` have but one of their own. */
function channelArguments({ arch, machine }: GuestConfig): string[] {
  if (machine === 'microvm') return ['-device', 'isa-serial,chardev=channel,iobase=0x2f8,irq=3'];
  // On PCI behind all slots that tests get.
  if (arch === 'riscv64') return ['-device', 'pci-serial,chardev=channel,bus=pcie.0,addr=0x1f'];
  return ['-serial', 'chardev:channel'];
}

function machineArguments(config: GuestConfig): string[] {
  const { arch, machine, transport } = config;
  if (machine === 'microvm') {
    return ['-machine', 'microvm,isa-serial=on,pic=on,pit=on,rtc=on', ...mmioVersion(config)];
  }
  const modern = TRANSITIONAL.flatMap((name) => ['-global', `${name}.disable-legacy=on`]);
  // Every virtio device goes through the IOMMU, those that a user adds too.
  const behindIommu = [...modern, '-global', 'virtio-device.iommu_platform=on'];
  if (machine === 'q35') {
    if (transport === 'pci-physical') return ['-machine', 'q35', ...modern];
    return [
      ...['-machine', 'q35,kernel-irqchip=split', '-device', 'intel-iommu,intremap=on'],
      ...behindIommu,
    ];
  }
  // Only with the third version of its interrupt controller does ARM keep messages of one device from being taken for another's, without
  // which VFIO gives no device away.
  const board = arch === 'aarch64' ? 'virt,gic-version=3' : 'virt';
  if (transport === 'mmio-v1' || transport === 'mmio-v2') return ['-machine', board, ...mmioVersion(config)];
  if (transport === 'pci-physical') return ['-machine', board, ...modern];
  return ['-machine', `${board},iommu=smmuv3`, ...behindIommu];
}

function mmioVersion({ transport }: GuestConfig): string[] {
  return ['-global', `virtio-mmio.force-legacy=${transport === 'mmio-v1' ? 'on' : 'off'}`];
}

/**
 * The kernel's arguments. A panic reboots at once, which ends QEMU (`-no-reboot`). The drivers of virtio are kept from
 * the devices even in kernels that have them built in.
 */
function kernelCommandLine({
  arch,
  accelerator,
  transport,
  hugePages,
  tscKhz,
  verbose,
  kernelDrivers = false,
}: GuestConfig): string {
  const [console, channel] = SERIAL[arch];
  const words = [`console=${console}`, 'panic=-1', 'oops=panic', verbose ? 'loglevel=7' : 'loglevel=4'];
  // A guest that lives for a minute and runs our own programs only needs no defences, and boots in two thirds of the time without.
  words.push(
    'mitigations=off',
    'init_on_alloc=0',
    'nokaslr',
    'cryptomgr.notests',
    'rcupdate.rcu_expedited=1',
  );
  // On a busy host the timer may be late for the kernel's check of it, which then panics.
  if (arch === 'x86_64') words.push('no_timer_check');
  if (transport === 'pci-vfio') {
    words.push(...(arch === 'x86_64' ? ['intel_iommu=on', 'iommu=pt'] : ['iommu.passthrough=1']));
  }
  if (arch === 'x86_64' && accelerator === 'tcg' && tscKhz !== undefined) {
    // Both processors see the host's counter, whatever the kernel finds when it compares them on a busy host. Any other clock
    // would be a register of a device, which is slow to read here.
    words.push(`tsc_early_khz=${tscKhz}`, 'tsc=reliable');
  }
  // A timer that is set anew each time stays silent for good if once it is lost, and its processor with it; QEMU repeats a periodic one.
  if (accelerator === 'tcg') words.push('nohz=off', 'highres=off');
  if (!kernelDrivers) words.push('initcall_blacklist=virtio_pci_driver_init,virtio_mmio_init');
  words.push('random.trust_cpu=on', 'audit=0');
  words.push(`guest_hugepages=${hugePages}`, `guest_channel=/dev/${channel}`);
  return words.join(' ');
}

/** In values of QEMU's options a comma is doubled. */
export function escape(value: string): string {
  return value.replaceAll(',', ',,');
}
