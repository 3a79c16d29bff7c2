/**
 * Bytes a second each way and round trips a second over a host socket, ours and those of Linux' own AF_VSOCK, in one guest, with
 * vhost-device-vsock at the far side. The guest has no IOMMU, as that program knows none.
 *
 *     npm run bench -- vsock
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ensureUnpacked } from '../src/setup/unpacked-program.ts';
import { UNPACKED } from '../src/setup/unpacked-programs.ts';
import { measureInGuest } from './_guest.ts';

const PIECE = Buffer.alloc(1 << 18, 7);
const folder = mkdtempSync(join(tmpdir(), 'virtio-bench-'));
const vsock = UNPACKED['vhost-device-vsock'];
const [program = ''] = await ensureUnpacked(vsock, (line) => console.log(line));
const device = spawn(
  'setpriv',
  [
    ...['--pdeathsig', 'KILL', program, '--guest-cid', '42', '--socket', `${folder}/vhost`],
    ...['--uds-path', `${folder}/vsock`, '--tx-buffer-size', String(1 << 20)],
  ],
  { stdio: ['ignore', 'ignore', 'inherit'] },
);
for (let n = 0; n < 500 && !existsSync(`${folder}/vhost`); n += 1) await delay(20);

/** The programs that the guest connects to: one takes, one sends, one answers each byte with one. */
const PROGRAMS: Readonly<Record<number, (socket: Socket) => void>> = {
  1: (socket) => void socket.resume(),
  2: (socket) => {
    const send = (): void => {
      if (!socket.destroyed) socket.write(PIECE, send);
    };
    send();
  },
  3: (socket) => void socket.pipe(socket),
};
const servers: Server[] = [];
for (const [port, serve] of Object.entries(PROGRAMS)) {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    serve(socket);
  });
  server.listen(`${folder}/vsock_${port}`);
  await once(server, 'listening');
  servers.push(server);
}

try {
  await measureInGuest({
    transport: 'pci-physical',
    sharedMemory: true,
    devices: [
      ...['-chardev', `socket,id=vsock,path=${folder}/vhost`],
      ...['-device', 'vhost-user-vsock-pci,chardev=vsock,bus=pcie.0,addr=0x1'],
    ],
    modules: ['virtio_pci', 'vmw_vsock_virtio_transport'],
    script: 'vsock.ts',
    host: {},
  });
} finally {
  device.kill('SIGKILL');
  for (const server of servers) server.close();
  rmSync(folder, { recursive: true, force: true });
}
