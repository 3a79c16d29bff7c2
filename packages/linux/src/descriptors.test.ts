import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';

describe('descriptors of a worker thread', () => {
  it('that node:fs has not opened are closed without a warning', async () => {
    const code = `
      const { parentPort } = require('node:worker_threads');
      const warnings = [];
      process.on('warning', ({ message }) => warnings.push(message));
      (async () => {
        const { UnixSocket } = await import(${JSON.stringify(new URL('./unix-socket.ts', import.meta.url).href)});
        const { SharedFile } = await import(${JSON.stringify(new URL('./shared-file.ts', import.meta.url).href)});
        for (const socket of UnixSocket.pair()) socket[Symbol.dispose]();
        SharedFile.create('test', 2 ** 21, false)[Symbol.dispose]();
        setImmediate(() => parentPort.postMessage(warnings));
      })();
    `;
    const worker = new Worker(code, { eval: true, execArgv: ['--conditions=@virtio/source'] });
    const [warnings] = (await once(worker, 'message')) as [string[]];
    await worker.terminate();
    expect(warnings).toEqual([]);
  });
});
