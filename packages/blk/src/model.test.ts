/** Random mixes of requests, against arrays: whatever the ring and the order, sectors hold what was written last. */
import { type RingVariant, ringVariants } from '@virtio/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DISCARDED, type DiskRequest, openFakeDisk, pattern } from '../examples/fake-disk.ts';
import { RequestStatus } from './index.ts';

const SECTORS = 64;

/** Sectors that fail, by number. */
const BAD = 13;
const UNSUPPORTED = 29;

interface Step {
  readonly kind: 'read' | 'write' | 'zero' | 'discard' | 'flush';
  readonly form: 'promise' | 'sync' | 'polled';
  readonly sector: number;
  readonly sectors: number;
  /** Where the data is cut into buffers. */
  readonly cuts: readonly number[];
  readonly seed: number;
  readonly queue: number;
}

const step: fc.Arbitrary<Step> = fc
  .record({
    kind: fc.constantFrom('read', 'write', 'read', 'write', 'zero', 'discard', 'flush'),
    form: fc.constantFrom('promise', 'sync', 'polled'),
    sector: fc.nat(SECTORS - 1),
    sectors: fc.integer({ min: 1, max: 6 }),
    cuts: fc.array(fc.integer({ min: 1, max: 3071 }), { maxLength: 4 }),
    seed: fc.nat(255),
    queue: fc.nat(1),
  })
  .map((raw) => ({ ...raw, sectors: Math.min(raw.sectors, SECTORS - raw.sector) }));

function cut(data: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [...new Set(cuts.filter((place) => place < data.length))].sort((a, b) => a - b);
  return [0, ...places].map((from, i) => data.subarray(from, places[i]));
}

/** What the disk answers to a request that touches one of the bad sectors. */
function answer({ type, sector, data, chain }: DiskRequest): number | undefined {
  if (type > 1) return undefined;
  const end = sector + (type === 0 ? chain.writable - 1 : data.length) / 512;
  if (sector <= BAD && BAD < end) return RequestStatus.IOERR;
  if (sector <= UNSUPPORTED && UNSUPPORTED < end) return RequestStatus.UNSUPP;
  return undefined;
}

function expectedCode({ kind, sector, sectors }: Step): string | undefined {
  if (kind !== 'read' && kind !== 'write') return undefined;
  const touches = (bad: number): boolean => sector <= bad && bad < sector + sectors;
  return touches(BAD) ? 'IO_ERROR' : touches(UNSUPPORTED) ? 'UNSUPPORTED' : undefined;
}

async function play(ring: bigint, reordered: boolean, steps: readonly Step[]): Promise<void> {
  const { blk, disk, device } = openFakeDisk({
    ring,
    sectors: SECTORS,
    features: ['MQ', 'FLUSH', 'WRITE_ZEROES', 'DISCARD', 'SIZE_MAX'],
    config: { maxWriteZeroesSectors: 4, maxWriteZeroesSeg: 8, sizeMax: 1024 },
    queues: [16, 16],
  });
  disk.answer = answer;
  if (reordered) device.reorder = (chains) => [...chains].reverse();
  // What is on the disk when all requests so far are carried out in the order in which they were made.
  const model = new Uint8Array(SECTORS * 512);
  const promises: Promise<void>[] = [];
  const polled = new Map<number, () => void>();

  const ended = (at: Step, error: unknown): void => {
    expect((error as { code?: string } | undefined)?.code, JSON.stringify(at)).toBe(expectedCode(at));
  };
  const drain = (): void => {
    for (let token = blk.poll(); token >= 0; token = blk.poll()) {
      const check = polled.get(token);
      polled.delete(token);
      expect(check).toBeDefined();
      check?.();
    }
  };

  for (const at of steps) {
    const { kind, form, sector, sectors, queue } = at;
    const range = { sector, sectors };
    const good = expectedCode(at) === undefined;
    const start = sector * 512;
    const end = start + sectors * 512;
    const data =
      kind === 'write' ? pattern(sectors * 512, at.seed) : new Uint8Array(sectors * 512).fill(0x77);
    // Requests in flight at once may be carried out in any order, so those that could matter to each other are not.
    if (kind !== 'read') {
      await Promise.all(promises.splice(0));
      drain();
    }
    if (good && kind === 'write') model.set(data, start);
    if (kind === 'zero') model.fill(0, start, end);
    if (kind === 'discard') model.fill(DISCARDED, start, end);
    const before = model.slice(start, end);
    const judge = (error: unknown): void => {
      ended(at, error);
      if (kind === 'read') expect(data).toEqual(good ? before : new Uint8Array(data.length).fill(0x77));
    };
    const buffers = cut(data, at.cuts);
    const options = { queue };
    if (form === 'promise') {
      const promise = {
        read: () => blk.read(sector, buffers, options),
        write: () => blk.write(sector, buffers, options),
        zero: () => blk.writeZeroes(range, options),
        discard: () => blk.discard(range, options),
        flush: () => blk.flush(options),
      }[kind]();
      promises.push(promise.then(() => judge(undefined), judge));
    } else if (form === 'sync') {
      const ask = (): unknown => {
        try {
          ({
            read: () => blk.readSync(sector, buffers, options),
            write: () => blk.writeSync(sector, buffers, options),
            zero: () => blk.writeZeroesSync(range, options),
            discard: () => blk.discardSync(range, options),
            flush: () => blk.flushSync(options),
          })[kind]();
          return undefined;
        } catch (error) {
          return error;
        }
      };
      let error = ask();
      if ((error as { code?: string } | undefined)?.code === 'QUEUE_FULL') {
        await Promise.all(promises.splice(0));
        drain();
        error = ask();
      }
      judge(error);
    } else {
      const submit = {
        read: () => blk.submitRead(sector, buffers, options),
        write: () => blk.submitWrite(sector, buffers, options),
        zero: () => blk.submitWriteZeroes(range, options),
        discard: () => blk.submitDiscard(range, options),
        flush: () => blk.submitFlush(options),
      }[kind];
      let token: number;
      try {
        token = submit();
      } catch (error) {
        expect(error).toMatchObject({ code: 'QUEUE_FULL' });
        await Promise.all(promises.splice(0));
        drain();
        token = submit();
      }
      polled.set(token, () => {
        let error: unknown;
        try {
          blk.complete(token);
        } catch (caught) {
          error = caught;
        }
        judge(error);
      });
    }
    if (kind !== 'read') {
      await Promise.all(promises.splice(0));
      drain();
    }
  }
  await Promise.all(promises);
  drain();
  expect(polled.size).toBe(0);
  expect(disk.bytes).toEqual(model);
  blk[Symbol.dispose]();
  device.assertClean();
}

const variants = ringVariants.filter(({ eventIdx, inOrder }: RingVariant) => eventIdx || inOrder);

describe.each(variants)('random requests on a ring that is $name', ({ features, inOrder }) => {
  it('read what was written last, and fail where the disk does', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.boolean(), async (steps, reordered) => {
        await play(features, reordered && !inOrder, steps);
      }),
      { numRuns: 25 },
    );
  });
});
