/** Reports the chains of a queue when they are published and when they are used, by functions that replace those of the queue. */
import type { QueueCalls } from '../ring/queue-calls.ts';
import type { TraceEvent } from './trace-event.ts';
import type { TracedHal } from './traced-hal.ts';

/** A buffer that was pushed. */
interface Pushed {
  readonly address: number;
  readonly length: number;
  readonly writable: boolean;
}

/** Replaces functions of a queue by ones that report its chains. */
export function traceQueue(queue: QueueCalls, tell: (event: TraceEvent) => void, memory: TracedHal): void {
  const { index } = queue;
  let building: Pushed[] = [];
  let staged: number[] = [];
  const chains = new Map<number, readonly Pushed[]>();
  let resets = 0;
  const own = {
    tryBegin: queue.tryBegin.bind(queue),
    pushReadable: queue.pushReadable.bind(queue),
    pushWritable: queue.pushWritable.bind(queue),
    submit: queue.submit.bind(queue),
    publish: queue.publish.bind(queue),
    pop: queue.pop.bind(queue),
    reset: queue.reset.bind(queue),
  };
  Object.assign(queue, {
    tryBegin: (count: number): boolean => {
      const begun = own.tryBegin(count);
      if (begun) building = [];
      return begun;
    },
    pushReadable: (address: number, length: number): void => {
      own.pushReadable(address, length);
      building.push({ address, length, writable: false });
    },
    pushWritable: (address: number, length: number): void => {
      own.pushWritable(address, length);
      building.push({ address, length, writable: true });
    },
    submit: (): number => {
      const token = own.submit();
      chains.set(token, building);
      staged.push(token);
      building = [];
      return token;
    },
    publish: (): void => {
      const tokens = staged;
      staged = [];
      // Reported before it is done: a device may answer at once.
      for (const token of tokens) {
        const buffers = (chains.get(token) ?? []).map((buffer) => ({
          ...buffer,
          bytes: buffer.writable ? undefined : memory.readable(buffer.address, buffer.length),
        }));
        tell({ kind: 'published', queue: index, token, buffers });
      }
      own.publish();
    },
    pop: (): number => {
      const token = own.pop();
      if (token < 0) return token;
      const { usedLength } = queue;
      let left = usedLength;
      const buffers = (chains.get(token) ?? []).map((buffer) => {
        const length = buffer.writable ? Math.min(left, buffer.length) : 0;
        left -= length;
        return { ...buffer, bytes: length === 0 ? undefined : memory.written(buffer.address, length) };
      });
      chains.delete(token);
      const before = resets;
      tell({ kind: 'used', queue: index, token, length: usedLength, buffers });
      // If a listener resets the driver all the same, the token is invalid.
      return resets === before ? token : -1;
    },
    reset: (): void => {
      resets += 1;
      building = [];
      staged = [];
      chains.clear();
      own.reset();
      tell({ kind: 'queueReset', queue: index });
    },
  } satisfies Partial<QueueCalls>);
}
