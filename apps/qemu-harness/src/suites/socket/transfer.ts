/** Bytes in bulk, judged by their hashes on both sides. */
import { equal } from 'node:assert/strict';
import { guestTest } from '../../framework/define.ts';
import { HOST, socketDevice, unable } from './_device.ts';
import { hashOf, host } from './_host.ts';
import { MIB, openSocket, sendBytes, takeHash } from './_socket.ts';

const SIZE = 100 * MIB;

const speed = (bytes: number, began: number): string =>
  `${(bytes / MIB / ((performance.now() - began) / 1000)).toFixed(1)} MiB/s`;

export default [
  guestTest({
    device: 'socket',
    name: 'sends 100 MiB to the host, and receives as much, with equal hashes',
    long: true,
    timeoutS: 300,
    devices: { socket: socketDevice({ window: MIB }) },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      await context.host('listen', { port: 1, key: 'p' });
      const connection = await open.sockets.connect({ cid: HOST, port: 1 });
      let began = performance.now();
      const taking = context.host('take', { key: 'p', total: SIZE });
      await sendBytes(connection, 1, SIZE);
      equal(await taking, hashOf(1, SIZE));
      context.note(`to the host ${speed(SIZE, began)}`);
      began = performance.now();
      const sending = context.host('send', { key: 'p', seed: 2, length: SIZE });
      equal(await takeHash(connection, SIZE), hashOf(2, SIZE));
      context.note(`from the host ${speed(SIZE, began)}`);
      await sending;
      await connection.close();
      equal(connection.end, 'clean');
      equal(open.driver.quirks, 0);
    },
  }),

  guestTest({
    device: 'socket',
    name: 'carries both directions at once',
    long: true,
    timeoutS: 180,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      await context.host('listen', { port: 1, key: 'p' });
      const connection = await open.sockets.connect({ cid: HOST, port: 1 });
      const size = 16 * MIB;
      const [taken, received] = await Promise.all([
        context.host('take', { key: 'p', total: size }),
        takeHash(connection, size),
        context.host('send', { key: 'p', seed: 4, length: size }),
        sendBytes(connection, 3, size),
      ]);
      equal(taken, hashOf(3, size));
      equal(received, hashOf(4, size));
      await connection.close();
    },
  }),

  guestTest({
    device: 'socket',
    name: 'pipes Web Streams through two connections with back-pressure',
    timeoutS: 120,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      const size = 4 * MIB;
      await context.host('listen', { port: 1, key: 'from' });
      await context.host('listen', { port: 2, key: 'to' });
      const from = await open.sockets.connect({ cid: HOST, port: 1 });
      const to = await open.sockets.connect({ cid: HOST, port: 2 });
      const piped = from
        .readable(ReadableStream<Uint8Array<ArrayBuffer>>)
        .pipeTo(to.writable(WritableStream<Uint8Array | string>));
      const taken = context.host('take', { key: 'to', total: size });
      await context.host('send', { key: 'from', seed: 9, length: size });
      equal(await taken, hashOf(9, size));
      await context.host('end', { key: 'from' });
      await piped;
      await to.close();
      equal(from.end, 'clean');
      equal(to.end, 'clean');
    },
  }),
];
