/** The device's statistics: their kinds, and the commands that ask for them. @see VIRTIO 1.4, 5.1.9.5.11 */
import { VirtioError } from '@virtio/core';
import {
  type ControlTarget,
  type NetCommand,
  type PacketQueue,
  requireArray,
  requireObject,
  requireQueue,
} from './control.ts';
import { ControlClass, StatsCommand, StatsReplyLayout, StatsRequestLayout, StatsType } from './protocol.ts';

/** The name of a kind of statistics. */
export type StatsTypeName = keyof typeof StatsType;

/** The counters of a kind of statistics by name, as far as the device reported them; they wrap around to 0. */
export type StatsOf<N extends StatsTypeName> = Readonly<
  Partial<Record<(typeof StatsType)[N]['counters'][number], bigint>>
>;

/** A request for statistics of one queue. */
export interface StatsRequest {
  /** A receive or transmit queue, or the control queue. */
  readonly queue: PacketQueue | 'control';
  readonly types: readonly StatsTypeName[];
}

/** The statistics of one queue: those kinds that were asked for and that the device reported. */
export interface QueueStats {
  readonly queue: PacketQueue | 'control';
  readonly stats: { readonly [N in StatsTypeName]?: StatsOf<N> };
}

const NAMES = Object.keys(StatsType) as StatsTypeName[];
const HEADER = StatsReplyLayout.size;
const COUNTER = 8;

const replySize = (type: StatsTypeName): number => HEADER + COUNTER * StatsType[type].counters.length;

const indexOf = (queue: StatsRequest['queue'], target: ControlTarget): number =>
  queue === 'control' ? 2 * target.maxQueuePairs : requireQueue('STATS_GET', queue, target);

/** The kinds that a queue can have. */
function fits(queue: StatsRequest['queue'], type: StatsTypeName): boolean {
  if (queue === 'control') return type === 'cvq';
  return type.startsWith(queue.direction === 'receive' ? 'rx' : 'tx');
}

/** The commands for statistics. */
export const NetStats = {
  /** Asks which kinds of statistics the device has. Send this before {@link NetStats.get}. */
  query: (): NetCommand<readonly StatsTypeName[]> => ({
    name: 'STATS_QUERY',
    class: ControlClass.STATS,
    command: StatsCommand.QUERY,
    features: ['DEVICE_STATS'],
    data: () => new Uint8Array(0),
    resultSize: () => COUNTER,
    value(result, target) {
      if (result.length < COUNTER) throw short('STATS_QUERY', result.length, COUNTER);
      const types = viewOf(result).getBigUint64(0, true);
      target.statsTypes = types;
      return NAMES.filter((name) => (types & (1n << BigInt(StatsType[name].bit))) !== 0n);
    },
  }),

  /** Asks for statistics. The result lacks what the device leaves out. */
  get(requests: readonly StatsRequest[]): NetCommand<readonly QueueStats[]> {
    /** What was asked last: the caller may change its arrays, and fewer queues be in use, before the answer. */
    let asked: readonly { readonly queue: StatsRequest['queue']; readonly index: number }[] = [];
    let size = 0;
    return {
      name: 'STATS_GET',
      class: ControlClass.STATS,
      command: StatsCommand.GET,
      features: ['DEVICE_STATS'],
      data(target) {
        requireArray('STATS_GET', 'the requests', requests);
        const data = new Uint8Array(StatsRequestLayout.size * requests.length);
        if (requests.length === 0) throw new VirtioError('INVALID_PARAM', 'STATS_GET: no queue was named');
        size = 0;
        asked = requests.map((request, i) => {
          requireObject('STATS_GET', 'a request', request);
          const { queue, types } = request;
          if (queue !== 'control') requireObject('STATS_GET', 'the queue of a request', queue);
          requireArray('STATS_GET', 'the types of a request', types);
          let bits = 0n;
          for (const type of types) {
            if (!Object.hasOwn(StatsType, type) || !fits(queue, type)) {
              throw new VirtioError('INVALID_PARAM', `STATS_GET: that queue has no statistics '${type}'`);
            }
            bits |= 1n << BigInt(StatsType[type].bit);
            size += replySize(type);
          }
          // 5.1.9.5.11.13: only what the device said that it has.
          if (target.statsTypes === undefined || (bits & ~target.statsTypes) !== 0n) {
            throw new VirtioError(
              'UNSUPPORTED',
              target.statsTypes === undefined
                ? 'STATS_GET: send NetStats.query() first, to know which statistics the device has'
                : `STATS_GET: the device does not have all of ${types.join(', ')}`,
            );
          }
          const index = indexOf(queue, target);
          StatsRequestLayout.write(viewOf(data), i * StatsRequestLayout.size, {
            vqIndex: index,
            typesBitmap: bits,
          });
          return { queue: queue === 'control' ? queue : { ...queue }, index };
        });
        return data;
      },
      resultSize: () => size,
      value(result) {
        const view = viewOf(result);
        const found: readonly {
          readonly queue: StatsRequest['queue'];
          readonly index: number;
          readonly stats: Record<string, unknown>;
        }[] = asked.map(({ queue, index }) => ({ queue, index, stats: {} }));
        // The device says how long each reply is: never less than its head, so that this ends.
        for (let at = 0; at + HEADER <= result.length;) {
          const { type, vqIndex, size } = StatsReplyLayout.read(view, at);
          if (size < HEADER) throw short('STATS_GET', size, HEADER);
          const name = NAMES.find((candidate) => StatsType[candidate].bit === type);
          if (name !== undefined) {
            const counters: readonly string[] = StatsType[name].counters;
            const room = Math.min(size, result.length - at) - HEADER;
            const values = counters
              .slice(0, Math.floor(room / COUNTER))
              .map((counter, i): [string, bigint] => [
                counter,
                view.getBigUint64(at + HEADER + i * COUNTER, true),
              ]);
            for (const { queue, index, stats } of found) {
              if (index === vqIndex && fits(queue, name)) {
                stats[name] = Object.fromEntries(values);
              }
            }
          }
          at += size;
        }
        return found.map(({ queue, stats }) => ({ queue, stats }));
      },
    };
  },
} as const;

const viewOf = ({ buffer, byteOffset, length }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, length);

const short = (name: string, got: number, wanted: number): VirtioError =>
  new VirtioError('DEVICE_MISBEHAVED', `${name}: the device answered with ${got} bytes instead of ${wanted}`);
