/** What one read of 4 KiB costs in the driver; `against.ts` beside this compares it with another commit. */
import { CommonFeatures } from '@virtio/core';
import { measureAll, printMeasurements } from '@virtio/checks/measure';
import * as testing from '@virtio/testing';
import * as disk from '../examples/fake-disk.ts';
import * as blk from '../src/index.ts';
import { bareRow, rows } from './rows.ts';

const packages = { testing, disk, blk };
const split = CommonFeatures.set('INDIRECT_DESC', 'EVENT_IDX').bits;
printMeasurements('4 KiB read, split ring', await measureAll(rows(packages, split)));
printMeasurements(
  '4 KiB read, packed ring',
  await measureAll(rows(packages, split | CommonFeatures.mask('RING_PACKED'))),
);
printMeasurements('for scale', await measureAll([bareRow()]));
