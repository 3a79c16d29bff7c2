/** Seven devices in one guest; each one does something simple. The command is in the README of this folder. */
import { VirtioBlk } from '@virtio/blk';
import { VirtioConsole } from '@virtio/console';
import { DeviceType, deviceTypeName } from '@virtio/core';
import { VirtioGpu } from '@virtio/gpu';
import { VirtioInput } from '@virtio/input';
import { type DeviceInfo, listDevices, openDriver } from '@virtio/linux';
import { formatMac, VirtioNet } from '@virtio/net';
import { VirtioRng } from '@virtio/rng';
import { VirtioSound } from '@virtio/sound';

function find(type: DeviceType): DeviceInfo {
  const device = listDevices().find(({ deviceType }) => deviceType === type);
  if (device === undefined) throw new Error(`there is no device of type ${deviceTypeName(type)}`);
  return device;
}

using blk = openDriver(VirtioBlk, find(DeviceType.Block));
const sector = new Uint8Array(512);
await blk.read(0, sector);
const runs = (sector[0] ?? 0) + 1;
sector[0] = runs;
await blk.write(0, sector);
await blk.flush();
console.log(`disk      ${blk.capacity} sectors; this is run ${runs} with it`);

using rng = openDriver(VirtioRng, find(DeviceType.EntropySource));
const random = Buffer.from(await rng.fill(new Uint8Array(16)));
console.log(`entropy   ${random.toString('hex')}`);

using serial = openDriver(VirtioConsole, find(DeviceType.Console));
const port = await serial.waitForPort(({ isConsole }) => isConsole);
await port.write(`run ${runs}: hello from the guest\n`);
await port.flush();
console.log('console   wrote a line');

// Who has the address of the network's gateway? (ARP)
using net = openDriver(VirtioNet, find(DeviceType.Network));
const question = Buffer.from(
  `ffffffffffff${'0'.repeat(12)}0806` + `0001080006040001${'0'.repeat(12)}0a00020f${'0'.repeat(12)}0a000202`,
  'hex',
);
question.set(net.macAddress, 6);
question.set(net.macAddress, 22);
await net.send(question);
for await (using packet of net) {
  const frame = packet.copy();
  if (frame[12] !== 8 || frame[13] !== 6) continue;
  console.log(`network   ${formatMac(net.macAddress)}; 10.0.2.2 is at ${formatMac(frame.subarray(22, 28))}`);
  break;
}

using input = openDriver(VirtioInput, find(DeviceType.Input));
console.log(`keyboard  ${input.name()}`);

using gpu = openDriver(VirtioGpu, find(DeviceType.Gpu));
const screen = await gpu.setUpFramebuffer();
screen.pixels.forEach((_, n) => {
  screen.pixels[n] = (Math.floor(n / screen.width) * 0x010001) & 0xff00ff;
});
await screen.flush();
console.log(`display   ${screen.width} × ${screen.height}, ${(await gpu.edid())?.name ?? 'no name'}`);

// Half a second of the A that orchestras tune to.
using sound = openDriver(VirtioSound, find(DeviceType.Sound));
const rate = 48_000;
await using stream = await sound.openPlayback({ format: 'S16', rate, channels: 2 });
const tone = Int16Array.from(
  { length: rate },
  (_, n) => 8000 * Math.sin((2 * Math.PI * 440 * (n >> 1)) / rate),
);
await stream.write(tone);
await stream.drain();
console.log('sound     half a second of A, 440 Hz');
