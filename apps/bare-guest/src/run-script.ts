/** `npm run guest -- --bare ARCH script.ts`: a script of the user's in a bare guest. */
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { escape } from '@virtio/qemu-harness/src/boot/qemu-args.ts';
import { makeTemporary } from '@virtio/qemu-harness/src/boot/temporary.ts';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import { bundleFile } from './bundle.ts';
import { ensureBareImage } from './image.ts';
import { machineFor } from './machines.ts';
import type { BareScriptOptions } from './options.ts';
import { ensureEmulators } from './packages.ts';
import { BareGuest } from './qemu.ts';

const SCRATCH_BYTES = 64 << 20;
const STATUS_INTERRUPTED = 130;
const STATUS_GUEST_DIED = 70;

/** Runs the script and returns the exit status for this process. */
export async function runBareScript(
  options: BareScriptOptions,
  report: (line: string) => void,
): Promise<number> {
  // First what the user can have got wrong, then what takes time.
  const script = await bundleFile(options.script, options.args);
  const scratch = makeTemporary();
  try {
    const devices = [...diskArguments(options, scratch), ...options.qemu];
    await ensureEmulators(report);
    const image = await ensureBareImage(options.arch, report);
    const machine = machineFor(options.arch, options.transport);
    const { timeoutMs } = options;
    const guest = await BareGuest.start(
      { machine, image, script, devices, timeoutMs },
      { onLine: (line) => console.log(line) },
    );
    const end = { interrupted: false };
    const stop = (): void => {
      end.interrupted = true;
      void guest.stop();
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
    const { status, timedOut } = await guest.ended;
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, stop);
    if (guest.complaints !== '') console.error(guest.complaints);
    if (end.interrupted) return STATUS_INTERRUPTED;
    if (timedOut) console.error(`guest: it was still running after ${Math.round(timeoutMs / 1000)} s`);
    return status ?? STATUS_GUEST_DIED;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** QEMU's arguments for the disks that were asked for, or for a disposable one. */
function diskArguments({ disks, qemu, transport }: BareScriptOptions, scratch: string): string[] {
  const paths = [...disks];
  for (const path of disks) {
    if (statSync(path, { throwIfNoEntry: false })?.isFile() !== true) {
      throw new HarnessError(
        'BAD_ARGUMENTS',
        `There is no disk image ${path}; make one: truncate -s 64M ${path}`,
      );
    }
  }
  if (paths.length === 0 && !qemu.some((word) => /^(vhost-|virtio-)/.test(word))) {
    const path = join(scratch, 'scratch.img');
    writeFileSync(path, '');
    truncateSync(path, SCRATCH_BYTES);
    paths.push(path);
  }
  const device = transport === 'pci' ? 'virtio-blk-pci,disable-legacy=on' : 'virtio-blk-device';
  return paths.flatMap((path, index) => [
    ...['-drive', `if=none,id=disk${index},format=raw,discard=unmap,file=${escape(resolve(path))}`],
    ...['-device', `${device},drive=disk${index}`],
  ]);
}
