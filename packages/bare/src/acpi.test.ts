import { describe, expect, it } from 'vitest';
import { ecamRanges, findRootPointer, type ReadMemory } from './acpi.ts';
import { commandLineDevices } from './command-line.ts';

/** Memory of 1 MiB with tables in it. */
class Memory {
  readonly bytes = new Uint8Array(1 << 20);
  readonly view = new DataView(this.bytes.buffer);

  readonly read: ReadMemory = (address, size) =>
    address + size <= this.bytes.length ? this.bytes.subarray(address, address + size) : undefined;

  text(at: number, text: string): void {
    for (let index = 0; index < text.length; index += 1) this.bytes[at + index] = text.charCodeAt(index);
  }

  /** Makes the sum of a table right, at this byte of it. */
  seal(at: number, length: number, place: number): void {
    this.bytes[at + place] = 0;
    const sum = this.bytes.subarray(at, at + length).reduce((total, byte) => total + byte, 0);
    this.bytes[at + place] = -sum & 0xff;
  }
}

/** A root pointer, a root table with another table ahead, and an MCFG. */
function firmware(wide: boolean): Memory {
  const memory = new Memory();
  const [pointer, root, other, mcfg] = [0xf_0010, 0x1000, 0x2000, 0x3000];
  memory.text(pointer, 'RSD PTR ');
  memory.bytes[pointer + 15] = wide ? 2 : 0;
  memory.view.setUint32(pointer + 16, wide ? 0 : root, true);
  if (wide) memory.view.setUint32(pointer + 24, root, true);
  memory.seal(pointer, 20, 8);
  if (wide) memory.view.setUint32(pointer + 20, 36, true);
  memory.seal(pointer, 20, 8);
  memory.seal(pointer, 36, 32);
  const tables = [other, mcfg];
  const length = 36 + tables.length * (wide ? 8 : 4);
  memory.text(root, wide ? 'XSDT' : 'RSDT');
  memory.view.setUint32(root + 4, length, true);
  tables.forEach((table, index) => memory.view.setUint32(root + 36 + index * (wide ? 8 : 4), table, true));
  memory.seal(root, length, 9);
  memory.text(other, 'FACP');
  memory.text(mcfg, 'MCFG');
  memory.view.setUint32(mcfg + 4, 60, true);
  memory.view.setUint32(mcfg + 44, 0xb000_0000, true);
  memory.bytes[mcfg + 55] = 255;
  memory.seal(mcfg, 60, 9);
  return memory;
}

describe('MCFG', () => {
  it.each([false, true])(
    'is found from the root pointer, with tables at addresses of 64 bits: %s',
    (wide) => {
      const { read } = firmware(wide);
      const pointer = findRootPointer(read);
      expect(pointer).toBe(0xf_0010);
      expect(ecamRanges(read, pointer ?? 0)).toEqual([
        { address: 0xb000_0000, segment: 0, firstBus: 0, lastBus: 255 },
      ]);
    },
  );

  it.each([0xf_0010, 0x1000 + 36, 0x3000 + 44])('is not used if a sum is wrong (byte at %i)', (at) => {
    const { bytes, read } = firmware(true);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    expect(ecamRanges(read, 0xf_0010)).toEqual([]);
  });

  it('is found by the narrow root table if the sum of the wide pointer is wrong', () => {
    const memory = firmware(true);
    memory.bytes[0xf_0010 + 33] = 1;
    memory.view.setUint32(0xf_0010 + 16, 0x1000, true);
    memory.seal(0xf_0010, 20, 8);
    // The table there is a wide one.
    expect(ecamRanges(memory.read, 0xf_0010)).toEqual([]);
  });

  it.each([
    ['at no multiple of 1 MiB', 44, 0xb000_1000],
    ['beyond 2^53', 48, 0x20_0000],
    ['at 0', 44, 0],
    ['that ends before it begins', 52, 0x0203_0000],
  ])('has no range %s', (_, place, value) => {
    const memory = firmware(true);
    memory.view.setUint32(0x3000 + place, value, true);
    memory.seal(0x3000, 60, 9);
    expect(ecamRanges(memory.read, 0xf_0010)).toEqual([]);
  });

  it('is looked at once, however often a damaged root table lists it', () => {
    const memory = firmware(false);
    const entries = 16_000;
    memory.view.setUint32(0x1004, 36 + 4 * entries, true);
    const large = 0x8_0000;
    for (let n = 0; n < entries; n += 1) memory.view.setUint32(0x1000 + 36 + 4 * n, large, true);
    memory.seal(0x1000, 36 + 4 * entries, 9);
    memory.text(large, 'MCFG');
    memory.view.setUint32(large + 4, 0x1_0000, true);
    memory.bytes[large + 100] = 1;
    let reads = 0;
    const counting: ReadMemory = (address, size) => {
      reads += 1;
      return memory.read(address, size);
    };
    expect(ecamRanges(counting, 0xf_0010)).toEqual([]);
    expect(reads).toBeLessThan(10);
  });

  it('is not read where memory ends early', () => {
    const { read } = firmware(true);
    expect(ecamRanges((address, size) => read(address, size)?.subarray(0, 12), 0xf_0010)).toEqual([]);
  });

  it('is missed without harm where memory ends', () => {
    expect(findRootPointer(() => undefined)).toBeUndefined();
    expect(ecamRanges(() => undefined, 0x1000)).toEqual([]);
  });
});

describe('a command line', () => {
  it('names devices, whatever else is in it', () => {
    const line =
      'console=ttyS0 virtio_mmio.device=512@0xfeb00e00:12 virtio_mmio.device=4K@0xd0000000:5:1 virtio_mmio.device=x quiet ' +
      'virtio_mmio.device=0@0x1000:1 virtio_mmio.device=4K@0x20000000000000:1 virtio_mmio.device=9999999999999999g@0:1 ' +
      'virtio_mmio.device=4K@0x1000:0x100000000';
    expect(commandLineDevices(line)).toEqual([
      { address: 0xfeb0_0e00, size: 512, interrupt: 12 },
      { address: 0xd000_0000, size: 4096, interrupt: 5 },
    ]);
    expect(commandLineDevices('')).toEqual([]);
  });
});
