/**
 * The resources of a process that a test must release: what keeps its event loop alive, descriptors of devices and events,
 * mapped device memory and huge pages.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** Where devices and memory for them are, among the targets of descriptors and the names of mappings. */
const OF_DEVICES = /^(?:\/dev\/(?:vfio|mem|uio|hugepages)|\/sys\/|anon_inode:|\/anon_hugepage|\/memfd:)/;

/** Counts of what the process holds, by name. */
export function holdings(): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  const add = (name: string): void => void counts.set(name, (counts.get(name) ?? 0) + 1);
  for (const name of process.getActiveResourcesInfo()) add(`active ${name}`);
  for (const target of descriptors()) if (OF_DEVICES.test(target)) add(`descriptor of ${target}`);
  for (const line of readFileSync('/proc/self/maps', 'utf8').split('\n')) {
    const [, name] = /^\S+ \S+ \S+ \S+ \S+ +(.+)$/.exec(line) ?? [];
    if (name !== undefined && OF_DEVICES.test(name)) add(`mapping of ${name}`);
  }
  return counts;
}

function descriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      // The one with which the folder was read is closed by now.
      return [];
    }
  });
}

/** What there is more of than before: `2 × descriptor of …`. */
export function difference(
  now: ReadonlyMap<string, number>,
  before: ReadonlyMap<string, number>,
): readonly string[] {
  return [...now]
    .map(([name, count]) => [name, count - (before.get(name) ?? 0)] as const)
    .filter(([, more]) => more > 0)
    .map(([name, more]) => (more === 1 ? name : `${more} × ${name}`));
}
