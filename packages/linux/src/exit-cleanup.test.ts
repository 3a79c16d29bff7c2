import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';

/** Runs a script that has opened `a`, then `b`. */
async function run(
  rest: string,
  signal?: NodeJS.Signals,
): Promise<{ out: string; code: number | null; signal: string | null }> {
  const module = fileURLToPath(new URL('./exit-cleanup.ts', import.meta.url));
  const script = `
    import { writeSync } from 'node:fs';
    const { disposeAtExit } = await import(${JSON.stringify(module)});
    const open = (name) => disposeAtExit({ [Symbol.dispose]: () => void writeSync(1, 'closed ' + name + '\\n') });
    const forgetA = open('a');
    const forgetB = open('b');
    ${rest}
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'exit') as Promise<[number | null, string | null]>;
  if (signal) {
    await once(child.stdout, 'readable');
    child.kill(signal);
  }
  const [out, [code, by]] = await Promise.all([text(child.stdout), ended]);
  return { out, code, signal: by };
}

describe('disposeAtExit', () => {
  it('closes what is open when the process ends, last first', async () => {
    expect(await run('')).toEqual({ out: 'closed b\nclosed a\n', code: 0, signal: null });
    expect(await run('process.exit(3)')).toEqual({ out: 'closed b\nclosed a\n', code: 3, signal: null });
    expect((await run("throw new Error('lost')")).out).toBe('closed b\nclosed a\n');
  });

  it('forgets what was closed before', async () => {
    expect((await run('forgetB()')).out).toBe('closed a\n');
    expect((await run("forgetA(); forgetB(); console.log(process.listenerCount('SIGINT'))")).out).toBe('0\n');
  });

  it('closes at a signal that nobody handles, which then ends the process', async () => {
    const result = await run("console.log('ready'); setInterval(() => {}, 1000)", 'SIGTERM');
    expect(result).toEqual({ out: 'ready\nclosed b\nclosed a\n', code: null, signal: 'SIGTERM' });
  });

  it('leaves a signal to those who handle it', async () => {
    const handler = "process.on('SIGTERM', () => { console.log('handled'); process.exit(5); });";
    const result = await run(`${handler} console.log('ready'); setInterval(() => {}, 1000)`, 'SIGTERM');
    expect(result).toEqual({ out: 'ready\nhandled\nclosed b\nclosed a\n', code: 5, signal: null });
  });

  it('does not wait for others that wait for it: a copy of this module, and signal-exit', async () => {
    const wait = "console.log('ready'); setTimeout(() => process.exit(9), 20_000);";
    const copy = `
      const { disposeAtExit: other } = await import(${JSON.stringify(`${fileURLToPath(new URL('./exit-cleanup.ts', import.meta.url))}?2`)});
      other({ [Symbol.dispose]: () => void writeSync(1, 'closed c\\n') });
    `;
    expect(await run(copy + wait, 'SIGTERM')).toEqual({
      out: 'ready\nclosed b\nclosed a\nclosed c\n',
      code: null,
      signal: 'SIGTERM',
    });
    // What signal-exit 4 does at a signal.
    const signalExit = `
      const emitter = (globalThis[Symbol.for('signal-exit emitter')] = { count: 1 });
      const listener = () => {
        if (process.listenerCount('SIGTERM') !== emitter.count) return;
        process.off('SIGTERM', listener);
        writeSync(1, 'theirs\\n');
        process.kill(process.pid, 'SIGTERM');
      };
      process.on('SIGTERM', listener);
    `;
    expect(await run(signalExit + wait, 'SIGTERM')).toEqual({
      out: 'ready\nclosed b\nclosed a\ntheirs\n',
      code: null,
      signal: 'SIGTERM',
    });
  });

  it('goes on after one that cannot be closed', async () => {
    const { out, code } = await run("disposeAtExit({ [Symbol.dispose]() { throw new Error('stuck'); } })");
    expect(out).toBe('closed b\nclosed a\n');
    expect(code).toBe(0);
  });
});
