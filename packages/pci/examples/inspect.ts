/**
 * Lists the virtio devices of a Linux machine and what they offer, through configuration space alone: no BAR is mapped, the
 * registers are reached by the PCI configuration access capability. Needs root, and devices without a driver.
 *
 * `npm run guest -- packages/pci/examples/inspect.ts`
 */
import fs from 'node:fs';
import { CommonFeatures, type RegisterWindow, VirtioError } from '@virtio/core';
import {
  capabilities,
  DeviceFunction,
  DeviceFunctionInfo,
  mapThroughConfig,
  msixVectors,
  PciTransport,
  readBars,
  virtioDeviceType,
  virtioStructures,
} from '@virtio/pci';

const ROOT = '/sys/bus/pci/devices';

/** Configuration space as sysfs shows it: each access is one `pread` or `pwrite`. */
class SysfsConfig implements RegisterWindow {
  readonly size: number;
  readonly #fd: number;

  constructor(name: string) {
    this.#fd = fs.openSync(`${ROOT}/${name}/config`, 'r+');
    this.size = fs.fstatSync(this.#fd).size;
  }

  read8(offset: number): number {
    return this.#read(offset, 1).readUInt8();
  }

  read16(offset: number): number {
    return this.#read(offset, 2).readUInt16LE();
  }

  read32(offset: number): number {
    return this.#read(offset, 4).readUInt32LE();
  }

  write8(offset: number, value: number): void {
    fs.writeSync(this.#fd, Uint8Array.of(value), 0, 1, offset);
  }

  write16(offset: number, value: number): void {
    fs.writeSync(this.#fd, Uint8Array.of(value, value >>> 8), 0, 2, offset);
  }

  write32(offset: number, value: number): void {
    fs.writeSync(this.#fd, Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24), 0, 4, offset);
  }

  #read(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    if (fs.readSync(this.#fd, bytes, 0, length, offset) !== length) {
      throw new VirtioError('CONFIG_SPACE_TOO_SMALL', `sysfs shows no byte ${offset} of configuration space`);
    }
    return bytes;
  }
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

for (const name of fs.readdirSync(ROOT).sort()) {
  const at = DeviceFunction.parse(name);
  const config = new SysfsConfig(name);
  const info = DeviceFunctionInfo.read(config, at);
  if (virtioDeviceType(info) === undefined) continue;
  print(`${name} ${info.toString()}`);
  print(
    `  capabilities ${capabilities(config, name)
      .map(({ id, offset }) => `${id}@${offset}`)
      .join(' ')}`,
  );
  for (const bar of readBars(config, name)) {
    if (bar) print(`  BAR ${bar.index}: ${bar.kind}, ${bar.size} bytes at 0x${bar.address.toString(16)}`);
  }
  for (const { type, bar, offset, length, multiplier } of virtioStructures(config, name).structures) {
    print(`  structure ${type}: BAR ${bar}, ${length} bytes at ${offset}, multiplier ${multiplier}`);
  }
  print(`  ${msixVectors(config, name)} MSI-X vectors`);
  using transport = new PciTransport({ at, config, mapBar: mapThroughConfig(config, name) });
  const set = transport.beginInit({ table: CommonFeatures, supported: ['ACCESS_PLATFORM'] });
  print(`  offers ${CommonFeatures.format(transport.readDeviceFeatures())}; accepted ${set.toString()}`);
  const sizes: number[] = [];
  for (let size = transport.maxQueueSize(0); size > 0; size = transport.maxQueueSize(sizes.length)) {
    sizes.push(size);
  }
  print(`  queues ${sizes.join(', ')}; ${transport.configSize} bytes of configuration`);
  const first = Array.from({ length: 4 }, (_, i) => transport.readConfig(4 * i, 4).toString(16));
  print(`  configuration ${first.join(' ')}; ${transport.getStatus().toString()}`);
}
