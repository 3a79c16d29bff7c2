import { describe, expect, it } from 'vitest';
import {
  CapList,
  DeviceInfo,
  DmaMap,
  DmaUnmap,
  GroupStatus,
  IommuInfo,
  IrqInfo,
  IrqSetHeader,
  readCapList,
  RegionInfo,
  Vfio,
} from './vfio-abi.ts';

describe('VFIO', () => {
  it('has the requests and the sizes of the kernel header', () => {
    expect(Vfio.GET_API_VERSION).toBe(0x3b64);
    expect(Vfio.DEVICE_RESET).toBe(0x3b6f);
    expect(Vfio.IOMMU_UNMAP_DMA).toBe(0x3b72);
    const sizes = [GroupStatus, DeviceInfo, RegionInfo, IrqInfo, IrqSetHeader, IommuInfo, DmaMap, DmaUnmap];
    expect(sizes.map(({ size }) => size)).toEqual([8, 16, 32, 16, 20, 24, 32, 24]);
    expect(DmaMap.offset).toEqual({ argsz: 0, flags: 4, vaddr: 8, iova: 16, size: 24 });
    expect(RegionInfo.offset.offset).toBe(24);
  });

  /** A structure of 32 bytes, a capability that is of no interest at 32, and a list at 48. */
  function answer(): DataView {
    const view = new DataView(new ArrayBuffer(48 + CapList.size + 32));
    CapList.write(view, 32, { id: 3, version: 1, next: 48 });
    CapList.write(view, 48, { id: 1, version: 1, next: 0, count: 2 });
    [0n, 0xfedfffffn, 0xfef00000n, 0x7fffffffffn].forEach((value, i) =>
      view.setBigUint64(48 + 16 + 8 * i, value, true),
    );
    return view;
  }

  it('finds a capability in a chain and reads its list', () => {
    expect(readCapList(answer(), 32, 1)).toEqual([
      { first: 0, second: 0xfedfffff },
      { first: 0xfef00000, second: 0x7fffffffff },
    ]);
    expect(readCapList(answer(), 32, 7)).toBeUndefined();
    expect(readCapList(answer(), 0, 1)).toBeUndefined();
  });

  it('ends on a chain that loops or leaves the structure', () => {
    const loop = answer();
    CapList.write(loop, 48, { id: 9, version: 1, next: 32 });
    expect(readCapList(loop, 32, 1)).toBeUndefined();
    expect(readCapList(answer(), 5000, 1)).toBeUndefined();
  });

  it('does not read more of a list than there is', () => {
    const view = answer();
    CapList.write(view, 48, { id: 1, version: 1, next: 0, count: 1000 });
    expect(readCapList(view, 32, 1)).toHaveLength(2);
  });
});
