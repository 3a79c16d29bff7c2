/** `--display`: a window of QEMU if it can open one, else a VNC server on a loopback socket. */
import { tryRun } from '../run.ts';
import type { Machine } from '../boot/qemu-args.ts';
import type { QmpClient } from '../boot/qmp.ts';

/** How a display is shown. */
export interface DisplayPlan {
  /** Arguments for QEMU. */
  readonly args: readonly string[];
  /** Whether there is a VNC server, whose address is to be told. */
  readonly vnc: boolean;
}

const WINDOWS = ['gtk', 'sdl'] as const;

/**
 * Plans the display of a guest.
 *
 * @param available the names of QEMU's display back ends
 * @param env the environment, which says whether there is a desktop
 * @param qemu the arguments that the user gave; without a GPU among them there will be one
 */
export function planDisplay(
  available: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  machine: Machine,
  qemu: readonly string[],
): DisplayPlan {
  const gpu = qemu.some((word) => word.startsWith('virtio-gpu'))
    ? []
    : ['-device', machine === 'q35' ? 'virtio-gpu-pci' : 'virtio-gpu-device'];
  const desktop = (env.DISPLAY ?? '') !== '' || (env.WAYLAND_DISPLAY ?? '') !== '';
  const window = desktop ? WINDOWS.find((name) => available.includes(name)) : undefined;
  if (window !== undefined) return { args: [...gpu, '-display', window], vnc: false };
  return { args: [...gpu, '-vnc', '127.0.0.1:0,to=99,share=ignore'], vnc: true };
}

/** The display back ends that QEMU has. */
export async function displayBackEnds(): Promise<readonly string[]> {
  const { stdout } = await tryRun('qemu-system-x86_64', ['-display', 'help']);
  return stdout.split('\n').map((line) => line.trim());
}

/** Where the VNC server listens. */
export async function vncAddress(qmp: QmpClient): Promise<string> {
  const { host, service } = (await qmp.execute('query-vnc')) as { host?: string; service?: string };
  return `${host ?? '127.0.0.1'}:${service ?? '5900'}`;
}
