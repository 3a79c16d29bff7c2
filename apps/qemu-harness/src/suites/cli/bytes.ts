/** The command line on devices that carry bytes: what it prints, receives and sends is compared with what the host has. */
import { deepEqual, equal, match } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { guestTest, type HostEnv, pattern } from '../../framework/define.ts';
import { share } from '../9p/_share.ts';
import { consoleDevice, host as consoleHost } from '../console/_host.ts';
import { host as socketHost } from '../socket/_host.ts';
import { socketDevice, unable } from '../socket/_device.ts';
import { interrupt } from '../_program.ts';
import { good, json, onSplit, place, start, virtio } from './_virtio.ts';

const KIB = 1024;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const ENTROPY = 1 << 20;
const SHARED = 300_001;
const PORT = 'org.example.command-line';

export default [
  guestTest({
    device: 'cli',
    name: "gives the host's random bytes, and talks through a port both ways",
    long: true,
    timeoutS: 120,
    skip: onSplit,
    devices: {
      rng: {
        model: 'virtio-rng',
        before: ['-object', 'rng-random,id={id}-source,filename={dir}/entropy'],
        after: ['-set', 'device.{id}.rng={id}-source'],
      },
      serial: consoleDevice([
        { key: 'console', number: 0, console: true },
        { key: 'data', number: 1, name: PORT },
      ]),
    },
    prepare: (directory) => {
      writeFileSync(join(directory, 'entropy'), pattern(new Uint8Array(ENTROPY), 4));
    },
    host: {
      ...consoleHost,
      hash: async ({ length }: { length: number }, { directory }: HostEnv): Promise<string> => {
        const hash = createHash('sha256');
        for await (const piece of createReadStream(join(directory, 'entropy'), { end: length - 1 })) {
          hash.update(piece as Buffer);
        }
        return hash.digest('hex');
      },
    },
    async guest(context) {
      const bytes = await good(['rng', ...place(context, 'rng'), '-n', '100K']);
      equal(bytes.length, 100 * KIB);
      equal(sha256(bytes), await context.host('hash', { length: 100 * KIB }));

      const serial = place(context, 'serial');
      const ports = await json<{ id: number; name?: string; isConsole: boolean }[]>([
        'console',
        ...serial,
        '--list',
      ]);
      deepEqual(
        ports.map(({ id, name, isConsole }) => ({ id, name, isConsole })),
        [
          { id: 0, name: undefined, isConsole: true },
          { id: 1, name: PORT, isConsole: false },
        ],
      );

      await context.host('open', { key: 'data' });
      const text = pattern(new Uint8Array(50_000), 5);
      const taken = context.host('take', { key: 'data', total: text.length });
      const talk = start(['console', ...serial, '--port', PORT], 'open');
      talk.child.stdin?.write(text);
      equal(await taken, sha256(text));
      talk.child.stdin?.write('hello from the guest\n');
      await context.host('takeText', { key: 'data', length: text.length + 21 });
      await context.host('sendText', { key: 'data', text: 'hello from the host\n' });
      await talk.said(/^hello from the host\n$/);
      await interrupt(talk, 130);
      await context.host('close', { key: 'data' });

      const missing = await virtio(['console', ...serial, '--port', 'nobody', '--no-color']);
      equal(missing.status, 1, missing.stderr);
      match(
        missing.stderr,
        /^virtio: the device at .* has no port "nobody"\nhint: add --list to see its ports\n$/,
      );
    },
  }),

  guestTest({
    device: 'cli',
    name: 'lists a share of the host and copies files both ways',
    onlyFull: true,
    timeoutS: 120,
    skip: onSplit,
    devices: { share: share() },
    prepare: (directory) => {
      const root = join(directory, 'share');
      mkdirSync(join(root, 'folder'), { recursive: true });
      writeFileSync(
        join(root, 'folder', 'given'),
        pattern(new Uint8Array(SHARED + 3), 6).subarray(0, SHARED),
      );
    },
    host: {
      look: ({ path }: { path: string }, { directory }: HostEnv): { size: number; hash: string } | null => {
        const file = join(directory, 'share', path);
        return existsSync(file) ? { size: statSync(file).size, hash: sha256(readFileSync(file)) } : null;
      },
    },
    async guest(context) {
      const [address, ...how] = place(context, 'share');
      const rows = await json<{ name: string; size: number }[]>(['9p', 'ls', address, '/folder', ...how]);
      deepEqual(
        rows.map(({ name, size }) => [name, size]),
        [['given', SHARED]],
      );
      match(
        (await good(['9p', 'ls', address, '/', '-r', ...how])).toString(),
        /^drwx.* folder\/\n-rw-.* 300001 .* folder\/given\n$/,
      );

      const given = await good(['9p', 'get', address, '/folder/given', ...how]);
      equal(sha256(given), (await context.host('look', { path: 'folder/given' }))?.hash);

      const mine = pattern(new Uint8Array(200_000), 7);
      await good(['9p', 'put', address, '-', '/folder/taken', ...how], mine);
      deepEqual(await context.host('look', { path: 'folder/taken' }), {
        size: mine.length,
        hash: sha256(mine),
      });
      const again = await virtio(['9p', 'put', address, '-', '/folder/taken', ...how], new Uint8Array(4));
      equal(again.status, 4);
      match(again.stderr, /exists already, with 200000 bytes\nhint: add --force/);
      deepEqual(await context.host('look', { path: 'folder/taken' }), {
        size: mine.length,
        hash: sha256(mine),
      });

      const script = 'cd folder\nmkdir deep\nmv taken deep/moved\nrm given\nls deep\n';
      match(
        (await good(['9p', 'shell', address, ...how], Buffer.from(script))).toString(),
        / 200000 .* moved\n$/,
      );
      equal(await context.host('look', { path: 'folder/given' }), null);
      deepEqual(await context.host('look', { path: 'folder/deep/moved' }), {
        size: mine.length,
        hash: sha256(mine),
      });
      const none = await virtio(['9p', 'get', address, '/nowhere', ...how]);
      equal(none.status, 1);
      match(none.stderr, /ENOENT/);
    },
  }),

  guestTest({
    device: 'cli',
    name: 'connects to a program of the host, and is connected to by one',
    onlyFull: true,
    timeoutS: 120,
    skip: (cell) => onSplit(cell) ?? unable(cell),
    devices: { socket: socketDevice() },
    host: socketHost,
    async guest(context) {
      const [address, ...how] = place(context, 'socket');
      await context.host('listen', { port: 4000, key: 'server' });
      const client = start(['socket', 'connect', address, '4000', ...how], 'open');
      await context.host('arrived', { key: 'server' });
      client.child.stdin?.write('from the guest');
      equal(await context.host('takeText', { key: 'server', length: 14 }), 'from the guest');
      await context.host('sendText', { key: 'server', text: 'from the host' });
      await client.said(/^from the host$/);
      await context.host('end', { key: 'server' });
      equal((await client.ended).status, 0, (await client.ended).stderr);

      const listening = start(['socket', 'listen', address, '5000', ...how], 'open');
      await listening.said(/listening at port 5000 of CID 42/);
      match(await context.host('dial', { key: 'dialled', port: 5000 }), /^OK/);
      await context.host('sendText', { key: 'dialled', text: 'anybody there?' });
      await listening.said(/anybody there\?$/);
      listening.child.stdin?.write('yes');
      equal(await context.host('takeText', { key: 'dialled', length: 3 }), 'yes');
      await context.host('end', { key: 'dialled' });
      equal((await listening.ended).status, 0, (await listening.ended).stderr);

      const nobody = await virtio(['socket', 'connect', address, '4001', '--timeout', '0.5', ...how]);
      equal(nobody.status, 1);
      match(nobody.stderr, /hint: some devices do not answer instead of refusing/);
      const waiting = start(['socket', 'listen', address, '5001', '--keep', ...how], 'open');
      await waiting.said(/listening/);
      await interrupt(waiting, 0);
    },
  }),
];
