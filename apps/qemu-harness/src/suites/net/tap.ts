/** The kernel's IP stack on top of the driver, through a Tap, against QEMU's user network. */
import { Tap } from '@virtio/linux';
import { formatMac, type VirtioNet } from '@virtio/net';
import { deepEqual, equal, ok, rejects } from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { Resolver } from 'node:dns/promises';
import { writeFileSync } from 'node:fs';
import { nodeHttp } from '../_http.ts';
import { join } from 'node:path';
import { guestTest, type DeviceSpec, type GuestTest, type HostEnv, pattern } from '../../framework/define.ts';
import { TinyStack } from '../../../../../packages/net/examples/tiny-stack.ts';
import { GUEST_MAC } from './_frames.ts';
import { openNet } from './_net.ts';

const MIB = 1 << 20;
const SEED = 21;
/** Of the user network. */
const GATEWAY = '10.0.2.2';
const SERVER = '10.0.2.100';

/**
 * The server on the host: QEMU starts it for each connection to {@link SERVER} and connects its standard input and output. It sends
 * a pattern, or tells the hash of what it was sent.
 */
const SERVER_SOURCE = `
import { createHash } from 'node:crypto';
const hash = createHash('sha256');
let head = '';
let left = -1;
const answer = (body) => process.stdout.write('HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: ' + body.length + '\\r\\n\\r\\n', () =>
  process.stdout.write(body, () => process.exit(0)));
function pattern(bytes, seed) {
  const view = new DataView(bytes.buffer);
  for (let offset = 0; offset + 4 <= bytes.length; offset += 4) {
    let word = (Math.imul(offset >>> 2, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b)) >>> 0;
    word = Math.imul(word ^ (word >>> 15), 0x2c1b3c6d);
    view.setUint32(offset, (word ^ (word >>> 13)) >>> 0, true);
  }
  return bytes;
}
process.stdin.on('data', (data) => {
  let body = data;
  if (left < 0) {
    head += data.toString('latin1');
    const end = head.indexOf('\\r\\n\\r\\n');
    if (end < 0) return;
    body = Buffer.from(head.slice(end + 4), 'latin1');
    if (head.startsWith('GET')) return answer(pattern(new Uint8Array(Number(/^GET \\/(\\d+)/.exec(head)[1])), ${SEED}));
    left = Number(/content-length: (\\d+)/i.exec(head)[1]);
  }
  hash.update(body);
  left -= body.length;
  if (left === 0) answer(Buffer.from(hash.digest('hex')));
});
`;

const userNetwork = (): DeviceSpec => ({
  model: 'virtio-net',
  properties: { mac: formatMac(GUEST_MAC) },
  before: [
    '-netdev',
    `user,id={id}-net,tftp={dir},hostfwd=tcp:127.0.0.1:0-:8080,guestfwd=tcp:${SERVER}:80-cmd:${process.execPath} {dir}/server.mjs`,
  ],
  after: ['-set', 'device.{id}.netdev={id}-net'],
});

const host = {
  /** Serves names on a port of the loopback, where the network's gateway leads. */
  serveNames: async (_args: null): Promise<number> => {
    const server = createSocket('udp4');
    server.on('message', (query, { port, address }) => server.send(answerName(query), port, address));
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    server.once('error', reject).bind(0, '127.0.0.1', () => resolve(undefined));
    await promise;
    server.unref();
    return server.address().port;
  },
  /** Fetches a page from the server in the guest, through the port that QEMU forwards. */
  fetchPage: async ({ path }: { path: string }, env: HostEnv): Promise<string> => {
    const table = String(await env.qmp('human-monitor-command', { 'command-line': 'info usernet' }));
    // A part for each network: its name in a line of its own, then its connections, indented.
    const connections = table.split(/^(?=\S)/m).find((part) => part.includes(`(${env.deviceId('net')}-net)`));
    const port = /HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+8080/.exec(connections ?? '')?.[1];
    if (port === undefined) throw new Error(`QEMU forwards no port:\n${table}`);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const curl = spawnCurl(`http://127.0.0.1:${port}${path}`);
    if (curl !== undefined) return curl;
    nodeHttp()
      .request({ host: '127.0.0.1', port: Number(port), path, agent: false }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
        response.on('end', () => resolve(text)).on('error', reject);
      })
      .on('error', reject)
      .end();
    return promise;
  },
};

/** The answer that curl gets, if there is a curl. */
function spawnCurl(url: string): string | undefined {
  const { status, stdout, error } = spawnSync('curl', ['-sS', '--max-time', '30', url], { encoding: 'utf8' });
  if (error !== undefined) return undefined;
  if (status !== 0) throw new Error(`curl ended with ${status}`);
  return stdout;
}

/** Answers one question of the DNS: `7.example` and `seven.example` have the address 192.0.2.7, what is below no `.example` there is not. */
function answerName(query: Buffer): Buffer {
  let end = 12;
  const labels: string[] = [];
  for (let length = query[end] ?? 0; length > 0; length = query[end] ?? 0) {
    labels.push(query.toString('latin1', end + 1, end + 1 + length));
    end += 1 + length;
  }
  const question = query.subarray(12, end + 5);
  const found = labels.at(-1) === 'example';
  const number = labels[0] === 'seven' ? 7 : Number(labels[0]);
  const head = [0x81, found ? 0x80 : 0x83, 0, 1, 0, found ? 1 : 0, 0, 0, 0, 0];
  const answer = found ? [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, number] : [];
  return Buffer.concat([query.subarray(0, 2), Buffer.from(head), question, Buffer.from(answer)]);
}

const prepare = (directory: string): void => {
  writeFileSync(join(directory, 'server.mjs'), SERVER_SOURCE);
};

/** Runs a program of busybox; its output. */
function busybox(...args: string[]): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  execFile('busybox', args, (error, stdout, stderr) => {
    if (error === null) resolve(stdout);
    else reject(new Error(`busybox ${args.join(' ')}: ${error.message}\n${stdout}${stderr}`));
  });
  return promise;
}

/** What udhcpc calls when it has a lease. */
const LEASE_SCRIPT = `#!/bin/sh
[ "$1" = bound ] || exit 0
busybox ip address add "$ip/$mask" dev "$interface"
busybox ip route add default via "$router"
echo "$ip $mask $router $dns" > /tmp/lease
`;

/** Opens an interface on the driver, and gets it an address. */
async function withNetwork(
  net: VirtioNet,
  note: (line: string) => void,
  body: () => Promise<void>,
): Promise<void> {
  spawnSync('modprobe', ['tun']);
  using tap = new Tap({ name: 'virtio0', macAddress: net.macAddress, mtu: net.mtu });
  equal(tap.name, 'virtio0');
  equal(tap.mtu, net.mtu);
  tap.up();
  const connection = tap.connect(net);
  writeFileSync('/tmp/lease.sh', LEASE_SCRIPT, { mode: 0o755 });
  note(
    (await busybox('udhcpc', '-i', 'virtio0', '-n', '-q', '-f', '-s', '/tmp/lease.sh', '-t', '10')).trim(),
  );
  try {
    await body();
  } finally {
    const { received, sent, dropped } = connection.counters;
    note(`${received} frames to the kernel, ${sent} from it, ${dropped} dropped`);
    connection[Symbol.dispose]();
    await connection.ended;
  }
  equal(connection.counters.dropped, 0);
}

interface Answer {
  readonly hash: string;
  readonly bytes: number;
  readonly text: string;
}

/** One request by Node's own client, over the kernel's sockets. */
function http(method: 'GET' | 'POST', path: string, body?: Uint8Array): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const sending = nodeHttp().request({ host: SERVER, port: 80, method, path, agent: false }, (response) => {
    const hash = createHash('sha256');
    let bytes = 0;
    let text = '';
    response.on('data', (piece: Buffer) => {
      hash.update(piece);
      bytes += piece.length;
      if (text.length < 100) text += piece.toString('latin1');
    });
    response.on('end', () => resolve({ hash: hash.digest('hex'), bytes, text })).on('error', reject);
  });
  sending.on('error', reject);
  if (body !== undefined) sending.setHeader('Content-Length', body.length);
  sending.end(body);
  return promise;
}

/** The kernel's HTTP through a Tap, both ways. */
function carriesHttp(mebibytes: number, share: Pick<GuestTest, 'long' | 'onlyFull'>): GuestTest {
  const amount = mebibytes * MIB;
  return guestTest({
    device: 'net',
    name: `the kernel fetches ${mebibytes} MiB over HTTP through a Tap, and sends them back, with equal hashes`,
    ...share,
    timeoutS: 300,
    devices: { net: userNetwork() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      await withNetwork(
        open.net,
        (line) => context.note(line),
        async () => {
          const bytes = pattern(new Uint8Array(amount), SEED);
          const expected = createHash('sha256').update(bytes).digest('hex');
          let began = performance.now();
          const down = await http('GET', `/${amount}`);
          context.note(`down: ${Math.round((amount / MIB / (performance.now() - began)) * 1000)} MiB/s`);
          deepEqual([down.bytes, down.hash], [amount, expected]);
          began = performance.now();
          const up = await http('POST', '/', bytes);
          context.note(`up: ${Math.round((amount / MIB / (performance.now() - began)) * 1000)} MiB/s`);
          equal(up.text, expected);
        },
      );
    },
  });
}

export default [
  guestTest({
    device: 'net',
    name: "the kernel's stack gets a lease and pings through a Tap; the host fetches a page from a server in the guest",
    timeoutS: 120,
    devices: { net: userNetwork() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      await withNetwork(
        open.net,
        (line) => context.note(line),
        async () => {
          const ping = await busybox('ping', '-c', '3', '-w', '20', GATEWAY);
          ok(ping.includes(' 0% packet loss'), ping);
          const server = nodeHttp().createServer((incoming, outgoing) => {
            outgoing.setHeader('Connection', 'close');
            outgoing.end(`hello from ${incoming.url ?? ''}\n`);
          });
          const { promise, resolve } = Promise.withResolvers<undefined>();
          server.listen(8080, () => resolve(undefined));
          await promise;
          equal(await context.host('fetchPage', { path: '/the-guest' }), 'hello from /the-guest\n');
          server.close();
          server.closeAllConnections();
          const { bytes, hash } = await http('GET', `/${MIB}`);
          equal(bytes, MIB);
          equal(
            hash,
            createHash('sha256')
              .update(pattern(new Uint8Array(MIB), SEED))
              .digest('hex'),
          );
        },
      );
    },
  }),

  carriesHttp(16, { long: true }),
  carriesHttp(100, { onlyFull: true }),

  guestTest({
    device: 'net',
    name: 'the kernel resolves names through a Tap, and says which there are not',
    timeoutS: 90,
    devices: { net: userNetwork() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      await withNetwork(
        open.net,
        (line) => context.note(line),
        async () => {
          const port = await context.host('serveNames', null);
          const resolver = new Resolver({ timeout: 5000, tries: 4 });
          resolver.setServers([`${GATEWAY}:${port}`]);
          deepEqual(await resolver.resolve4('seven.example'), ['192.0.2.7']);
          const all = Array.from({ length: 50 }, (_, n) => resolver.resolve4(`${n}.example`));
          deepEqual(
            (await Promise.all(all)).flat(),
            Array.from({ length: 50 }, (_, n) => `192.0.2.${n}`),
          );
          await rejects(resolver.resolve4('nobody.test'), { code: 'ENOTFOUND' });
        },
      );
    },
  }),

  guestTest({
    device: 'net',
    name: 'a small stack of its own pings the gateway and fetches a file by TFTP, without a kernel',
    timeoutS: 90,
    devices: { net: userNetwork() },
    prepare,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      const stack = new TinyStack(
        {
          readable: net.readable(ReadableStream<Uint8Array>),
          writable: net.writable(WritableStream<Uint8Array>),
        },
        { macAddress: net.macAddress, address: '10.0.2.15', gateway: GATEWAY },
      );
      for (const size of [0, 1, 56, 1000]) await stack.ping(GATEWAY, new Uint8Array(size).fill(size & 0xff));
      equal(Buffer.from(await fetchByTftp(stack, 'server.mjs')).toString(), SERVER_SOURCE);
      await stack.close();
    },
  }),
];

/** Fetches a file in blocks of 512 bytes, each of which is acknowledged [RFC 1350]. */
async function fetchByTftp(stack: TinyStack, name: string): Promise<Uint8Array> {
  using port = stack.udp(2000);
  const pieces: Uint8Array[] = [];
  await port.send(GATEWAY, 69, Buffer.from(`\0\x01${name}\0octet\0`, 'latin1'));
  for (let block = 1; ; block += 1) {
    const { address, port: from, data } = await port.receive();
    deepEqual([address, ...data.subarray(0, 4)], [GATEWAY, 0, 3, block >> 8, block & 0xff]);
    pieces.push(data.subarray(4));
    await port.send(GATEWAY, from, Uint8Array.of(0, 4, block >> 8, block & 0xff));
    if (data.length < 516) return Buffer.concat(pieces);
  }
}
