/** Versions of QEMU, as it prints them and as Debian numbers its packages. */

/** `[major, minor]`. */
export type QemuVersion = readonly [number, number];

/** The oldest QEMU with all devices: virtio-sound came with 8.2. */
export const MINIMUM_QEMU: QemuVersion = [8, 2];

/** Takes the version from `qemu-system-x86_64 --version` or from a Debian version (`1:10.0.2+ds-2`). */
export function parseQemuVersion(text: string): QemuVersion | undefined {
  const match = /(?:version |^(?:\d+:)?)(\d+)\.(\d+)/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}

/** Whether `version` is new enough. */
export function isRecent(version: QemuVersion | undefined): boolean {
  if (version === undefined) return false;
  const [major, minor] = version;
  return major > MINIMUM_QEMU[0] || (major === MINIMUM_QEMU[0] && minor >= MINIMUM_QEMU[1]);
}
