/** Drives one device of each kind with promises, and prints what it saw. The host checks that this is true. */
import { P9FileSystem, Virtio9p } from '@virtio/9p';
import { findDevice, machine, openDriver } from '@virtio/bare-guest';
import { VirtioBlk } from '@virtio/blk';
import { VirtioConsole } from '@virtio/console';
import { DeviceType } from '@virtio/core';
import { VirtioGpu } from '@virtio/gpu';
import { VirtioInput } from '@virtio/input';
import { formatMac, VirtioNet } from '@virtio/net';
import { VirtioRng } from '@virtio/rng';
import { VirtioSound } from '@virtio/sound';

const COLOUR = 0x00336699;

using blk = openDriver(VirtioBlk, findDevice(DeviceType.Block));
const sector = new Uint8Array(512);
await blk.read(0, sector);
console.log(`blk: the first byte is ${sector[0] ?? 0}, after ${Math.round(machine.now())} ms`);
await blk.write(1, sector.fill(0x5a));
await blk.flush();

using rng = openDriver(VirtioRng, findDevice(DeviceType.EntropySource));
const [a, b] = [await rng.fill(new Uint8Array(32)), await rng.fill(new Uint8Array(32))];
console.log(
  `rng: two times 32 bytes, ${a.every((byte, index) => byte === b[index]) ? 'the same' : 'different'}`,
);

using serial = openDriver(VirtioConsole, findDevice(DeviceType.Console));
const port = await serial.waitForPort((one) => one.isConsole);
await port.write('hello from a bare guest\n');
await port.flush();
console.log('console: written');

using input = openDriver(VirtioInput, findDevice(DeviceType.Input));
console.log(`input: ${input.name()}`);

using share = openDriver(Virtio9p, findDevice(DeviceType.P9));
const fs = await P9FileSystem.mount(share);
await fs.writeFile('/answer', `${await fs.readFile('/question', 'utf8')}: ${machine.arch}`);
await fs[Symbol.asyncDispose]();
console.log('9p: answered');

using gpu = openDriver(VirtioGpu, findDevice(DeviceType.Gpu));
const screen = await gpu.setUpFramebuffer({ width: 320, height: 200 });
screen.pixels.fill(COLOUR);
await screen.flush();
console.log(`gpu: ${screen.width} × ${screen.height}`);

using net = openDriver(VirtioNet, findDevice(DeviceType.Network));
await net.send(new Uint8Array(60).fill(0xff, 0, 6));
console.log(`net: ${formatMac(net.macAddress)}`);

using sound = openDriver(VirtioSound, findDevice(DeviceType.Sound));
console.log(`sound: ${sound.control.streams} streams`);

const { used, peak } = machine.heap();
console.log(`heap: ${used} bytes in use, ${peak} at the most`);
