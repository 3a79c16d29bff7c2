/** Connections come and go: out, in, refused, many at once, in halves. */
import { deepEqual, equal, ok } from 'node:assert/strict';
import { nodeHttp } from '../_http.ts';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { toDuplex } from '@virtio/linux';
import type { VsockConnection } from '@virtio/socket';
import { guestTest } from '../../framework/define.ts';
import { CID, HOST, socketDevice, unable } from './_device.ts';
import { bytesOf, hashOf, host } from './_host.ts';
import { KIB, openSocket, rejectsWith, sendBytes, takeHash, throwsWith } from './_socket.ts';

export default [
  guestTest({
    device: 'socket',
    name: 'connects to a program on the host, talks both ways and closes',
    essential: true,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      await context.host('listen', { port: 1234, key: 'p' });
      const connection = await open.sockets.connect({ cid: HOST, port: 1234 });
      deepEqual(connection.peer, { cid: HOST, port: 1234 });
      equal(connection.local.cid, CID);
      await connection.write('hello from the guest\n');
      equal(await context.host('takeText', { key: 'p', length: 21 }), 'hello from the guest\n');
      await context.host('sendText', { key: 'p', text: 'hello from the host\n' });
      equal(Buffer.from((await connection.readChunk()) ?? []).toString(), 'hello from the host\n');
      await connection.close();
      equal(connection.end, 'clean');
      equal(await context.host('sawEnd', { key: 'p', ms: 10_000 }), true);
      equal(open.sockets.size, 0);
      equal(open.driver.quirks, 0);
    },
  }),

  guestTest({
    device: 'socket',
    name: 'accepts a connection of a program on the host',
    essential: 'checks',
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      using listener = open.sockets.listen({ port: 5000 });
      const accepting = listener.accept();
      equal(await context.host('dial', { key: 'p', port: 5000 }), 'OK 5000');
      const connection = await accepting;
      equal(connection.peer.cid, HOST);
      equal(connection.localPort, 5000);
      await context.host('sendText', { key: 'p', text: 'ping' });
      equal(Buffer.from((await connection.readChunk()) ?? []).toString(), 'ping');
      await connection.write('pong');
      equal(await context.host('takeText', { key: 'p', length: 4 }), 'pong');
      await context.host('end', { key: 'p' });
      equal(await connection.readChunk(), undefined);
      equal(await connection.waitForEnd(), 'clean');
    },
  }),

  guestTest({
    device: 'socket',
    name: 'works without promises: by polling and by spinning',
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      const { sockets } = open;
      await context.host('listen', { port: 1, key: 'a' });
      const spun = sockets.connectSync({ cid: HOST, port: 1 }, { timeoutMs: 20_000 });
      // The device holds 64 KiB of what nobody reads.
      spun.writeSync(bytesOf(1, 0, 50 * KIB));
      throwsWith('NOT_READY', () => spun.writeSync(bytesOf(1, 50 * KIB, 4096 * KIB), { timeoutMs: 300 }));
      throwsWith('NOT_READY', () => spun.readSync(new Uint8Array(1), { timeoutMs: 10 }));
      spun.abort();
      throwsWith('SOCKET_ABORTED', () => spun.readSync(new Uint8Array(1)));

      await context.host('listen', { port: 2, key: 'b' });
      const polled = sockets.submitConnect({ cid: HOST, port: 2 });
      const seen: string[] = [];
      const until = async (type: string): Promise<void> => {
        for (const deadline = Date.now() + 20_000; !seen.includes(type);) {
          await delay(1);
          for (let event = sockets.poll(); event !== undefined; event = sockets.poll()) {
            if (event.connection === polled) seen.push(event.type);
          }
          ok(Date.now() < deadline, `no ${type} came, but ${seen.join()}`);
        }
      };
      await until('connected');
      const bytes = bytesOf(2, 0, 300 * KIB);
      const taking = context.host('take', { key: 'b', total: bytes.length });
      for (let sent = 0; sent < bytes.length;) {
        sent += polled.tryWrite(bytes.subarray(sent));
        await delay(0);
      }
      equal(await taking, hashOf(2, bytes.length));
      await context.host('sendText', { key: 'b', text: 'abc' });
      await until('received');
      const into = new Uint8Array(10);
      equal(polled.tryRead(into), 3);
      equal(Buffer.from(into).toString('latin1', 0, 3), 'abc');
      await context.host('end', { key: 'b' });
      await until('disconnected');
      ok(polled.atEnd);
      equal(polled.end, 'clean');
    },
  }),

  guestTest({
    device: 'socket',
    name: 'gives up on a port where nobody listens, and refuses where it does not listen itself',
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context, { connectTimeoutMs: 700 });
      // The device says nothing, where it should refuse.
      await rejectsWith('SOCKET_TIMED_OUT', open.sockets.connect({ cid: HOST, port: 99 }));
      throwsWith('SOCKET_TIMED_OUT', () => open.sockets.connectSync({ cid: HOST, port: 99 }));
      await rejectsWith('SOCKET_TIMED_OUT', open.sockets.connect({ cid: 77, port: 1 }));
      await rejectsWith(
        'ABORTED',
        open.sockets.connect({ cid: HOST, port: 99 }, { signal: AbortSignal.timeout(100) }),
      );
      await rejectsWith('UNSUPPORTED', open.sockets.connect({ cid: HOST, port: 99 }, { type: 'seqpacket' }));
      equal(open.sockets.size, 0);
      const dialling = context.host('dial', { key: 'p', port: 5000 });
      // Promises make the driver look.
      const listener = open.sockets.listen({ port: 5001 });
      const accepting = listener.accept();
      equal(await dialling, '');
      equal(await context.host('dial', { key: 'p', port: 5001 }), 'OK 5001');
      await (await accepting).close();
      listener.close();
    },
  }),

  guestTest({
    device: 'socket',
    name: 'keeps 200 connections at once apart, each with bytes of its own both ways',
    long: true,
    timeoutS: 180,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context, { connectTimeoutMs: 60_000 });
      const length = 40 * KIB;
      const bad: string[] = [];
      const talk = async (connection: VsockConnection, id: number): Promise<void> => {
        const head = Buffer.alloc(4);
        head.writeUInt32BE(id);
        await connection.write(head);
        const [hash] = await Promise.all([
          takeHash(connection, length),
          sendBytes(connection, id, length, 10 * KIB),
        ]);
        if (hash !== hashOf(1000 + id, length)) bad.push(`${id}`);
      };
      await context.host('swarm', { port: 1234, length });
      const connections = await Promise.all(
        Array.from({ length: 100 }, () => open.sockets.connect({ cid: HOST, port: 1234 })),
      );
      using listener = open.sockets.listen({ port: 80 });
      const accepting = (async () => {
        for (let n = 0; n < 100; n += 1) connections.push(await listener.accept());
      })();
      equal(await context.host('dialMany', { port: 80, count: 100, length }), 100);
      await accepting;
      equal(open.sockets.size, 200);
      await Promise.all(connections.map(talk));
      deepEqual(bad, []);
      deepEqual(await context.host('swarmResult', { count: 200 }), { done: 200, bad: [] });
      await Promise.all(connections.map((one) => one.close()));
      equal(open.sockets.size, 0);
      equal(open.driver.quirks, 0);
    },
  }),

  guestTest({
    device: 'socket',
    name: 'opens, talks and closes 300 times in a row, and keeps nothing',
    long: true,
    timeoutS: 120,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      const length = 100;
      await context.host('swarm', { port: 7, length });
      for (let id = 0; id < 300; id += 1) {
        await using connection = await open.sockets.connect({ cid: HOST, port: 7 });
        const head = Buffer.alloc(4);
        head.writeUInt32BE(id);
        await connection.write(Buffer.concat([head, bytesOf(id, 0, length)]));
        equal(await takeHash(connection, length), hashOf(1000 + id, length));
      }
      deepEqual(await context.host('swarmResult', { count: 300 }), { done: 300, bad: [] });
      equal(open.sockets.size, 0);
    },
  }),

  guestTest({
    device: 'socket',
    name: 'ends its own direction alone, and sees the end of the other one',
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      await context.host('listen', { port: 1, key: 'p' });
      const connection = await open.sockets.connect({ cid: HOST, port: 1 });
      await connection.write('last words');
      await connection.endWriting();
      await rejectsWith('SOCKET_SHUTDOWN', connection.write('x'));
      equal(await context.host('takeText', { key: 'p', length: 10 }), 'last words');
      await context.host('send', { key: 'p', seed: 5, length: 300 * KIB });
      equal(await takeHash(connection, 300 * KIB), hashOf(5, 300 * KIB));
      await context.host('end', { key: 'p' });
      equal(await connection.readChunk(), undefined);
      equal(await connection.waitForEnd(), 'clean');

      await context.host('listen', { port: 2, key: 'q' });
      const other = await open.sockets.connect({ cid: HOST, port: 2 });
      await other.write('x');
      await context.host('send', { key: 'q', seed: 6, length: 50 * KIB });
      await context.host('end', { key: 'q' });
      // All that was sent comes before the end.
      equal(await takeHash(other, 50 * KIB), hashOf(6, 50 * KIB));
      equal(await other.readChunk(), undefined);
      equal(await other.waitForEnd(), 'clean');
    },
  }),

  guestTest({
    device: 'socket',
    name: 'serves HTTP to a client on the host',
    long: true,
    timeoutS: 90,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      const server = nodeHttp().createServer((message, response) => {
        void text(message).then((body) => response.end(`${message.method} ${message.url} ${body.length}`));
      });
      using listener = open.sockets.listen({ port: 80 });
      const serving = (async () => {
        for await (const connection of listener) server.emit('connection', toDuplex(connection));
      })();
      const body = 'x'.repeat(200 * KIB);
      const answers = await context.host('fetch', { port: 80, path: '/page', body, times: 5 });
      deepEqual(
        answers,
        [0, 1, 2, 3, 4].map((n) => ({ status: 200, body: `POST /page${n} ${body.length}` })),
      );
      listener.close();
      await serving;
      ok(open.sockets.connections.length <= 5);
    },
  }),
];
