/** What the specification says of the memory balloon [VIRTIO 1.4, 5.5]. */
import { FeatureTable, Layout } from '@virtio/core';

/** The names of the features of a balloon that this driver knows. */
export type BalloonFeature = 'MUST_TELL_HOST';

/** The features of a balloon. @see VIRTIO 1.4, 5.5.3 */
export const BalloonFeatures: FeatureTable<BalloonFeature> = new FeatureTable<BalloonFeature>(
  'BalloonFeatures',
  {
    /** The device must know before a page is used again. */
    MUST_TELL_HOST: 0,
  },
);

/** The configuration space. @see VIRTIO 1.4, 5.5.4 */
export const BalloonConfig = new Layout('virtio_balloon_config', {
  /** How many pages the device would like to have. */
  numPages: 'u32',
  /** How many pages it has; the driver writes it. */
  actual: 'u32',
});

/** The queues. @see VIRTIO 1.4, 5.5.2 */
export const INFLATE = 0;
export const DEFLATE = 1;

/** The unit of the balloon in bytes, whatever the size of the guest's pages [5.5.6]. */
export const BALLOON_PAGE = 4096;

/** The size of a page frame number in bytes. */
export const PFN_SIZE = 4;
