/** Runs once before the suites: installs the back ends' packages where they are missing. */
import { ensurePrograms } from '@virtio/qemu-harness/setup';
import { BACKENDS } from './packages.ts';

export default async function setup(): Promise<void> {
  await ensurePrograms(BACKENDS, (line) => console.log(line));
}
