import { fstatSync, openSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { QueuePlan } from '@virtio/core';
import { expect, it } from 'vitest';
import { openQueue } from './open-queue.ts';
import { closeDescriptor, eventfd } from './syscalls.ts';

class NoDriver {
  readonly name = 'a driver';
}

/** A plan with descriptors, which nothing is mapped for. */
const planOf = (interrupt: number, control: SharedArrayBuffer): QueuePlan =>
  ({
    name: 'a disk',
    memory: [],
    queues: [{ doorbell: { kind: 'descriptor', descriptor: eventfd() }, interrupt }],
    control,
  }) as unknown as QueuePlan;

const descriptorsOf = ({ queues }: QueuePlan): number[] =>
  queues.flatMap(({ doorbell, interrupt = -1 }) =>
    doorbell.kind === 'descriptor' ? [doorbell.descriptor, interrupt] : [interrupt],
  );

it('leaves the descriptors of a plan that it cannot open to the thread that made it', () => {
  const before = readdirSync('/proc/self/fd').length;
  // A file is always ready, and epoll refuses it.
  const plan = planOf(openSync(fileURLToPath(import.meta.url), 'r'), new SharedArrayBuffer(32));
  expect(() => openQueue(NoDriver as never, plan)).toThrow(/EPERM/);
  expect(readdirSync('/proc/self/fd').length, 'nothing else stays open').toBe(before + 2);
  for (const descriptor of descriptorsOf(plan)) closeDescriptor(descriptor);
});

it('closes no descriptor of a plan that another thread has opened', () => {
  const control = new SharedArrayBuffer(32);
  // Another thread has it.
  new Int32Array(control)[4] = 1;
  const plan = planOf(eventfd(), control);
  expect(() => openQueue(NoDriver as never, plan)).toThrow(expect.objectContaining({ code: 'ALREADY_USED' }));
  for (const descriptor of descriptorsOf(plan)) {
    expect(() => fstatSync(descriptor)).not.toThrow();
    closeDescriptor(descriptor);
  }
});
