/** Memory for devices behind an IOMMU: huge pages if there are any for this process, ordinary ones otherwise. */
import { Mapping, type MappingOptions } from './mapping.ts';
import { MapFlags } from './syscalls.ts';
import { systemError } from './system-error.ts';

const HUGE = MapFlags.SHARED | MapFlags.HUGETLB | MapFlags.HUGE_2MB | MapFlags.POPULATE;

/**
 * Maps zeroed memory.
 *
 * Huge pages are reserved when they are mapped, but a control group's limit (`hugetlb.2MB.max`) counts those that are filled: the
 * mapping succeeds, its pages stay absent, and touching one ends the process. So their presence is checked.
 *
 * @param size a multiple of 2 MiB
 * @param map how memory is mapped; tests pass another function
 * @throws {@link VirtioError} `DMA_ERROR`
 */
export function mapDmaMemory(
  size: number,
  map: (options: MappingOptions) => Mapping = (options) => Mapping.map(options),
): Mapping {
  try {
    const huge = map({ size, flags: HUGE });
    if (huge.isPresent()) return huge;
    huge[Symbol.dispose]();
  } catch {
    // There are no huge pages, or none left.
  }
  try {
    return map({ size });
  } catch (error) {
    throw systemError(
      `${size} bytes of DMA memory could not be allocated`,
      error,
      'free memory, or raise the limit of this process or of its control group (memory.max)',
      'DMA_ERROR',
    );
  }
}
