/** `guest`: a user's own script in a guest, with its output, its exit status and Ctrl-C as if it ran here. */
import { closeSync, openSync, readSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { chooseAccelerator } from '../boot/accelerator.ts';
import { agentFiles } from '../boot/agent-files.ts';
import { Guest } from '../boot/guest.ts';
import { GUEST_DIR } from '../boot/protocol.ts';
import { DEFAULT_CONFIG, escape, type GuestConfig, type Machine } from '../boot/qemu-args.ts';
import { makeTemporary } from '../boot/temporary.ts';
import { HarnessError } from '../errors.ts';
import type { CpioEntry } from '../image/cpio.ts';
import { prepare } from '../prepare.ts';
import type { Progress } from '../terminal.ts';
import { bundle } from './bundle.ts';
import { displayBackEnds, planDisplay, vncAddress } from './display.ts';
import type { GuestOptions } from './options.ts';

const SCRATCH_BYTES = 64 * 1024 * 1024;
/** Exit statuses as a shell gives them. */
const STATUS_INTERRUPTED = 130;
const STATUS_TERMINATED = 143;
const STATUS_GUEST_DIED = 70;

/** Runs the script and returns the exit status for this process. */
export async function runScript(options: GuestOptions, progress: Progress): Promise<number> {
  // First what the user can have got wrong, then what takes time.
  const module = await bundle(options.script);
  const scratch = makeTemporary();
  try {
    const image = await prepare(progress.note);
    const display = options.display
      ? planDisplay(await displayBackEnds(), process.env, options.machine, options.qemu)
      : undefined;
    const devices = [
      ...diskArguments(options, scratch),
      ...options.qemu,
      ...(display?.args ?? []),
      ...(options.sound === undefined ? [] : soundArguments(options.machine, options.sound)),
    ];
    const accelerator = await chooseAccelerator(image, progress.note);
    const config: GuestConfig = {
      ...DEFAULT_CONFIG,
      machine: options.machine,
      transport: options.transport,
      accelerator,
      memoryMiB: options.memoryMiB ?? DEFAULT_CONFIG.memoryMiB,
      verbose: options.console,
      devices,
    };
    const name = basename(options.script).replace(/\.[cm]?[jt]s$/, '.mjs');
    const files: CpioEntry[] = [
      ...(await agentFiles()),
      { type: 'file', path: `guest/script/${name}`, data: module },
    ];
    progress.note(`guest: starting (${options.machine}, ${options.transport}, ${accelerator})`);
    const guest = await Guest.start(config, image, files, options.timeoutMs, {
      onStage: (stage, seconds) => progress.note(`guest: ${stage} after ${seconds.toFixed(1)} s`),
      onWarning: (text) => progress.print(`guest: ${text}`),
      ...(options.console ? { onConsole: (line: string) => progress.print(`[console] ${line}`) } : {}),
    });
    if (display?.vnc === true) {
      guest.qmp
        .then(async (qmp) => progress.print(`guest: the display is at ${await vncAddress(qmp)} (VNC)`))
        .catch(() => undefined);
    }
    const status = await attend(guest, name, options.args, progress);
    if (options.sound !== undefined) progress.print(`guest: the sound is in ${resolve(options.sound)}`);
    return status;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function attend(
  guest: Guest,
  name: string,
  args: readonly string[],
  progress: Progress,
): Promise<number> {
  let interrupted: number | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    interrupted = signal === 'SIGINT' ? STATUS_INTERRUPTED : STATUS_TERMINATED;
    void guest.stop();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  try {
    await guest.ready;
    progress.clear();
    const program = guest.run(['--enable-source-maps', `${GUEST_DIR}/script/${name}`, ...args], {
      onOutput: (stream, bytes) => void process[stream].write(bytes),
    });
    process.stdin.on('data', (bytes: Buffer) => program.write(bytes));
    process.stdin.on('end', () => program.endInput());
    const { status, signal } = await program.exited;
    if (signal !== undefined) progress.print(`guest: the script was ended by ${signal}`);
    await guest.powerOff();
    return status;
  } catch (error) {
    if (interrupted !== undefined) return interrupted;
    if (!(error instanceof HarnessError)) throw error;
    const { message } = await guest.stop();
    progress.print(message);
    return STATUS_GUEST_DIED;
  } finally {
    process.stdin.destroy();
    await guest.stop();
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, onSignal);
  }
}

/** QEMU's arguments for the disks that were asked for, or for the disposable one. */
function diskArguments(options: GuestOptions, scratch: string): string[] {
  const disks = options.disks.map((path) => {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) {
      throw new HarnessError(
        'BAD_ARGUMENTS',
        `There is no disk image ${path}; make one: truncate -s 64M ${path}`,
      );
    }
    if (stats.isDirectory()) {
      throw new HarnessError('BAD_ARGUMENTS', `--disk ${path}: this is a folder, not a disk image.`);
    }
    return { path: resolve(path), format: imageFormat(path) };
  });
  if (
    disks.length === 0 &&
    !options.display &&
    options.sound === undefined &&
    !options.qemu.some((word) => /^(vhost-|virtio-)/.test(word))
  ) {
    const path = join(scratch, 'scratch.img');
    writeFileSync(path, '');
    truncateSync(path, SCRATCH_BYTES);
    disks.push({ path, format: 'raw' });
  }
  const device = blockDevice(options.machine);
  return disks.flatMap(({ path, format }, index) => [
    ...['-drive', `if=none,id=disk${index},format=${format},discard=unmap,file=${escape(path)}`],
    ...['-device', `${device},drive=disk${index}`],
  ]);
}

/** QEMU's arguments for a sound device whose output is a WAV file, 48 kHz, stereo, 16 bits. */
export function soundArguments(machine: Machine, file: string): string[] {
  return [
    ...['-audiodev', `wav,id=sound,path=${escape(resolve(file))},out.frequency=48000`],
    ...['-device', `${machine === 'q35' ? 'virtio-sound-pci' : 'virtio-sound-device'},audiodev=sound`],
  ];
}

/** QEMU's name for a virtio disk on each machine. */
function blockDevice(machine: Machine): string {
  return machine === 'q35' ? 'virtio-blk-pci' : 'virtio-blk-device';
}

function imageFormat(path: string): 'raw' | 'qcow2' {
  const magic = Buffer.alloc(4);
  const file = openSync(path, 'r');
  try {
    readSync(file, magic, 0, 4, 0);
  } finally {
    closeSync(file);
  }
  return magic.equals(Buffer.from([0x51, 0x46, 0x49, 0xfb])) ? 'qcow2' : 'raw';
}
