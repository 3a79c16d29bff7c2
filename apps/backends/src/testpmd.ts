/** DPDK's testpmd as a network device that sends back whatever comes, each queue pair by itself. It keeps a processor busy. */
import { readFileSync } from 'node:fs';
import { ensureUnpacked } from '@virtio/qemu-harness/unpacked';
import { Backend, type Folder } from './backend.ts';
import { UNPACKED } from './packages.ts';

/** The processors that this process may use, as `--lcores` has it: `0-1`. */
function processors(): string {
  const found = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  if (found === undefined) throw new Error('/proc/self/status does not list the processors');
  return found;
}

/**
 * The command that runs testpmd, without huge pages and rights: one thread that waits, and one that forwards.
 *
 * @param device `--vdev`: the device that it serves, or uses
 * @param options of testpmd itself
 */
export async function testpmdCommand(device: string, options: readonly string[]): Promise<readonly string[]> {
  const command = await ensureUnpacked(UNPACKED.testpmd, (line) => console.log(line));
  const any = processors();
  const memory = ['--no-huge', '-m', '256', '--no-shconf', '--no-telemetry', '--no-pci'];
  return [...command, '--lcores', `0@(${any}),1@(${any})`, ...memory, '--vdev', device, '--', ...options];
}

/** A running testpmd. */
export class Testpmd implements AsyncDisposable {
  /** Where the device is. */
  readonly socket: string;
  readonly #backend: Backend;

  private constructor(backend: Backend, socket: string) {
    this.#backend = backend;
    this.socket = socket;
  }

  /** Starts it with so many pairs of queues. */
  static async start(folder: Folder, pairs = 1): Promise<Testpmd> {
    const socket = folder.file('dpdk.sock');
    const [program = '', ...args] = await testpmdCommand(`net_vhost0,iface=${socket},queues=${pairs}`, [
      '--auto-start',
      '--forward-mode=io',
      '--port-topology=loop',
      '--total-num-mbufs=16384',
      `--rxq=${pairs}`,
      `--txq=${pairs}`,
    ]);
    return new Testpmd(await Backend.start(program, args, [socket]), socket);
  }

  /** Kills it. */
  async kill(): Promise<void> {
    await this.#backend.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
