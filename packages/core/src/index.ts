/**
 * The parts that all VirtIO drivers share.
 *
 * @packageDocumentation
 */
export * from './check.ts';
export * from './errors.ts';
export * from './utf8.ts';
export * from './device/buffer-driver.ts';
export * from './device/device-status.ts';
export * from './device/device-type.ts';
export * from './device/driver-spec.ts';
export * from './device/driver.ts';
export * from './device/events.ts';
export * from './device/features.ts';
export * from './device/flags.ts';
export * from './device/interrupts.ts';
export * from './device/spare-queues.ts';
export * from './device/transport.ts';
export * from './memory/hal.ts';
export * from './memory/layout.ts';
export * from './memory/registers.ts';
export { Deadline } from './deadline.ts';
export * from './queues/buffer-queue.ts';
export type * from './queues/driver-queue.ts';
export * from './queues/receive-queue.ts';
export type * from './queues/request.ts';
export * from './queues/request-life-cycle.ts';
export * from './queues/request-queue.ts';
export { spin, type SpinOptions, spinTime } from './queues/spin.ts';
export * from './queues/transmit-queue.ts';
export * from './queues/wait.ts';
export * from './ring/buffer-chains.ts';
export * from './ring/create-queue.ts';
export * from './ring/packed-queue.ts';
export type * from './ring/queue-calls.ts';
export * from './ring/split-queue.ts';
export * from './ring/virt-queue.ts';
export * from './threads/for-threads.ts';
export type { LentQueues, QueuePlanOptions } from './threads/lent-queues.ts';
export * from './threads/open-queue-plan.ts';
export type * from './threads/queue-plan.ts';
export type { QueueTransport, ThreadDriver } from './threads/queue-transport.ts';
export * from './trace/trace.ts';
export * from './trace/trace-event.ts';
