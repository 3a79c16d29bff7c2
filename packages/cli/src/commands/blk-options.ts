/** The options of the commands of `virtio blk`. */
import type { DeviceOptions } from '../session.ts';

/** Options that select a part of a disk. */
export interface RangeOptions extends DeviceOptions {
  readonly sector?: number;
  readonly offset?: number;
  readonly count?: number;
  readonly length?: number;
}

/** Options of `blk read`. */
export interface ReadOptions extends RangeOptions {
  readonly output?: string;
  readonly hex?: boolean;
  readonly raw?: boolean;
}

/** Options of `blk write`. */
export interface WriteOptions extends RangeOptions {
  readonly yes?: boolean;
}

/** Options of `blk bench`. */
export interface BenchOptions extends RangeOptions {
  readonly block: number;
  readonly depth: number;
  readonly seconds: number;
  readonly pattern: 'random' | 'sequential';
  readonly write?: boolean;
  readonly yes?: boolean;
}
