/** Many requests of one kind as one task, of which a limited number is in flight. */
import type { FieldTable } from '@virtio/core';
import { pipeline as pipelineOf, type Task } from '@virtio/files';
import type { Exchange } from './exchange.ts';
import type { Call } from './messages.ts';

/** What {@link pipeline} does with each item. */
export interface Pipeline<T, I extends FieldTable, O extends FieldTable> {
  /** The request for an item. It may be asked for more than once. */
  readonly request: (item: T) => Call<I, O>;
  /** Receives the answer to it; `false` ends the sending, but the answers to what was sent are still received. */
  readonly receive: (item: T, tag: number) => Task<boolean>;
  /** How many are in flight. */
  readonly window?: number;
}

/** Sends a request for each item, with many in flight, and handles the answers in the order of the items. */
export function pipeline<T, I extends FieldTable, O extends FieldTable>(
  exchange: Exchange,
  items: Iterable<T>,
  { request, receive, window }: Pipeline<T, I, O>,
): Task<void> {
  return pipelineOf(items, {
    trySend: (item, more) => exchange.trySend(request(item), more),
    receive,
    discard: (tag) => exchange.discard(tag),
    window,
  });
}
