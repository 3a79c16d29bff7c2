/**
 * The only ACPI table that drivers need without an operating system: MCFG, which says where PCI configuration space is in memory.
 * Tables are found through the root pointer; each is checked before it is used.
 *
 * @see ACPI 6.5, 5.2.5 to 5.2.8; PCI Firmware 3.3, 4.1.2
 */

/** Reads physical memory; returns `undefined` where there is none. */
export type ReadMemory = (address: number, size: number) => Uint8Array | undefined;

/** A range of buses whose configuration space is in memory. */
export interface EcamRange {
  /** The address of bus 0, even if it is not in the range; the window begins `firstBus` × 1 MiB after it. */
  readonly address: number;
  readonly segment: number;
  readonly firstBus: number;
  readonly lastBus: number;
}

const RSDP_START = 0xe_0000;
const RSDP_END = 0x10_0000;
const HEADER = 36;
/** Larger tables count as damaged: a root table lists some dozens of tables, an MCFG some ranges. */
const MAX_TABLE = 1 << 16;
const BUS = 1 << 20;

/** Searches the BIOS area for the root pointer (RSDP) and returns its address; `undefined` if there is none. */
export function findRootPointer(read: ReadMemory): number | undefined {
  const area = take(read, RSDP_START, RSDP_END - RSDP_START);
  for (let at = 0; area !== undefined && at + 20 <= area.length; at += 16) {
    if (signature(area, at, 8) === 'RSD PTR ' && sum(area, at, 20) === 0) return RSDP_START + at;
  }
  return undefined;
}

/**
 * The ranges of the table MCFG; empty if there is no such table, or only a damaged one.
 *
 * @param rootPointer the address of the root pointer, from firmware or from {@link findRootPointer}
 */
export function ecamRanges(read: ReadMemory, rootPointer: number): readonly EcamRange[] {
  const pointer = take(read, rootPointer, 20);
  if (pointer === undefined) return [];
  if (signature(pointer, 0, 8) !== 'RSD PTR ' || sum(pointer, 0, 20) !== 0) return [];
  const extended = (pointer[15] ?? 0) >= 2 ? take(read, rootPointer, HEADER) : undefined;
  const wide = extended !== undefined && sum(extended, 0, HEADER) === 0 && u64(extended, 24) !== 0;
  const root = table(read, wide ? u64(extended, 24) : u32(pointer, 16), wide ? 'XSDT' : 'RSDT');
  if (root === undefined) return [];
  const step = wide ? 8 : 4;
  for (let at = HEADER; at + step <= root.length; at += step) {
    const address = wide ? u64(root, at) : u32(root, at);
    const header = take(read, address, HEADER);
    if (header === undefined || signature(header, 0, 4) !== 'MCFG') continue;
    // There is only one MCFG; a damaged one counts as missing.
    const mcfg = table(read, address, 'MCFG');
    return mcfg === undefined ? [] : entries(mcfg);
  }
  return [];
}

function entries(mcfg: Uint8Array): readonly EcamRange[] {
  const result: EcamRange[] = [];
  for (let at = HEADER + 8; at + 16 <= mcfg.length; at += 16) {
    const [firstBus = 0, lastBus = 0] = [mcfg[at + 10], mcfg[at + 11]];
    const segment = (mcfg[at + 8] ?? 0) | ((mcfg[at + 9] ?? 0) << 8);
    const address = u64(mcfg, at);
    // Impossible ranges are skipped: a window must begin at a multiple of 1 MiB and end below 2^53.
    if (address === 0 || address % BUS !== 0 || firstBus > lastBus) continue;
    if (!Number.isSafeInteger(address + (lastBus + 1) * BUS)) continue;
    result.push({ address, segment, firstBus, lastBus });
  }
  return result;
}

/** Reads memory; `undefined` unless all of it is there. */
function take(read: ReadMemory, address: number, size: number): Uint8Array | undefined {
  if (address === 0 || !Number.isSafeInteger(address + size)) return undefined;
  const bytes = read(address, size);
  return bytes !== undefined && bytes.length >= size ? bytes : undefined;
}

/** The table at an address, if it has this signature and a valid checksum. */
function table(read: ReadMemory, address: number, name: string): Uint8Array | undefined {
  const header = take(read, address, HEADER);
  if (header === undefined || signature(header, 0, 4) !== name) return undefined;
  const length = u32(header, 4);
  if (length < HEADER || length > MAX_TABLE) return undefined;
  const whole = take(read, address, length);
  return whole !== undefined && sum(whole, 0, length) === 0 ? whole : undefined;
}

function signature(bytes: Uint8Array, at: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

function sum(bytes: Uint8Array, at: number, length: number): number {
  let total = 0;
  for (let index = at; index < at + length; index += 1) total += bytes[index] ?? 0;
  return total & 0xff;
}

function u32(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, true);
}

function u64(bytes: Uint8Array, at: number): number {
  return u32(bytes, at) + u32(bytes, at + 4) * 2 ** 32;
}
