/** Programs that tests run on the host, in versions that its own Debian may not have. */
import type { UnpackedProgram } from './unpacked-program.ts';

export const UNPACKED = {
  /** A socket device. Debian has it in `unstable` only, but the program in the package runs on Debian 12. */
  'vhost-device-vsock': {
    package: 'vhost-device-vsock',
    path: 'usr/bin/vhost-device-vsock',
    suite: 'unstable',
  },
  /** A shared folder. */
  virtiofsd: {
    package: 'virtiofsd',
    path: 'usr/libexec/virtiofsd',
    suite: 'trixie',
    libraries: ['libc6', 'libgcc-s1', 'libcap-ng0', 'libseccomp2'],
  },
  /** Reads captures of network frames. */
  tcpdump: {
    package: 'tcpdump',
    path: 'usr/bin/tcpdump',
    suite: 'trixie',
    libraries: [
      ...['libc6', 'libpcap0.8t64', 'libssl3t64', 'libzstd1', 'zlib1g', 'libdbus-1-3', 'libsystemd0'],
      ...['libcap2', 'libibverbs1', 'libnl-3-200', 'libnl-route-3-200'],
    ],
  },
} as const satisfies Readonly<Record<string, UnpackedProgram>>;
