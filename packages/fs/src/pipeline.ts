/** Many requests of one kind as one task, of which a limited number is in flight. */
import type { FieldTable } from '@virtio/core';
import { CHECK, type Task } from '@virtio/files';
import type { Call, Exchange, Reply } from './exchange.ts';

/** Sends a request for each item, with many in flight, and handles the answers in order; `false` stops sending. */
export function* pipeline<T, I extends FieldTable, O extends FieldTable>(
  exchange: Exchange,
  items: Iterable<T>,
  request: (item: T) => Call<I, O>,
  receive: (item: T, answer: Task<Reply<O>>) => Task<boolean>,
  window: number,
): Task<void> {
  const pending: { readonly item: T; readonly call: Call<I, O>; readonly tag: number }[] = [];
  const source = items[Symbol.iterator]();
  let next = source.next();
  let more = true;
  try {
    while (pending.length > 0 || (more && next.done !== true)) {
      while (more && next.done !== true && pending.length < window) {
        const call = request(next.value);
        // With requests of its own in flight, the task need not wait for a tag: it will free one itself.
        const tag = pending.length === 0 ? yield* exchange.send(call) : exchange.trySendMore(call);
        if (tag < 0) break;
        pending.push({ item: next.value, call, tag });
        next = source.next();
      }
      const first = pending.shift();
      if (first === undefined) break;
      more = (yield* receive(first.item, exchange.receive(first.tag, first.call))) && more;
      yield CHECK;
    }
  } finally {
    for (const { tag } of pending) yield* exchange.discard(tag);
  }
}
