/** A back end as a process of its own, which listens at a Unix socket in a folder that is removed at the end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const START_MS = 10_000;

/** A folder for images and sockets. */
export class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'virtio-backend-'));

  /** The path of a file in the folder. */
  file(name: string): string {
    return join(this.path, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Whether somebody accepts connections at a socket. The file is there a moment before. */
function isListening(socket: string): boolean {
  const accepting = /^\S+ \S+ \S+ 00010000 /;
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .some((line) => accepting.test(line) && line.endsWith(` ${socket}`));
}

/** A program that serves a device. */
export class Backend implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = once(child, 'exit');
  }

  /**
   * Starts a program and waits until its sockets are there.
   *
   * @throws Error with what it said, if it ends before
   */
  static async start(program: string, args: readonly string[], sockets: readonly string[]): Promise<Backend> {
    for (const socket of sockets) rmSync(socket, { force: true });
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)));
    let failed: Error | undefined;
    child.on('error', (error) => (failed = error));
    const deadline = Date.now() + START_MS;
    while (!sockets.every(isListening)) {
      if (failed !== undefined || child.exitCode !== null || Date.now() > deadline) {
        child.kill('SIGKILL');
        throw new Error(`${program} did not start: ${failed?.message ?? said}`, { cause: failed });
      }
      await delay(5);
    }
    return new Backend(child);
  }

  /** Stops it (SIGSTOP), as a back end that hangs. */
  freeze(): void {
    this.#child.kill('SIGSTOP');
  }

  /** Ends it with no chance to say anything, and waits until it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
