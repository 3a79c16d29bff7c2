/**
 * Chooses KVM or software emulation. That /dev/kvm opens does not prove that a stock kernel boots on it, so KVM is used only if
 * a guest was seen to start. The result is stored beside the image, for this QEMU and this host.
 */
import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import type { GuestImage } from '../image/image.ts';
import { ensureCacheDir } from '../paths.ts';
import { qemuVersion } from '../setup/qemu-packages.ts';
import { agentFiles } from './agent-files.ts';
import { Guest } from './guest.ts';
import type { Architecture } from '../architecture.ts';
import { DEFAULT_CONFIG, type Accelerator } from './qemu-args.ts';

const PROBE_MS = 15_000;

/** The accelerator for guests with this image. */
export async function chooseAccelerator(
  image: GuestImage,
  report: (line: string) => void,
  arch: Architecture = 'x86_64',
): Promise<Accelerator> {
  // Hosts are x86-64.
  if (arch !== 'x86_64') return 'tcg';
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return 'tcg';
  }
  const path = join(ensureCacheDir(), 'accelerator.json');
  const key = `${await qemuVersion()} ${release()} ${cpuModel()} ${image.kernelRelease}`;
  const known = readKnown(path);
  if (known?.key === key) return known.accelerator;
  report('KVM: trying whether a guest boots on it');
  const accelerator = (await boots(image)) ? 'kvm' : 'tcg';
  report(accelerator === 'kvm' ? 'KVM: works' : 'KVM: does not boot a guest here; using software emulation');
  writeFileSync(path, `${JSON.stringify({ key, accelerator })}\n`);
  return accelerator;
}

function readKnown(path: string): { key: string; accelerator: Accelerator } | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as { key: string; accelerator: Accelerator };
  } catch {
    return undefined;
  }
}

async function boots(image: GuestImage): Promise<boolean> {
  const config = { ...DEFAULT_CONFIG, machine: 'q35', transport: 'pci-vfio', accelerator: 'kvm' } as const;
  const guest = await Guest.start(config, image, await agentFiles(), PROBE_MS);
  try {
    await guest.ready;
    return true;
  } catch {
    return false;
  } finally {
    await guest.stop();
  }
}

function cpuModel(): string {
  return /^model name\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
}
