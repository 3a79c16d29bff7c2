/**
 * Frames a second each way, ours and those of Linux' own driver by AF_PACKET, in one guest; and TCP through the `Tap` beside Linux' own
 * interface. The host's end is a socket that takes whatever comes, or sends as fast as the guest takes it; for TCP it is a server on the
 * loopback, behind QEMU's user network.
 *
 *     npm run bench -- frames
 */
import { createServer as createHttp } from 'node:http';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { measureInGuest } from './_guest.ts';

const CHUNK = 1 << 18;
const GUEST_MAC = [0x52, 0x54, 0, 0xab, 0xcd, 1];

const folder = mkdtempSync(join(tmpdir(), 'virtio-bench-'));
const server = createServer();
server.listen(join(folder, 'switch'));
await once(server, 'listening');
let cable: Socket | undefined;
server.on('connection', (socket) => {
  cable = socket;
  socket.on('error', () => undefined).resume();
});

let flooding = false;

/** Frames of one size, each with its length ahead, as `stream` has them. */
function frames(size: number): Buffer {
  const count = Math.floor(CHUNK / (4 + size));
  const chunk = Buffer.alloc(count * (4 + size));
  for (let n = 0; n < count; n += 1) {
    const at = n * (4 + size);
    chunk.writeUInt32BE(size, at);
    chunk.set([...GUEST_MAC, 2, 0, 0, 0, 0, 1, 0x88, 0xb5], at + 4);
  }
  return chunk;
}

const http = createHttp((request, response) => {
  const wanted = Number(/^\/(\d+)/.exec(request.url ?? '')?.[1] ?? 0);
  let came = 0;
  request.on('data', (data: Buffer) => (came += data.length));
  request.on('end', () => response.end(request.method === 'GET' ? Buffer.alloc(wanted, 7) : String(came)));
});
http.listen(0, '127.0.0.1');
await once(http, 'listening');

try {
  await measureInGuest({
    transport: 'pci-vfio',
    devices: [
      ...['-netdev', `stream,id=cable,server=off,addr.type=unix,addr.path=${folder}/switch`],
      ...['-device', 'virtio-net-pci,netdev=cable,bus=pcie.0,addr=0x1,mac=52:54:00:ab:cd:01'],
      ...['-netdev', 'user,id=user'],
      ...['-device', 'virtio-net-pci,netdev=user,bus=pcie.0,addr=0x2,mac=52:54:00:ab:cd:02'],
    ],
    modules: ['virtio_pci', 'virtio_net'],
    script: 'frames.ts',
    host: {
      /** Sends frames of a size as fast as the guest takes them, until {@link stop}. */
      flood: ({ size }: { size: number }): void => {
        const chunk = frames(size);
        flooding = true;
        const send = (): void => {
          if (flooding) cable?.write(chunk, send);
        };
        send();
      },
      stop: (): void => {
        flooding = false;
      },
      port: () => (http.address() as AddressInfo).port,
    },
  });
} finally {
  flooding = false;
  cable?.destroy();
  server.close();
  http.closeAllConnections();
  http.close();
  rmSync(folder, { recursive: true, force: true });
}
