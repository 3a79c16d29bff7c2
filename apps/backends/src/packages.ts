/** Which program each suite runs against, and the Debian package that has it. */
import type { HostProgram } from '@virtio/qemu-harness/setup';

/** The back ends. A suite that needs another one adds a line. */
export const BACKENDS: readonly HostProgram[] = [
  { program: 'qemu-storage-daemon', package: 'qemu-utils' },
  { program: 'qemu-img', package: 'qemu-utils' },
];
