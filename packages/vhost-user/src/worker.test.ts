import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { FakeBackend, INFLIGHT, PROTOCOL, STATUS, temporarySocket } from '../test/fake-backend.ts';
import { FrontendRequest } from './protocol.ts';

it('a worker thread opens, uses and closes a device, without a warning about descriptors that node:fs has not opened', async () => {
  using socket = temporarySocket();
  await using _backend = await FakeBackend.start(socket.path, {
    protocol: PROTOCOL | STATUS | INFLIGHT,
    // Descriptors that nobody asked for are closed, too.
    lies: { [FrontendRequest.GET_STATUS]: 'descriptors' },
  });
  const code = `
    const { parentPort } = require('node:worker_threads');
    const warnings = [];
    process.on('warning', ({ message }) => warnings.push(message));
    (async () => {
      const { VirtioBlk } = await import(${JSON.stringify(new URL('../node_modules/@virtio/blk/src/index.ts', import.meta.url).href)});
      const { openDriver } = await import(${JSON.stringify(new URL('./index.ts', import.meta.url).href)});
      const data = new Uint8Array(512);
      {
        using blk = await openDriver(VirtioBlk, ${JSON.stringify(`vhost-user:${socket.path}`)}, { reconnect: true, hugePages: false });
        await blk.write(3, data.fill(7));
        await blk.read(3, data.fill(0));
      }
      setImmediate(() => parentPort.postMessage({ warnings, last: data[511] }));
    })();
  `;
  const worker = new Worker(code, { eval: true, execArgv: ['--conditions=@virtio/source'] });
  const [seen] = (await once(worker, 'message')) as [unknown];
  await worker.terminate();
  expect(seen).toEqual({ warnings: [], last: 7 });
});
