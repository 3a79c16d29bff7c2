/**
 * The host's end of a tap, which runs as a program in a network namespace of its own: the stations of the tests are Linux' own sockets
 * there, and nothing of it is seen on the host's own network. It is told what to do by its parent.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { pattern } from '../../framework/define.ts';
import { GUEST_MAC } from './_frames.ts';
import { GUEST_IP, HOST_IP, PORTS } from './_ip.ts';

const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });

/** Datagrams that came, by the port of the guest. */
const echoed: Record<string, number> = {};
let kept: { readonly sizes: number[]; readonly hash: ReturnType<typeof createHash> } = {
  sizes: [],
  hash: createHash('sha256'),
};
let answerLength = 0;
const streams: { bytes: number; hash: string }[] = [];
let echo: Socket | undefined;

async function listen(port: number, take: (data: Buffer, from: number) => void): Promise<Socket> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  socket.on('message', (data, { port: from }) => take(data, from));
  socket.bind(port, HOST_IP);
  await once(socket, 'listening');
  return socket;
}

const functions: Readonly<Record<string, (args: never) => unknown>> = {
  /** The interface is here: gives it an address, and opens the ports. Returns its MAC address. */
  up: async ({ name }: { name: string }): Promise<string> => {
    writeFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', '1');
    ip('addr', 'add', `${HOST_IP}/24`, 'dev', name);
    ip('link', 'set', name, 'up');
    const mac = Buffer.from(GUEST_MAC)
      .toString('hex')
      .replace(/..(?!$)/g, '$&:');
    ip('neigh', 'add', GUEST_IP, 'lladdr', mac, 'dev', name, 'nud', 'permanent');
    echo = await listen(PORTS.echo, (data, from) => {
      echoed[from] = (echoed[from] ?? 0) + 1;
      echo?.send(data, from, GUEST_IP);
    });
    await listen(PORTS.sink, (data) => {
      kept.sizes.push(data.length);
      kept.hash.update(data);
    });
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      const hash = createHash('sha256');
      let bytes = 0;
      socket.on('error', () => undefined);
      socket.on('data', (data) => {
        bytes += data.length;
        hash.update(data);
      });
      socket.on('end', () => {
        streams.push({ bytes, hash: hash.digest('hex') });
        socket.end(pattern(new Uint8Array(answerLength), 77));
      });
    });
    server.listen(PORTS.stream, HOST_IP);
    await once(server, 'listening');
    // Not from /sys, which shows the interfaces of the namespace in which it was mounted.
    const [link] = JSON.parse(ip('-json', 'link', 'show', 'dev', name)) as { address: string }[];
    return link?.address ?? '';
  },
  /** How many datagrams came from each port of the guest. */
  echoed: () => echoed,
  /** What was kept: how many bytes each datagram had, and the hash of all; nothing is kept afterwards. */
  kept: async ({ bytes }: { bytes: number }): Promise<{ sizes: readonly number[]; hash: string }> => {
    const deadline = Date.now() + 20_000;
    while (kept.sizes.reduce((sum, size) => sum + size, 0) < bytes && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const { sizes, hash } = kept;
    kept = { sizes: [], hash: createHash('sha256') };
    return { sizes, hash: hash.digest('hex') };
  },
  /** How much the next streams are answered with. */
  answer: ({ length }: { length: number }) => {
    answerLength = length;
  },
  /** The streams that have ended. */
  streams: () => streams,
};

process.on('message', ({ id, name, args }: { id: number; name: string; args: unknown }) => {
  Promise.resolve()
    .then(() => functions[name]?.(args as never))
    .then(
      (value) => process.send?.({ id, value: value ?? null }),
      (error: unknown) => process.send?.({ id, error: String(error) }),
    );
});
process.on('disconnect', () => process.exit(0));
