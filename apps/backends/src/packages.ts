/** Which program each suite runs against, and the Debian package that has it. */
import type { HostProgram } from '@virtio/qemu-harness/setup';
import type { UnpackedProgram } from '@virtio/qemu-harness/unpacked';

/** The back ends. A suite that needs another one adds a line. */
export const BACKENDS: readonly HostProgram[] = [
  { program: 'qemu-storage-daemon', package: 'qemu-utils' },
  { program: 'qemu-img', package: 'qemu-utils' },
];

/** Back ends that this release of Debian does not have: unpacked into the cache, and run with the libraries of their own suite. */
export const UNPACKED = {
  virtiofsd: {
    package: 'virtiofsd',
    path: 'usr/libexec/virtiofsd',
    suite: 'trixie',
    libraries: ['libc6', 'libgcc-s1', 'libcap-ng0', 'libseccomp2'],
  },
  passt: { package: 'passt', path: 'usr/bin/passt', suite: 'trixie', libraries: ['libc6'] },
  vsock: { package: 'vhost-device-vsock', path: 'usr/bin/vhost-device-vsock', suite: 'unstable' },
} as const satisfies Readonly<Record<string, UnpackedProgram>>;
