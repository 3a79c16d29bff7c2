/** What the host's half of a test can do, for one test in one guest. */
import type { Guest } from '../boot/guest.ts';
import type { Backends } from './backends.ts';
import type { Cell, HostEnv } from './define.ts';
import { hashImage, mapImage, readImage, type PreparedDisk } from './disk-image.ts';
import type { PlannedBackend, PlannedDevice, PlannedTest } from './plan.ts';
import type { Picture } from './results.ts';

/** The environment of a test's host functions. Pictures that it leaves are added to `pictures`. */
export function createHostEnv(
  guest: Pick<Guest, 'qmp' | 'complaints'>,
  planned: PlannedTest,
  cell: Cell,
  backends: Backends,
  pictures: Picture[],
): HostEnv {
  const device = (name: string): PlannedDevice => {
    const found = planned.devices.get(name);
    if (found === undefined) throw new Error(`'${planned.test.name}' has no device '${name}'.`);
    return found;
  };
  const disk = (name: string): PreparedDisk => {
    const found = device(name).disk;
    if (found === undefined) throw new Error(`The device '${name}' of '${planned.test.name}' is not a disk.`);
    return found;
  };
  const backend = (name: string): PlannedBackend => {
    const found = device(name).backend;
    if (found === undefined) {
      throw new Error(`The device '${name}' of '${planned.test.name}' is not served by a program.`);
    }
    return found;
  };
  return {
    cell,
    directory: planned.directory,
    qmp: async (command, args) => (await guest.qmp).execute(command, args),
    qmpEvent: async (name, timeoutMs) => (await (await guest.qmp).waitFor(name, undefined, timeoutMs)).data,
    deviceId: (name) => device(name).id,
    nodeName: (name) => disk(name).nodeName,
    readImage: async (name, offset, length) => readImage(disk(name), offset, length),
    hashImage: async (name, offset, length) => hashImage(disk(name), offset, length),
    mapImage: async (name) => mapImage(disk(name)),
    command: (program) => backends.command(program),
    complaints: () => guest.complaints,
    picture: (title, type, bytes) => {
      pictures.push({ title, type, data: Buffer.from(bytes).toString('base64') });
    },
    killBackend: async (name) => backends.kill(backend(name)),
    startBackend: async (name) => backends.start(backend(name)),
  };
}
