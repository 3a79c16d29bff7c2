/** A guest for a measurement: our driver and Linux' own one after the other, in the same guest. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chooseAccelerator } from '../src/boot/accelerator.ts';
import { agentFiles } from '../src/boot/agent-files.ts';
import { Guest } from '../src/boot/guest.ts';
import { GUEST_DIR } from '../src/boot/protocol.ts';
import { DEFAULT_CONFIG, type TransportKind } from '../src/boot/qemu-args.ts';
import type { CpioEntry } from '../src/image/cpio.ts';
import { moreModules } from '../src/image/modules.ts';
import { sharedLibraries } from '../src/image/node-runtime.ts';
import { prepare } from '../src/prepare.ts';
import { bundle } from '../src/script/bundle.ts';
import { ensureGuestPackages } from '../src/setup/guest-packages.ts';

const TIMEOUT_MS = 900_000;

/** What is to be measured, and in which guest. */
export interface Measurement {
  readonly transport: TransportKind;
  /** Programs of the host reach the guest's memory (vhost-user). */
  readonly sharedMemory?: boolean;
  /** QEMU's arguments for the devices. */
  readonly devices: readonly string[];
  /** Programs of the host that the guest runs, by their paths; their libraries come along. */
  readonly programs?: readonly string[];
  /** The modules of Linux' own drivers. */
  readonly modules: readonly string[];
  /** The guest's half, beside this file. */
  readonly script: string;
  /** What the guest's half asks of the host. */
  readonly host: Readonly<Record<string, (args: never) => unknown>>;
}

/** Programs of the host, and the libraries that they are linked to, at the same places in the guest. */
async function programFiles(programs: readonly string[]): Promise<CpioEntry[]> {
  const paths = new Set(programs);
  for (const program of programs) for (const path of await sharedLibraries(program)) paths.add(path);
  return [...paths].map((path) => {
    return { type: 'file', path: path.slice(1), data: readFileSync(path), mode: 0o755 };
  });
}

/** Boots a guest and runs the script in it, whose output becomes ours. */
export async function measureInGuest({
  transport,
  sharedMemory = false,
  devices,
  programs = [],
  modules,
  script,
  host,
}: Measurement): Promise<void> {
  const report = (line: string): void => console.log(line);
  const image = await prepare(report);
  const accelerator = await chooseAccelerator(image, report);
  const kernel = await moreModules(await ensureGuestPackages(report), modules);
  const files: CpioEntry[] = [
    ...(await agentFiles()),
    { type: 'file', path: 'guest/bench.mjs', data: await bundle(join(import.meta.dirname, script)) },
    ...(await programFiles(programs)),
    ...kernel.map((data, n): CpioEntry => {
      return { type: 'file', path: `guest/modules/${String(n).padStart(2, '0')}.ko`, data };
    }),
  ];
  console.log(`${readFileSync('/proc/loadavg', 'utf8').trim()} (load); compare within one run only`);
  const config = {
    ...DEFAULT_CONFIG,
    machine: 'q35' as const,
    ...{ transport, accelerator, sharedMemory, devices, kernelDrivers: true },
  };
  const guest = await Guest.start(config, image, files, TIMEOUT_MS, {});
  try {
    await guest.ready;
    console.log(`Linux ${image.kernelRelease} on ${accelerator}, Node.js ${image.nodeVersion}`);
    const program = guest.run(['--expose-gc', '--enable-source-maps', `${GUEST_DIR}/bench.mjs`], {
      onOutput: (stream, bytes) => void process[stream].write(bytes),
      onMessage: (body) => {
        const { id, name, args } = body as { id: number; name: string; args: unknown };
        Promise.resolve()
          .then(() => host[name]?.(args as never))
          .then(
            (value) => program.send({ id, value: value ?? null }),
            (error: unknown) => program.send({ id, error: String(error) }),
          );
      },
    });
    const { status } = await program.exited;
    if (status !== 0) process.exitCode = 1;
    await guest.powerOff();
  } finally {
    await guest.stop();
  }
}
