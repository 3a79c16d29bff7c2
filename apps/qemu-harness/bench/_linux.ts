/** The guest's half of a measurement: the host, Linux' own drivers, and sockets that Node.js does not have. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import koffi from 'koffi';

let nextId = 1;
const calls = new Map<number, PromiseWithResolvers<unknown>>();
process.on('message', ({ id, value, error }: { id: number; value?: unknown; error?: string }) => {
  const call = calls.get(id);
  calls.delete(id);
  if (error === undefined) call?.resolve(value);
  else call?.reject(new Error(error));
});

/** Calls a function of the host's half. */
export function host(name: string, args: unknown = null): Promise<unknown> {
  const call = Promise.withResolvers<unknown>();
  calls.set(nextId, call);
  process.send?.({ id: nextId, name, args });
  nextId += 1;
  return call.promise;
}

/** Ends this process when all is measured. */
export const finish = (): void => process.disconnect();

/** Loads the modules that came with the measurement. */
export function loadModules(): void {
  const folder = '/guest/modules';
  for (const name of readdirSync(folder).sort()) {
    execFileSync('insmod', [`${folder}/${name}`], { stdio: 'inherit' });
  }
}

const device = (address: string): string => `/sys/bus/pci/devices/${address}`;

/** Gives a device to Linux' own driver of virtio over PCI, or takes it away. */
export function bindKernel(address: string, bound: boolean): void {
  let driver: string | undefined;
  try {
    driver = basename(readlinkSync(`${device(address)}/driver`));
  } catch {
    driver = undefined;
  }
  if (bound && driver !== 'virtio-pci') writeFileSync('/sys/bus/pci/drivers/virtio-pci/bind', address);
  if (!bound && driver !== undefined) writeFileSync(`${device(address)}/driver/unbind`, address);
}

/** The network interface of a device that Linux drives. */
export function interfaceOf(address: string): string {
  const virtio = readdirSync(device(address)).find((name) => /^virtio\d+$/.test(name));
  const [name] = virtio === undefined ? [] : readdirSync(`${device(address)}/${virtio}/net`);
  if (name === undefined) throw new Error(`Linux has no interface of ${address}`);
  return name;
}

const libc = koffi.load('libc.so.6');

/** Calls of the C library. */
export const C = {
  socket: libc.func('int socket(int, int, int)'),
  bind: libc.func('int bind(int, void *, uint32)'),
  connect: libc.func('int connect(int, void *, uint32)'),
  setsockopt: libc.func('int setsockopt(int, int, int, void *, uint32)'),
  send: libc.func('int64 send(int, void *, uint64, int)'),
  recv: libc.func('int64 recv(int, void *, uint64, int)'),
  sendmmsg: libc.func('int sendmmsg(int, void *, uint32, int)'),
  recvmmsg: libc.func('int recvmmsg(int, void *, uint32, int, void *)'),
  if_nametoindex: libc.func('uint32 if_nametoindex(str)'),
} as const satisfies Record<string, unknown>;

/** Fails unless a call has succeeded. */
export function must(result: unknown, what: string): number {
  const number = Number(result);
  if (number < 0) throw new Error(`${what} failed with errno ${koffi.errno()}`);
  return number;
}

/** Whether the last call failed as there was nothing to do (EAGAIN), or no room (ENOBUFS). */
export const wouldBlock = (): boolean => [11, 105].includes(koffi.errno());

/** The address of an array in this process. */
export const addressOf = (bytes: Uint8Array): bigint => koffi.address(bytes);

/** The middle one. */
export const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
