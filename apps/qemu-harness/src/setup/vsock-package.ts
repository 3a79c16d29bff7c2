/**
 * The socket device of the tests: `vhost-device-vsock` of the rust-vmm project. Debian has it in `unstable` only, but the
 * program in the package runs on Debian 12.
 */
import { ensureUnpacked } from './unpacked-program.ts';

/**
 * Downloads and unpacks the device if it is not in the cache.
 *
 * @returns the path of the program
 */
export async function ensureVsockDevice(report: (line: string) => void): Promise<string> {
  const device = { package: 'vhost-device-vsock', path: 'usr/bin/vhost-device-vsock', suite: 'unstable' };
  const [program = ''] = await ensureUnpacked(device, report);
  return program;
}
