/**
 * A tap of the host as the back end, which has what QEMU's others lack: several queues, and offloads. QEMU makes the interface; it is moved
 * into a network namespace of its own, where a program of the tests is the other station. All of it is gone when QEMU and the program are.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatMac, parseMac } from '@virtio/net';
import type { Cell, DeviceSpec, HostEnv, Properties } from '../../framework/define.ts';
import { GUEST_MAC } from './_frames.ts';

/** A network device with a tap of the host behind it. */
export function onTap(queues: number, properties: Properties = {}): DeviceSpec {
  return {
    model: 'virtio-net',
    properties: { mac: formatMac(GUEST_MAC), ...(queues > 1 ? { mq: true } : {}), ...properties },
    before: ['-netdev', `tap,id={id}-net,queues=${queues},script={dir}/tap-up,downscript=no,vhost=off`],
    after: ['-set', 'device.{id}.netdev={id}-net'],
  };
}

let reason: string | undefined;
let known = false;

/** Why there can be no tap on this host. The guest does not ask. */
export function withoutTap(_cell: Cell): string | undefined {
  if (known) return reason;
  known = true;
  const { status } = spawnSync('unshare', ['--net', 'ip', 'tuntap', 'add', 'dev', 'probe', 'mode', 'tap'], {
    stdio: 'ignore',
  });
  reason =
    status === 0
      ? undefined
      : 'the host has no /dev/net/tun, or this user may not make an interface (CAP_NET_ADMIN): only a tap gives QEMU queues and offloads';
  return reason;
}

/** QEMU calls this with the name of the interface. */
export function prepare(directory: string): void {
  const path = join(directory, 'tap-up');
  writeFileSync(path, `#!/bin/sh\necho "$1" >"${directory}/tap-name"\n`, { mode: 0o755 });
}

/** The program at the other end, and how to ask it. */
type Ask = (name: string, args?: unknown) => Promise<unknown>;

const ends = new Map<string, Ask>();

async function start(directory: string): Promise<{ ask: Ask; mac: string }> {
  const file = join(directory, 'tap-name');
  if (!existsSync(file)) throw new Error('QEMU has made no interface');
  const name = readFileSync(file, 'utf8').trim();
  const program = join(import.meta.dirname, '_far-end.ts');
  // setpriv has the kernel end the program when this process is gone, even if it was killed itself.
  const child = spawn(
    'setpriv',
    ['--pdeathsig', 'KILL', 'unshare', '--net', process.execPath, '--conditions=@virtio/source', program],
    { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] },
  );
  child.unref();
  child.channel?.unref();
  const calls = new Map<number, PromiseWithResolvers<unknown>>();
  child.on('message', ({ id, value, error }: { id: number; value?: unknown; error?: string }) => {
    const call = calls.get(id);
    calls.delete(id);
    if (error === undefined) call?.resolve(value);
    else call?.reject(new Error(error));
  });
  child.once('exit', () => {
    for (const call of calls.values()) call.reject(new Error('the far end has ended'));
  });
  await once(child, 'spawn');
  let id = 0;
  const ask: Ask = (asked, args = null) => {
    const call = Promise.withResolvers<unknown>();
    calls.set((id += 1), call);
    child.send({ id, name: asked, args });
    return call.promise;
  };
  // It answers when it runs, and so is in its namespace.
  await ask('echoed');
  execFileSync('ip', ['link', 'set', 'dev', name, 'netns', String(child.pid)]);
  const mac = (await ask('up', { name })) as string;
  return { ask, mac };
}

function end({ directory }: HostEnv): Ask {
  const found = ends.get(directory);
  if (found === undefined) throw new Error('the cable is not plugged in');
  return found;
}

/** Datagrams that came: their sizes, and the hash of all. */
interface Kept {
  readonly sizes: readonly number[];
  readonly hash: string;
}

/** A stream that came. */
interface Stream {
  readonly bytes: number;
  readonly hash: string;
}

/** What tests ask of the host. */
export const host = {
  /** Puts the cable in; the MAC address of the host's station. */
  plug: async (_args: null, { directory }: HostEnv): Promise<readonly number[]> => {
    const { ask, mac } = await start(directory);
    ends.set(directory, ask);
    return Array.from(parseMac(mac));
  },
  /** How many datagrams the echo port has had from each port of the guest. */
  echoed: (_args: null, env: HostEnv): Promise<Readonly<Record<string, number>>> =>
    end(env)('echoed') as Promise<Readonly<Record<string, number>>>,
  /** The datagrams that came to the port that keeps them, as soon as they have so many bytes in all. */
  kept: (args: { bytes: number }, env: HostEnv): Promise<Kept> => end(env)('kept', args) as Promise<Kept>,
  /** How many bytes a stream is answered with. */
  answer: async (args: { length: number }, env: HostEnv): Promise<void> => {
    await end(env)('answer', args);
  },
  /** The streams that the guest has ended: how many bytes, and their hash. */
  streams: (_args: null, env: HostEnv): Promise<readonly Stream[]> =>
    end(env)('streams') as Promise<readonly Stream[]>,
};
