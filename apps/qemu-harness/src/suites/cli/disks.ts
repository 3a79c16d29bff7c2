/** The command line on disks: what it shows, reads and writes is compared with the image on the host. */
import { deepEqual, equal, match, ok } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { disk, guestTest, type HostEnv, pattern } from '../../framework/define.ts';
import { good, json, onSplit, place, start, virtio } from './_virtio.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const SIZE = 8 * MIB;

const host = {
  hash: async ({ offset, length }: { offset: number; length: number }, env: HostEnv): Promise<string> =>
    env.hashImage('disk', offset, length),
};

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

interface Row {
  readonly address: string;
  readonly type: string;
  readonly driver?: string;
  readonly features?: readonly string[];
}

interface Probed {
  readonly deviceType: number;
  readonly features: { readonly offered: readonly string[]; readonly negotiated: readonly string[] };
  readonly config: { readonly serial: string; readonly capacity: number };
  readonly queues: readonly { readonly max: number; readonly size?: number }[];
  readonly remarks: readonly { readonly level: string; readonly text: string }[];
}

export default [
  guestTest({
    device: 'cli',
    name: 'lists and probes a disk, reads it, and writes what the host then finds',
    long: true,
    timeoutS: 120,
    devices: { disk: disk({ size: SIZE, seed: 7 }, { serial: 'cli-disk', 'num-queues': 1 }) },
    skip: onSplit,
    host,
    async guest(context) {
      const [address, ...how] = place(context, 'disk');
      const rows = await json<Row[]>(['list']);
      const row = rows.find((each) => each.address === address);
      equal(row?.type, 'Block', JSON.stringify(rows));
      equal(row.driver, undefined);

      const found = await json<Probed>(['probe', address, ...how]);
      equal(found.deviceType, 2);
      equal(found.config.capacity, SIZE / 512);
      equal(found.config.serial, 'cli-disk');
      ok(found.features.negotiated.includes('FLUSH'), found.features.negotiated.join());
      ok((found.queues[0]?.size ?? 0) > 0);
      deepEqual(
        found.remarks.filter(({ level }) => level === 'error'),
        [],
      );
      context.note(`${found.features.offered.length} features; remarks: ${JSON.stringify(found.remarks)}`);

      const bytes = await good(['blk', 'read', address, ...how, '--offset', '1000', '--length', '300K']);
      equal(bytes.length, 300 * KIB);
      equal(sha256(bytes), await context.host('hash', { offset: 1000, length: 300 * KIB }));

      // Not a whole number of sectors: what lies around it stays.
      const text = Buffer.from(pattern(new Uint8Array(100_000), 3)).subarray(0, 99_999);
      const write = ['blk', 'write', address, ...how, '--offset', '1234567'];
      await good([...write, '--yes'], text);
      const expected = pattern(new Uint8Array(SIZE), 7);
      expected.set(text, 1_234_567);
      equal(await context.host('hash', { offset: 0, length: SIZE }), sha256(expected));
    },
  }),

  guestTest({
    device: 'cli',
    name: 'writes nothing without being told to, says what would be lost, and compares',
    long: true,
    timeoutS: 120,
    devices: { disk: disk({ size: SIZE, seed: 9 }, { serial: 'precious' }) },
    skip: onSplit,
    host,
    async guest(context) {
      const at = place(context, 'disk');
      const before = await context.host('hash', { offset: 0, length: SIZE });
      const refused = await virtio(['blk', 'write', ...at], new Uint8Array(4096));
      equal(refused.status, 4);
      match(refused.stderr, /nothing was written: .*"precious".*would be overwritten\nhint: add --yes/);
      const bench = await virtio(['blk', 'bench', ...at, '--write']);
      equal(bench.status, 4);
      equal(await context.host('hash', { offset: 0, length: SIZE }), before);

      const contents = pattern(new Uint8Array(SIZE), 9);
      match((await good(['blk', 'verify', ...at], contents)).toString(), new RegExp(before));
      contents[5_000_000] = (contents[5_000_000] ?? 0) ^ 1;
      const differs = await virtio(['blk', 'verify', ...at], contents);
      equal(differs.status, 1);
      match(differs.stderr, /differ at byte 5000000/);

      const beyond = await virtio(['blk', 'read', ...at, '--offset', '8M', '--length', '1']);
      equal(beyond.status, 2);
      const measured = await json<{ requests: number; iops: number }>([
        'blk',
        'bench',
        ...at,
        '--seconds',
        '1',
        '--depth',
        '4',
      ]);
      ok(measured.requests > 10 && measured.iops > 10, JSON.stringify(measured));
      context.note(`${measured.iops} reads a second`);
    },
  }),

  guestTest({
    device: 'cli',
    name: 'ends quietly when nobody reads on, and at SIGINT, and the next one gets the device',
    long: true,
    timeoutS: 120,
    devices: { disk: disk({ size: 64 * MIB, seed: 2 }) },
    skip: onSplit,
    async guest(context) {
      const at = place(context, 'disk');
      const reader = start(['blk', 'read', ...at]);
      reader.child.stdout?.once('data', () => reader.child.stdout?.destroy());
      const closed = await reader.ended;
      equal(closed.status, 141);
      equal(closed.stderr, '');

      const bench = start(['blk', 'bench', ...at, '--seconds', '60']);
      bench.child.stderr?.once('data', () => bench.child.kill('SIGINT'));
      const interrupted = await bench.ended;
      equal(interrupted.status, 130, interrupted.stderr);
      equal(interrupted.stderr, 'reading for 60 s\n');

      const dump = (await good(['blk', 'read', ...at, '--hex', '--count', '1'])).toString().split('\n');
      match(dump[0] ?? '', /^00000000 {2}([0-9a-f]{2} ){15}[0-9a-f]{2} {2}\|.{16}\|$/);
      equal(dump.length, 33);
    },
  }),
];
