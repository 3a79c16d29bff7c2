import { openSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { QueuePlan } from '@virtio/core';
import { expect, it } from 'vitest';
import { openQueue } from './open-queue.ts';
import { eventfd } from './syscalls.ts';

it('closes the descriptors of a plan whose interrupt cannot be waited for', () => {
  const before = readdirSync('/proc/self/fd').length;
  const queues = [
    {
      doorbell: { kind: 'descriptor', descriptor: eventfd() },
      // A file is always ready, and epoll refuses it.
      interrupt: openSync(fileURLToPath(import.meta.url), 'r'),
    },
  ];
  const plan = { name: 'a disk', memory: [], queues } as unknown as QueuePlan;
  class Driver {
    readonly name = 'a driver';
  }
  expect(() => openQueue(Driver as never, plan)).toThrow(/EPERM/);
  expect(readdirSync('/proc/self/fd').length).toBe(before);
});
