/** The program that reads captures in tests: tcpdump, with the libraries that it is built for. */
import { ensureUnpacked } from './unpacked-program.ts';

/**
 * Downloads and unpacks tcpdump if it is not in the cache.
 *
 * @returns the command that runs it
 */
export async function ensureTcpdump(report: (line: string) => void): Promise<readonly string[]> {
  return ensureUnpacked(
    {
      package: 'tcpdump',
      path: 'usr/bin/tcpdump',
      suite: 'trixie',
      libraries: [
        ...['libc6', 'libpcap0.8t64', 'libssl3t64', 'libzstd1', 'zlib1g', 'libdbus-1-3', 'libsystemd0'],
        ...['libcap2', 'libibverbs1', 'libnl-3-200', 'libnl-route-3-200'],
      ],
    },
    report,
  );
}
