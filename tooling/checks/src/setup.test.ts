import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { withLock } from '@virtio/setup/lock';
import { childEnvironment, run } from '@virtio/setup/processes';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

describe('run', () => {
  const node = (code: string) => run(process.execPath, ['-e', code]);

  it("passes the child's exit status on", async () => {
    expect(await node('process.exit(0)')).toBe(0);
    expect(await node('process.exit(7)')).toBe(7);
  });

  it('reports a child ended by a signal as a shell does', async () => {
    expect(await node('process.kill(process.pid, "SIGTERM")')).toBe(143);
  });

  it('rejects when the program is not there', async () => {
    await expect(run('/no/such/program', [])).rejects.toThrow('ENOENT');
  });
});

describe('childEnvironment', () => {
  it('puts the given folders first and drops what npm says of its own script', () => {
    vi.stubEnv('npm_lifecycle_event', 'test');
    vi.stubEnv('npm_config_local_prefix', '/somewhere');
    vi.stubEnv('npm_config_registry', 'kept');
    vi.stubEnv('PATH', '/usr/bin');
    const env = childEnvironment(['/a', '/b']);
    expect(env.PATH).toBe('/a:/b:/usr/bin');
    expect(env).not.toHaveProperty('npm_lifecycle_event');
    expect(env).not.toHaveProperty('npm_config_local_prefix');
    expect(env.npm_config_registry).toBe('kept');
    vi.unstubAllEnvs();
  });
});

describe('withLock', () => {
  let file: string;
  beforeEach(() => {
    file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'lock-')), 'lock');
  });
  afterEach(() => {
    fs.rmSync(path.dirname(file), { recursive: true });
  });

  it('holds the file while the work runs and removes it after, also when the work throws', async () => {
    const seen = await withLock(file, vi.fn(), () => Promise.resolve(fs.existsSync(file)));
    expect(seen).toBe(true);
    await expect(withLock(file, vi.fn(), () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(fs.readdirSync(path.dirname(file))).toEqual([]);
  });

  it('takes over from a holder that is gone, its process id used again or not', async () => {
    const onWait = vi.fn();
    for (const gone of ['999999999 1', `${process.pid} 1`]) {
      fs.writeFileSync(file, gone);
      expect(await withLock(file, onWait, () => Promise.resolve('mine'))).toBe('mine');
    }
    expect(onWait).not.toHaveBeenCalled();
  });

  it('sweeps away what killed waiters left', async () => {
    fs.writeFileSync(`${file}.17`, '999999999 1');
    await withLock(file, vi.fn(), () => Promise.resolve());
    expect(fs.readdirSync(path.dirname(file))).toEqual([]);
  });

  it('lets one in at a time, in one process, too', async () => {
    let inside = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setTimeout(resolve, 20));
      inside -= 1;
    };
    await Promise.all([1, 2, 3].map(() => withLock(file, vi.fn(), work)));
    expect(most).toBe(1);
    expect(fs.readdirSync(path.dirname(file))).toEqual([]);
  });

  it('waits for a holder that lives', async () => {
    const order: string[] = [];
    const first = withLock(file, vi.fn(), async () => {
      await new Promise((resolve) => setTimeout(resolve, 300));
      order.push('first');
    });
    await withLock(
      file,
      () => order.push('waiting'),
      async () => void order.push('second'),
    );
    await first;
    expect(order).toEqual(['waiting', 'first', 'second']);
  });
});
