/**
 * Two boots with scripts of their own. One drives a device of each kind, and measures the time from the start of QEMU to its
 * end; one runs what only x86-64 processors have.
 */
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

/** Under which the report has it. */
export const TOUR_DEVICE = 'all';
const TIMEOUT_MS = 60_000;
const FIRST_BYTE = 0xc3;

/** A boot of its own for a script, and what the host finds afterwards. */
interface Boot {
  readonly script: string;
  readonly device: string;
  readonly name: string;
  /** QEMU's arguments for devices whose files are in a folder. */
  readonly devices: (path: (name: string) => string) => readonly string[];
  /** Fails unless all is as it should be; returns what the report says of it. */
  readonly judge: (said: string, path: (name: string) => string) => string | undefined;
}

async function runBoot(machine: BareMachine, image: BareImage, boot: Boot): Promise<TestResult> {
  const { device, name } = boot;
  const directory = makeTemporary();
  try {
    const path = (file: string): string => join(directory, file);
    writeFileSync(path('disk'), Buffer.alloc(1 << 20, FIRST_BYTE));
    const devices = boot.devices(path);
    const script = await bundleFile(boot.script);
    const lines: string[] = [];
    const guest = await BareGuest.start(
      { machine, image, script, devices, timeoutMs: TIMEOUT_MS },
      { onLine: (line) => lines.push(line) },
    );
    const { status, ms } = await guest.ended;
    const said = lines.join('\n');
    const took = `${Math.round(ms)} ms from QEMU's start to its end`;
    try {
      equal(status, 0);
      const disk = readFileSync(path('disk'));
      deepEqual([disk[511], disk[512], disk[1023], disk[1024]], [FIRST_BYTE, 0x5a, 0x5a, FIRST_BYTE]);
      const more = boot.judge(said, path);
      const detail = more === undefined ? took : `${took}; ${more}`;
      return { device, name, status: 'passed', ms: Math.round(ms), detail };
    } catch (error) {
      const detail = `${messageOf(error)}\nIt printed:\n${said}\n${guest.complaints}`;
      return { device, name, status: 'failed', ms: Math.round(ms), detail };
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const example = (name: string): string => fileURLToPath(new URL(`../examples/${name}.ts`, import.meta.url));

/** Runs the tour on a machine with MMIO. */
export const runTour = (machine: BareMachine, image: BareImage): Promise<TestResult> =>
  runBoot(machine, image, {
    script: example('tour'),
    device: TOUR_DEVICE,
    name: 'drives a device of each kind in one boot',
    devices(path) {
      mkdirSync(path('share'));
      writeFileSync(path('share/question'), 'who');
      const file = (name: string): string => escape(path(name));
      const one = (...properties: string[]): string[] => ['-device', `virtio-${properties.join(',')}`];
      return [
        ...['-drive', `if=none,id=disk,format=raw,file=${file('disk')}`, ...one('blk-device', 'drive=disk')],
        ...one('rng-device'),
        ...one('keyboard-device'),
        ...one('gpu-device'),
        ...['-chardev', `file,id=serial,path=${file('serial')}`, ...one('serial-device')],
        ...['-device', 'virtconsole,chardev=serial'],
        ...['-fsdev', `local,id=share,path=${file('share')},security_model=none`],
        ...one('9p-device', 'fsdev=share', 'mount_tag=share'),
        ...[
          '-netdev',
          'user,id=net,restrict=on',
          ...one('net-device', 'netdev=net', 'mac=52:54:00:00:00:07'),
        ],
        ...['-object', `filter-dump,id=dump,netdev=net,file=${file('pcap')}`],
        ...['-audiodev', 'none,id=audio', ...one('sound-device', 'audiodev=audio')],
      ];
    },
    judge(said, path) {
      match(said, new RegExp(`blk: the first byte is ${FIRST_BYTE}, `));
      match(said, /rng: two times 32 bytes, different/);
      match(said, /input: QEMU Virtio Keyboard/);
      match(said, /gpu: 320 × 200/);
      match(said, /net: 52:54:00:00:00:07/);
      match(said, /sound: 2 streams/);
      equal(readFileSync(path('serial'), 'utf8'), 'hello from a bare guest\n');
      equal(readFileSync(path('share/answer'), 'utf8'), `who: ${machine.arch}`);
      // The header of the file, the header of the frame, the frame.
      equal(readFileSync(path('pcap')).length, 24 + 16 + 60);
      return /^heap:.*/m.exec(said)?.[0];
    },
  });

/** Runs on a PC what only an x86-64 processor has. */
export const runPorts = (machine: BareMachine, image: BareImage): Promise<TestResult> =>
  runBoot(machine, image, {
    script: example('ports'),
    device: 'pci-x86',
    name: 'reaches configuration space by ports, notifies by a port, and executes CPUID and VMCALL to look for pKVM',
    devices: (path) => [
      ...['-drive', `if=none,id=disk,format=raw,file=${escape(path('disk'))}`],
      ...['-device', 'virtio-blk-pci,drive=disk,disable-legacy=on,modern-pio-notify=on'],
    ],
    judge(said) {
      match(said, /ports: \d+ functions, the same in memory/);
      match(said, /blk: [1-9]\d* notifications by a port/);
      // QEMU's emulation is no pKVM, and its processor does not know the instruction.
      match(said, /pKVM: not detected/);
      match(said, /VMCALL: the processor does not know VMCALL here/);
      return said.replaceAll('\n', '; ');
    },
  });
