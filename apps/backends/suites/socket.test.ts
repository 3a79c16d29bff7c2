/** Sockets of vhost-device-vsock (Debian unstable). The peers are sockets of the host, through Node's own `net`. */
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { VirtioSocket, VsockConnectionManager } from '@virtio/socket';
import { openDriver } from '@virtio/vhost-user';
import { expect, it } from 'vitest';
import { Folder } from '../src/backend.ts';
import { VsockDevice } from '../src/vsock-device.ts';

const CID = 5;
const HOST = 2;

const pattern = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i * 7 + (i >> 8));

/** Runs a test with a device and its connections. */
async function withSockets(
  body: (sockets: VsockConnectionManager, device: VsockDevice) => Promise<void>,
): Promise<void> {
  using folder = new Folder();
  await using device = await VsockDevice.start(folder, CID);
  using driver = await openDriver(VirtioSocket, `vhost-user:${device.socket}`);
  using sockets = new VsockConnectionManager(driver, { timers: globalThis });
  expect(sockets.guestCid).toBe(CID);
  await body(sockets, device);
}

it('a program of the host is connected to, and echoes a megabyte', async () => {
  await withSockets(async (sockets, device) => {
    const server = createServer((peer: Socket) => void peer.pipe(peer)).listen(`${device.host}_1234`);
    await once(server, 'listening');
    try {
      const connection = await sockets.connect({ cid: HOST, port: 1234 });
      const bytes = pattern(1 << 20);
      const sending = connection.write(bytes);
      const back = new Uint8Array(bytes.length);
      for (let got = 0; got < back.length;) {
        const count = await connection.read(back.subarray(got));
        expect(count).toBeGreaterThan(0);
        got += count;
      }
      await sending;
      expect(Buffer.compare(back, bytes)).toBe(0);
      await connection.close();
    } finally {
      server.close();
    }
  });
});

it('a program of the host connects, and its end is heard of', async () => {
  await withSockets(async (sockets, device) => {
    using listener = sockets.listen({ port: 7 });
    const peer = await device.connect(7);
    const connection = await listener.accept();
    peer.write('hello');
    const buffer = new Uint8Array(100);
    expect(await connection.read(buffer)).toBe(5);
    const heard = once(peer, 'data');
    await connection.write('answer');
    expect(String((await heard)[0])).toBe('answer');
    peer.end();
    expect(await connection.read(buffer)).toBe(0);
    await connection.close();
  });
});

it('a port where nobody listens is given up in time', async () => {
  await withSockets(async (sockets) => {
    await expect(
      sockets.connect({ cid: HOST, port: 4321 }, { signal: AbortSignal.timeout(300) }),
    ).rejects.toMatchObject({ code: 'ABORTED' });
  });
});
