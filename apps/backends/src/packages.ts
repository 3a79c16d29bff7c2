/** Which program each suite runs against, and the Debian package that has it. */
import type { HostProgram } from '@virtio/qemu-harness/setup';
import type { UnpackedProgram } from '@virtio/qemu-harness/unpacked';
import { UNPACKED as PROGRAMS } from '@virtio/qemu-harness/unpacked-programs';

/** The back ends. A suite that needs another one adds a line. */
export const BACKENDS: readonly HostProgram[] = [
  { program: 'qemu-storage-daemon', package: 'qemu-utils' },
  { program: 'qemu-img', package: 'qemu-utils' },
];

/** DPDK's libraries that testpmd is linked with or needs as plug-ins, without `librte-` and the number behind. */
const DPDK =
  'bitratestats bpf bus-auxiliary bus-dpaa bus-pci bus-vdev cmdline common-dpaax common-iavf ' +
  'common-mlx5- crypto-scheduler cryptodev dmadev eal ethdev eventdev gro gso hash ip-frag kvargs latencystats ' +
  'log mbuf mempool-dpaa mempool-ring mempool meter metrics net-bnxt net-bond net-dpaa net-i40e ' +
  'net-iavf net-ice net-ixgbe net-mlx5- net-vhost net-virtio net pcapng pci pdump rcu reorder ring sched ' +
  'security telemetry timer vhost';

/** And those of others that they need. */
const UNDER_DPDK =
  'ibverbs-providers libbsd0 libc6 libcap2 libdbus-1-3 libelf1t64 libfdt1 libibverbs1 libjansson4 ' +
  'libmd0 libnl-3-200 libnl-route-3-200 libnuma1 libpcap0.8t64 libsystemd0 libzstd1 zlib1g';

/** Back ends that this release of Debian does not have: unpacked into the cache, and run with the libraries of their own suite. */
export const UNPACKED = {
  virtiofsd: PROGRAMS.virtiofsd,
  passt: { package: 'passt', path: 'usr/bin/passt', suite: 'trixie', libraries: ['libc6'] },
  vsock: PROGRAMS['vhost-device-vsock'],
  gpu: {
    package: 'qemu-system-gui',
    path: 'usr/lib/qemu/vhost-user-gpu',
    suite: 'trixie',
    libraries: (
      'libatomic1 libc6 libdrm2 libepoxy0 libexpat1 libgbm1 libglib2.0-0t64 libnuma1 libpcre2-8-0 libpixman-1-0 libva-drm2 libva2 ' +
      'libvirglrenderer1 libvulkan1 libx11-6 libxau6 libxcb1 libxdmcp6'
    ).split(' '),
  },
  testpmd: {
    package: 'dpdk-dev',
    path: 'usr/bin/dpdk-testpmd',
    suite: 'trixie',
    libraries: [...DPDK.split(' ').map((name) => `librte-${name}25`), ...UNDER_DPDK.split(' ')],
    // testpmd refuses to load plug-ins from folders into which everybody can write, those above them included.
    preload: ['librte_net_vhost.so.25', 'librte_net_virtio.so.25', 'librte_mempool_ring.so.25'],
  },
} as const satisfies Readonly<Record<string, UnpackedProgram>>;
