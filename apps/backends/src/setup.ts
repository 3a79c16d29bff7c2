/** Runs once before the suites: installs the back ends' packages where they are missing. */
import { ensurePrograms } from '@virtio/qemu-harness/setup';
import { ensureUnpacked } from '@virtio/qemu-harness/unpacked';
import { BACKENDS, UNPACKED } from './packages.ts';

export default async function setup(): Promise<void> {
  const report = (line: string): void => console.log(line);
  await ensurePrograms(BACKENDS, report);
  for (const program of Object.values(UNPACKED)) await ensureUnpacked(program, report);
}
