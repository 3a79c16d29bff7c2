/** Peers that stop reading or go away, and a device that dies. */
import { equal, ok } from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { guestTest } from '../../framework/define.ts';
import { cannotUnplug, HOST, socketDevice, unable } from './_device.ts';
import { bytesOf, hashOf, host } from './_host.ts';
import { KIB, MIB, openSocket, rejectsWith, sendBytes, takeHash } from './_socket.ts';

export default [
  guestTest({
    device: 'socket',
    name: 'waits for a peer that stops reading, loses nothing, and lets others go on',
    timeoutS: 120,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      await context.host('listen', { port: 1, key: 'slow' });
      await context.host('listen', { port: 2, key: 'other' });
      const slow = await open.sockets.connect({ cid: HOST, port: 1 });
      const other = await open.sockets.connect({ cid: HOST, port: 2 });
      const size = 4 * MIB;
      let sent = 0;
      const sending = (async () => {
        for (; sent < size; sent += 64 * KIB) await slow.write(bytesOf(7, sent, 64 * KIB));
      })();
      for (let quiet = 0, before = -1; quiet < 4;) {
        await delay(250);
        quiet = sent === before ? quiet + 1 : 0;
        before = sent;
      }
      ok(sent < size, 'the host did not read, and everything was sent all the same');
      equal(slow.sendCredit, 0);
      context.note(`stopped after ${Math.round(sent / KIB)} KiB`);
      const taking = context.host('take', { key: 'other', total: MIB });
      await sendBytes(other, 8, MIB);
      equal(await taking, hashOf(8, MIB));
      ok(sent < size);
      equal(await context.host('take', { key: 'slow', total: size }), hashOf(7, size));
      await sending;
      await Promise.all([slow.close(), other.close()]);
    },
  }),

  guestTest({
    device: 'socket',
    name: 'makes a peer wait that it does not read from, loses nothing, and lets others go on',
    timeoutS: 120,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      await context.host('listen', { port: 1, key: 'p' });
      await context.host('listen', { port: 2, key: 'other' });
      const connection = await open.sockets.connect({ cid: HOST, port: 1 }, { bufferSize: 100_000 });
      const other = await open.sockets.connect({ cid: HOST, port: 2 });
      const size = 4 * MIB;
      let sent = false;
      const sending = context.host('send', { key: 'p', seed: 9, length: size }).then(() => (sent = true));
      const received = context.host('send', { key: 'other', seed: 10, length: MIB });
      equal(await takeHash(other, MIB), hashOf(10, MIB));
      await received;
      ok(!sent, 'the guest did not read, and everything was sent all the same');
      equal(connection.available, 100_000);
      equal(await takeHash(connection, size), hashOf(9, size));
      await sending;
      // In single bytes, too, the peer goes on.
      const more = context.host('send', { key: 'p', seed: 11, length: 300 * KIB });
      await delay(100);
      const into = new Uint8Array(1);
      for (let n = 0; n < 1000; n += 1) equal(await connection.read(into), 1);
      await takeHash(connection, 300 * KIB - 1000);
      await more;
      await Promise.all([connection.close(), other.close()]);
    },
  }),

  guestTest({
    device: 'socket',
    name: 'gives all data to a program that reads them late, even though the connection was closed at once',
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context, { closeTimeoutMs: 20_000 });
      await context.host('listen', { port: 1, key: 'p' });
      const connection = await open.sockets.connect({ cid: HOST, port: 1 });
      // As much as the unix socket and the device hold: with some of it left, the device does not confirm the end.
      const piece = 10 * KIB;
      let size = 0;
      for (let idle = 0; idle < 5;) {
        if (idle > 0) await delay(100);
        const sent = connection.tryWrite(bytesOf(5, size, piece));
        size += sent;
        idle = sent === 0 ? idle + 1 : 0;
      }
      context.note(`${size} bytes were on their way`);
      const closing = connection.close();
      await delay(500);
      equal(connection.phase, 'closing');
      const { bytes, hash } = await context.host('takeAll', { key: 'p' });
      await closing;
      equal(bytes, size);
      equal(
        hash,
        createHash('sha256')
          .update(bytesOf(5, 0, size))
          .digest('hex'),
      );
      equal(connection.end, 'clean');
    },
  }),

  guestTest({
    device: 'socket',
    name: 'is left by programs on the host, and leaves some',
    timeoutS: 120,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      const soon = (): { readonly signal: AbortSignal } => ({ signal: AbortSignal.timeout(20_000) });
      for (let n = 0; n < 3; n += 1) {
        const key = `left${n}`;
        await context.host('listen', { port: 10 + n, key });
        const connection = await open.sockets.connect({ cid: HOST, port: 10 + n });
        await connection.write(bytesOf(n, 0, 100 * KIB), soon());
        await context.host('take', { key, total: 100 * KIB });
        const reading = connection.readChunk(soon());
        await context.host('destroy', { key });
        equal(await reading, undefined, `the end of the connection with ${key}`);
        equal(await connection.waitForEnd(soon()), 'clean');
        await rejectsWith('SOCKET_SHUTDOWN', connection.write('x'));
      }
      for (let n = 0; n < 3; n += 1) {
        const key = `leaving${n}`;
        await context.host('listen', { port: 30 + n, key });
        const connection = await open.sockets.connect({ cid: HOST, port: 30 + n });
        await connection.write('x', soon());
        await context.host('takeText', { key, length: 1 });
        connection.abort();
        equal(await context.host('sawEnd', { key, ms: 10_000 }), true, `the end that ${key} sees`);
      }
      equal(open.sockets.size, 0);
    },
  }),

  guestTest({
    device: 'socket',
    name: 'is not told of a program on the host that goes without having read all, and gives up by time',
    long: true,
    timeoutS: 90,
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      await context.host('listen', { port: 1, key: 'unread' });
      const silent = await open.sockets.connect({ cid: HOST, port: 1 });
      const writing = silent.write(bytesOf(1, 0, MIB), { signal: AbortSignal.timeout(3000) });
      writing.catch(() => undefined);
      await context.host('takeText', { key: 'unread', length: 1000 });
      await context.host('destroy', { key: 'unread' });
      await rejectsWith('ABORTED', writing);
      silent.abort();
      await rejectsWith('SOCKET_ABORTED', silent.readChunk());
      await context.host('listen', { port: 2, key: 'other' });
      const other = await open.sockets.connect({ cid: HOST, port: 2 });
      await other.write('goes on');
      equal(await context.host('takeText', { key: 'other', length: 7 }), 'goes on');
      await other.close();
    },
  }),

  guestTest({
    device: 'socket',
    name: 'loses its connections in a reset, and makes new ones',
    devices: { socket: socketDevice() },
    skip: unable,
    host,
    async guest(context) {
      using open = openSocket(context);
      using listener = open.sockets.listen({ port: 80 });
      const accepting = listener.accept();
      await context.host('listen', { port: 1, key: 'a' });
      const connection = await open.sockets.connect({ cid: HOST, port: 1 });
      const reading = connection.readChunk();
      open.driver.reset();
      await rejectsWith('DEVICE_RESET', reading);
      equal(open.sockets.size, 0);
      await context.host('listen', { port: 2, key: 'b' });
      const again = await open.sockets.connect({ cid: HOST, port: 2 });
      await again.write('after');
      equal(await context.host('takeText', { key: 'b', length: 5 }), 'after');
      equal(await context.host('dial', { key: 'c', port: 80 }), 'OK 80');
      await (await accepting).close();
      await again.close();
    },
  }),

  guestTest({
    device: 'socket',
    name: 'outlives the program that is the device, and uses it when it is started and plugged in again',
    long: true,
    timeoutS: 120,
    devices: { socket: socketDevice({ hotplug: true }) },
    skip: cannotUnplug,
    host,
    async guest(context) {
      {
        using open = openSocket(context, { connectTimeoutMs: 700 });
        await context.host('listen', { port: 1, key: 'a' });
        const connection = await open.sockets.connect({ cid: HOST, port: 1 });
        const ends = [connection.readChunk(), connection.write(bytesOf(1, 0, 10 * MIB))];
        for (const end of ends) end.catch(() => undefined);
        await delay(200);
        await context.host('killBackend', null);
        await delay(200);
        // Nobody says that the device is dead: what is asked of it is not answered.
        await rejectsWith('SOCKET_TIMED_OUT', open.sockets.connect({ cid: HOST, port: 1 }));
        const failure = new Promise<string>((resolve) =>
          open.driver.on('failure', ({ code }) => resolve(code)),
        );
        await context.host('replug', null);
        equal(await failure, 'DEVICE_REMOVED');
        for (const end of ends) await rejectsWith('DEVICE_REMOVED', end);
      }
      const location = context.device('socket');
      const path = `/sys/bus/pci/devices/${location.kind === 'pci' ? location.address : ''}/vendor`;
      for (let looks = 0; !existsSync(path); looks += 1) {
        ok(looks < 200, 'the device did not come back');
        await delay(100);
      }
      using again = openSocket(context);
      const { sockets } = again;
      await context.host('listen', { port: 2, key: 'b' });
      const connection = await sockets.connect({ cid: HOST, port: 2 });
      await connection.write('back again');
      equal(await context.host('takeText', { key: 'b', length: 10 }), 'back again');
      await connection.close();
    },
  }),
];
