/** Everything that must be there before a guest can boot. Nothing is run and no network is used where it already is. */
import { ensureImage, type GuestImage } from './image/image.ts';
import { ensureQemu } from './setup/qemu-packages.ts';

/** Installs QEMU and builds the guest's image as far as they are missing. */
export async function prepare(report: (line: string) => void): Promise<GuestImage> {
  await ensureQemu(report);
  return ensureImage(report);
}
