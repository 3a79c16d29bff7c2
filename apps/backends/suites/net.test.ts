/** A network device of passt (Debian 13: passt). The peers are sockets of the host, through Node's own `dgram`. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { VirtioNet } from '@virtio/net';
import { openDriver } from '@virtio/vhost-user';
import { expect, it } from 'vitest';
import { TinyStack } from '../../../packages/net/examples/tiny-stack.ts';
import { Folder } from '../src/backend.ts';
import { Passt } from '../src/passt.ts';

const GUEST_PORT = 7007;

/** A socket of the host's loopback, with a port of its own. */
async function hostSocket(): Promise<Socket> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return socket;
}

const pattern = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => i * 7 + seed + (i >> 8));

it('datagrams go to programs of the host and come back, and those of the host come', async () => {
  using folder = new Folder();
  await using passt = await Passt.start(folder, GUEST_PORT);
  using net = await openDriver(VirtioNet, `vhost-user:${passt.socket}`);
  const { address, gateway } = passt;
  const stack = new TinyStack(
    {
      readable: net.readable(ReadableStream<Uint8Array>),
      writable: net.writable(WritableStream<Uint8Array>),
    },
    { macAddress: net.macAddress, address, gateway },
  );
  const echo = await hostSocket();
  const host = await hostSocket();
  try {
    echo.on('message', (data, { port }) => echo.send(data, port, '127.0.0.1'));
    using port = stack.udp(GUEST_PORT);
    for (let n = 0; n < 50; n += 1) {
      const data = pattern(1 + ((n * 97) % 1400), n);
      await port.send(gateway, echo.address().port, data);
      const back = await port.receive();
      expect([back.address, back.port]).toEqual([gateway, echo.address().port]);
      expect(Buffer.compare(back.data, data)).toBe(0);
    }
    for (let n = 0; n < 50; n += 1) {
      const data = pattern(1 + ((n * 89) % 1400), n);
      host.send(data, GUEST_PORT, '127.0.0.1');
      const came = await port.receive();
      expect(Buffer.compare(came.data, data)).toBe(0);
      const answered = once(host, 'message') as Promise<[Buffer]>;
      await port.send(came.address, came.port, came.data.reverse());
      expect(Buffer.compare((await answered)[0], Buffer.from(data).reverse())).toBe(0);
    }
  } finally {
    echo.close();
    host.close();
    await stack.close();
  }
});
