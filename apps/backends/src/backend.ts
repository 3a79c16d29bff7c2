/** A back end in its own process. It listens on a Unix socket in a temporary folder. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

/** Only for a program that hangs: a busy machine takes its time. */
const START_MS = 60_000;

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
  readonly #gone: Promise<void>;

  private constructor(child: ChildProcess, gone: Promise<void>) {
    this.#child = child;
    this.#gone = gone;
  }

  /**
   * Starts a program and waits until its sockets are there.
   *
   * @throws Error with what it said, if it ends before
   */
  static async start(program: string, args: readonly string[], sockets: readonly string[]): Promise<Backend> {
    for (const socket of sockets) rmSync(socket, { force: true });
    // testpmd ends where its input does.
    const child = spawn(program, args, { stdio: ['pipe', 'ignore', 'pipe'] });
    // Not 'exit': the pipe of what it says is closed, too, and no descriptor of it is left.
    const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)));
    let failed: Error | undefined;
    child.on('error', (error) => (failed = error));
    const deadline = Date.now() + START_MS;
    while (!sockets.every(isListening)) {
      if (failed !== undefined || child.exitCode !== null || Date.now() > deadline) {
        child.kill('SIGKILL');
        await gone;
        throw new Error(`${program} did not start: ${failed?.message ?? said}`, { cause: failed });
      }
      await delay(5);
    }
    return new Backend(child, gone);
  }

  /** Stops it (SIGSTOP), as a back end that hangs, and waits until each of its threads has stopped. */
  async freeze(): Promise<void> {
    this.#child.kill('SIGSTOP');
    const tasks = `/proc/${this.#child.pid}/task`;
    const runs = (id: string): boolean => !readFileSync(`${tasks}/${id}/stat`, 'utf8').includes(') T ');
    while (readdirSync(tasks).some(runs)) await delay(1);
  }

  /** Ends it with no chance to say anything, and waits until it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
