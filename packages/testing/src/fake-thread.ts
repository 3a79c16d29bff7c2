/**
 * The platform of another thread, simulated in the thread of the test: a copy of a queue's plan is opened as the other thread would
 * open it, alongside the driver that has the device.
 */
import type { InterruptSource, PostedMemory, QueuePlan, QueuePlatform } from '@virtio/core';
import type { FakeDevice } from './fake-device.ts';
import type { FakeTransport } from './fake-transport.ts';

/**
 * A `QueuePlatform` for queues of a {@link FakeDevice}. Its memory comes from the device's {@link FakeHal}, which checks all of it.
 */
export class FakeThread implements QueuePlatform {
  readonly hal: FakeDevice['hal'];
  readonly interrupts: InterruptSource | undefined;
  /** How often a driver closed the platform. */
  closed = 0;
  readonly #transport: FakeTransport;
  readonly #plan: QueuePlan;

  constructor(transport: FakeTransport, plan: QueuePlan) {
    const { interrupts, device } = transport;
    this.hal = device.hal;
    this.#transport = transport;
    this.#plan = plan;
    this.interrupts = interrupts && {
      onQueue: (queue, handler) => {
        interrupts.onQueue(this.#indexOf(queue), handler);
      },
      onConfig: () => undefined,
      onRemoval: () => undefined,
      hold: () => {
        interrupts.hold();
      },
      release: () => {
        interrupts.release();
      },
      defer: (callback) => {
        interrupts.defer(callback);
      },
    };
  }

  attach(memory: PostedMemory): ReturnType<FakeDevice['hal']['attach']> {
    return this.hal.attach(memory);
  }

  notify(queue: number, next: number): void {
    this.#transport.notify(this.#indexOf(queue), next);
  }

  close(): void {
    this.closed += 1;
  }

  #indexOf(queue: number): number {
    const planned = this.#plan.queues[queue];
    if (planned === undefined) throw new Error(`the plan has no queue ${queue}`);
    return planned.index;
  }
}
