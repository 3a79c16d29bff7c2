/** The features and the queue of the entropy device [5.4]. */
import { FeatureTable } from '@virtio/core';

/** The entropy device has no features of its own [5.4.3]. */
export const RngFeatures: FeatureTable<never> = new FeatureTable<never>('RngFeatures', {});

/** The queue that requests go to [5.4.2]. */
export const REQUEST_QUEUE = 0;
