/**
 * Fake devices for tests of VirtIO drivers, which can behave well or badly.
 *
 * @packageDocumentation
 */
export * from './chain.ts';
export * from './device-memory.ts';
export * from './device-queue.ts';
export * from './fake-device.ts';
export * from './fake-hal.ts';
export * from './fake-interrupts.ts';
export * from './fake-mmio-device.ts';
export type { MsixEntry } from './fake-msix.ts';
export * from './fake-pci-bus.ts';
export * from './fake-pci-device.ts';
export {
  type FakeBar,
  type FakeBarOptions,
  type FakeCapability,
  FakePciFunction,
  type FakePciFunctionOptions,
} from './fake-pci-function.ts';
export * from './fake-thread.ts';
export * from './fake-transport.ts';
export * from './interrupt-pin.ts';
export * from './packed-device-queue.ts';
export * from './register-model.ts';
export { type FakeStructure, virtioCapability } from './pci-structures.ts';
export * from './ring-variants.ts';
export * from './split-device-queue.ts';
export {
  contract,
  type ContractOptions,
  type ContractTest,
  contractTests,
  type TestRunner,
} from './contract/contract.ts';
export * from './contract/subject.ts';
export { ContractBreach } from './contract/check.ts';
export * from './fake-polling.ts';
export { LISTENER_ERROR } from './contract/behaviour.ts';
export * from './fuzz/driver-fuzzer.ts';
export { emptyFuzzCounts, type FuzzCounts } from './fuzz/fuzz-counts.ts';
export { Moments } from './fuzz/moments.ts';
export { Random } from './fuzz/random.ts';
