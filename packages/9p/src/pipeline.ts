/** Many messages of one kind as one task, with a window of them in flight. */
import { pipeline as pipelineOf, type Task } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import type { RequestData } from './messages.ts';
import type { Fields, Message, MessageValues } from './protocol.ts';

/** What {@link pipeline} does with each item. */
export interface Pipeline<I, F extends Fields> {
  /** The request for an item. It may be asked for more than once. */
  readonly request: (item: I) => [Message<F>, MessageValues<F>, RequestData?];
  /** Receives the answer to it; `false` ends the sending, but the answers to what was sent are still received. */
  readonly receive: (item: I, tag: number) => Task<boolean>;
  /** How many are in flight. */
  readonly window?: number;
}

/** Sends a request for each item, with many in flight, and handles the answers in the order of the items. */
export function pipeline<I, F extends Fields>(
  exchange: Exchange,
  items: Iterable<I>,
  { request, receive, window }: Pipeline<I, F>,
): Task<void> {
  return pipelineOf(items, {
    trySend(item, more) {
      const [message, values, data] = request(item);
      return exchange.trySend(message, values, data, more);
    },
    receive,
    discard: (tag) => exchange.discard(tag),
    window,
  });
}
