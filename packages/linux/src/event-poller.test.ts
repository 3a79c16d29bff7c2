import { closeSync, writeSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { EventPoller } from './event-poller.ts';
import { eventfd } from './syscalls.ts';

const descriptors: number[] = [];

function newEventfd(): number {
  const fd = eventfd();
  descriptors.push(fd);
  return fd;
}

const signal = (fd: number): void => {
  writeSync(fd, new Uint8Array(new BigUint64Array([1n]).buffer));
};

/** The event loop takes a few turns. */
const turns = (ms = 30): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

afterEach(() => {
  for (const fd of descriptors.splice(0)) closeSync(fd);
});

describe('EventPoller', () => {
  it('refuses what cannot be watched with a typed error, and knows nothing of it afterwards', () => {
    using poller = new EventPoller();
    expect(() => poller.watch(2 ** 30, () => undefined)).toThrow(
      expect.objectContaining({
        code: 'SYSTEM_ERROR',
        cause: expect.objectContaining({ code: 'EBADF' }) as unknown,
      }),
    );
    poller.unwatch(2 ** 30);
  });

  it('calls the handler of the descriptor that was signalled, once for each signal that is apart', async () => {
    using poller = new EventPoller();
    const [a, b] = [newEventfd(), newEventfd()];
    const calls: string[] = [];
    poller.watch(a, () => calls.push('a'));
    poller.watch(b, () => calls.push('b'));
    signal(a);
    await turns();
    signal(a);
    await turns();
    expect(calls).toEqual(['a', 'a']);
    signal(b);
    await turns();
    expect(calls).toEqual(['a', 'a', 'b']);
  });

  it('runs what a handler resolved at once', async () => {
    using poller = new EventPoller();
    const fd = newEventfd();
    const { promise, resolve } = Promise.withResolvers<number>();
    poller.watch(fd, () => {
      resolve(1);
    });
    poller.hold();
    const start = performance.now();
    signal(fd);
    await promise;
    poller.release();
    expect(performance.now() - start).toBeLessThan(1000);
  });

  it('handles more descriptors at once than fit one batch', async () => {
    using poller = new EventPoller();
    const handlers = Array.from({ length: 40 }, () => vi.fn<() => void>());
    const fds = handlers.map((handler) => {
      const fd = newEventfd();
      poller.watch(fd, handler);
      return fd;
    });
    for (const fd of fds) signal(fd);
    await turns();
    expect(handlers.map((handler) => handler.mock.calls.length)).toEqual(handlers.map(() => 1));
  });

  it('does not lose the signals of others when a handler throws', async () => {
    using poller = new EventPoller();
    const [a, b] = [newEventfd(), newEventfd()];
    const errors: unknown[] = [];
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => errors.push(error));
    try {
      const other = vi.fn<() => void>();
      poller.watch(a, () => {
        throw new Error('handler');
      });
      poller.watch(b, other);
      signal(a);
      signal(b);
      await turns();
      expect(other).toHaveBeenCalledOnce();
      expect(errors).toEqual([expect.objectContaining({ message: 'handler' })]);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
  });

  it('does not call handlers that were removed, or after it was disposed', async () => {
    const poller = new EventPoller();
    const [a, b] = [newEventfd(), newEventfd()];
    const handler = vi.fn<() => void>();
    poller.watch(a, handler);
    poller.watch(b, handler);
    poller.unwatch(a);
    signal(a);
    signal(b);
    poller[Symbol.dispose]();
    poller[Symbol.dispose]();
    poller.hold();
    poller.release();
    poller.unwatch(b);
    await turns();
    expect(handler).not.toHaveBeenCalled();
  });

  it('lets the process end unless somebody holds it, and the event loop rest meanwhile', () => {
    const path = (name: string): string => JSON.stringify(fileURLToPath(new URL(name, import.meta.url)));
    const script = `
      import { writeSync } from 'node:fs';
      const { EventPoller } = await import(${path('./event-poller.ts')});
      const { eventfd } = await import(${path('./syscalls.ts')});
      const poller = new EventPoller();
      const fd = eventfd();
      poller.watch(fd, () => {
        const turns = performance.nodeTiming.uvMetricsInfo.loopCount - before;
        console.log(turns < 20 ? 'signalled' : 'spinning: ' + turns + ' turns');
        poller.release();
      });
      if (process.argv[1] === 'release first') poller.release();
      if (process.argv[1] !== 'leave') poller.hold();
      setTimeout(() => writeSync(fd, new Uint8Array(new BigUint64Array([1n]).buffer)), 500).unref();
      const before = performance.nodeTiming.uvMetricsInfo.loopCount;
    `;
    const run = (arg: string): string => {
      const args = ['--conditions=@virtio/source', '--input-type=module', '-e', script, arg];
      const { stdout, stderr, status } = spawnSync(process.execPath, args, {
        encoding: 'utf8',
        timeout: 15_000,
      });
      expect(stderr.replace(/.*ExperimentalWarning[^]*/, '')).toBe('');
      expect(status).toBe(0);
      return stdout;
    };
    expect(run('leave')).toBe('');
    expect(run('hold')).toBe('signalled\n');
    expect(run('release first')).toBe('signalled\n');
  });
});
