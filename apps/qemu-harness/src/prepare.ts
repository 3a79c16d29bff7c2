/** Everything that must be there before a guest can boot. Nothing is run and no network is used where it already is. */
import type { Architecture } from './architecture.ts';
import { ensureImage, type GuestImage } from './image/image.ts';
import { ensureQemu } from './setup/qemu-packages.ts';

/** Installs QEMU and builds the guest's image as far as they are missing. */
export async function prepare(
  report: (line: string) => void,
  arch: Architecture = 'x86_64',
): Promise<GuestImage> {
  await ensureQemu(report, arch);
  return ensureImage(report, arch);
}
