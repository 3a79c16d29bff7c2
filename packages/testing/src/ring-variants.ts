/** The combinations of ring features that a driver meets, for `describe.each`. */
import { CommonFeatures, type FeatureName } from '@virtio/core';

/** One combination. */
export interface RingVariant {
  /** A description, for the name of a test. */
  readonly name: string;
  /** Its features, to be added to those of the device. */
  readonly features: bigint;
  readonly packed: boolean;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
}

/** Split and packed, each with and without indirect descriptors, event index and in-order use: 16 in all. */
export const ringVariants: readonly RingVariant[] = [false, true].flatMap((packed) =>
  [false, true].flatMap((indirect) =>
    [false, true].flatMap((eventIdx) =>
      [false, true].map((inOrder) => {
        const names: FeatureName[] = [];
        if (packed) names.push('RING_PACKED');
        if (indirect) names.push('INDIRECT_DESC');
        if (eventIdx) names.push('EVENT_IDX');
        if (inOrder) names.push('IN_ORDER');
        const extras = [indirect && 'indirect', eventIdx && 'event index', inOrder && 'in order'].filter(
          (extra) => extra !== false,
        );
        return {
          name: [packed ? 'packed' : 'split', ...extras].join(', '),
          features: CommonFeatures.set(...names).bits,
          packed,
          indirect,
          eventIdx,
          inOrder,
        };
      }),
    ),
  ),
);
