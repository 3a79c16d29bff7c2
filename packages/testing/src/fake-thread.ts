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
  /** Whether the platform was closed with a plan that had been opened on it, so that it owned the descriptors. */
  owned = false;
  readonly #transport: FakeTransport;
  readonly #plan: QueuePlan;

  constructor(transport: FakeTransport, plan: QueuePlan) {
    const { device } = transport;
    const interrupts: InterruptSource | undefined = transport.interrupts;
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
      lookout: interrupts.lookout,
    };
  }

  attach(memory: PostedMemory): ReturnType<FakeDevice['hal']['attach']> {
    return this.hal.attach(memory);
  }

  notify(queue: number, next: number): void {
    this.#transport.notify(this.#indexOf(queue), next);
  }

  close(opened: boolean): void {
    this.closed += 1;
    this.owned ||= opened;
  }

  #indexOf(queue: number): number {
    const planned = this.#plan.queues[queue];
    if (planned === undefined) throw new Error(`the plan has no queue ${queue}`);
    return planned.index;
  }
}
