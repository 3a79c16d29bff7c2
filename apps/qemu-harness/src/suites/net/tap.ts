/** The kernel's IP stack on top of the driver, through a Tap, against QEMU's user network. */
import { Tap } from '@virtio/linux';
import { formatMac, type VirtioNet } from '@virtio/net';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { join } from 'node:path';
import { guestTest, type DeviceSpec, type HostEnv, pattern } from '../../framework/define.ts';
import { GUEST_MAC } from './_frames.ts';
import { openNet } from './_net.ts';

const MIB = 1 << 20;
/** What is fetched, each way. */
const AMOUNT = 100 * MIB;
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
    `user,id={id}-net,hostfwd=tcp:127.0.0.1:0-:8080,guestfwd=tcp:${SERVER}:80-cmd:${process.execPath} {dir}/server.mjs`,
  ],
  after: ['-set', 'device.{id}.netdev={id}-net'],
});

const host = {
  /** Fetches a page from the server in the guest, through the port that QEMU forwards. */
  fetchPage: async ({ path }: { path: string }, env: HostEnv): Promise<string> => {
    const table = String(await env.qmp('human-monitor-command', { 'command-line': 'info usernet' }));
    const port = table
      .split('\n')
      .filter((line) => line.includes(`${env.deviceId('net')}-net`) || line.includes('HOST_FORWARD'))
      .map((line) => /HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+8080/.exec(line)?.[1])
      .find((found) => found !== undefined);
    if (port === undefined) throw new Error(`QEMU forwards no port:\n${table}`);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const curl = spawnCurl(`http://127.0.0.1:${port}${path}`);
    if (curl !== undefined) return curl;
    request({ host: '127.0.0.1', port: Number(port), path, agent: false }, (response) => {
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
  const sending = request({ host: SERVER, port: 80, method, path, agent: false }, (response) => {
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

export default [
  guestTest({
    device: 'net',
    name: "the kernel's stack gets a lease and pings through a Tap; the host fetches a page from a server in the guest",
    essential: true,
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
          const server = createServer((incoming, outgoing) => {
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

  guestTest({
    device: 'net',
    name: 'the kernel fetches 100 MiB over HTTP through a Tap, and sends them back, with equal hashes',
    long: true,
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
          const bytes = pattern(new Uint8Array(AMOUNT), SEED);
          const expected = createHash('sha256').update(bytes).digest('hex');
          let began = performance.now();
          const down = await http('GET', `/${AMOUNT}`);
          context.note(`down: ${Math.round((AMOUNT / MIB / (performance.now() - began)) * 1000)} MiB/s`);
          deepEqual([down.bytes, down.hash], [AMOUNT, expected]);
          began = performance.now();
          const up = await http('POST', '/', bytes);
          context.note(`up: ${Math.round((AMOUNT / MIB / (performance.now() - began)) * 1000)} MiB/s`);
          equal(up.text, expected);
        },
      );
    },
  }),

  guestTest({
    device: 'net',
    name: 'resolves the gateway and pings it without a kernel',
    devices: { net: userNetwork() },
    prepare,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      const me = [10, 0, 2, 15];
      const gateway = [10, 0, 2, 2];
      const mac = Array.from(net.macAddress);
      const ask = [...[255, 255, 255, 255, 255, 255], ...mac, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
      await net.send(Uint8Array.from([...ask, ...mac, ...me, 0, 0, 0, 0, 0, 0, ...gateway]));
      /** The next frame of a type, whatever else the network has to say. */
      const next = async (type: number): Promise<Uint8Array> => {
        for (;;) {
          using packet = await net.receive();
          const frame = packet.copy();
          if (((frame[12] ?? 0) << 8) + (frame[13] ?? 0) === type) return frame;
        }
      };
      const reply = await next(0x0806);
      deepEqual([...reply.subarray(20, 22), ...reply.subarray(28, 32)], [0, 2, ...gateway]);
      const peer = Array.from(reply.subarray(22, 28));
      for (let sequence = 1; sequence <= 5; sequence += 1) {
        const echo = withSum(
          Uint8Array.from([8, 0, 0, 0, 0x12, 0x34, 0, sequence, ...new Array<number>(56).fill(sequence)]),
          2,
        );
        const length = 20 + echo.length;
        const header = withSum(
          Uint8Array.from([0x45, 0, 0, length, 0, sequence, 0, 0, 64, 1, 0, 0, ...me, ...gateway]),
          10,
        );
        await net.send(Uint8Array.from([...peer, ...mac, 8, 0, ...header, ...echo]));
        const answer = await next(0x0800);
        const icmp = answer.subarray(34, 34 + echo.length);
        equal(icmp[0], 0, 'an echo reply');
        deepEqual(icmp.subarray(4), echo.subarray(4));
      }
    },
  }),
];

/** Puts the checksum of IP into a header. */
function withSum(bytes: Uint8Array<ArrayBuffer>, at: number): Uint8Array<ArrayBuffer> {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  bytes[at] = (~sum >> 8) & 0xff;
  bytes[at + 1] = ~sum & 0xff;
  return bytes;
}
