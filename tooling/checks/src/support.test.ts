import { expect, it } from 'vitest';
import { type Report, supportPage } from './support.ts';

const where = { arch: 'x86_64', machine: 'q35', transport: 'pci-vfio', qemu: '10.0' };
const negotiated = {
  deviceType: 2,
  offered: ['FLUSH', 'SCSI'],
  implemented: ['RO', 'FLUSH'],
  accepted: ['FLUSH'],
};
const report: Report = {
  runs: [
    {
      ...where,
      ring: 'split',
      guest: { kernel: '6.1', node: 'v24' },
      tests: [
        { device: 'blk', status: 'passed', negotiated: [negotiated] },
        { device: 'blk', status: 'failed', negotiated: [{ ...negotiated, offered: ['RO'], accepted: [] }] },
        { device: 'blk', status: 'skipped' },
      ],
    },
    { ...where, ring: 'packed', tests: [{ device: 'rng', status: 'passed' }] },
  ],
};

it('counts tests, and tells of each feature what became of it where', () => {
  const page = supportPage(report, new Map([['blk', [{ test: 'x' }, {}]]]));
  const rows = page.split('\n').filter((line) => line.startsWith('|'));
  expect(rows).toEqual([
    '| device | requirements shown by a test | x86_64 q35 · pci-vfio · split | x86_64 q35 · pci-vfio · packed |',
    '| --- | --- | --- | --- |',
    '| blk | 1 of 2 | 1, **1 failed** | – |',
    '| rng | – | – | 1 |',
    '| feature | implemented | x86_64 q35 · pci-vfio · split |',
    '| --- | --- | --- |',
    // One of the two devices offered it, and its driver was told to do without.
    '| `RO` | yes | declined |',
    '| `FLUSH` | yes | **accepted** |',
    '| `SCSI` | no | declined |',
  ]);
});

it('has a table for each type of device that was initialized', () => {
  expect(supportPage(report, new Map())).toMatch(/^### .*Block.* \(device type 2\)$/m);
});
