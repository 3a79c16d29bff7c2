/** One boot that drives a device of each kind: what a bare guest takes from QEMU's start to its end is measured on it. */
import { deepEqual, equal, match } from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { escape } from '@virtio/qemu-harness/src/boot/qemu-args.ts';
import { makeTemporary } from '@virtio/qemu-harness/src/boot/temporary.ts';
import { messageOf } from '@virtio/qemu-harness/src/errors.ts';
import type { TestResult } from '@virtio/qemu-harness/src/framework/results.ts';
import { bundleFile } from './bundle.ts';
import type { BareImage } from './image.ts';
import type { BareMachine } from './machines.ts';
import { BareGuest } from './qemu.ts';

const SCRIPT = fileURLToPath(new URL('../examples/tour.ts', import.meta.url));
const TIMEOUT_MS = 60_000;
const FIRST_BYTE = 0xc3;

/** Runs the tour on a machine with MMIO. */
export async function runTour(machine: BareMachine, image: BareImage): Promise<TestResult> {
  const base = { device: 'all', name: 'drives a device of each kind in one boot' };
  const directory = makeTemporary();
  try {
    const path = (name: string): string => join(directory, name);
    writeFileSync(path('disk'), Buffer.alloc(1 << 20, FIRST_BYTE));
    mkdirSync(path('share'));
    writeFileSync(path('share/question'), 'who');
    const file = (name: string): string => escape(path(name));
    const devices = [
      ...['-drive', `if=none,id=disk,format=raw,file=${file('disk')}`, '-device', 'virtio-blk-device,drive=disk'],
      ...['-device', 'virtio-rng-device', '-device', 'virtio-keyboard-device', '-device', 'virtio-gpu-device'],
      ...['-chardev', `file,id=serial,path=${file('serial')}`, '-device', 'virtio-serial-device'],
      ...['-device', 'virtconsole,chardev=serial'],
      ...['-fsdev', `local,id=share,path=${file('share')},security_model=none`],
      ...['-device', 'virtio-9p-device,fsdev=share,mount_tag=share'],
      ...['-netdev', 'user,id=net,restrict=on', '-device', 'virtio-net-device,netdev=net,mac=52:54:00:00:00:07'],
      ...['-object', `filter-dump,id=dump,netdev=net,file=${file('pcap')}`],
      ...['-audiodev', 'none,id=audio', '-device', 'virtio-sound-device,audiodev=audio'],
    ];
    const script = await bundleFile(SCRIPT);
    const lines: string[] = [];
    const guest = await BareGuest.start(
      { machine, image, script, devices, timeoutMs: TIMEOUT_MS },
      { onLine: (line) => lines.push(line) },
    );
    const { status, ms } = await guest.ended;
    const said = lines.join('\n');
    try {
      equal(status, 0);
      match(said, new RegExp(`blk: the first byte is ${FIRST_BYTE}, `));
      match(said, /rng: two times 32 bytes, different/);
      match(said, /input: QEMU Virtio Keyboard/);
      match(said, /gpu: 320 × 200/);
      match(said, /net: 52:54:00:00:00:07/);
      match(said, /sound: 2 streams/);
      const disk = readFileSync(path('disk'));
      deepEqual([disk[511], disk[512], disk[1023], disk[1024]], [FIRST_BYTE, 0x5a, 0x5a, FIRST_BYTE]);
      equal(readFileSync(path('serial'), 'utf8'), 'hello from a bare guest\n');
      equal(readFileSync(path('share/answer'), 'utf8'), `who: ${machine.arch}`);
      // The header of the file, the header of the frame, the frame.
      equal(readFileSync(path('pcap')).length, 24 + 16 + 60);
    } catch (error) {
      const detail = `${messageOf(error)}\nIt printed:\n${said}\n${guest.complaints}`;
      return { ...base, status: 'failed', ms: Math.round(ms), detail };
    }
    const heap = lines.find((line) => line.startsWith('heap:')) ?? '';
    return { ...base, status: 'passed', ms: Math.round(ms), detail: `${Math.round(ms)} ms from QEMU's start to its end; ${heap}` };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
