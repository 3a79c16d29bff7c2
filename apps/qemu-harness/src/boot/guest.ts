/**
 * One guest, from its start to its end. Everything it needs besides the image is in a private temporary folder and in QEMU's
 * process. Both end with the guest, and QEMU ends with the harness, however that ends.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { appendFileSync, constants, copyFileSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { HarnessError } from '../errors.ts';
import { encodeCpio, type CpioEntry } from '../image/cpio.ts';
import type { GuestImage } from '../image/image.ts';
import { lineSplitter } from '../run.ts';
import { Channel } from './channel.ts';
import { CHUNK_BYTES, fromChunk, toChunk, type FromGuest } from './protocol.ts';
import type { Architecture } from '../architecture.ts';
import { qemuArguments, qemuProgram, type GuestConfig } from './qemu-args.ts';
import { QmpClient } from './qmp.ts';
import { makeTemporary } from './temporary.ts';

/** Where a guest is on its way. */
export type Stage = 'firmware' | 'kernel' | 'init' | 'node' | 'ready';

/** Why a guest is no longer there. */
export interface GuestEnd {
  readonly reason: 'power-off' | 'panic' | 'broken' | 'time-out' | 'stopped' | 'agent-died' | 'qemu-failed';
  /** A sentence for people, with the last lines of the console where they help. */
  readonly message: string;
}

/** What happens in a guest. */
export interface GuestEvents {
  readonly onStage?: (stage: Stage, seconds: number) => void;
  readonly onWarning?: (text: string) => void;
  readonly onConsole?: (line: string) => void;
}

/** A program in the guest. */
export interface GuestProgram {
  /** Its exit status; 128 + n after signal n. Rejects with a {@link HarnessError} if the guest dies first. */
  readonly exited: Promise<{ readonly status: number; readonly signal: string | undefined }>;
  write(bytes: Uint8Array): void;
  endInput(): void;
  send(body: unknown): void;
  kill(): void;
}

/** What the host does with what a program says. */
export interface ProgramHandlers {
  readonly onOutput: (stream: 'stdout' | 'stderr', bytes: Buffer) => void;
  /** If given, the program can use `process.send`. */
  readonly onMessage?: (body: unknown) => void;
}

const CONSOLE_LINES = 1000;
const SHOWN_LINES = 25;
/** Under software emulation, on a busy machine: how long a guest may take to boot. */
export const BOOT_MS: Readonly<Record<Architecture, number>> = {
  x86_64: 120_000,
  aarch64: 240_000,
  riscv64: 360_000,
};
const POWER_OFF_MS = 15_000;
const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGILL: 4,
  SIGABRT: 6,
  SIGBUS: 7,
  SIGFPE: 8,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
};

/** A running guest. */
export class Guest {
  /** The machine protocol of its QEMU. */
  readonly qmp: Promise<QmpClient>;
  /** Settles when the agent takes orders; rejects if the guest ends before. */
  readonly ready: Promise<undefined>;
  /** Settles when QEMU has ended and everything is cleared away. */
  readonly ended: Promise<GuestEnd>;
  /** The guest's private folder on the host, for sockets and images. It is deleted at the end. */
  readonly directory: string;

  readonly #arch: Architecture;
  readonly #events: GuestEvents;
  readonly #channel: Channel;
  readonly #qemu: ChildProcess;
  readonly #servers: Server[] = [];
  readonly #console: string[] = [];
  readonly #programs = new Map<
    number,
    {
      handlers: ProgramHandlers;
      exited: PromiseWithResolvers<{ status: number; signal: string | undefined }>;
    }
  >();
  readonly #ready = Promise.withResolvers<undefined>();
  readonly #ended = Promise.withResolvers<GuestEnd>();
  readonly #started = performance.now();
  readonly #timer: NodeJS.Timeout;
  readonly #bootTimer: NodeJS.Timeout;
  #stage: Stage = 'firmware';
  #stderr = '';
  #nextId = 1;
  #verdict: GuestEnd['reason'] | undefined;
  #detail = '';
  #findings = '';

  private constructor(
    arch: Architecture,
    directory: string,
    sockets: { channel: Server; qmp: Server },
    argv: readonly string[],
    environment: Readonly<Record<string, string>>,
    timeoutMs: number,
    events: GuestEvents,
  ) {
    this.#arch = arch;
    this.directory = directory;
    this.#events = events;
    this.#servers.push(sockets.channel, sockets.qmp);
    this.#channel = new Channel((message) => this.#take(message));
    sockets.channel.once('connection', (socket) => this.#channel.attach(socket));
    const qmp = Promise.withResolvers<QmpClient>();
    this.qmp = qmp.promise;
    sockets.qmp.once('connection', (socket: Socket) => {
      QmpClient.connect(socket).then(qmp.resolve, qmp.reject);
    });
    this.ready = this.#ready.promise;
    this.ended = this.#ended.promise;
    // Nobody has to wait for these.
    this.qmp.catch(() => undefined);
    this.ready.catch(() => undefined);

    // setpriv has the kernel kill QEMU when this process is gone, even if it was killed itself.
    this.#qemu = spawn('setpriv', ['--pdeathsig', 'KILL', qemuProgram(arch), ...argv], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...environment },
    });
    const splitLines = lineSplitter((line) => this.#consoleLine(line));
    this.#qemu.stdout?.setEncoding('utf8').on('data', splitLines);
    this.#qemu.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#stderr += text));
    this.#qemu.on('error', (error) => {
      this.#stderr += `${error.message}\n`;
      this.#finish(null, qmp.reject);
    });
    this.#qemu.on('close', (code) => {
      splitLines('\n');
      this.#finish(code, qmp.reject);
    });
    this.#timer = setTimeout(
      () => this.giveUp(`it was still running after ${Math.round(timeoutMs / 1000)} s`),
      timeoutMs,
    );
    const bootMs = BOOT_MS[arch];
    this.#bootTimer = setTimeout(() => this.giveUp(`it did not boot within ${bootMs / 1000} s`), bootMs);
  }

  /**
   * Starts a guest.
   *
   * @param files what the run adds to the image, such as bundled scripts
   * @param timeoutMs after which the guest is stopped, whatever it does
   */
  static async start(
    config: GuestConfig,
    image: GuestImage,
    files: readonly CpioEntry[],
    timeoutMs: number,
    events: GuestEvents = {},
  ): Promise<Guest> {
    const directory = makeTemporary();
    try {
      const initramfs = join(directory, 'initramfs.cpio');
      copyFileSync(image.initramfs, initramfs, constants.COPYFILE_FICLONE);
      appendFileSync(initramfs, encodeCpio(files));
      const paths = { channel: join(directory, 'channel'), qmp: join(directory, 'qmp') };
      const sockets = { channel: await listen(paths.channel), qmp: await listen(paths.qmp) };
      const argv = qemuArguments(config, image, initramfs, paths);
      return new Guest(config.arch, directory, sockets, argv, config.environment ?? {}, timeoutMs, events);
    } catch (error) {
      rmSync(directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** The last lines of the console, or those from where the kernel began to complain. */
  get consoleTail(): string {
    const trouble = this.#console.findIndex((line) =>
      /BUG: |Oops: |Kernel panic|general protection fault/.test(line),
    );
    const from = trouble < 0 ? -SHOWN_LINES : trouble;
    return this.#console.slice(from).slice(0, SHOWN_LINES).join('\n');
  }

  /** What QEMU said on its standard error: its virtio devices report a driver's mistakes there. */
  get complaints(): string {
    return this.#stderr.trim();
  }

  /** Starts Node.js in the guest with these arguments. */
  run(args: readonly string[], handlers: ProgramHandlers): GuestProgram {
    const id = this.#nextId++;
    const exited = Promise.withResolvers<{ status: number; signal: string | undefined }>();
    exited.promise.catch(() => undefined);
    this.#programs.set(id, { handlers, exited });
    this.#channel.send({ type: 'run', id, args, ipc: handlers.onMessage !== undefined });
    return {
      exited: exited.promise,
      write: (bytes) => {
        for (let offset = 0; offset < bytes.length; offset += CHUNK_BYTES) {
          this.#channel.send({ type: 'stdin', id, ...toChunk(bytes.subarray(offset, offset + CHUNK_BYTES)) });
        }
      },
      endInput: () => this.#channel.send({ type: 'stdin-end', id }),
      send: (body) => this.#channel.send({ type: 'message', id, body }),
      kill: () => this.#channel.send({ type: 'kill', id }),
    };
  }

  /** Lets the guest power itself off; stops it if it does not. */
  async powerOff(): Promise<GuestEnd> {
    this.#channel.send({ type: 'power-off' });
    const timer = setTimeout(() => this.#kill('stopped'), POWER_OFF_MS);
    const end = await this.ended;
    clearTimeout(timer);
    return end;
  }

  /** Ends the guest at once. */
  async stop(): Promise<GuestEnd> {
    this.#kill('stopped');
    return this.ended;
  }

  /** Ends the guest because of something that it does not do in time: `a process could not be killed`. */
  giveUp(detail: string): void {
    this.#detail = detail;
    this.#kill('time-out');
  }

  /** Asks QEMU for the state of the interrupt controllers, which tells why a timer is lost, and ends the guest. */
  async #examine(): Promise<void> {
    if (this.#arch !== 'x86_64') {
      this.#kill('broken');
      return;
    }
    try {
      const qmp = await this.qmp;
      for (const cpu of [0, 1]) {
        const state = await qmp.execute('human-monitor-command', { 'command-line': `info lapic ${cpu}` });
        this.#findings += `\nThe local APIC of processor ${cpu}:\n${indent(String(state).trim())}`;
      }
    } catch (error) {
      this.#findings += `\nQEMU did not report the state of the local APICs: ${String(error)}`;
    }
    this.#kill('broken');
  }

  #kill(reason: GuestEnd['reason']): void {
    this.#verdict ??= reason;
    this.#qemu.kill('SIGKILL');
  }

  #reach(stage: Stage): void {
    this.#stage = stage;
    this.#events.onStage?.(stage, (performance.now() - this.#started) / 1000);
  }

  #consoleLine(text: string): void {
    // The firmware clears the screen and the kernel colours nothing that matters here.
    // eslint-disable-next-line no-control-regex -- escape sequences are control characters
    const line = text.replace(/\x1b(?:\[[0-9;?=]*[A-Za-z]|c)/g, '').trimEnd();
    if (line === '') return;
    if (this.#stage === 'firmware' && /^\[ *\d+\.\d+\]/.test(line)) this.#reach('kernel');
    if (line.includes('Kernel panic - not syncing')) this.#verdict ??= 'panic';
    if (this.#stage !== 'ready' && line.includes('kthread timer wakeup didn')) {
      this.#detail = 'its kernel has lost the timer of a processor';
      void this.#examine();
    }
    this.#console.push(line);
    if (this.#console.length > CONSOLE_LINES) this.#console.shift();
    this.#events.onConsole?.(line);
  }

  #take(message: FromGuest): void {
    switch (message.type) {
      case 'stage':
        this.#reach(message.stage);
        if (message.stage === 'ready') {
          clearTimeout(this.#bootTimer);
          this.#ready.resolve(undefined);
        }
        break;
      case 'warning':
        this.#events.onWarning?.(message.text);
        break;
      case 'broken':
        this.#detail = message.text;
        void this.#examine();
        break;
      case 'agent-died':
        this.#verdict ??= 'agent-died';
        this.#detail = `Node.js in the guest ended with status ${message.status}`;
        break;
      case 'output':
        this.#programs.get(message.id)?.handlers.onOutput(message.stream, fromChunk(message));
        break;
      case 'message':
        this.#programs.get(message.id)?.handlers.onMessage?.(message.body);
        break;
      case 'exit': {
        const status = message.code ?? 128 + (SIGNALS[message.signal ?? ''] ?? 0);
        this.#programs.get(message.id)?.exited.resolve({ status, signal: message.signal ?? undefined });
        this.#programs.delete(message.id);
        break;
      }
      case 'taken':
        break;
    }
  }

  #finish(code: number | null, rejectQmp: (error: Error) => void): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#bootTimer);
    const reason = this.#verdict ?? (code === 0 ? 'power-off' : 'qemu-failed');
    const end: GuestEnd = { reason, message: this.#describe(reason, code) };
    const error = new HarnessError(reason === 'qemu-failed' ? 'QEMU_FAILED' : 'GUEST_FAILED', end.message);
    this.#ready.reject(error);
    rejectQmp(error);
    for (const program of this.#programs.values()) program.exited.reject(error);
    this.#programs.clear();
    for (const server of this.#servers) server.close();
    rmSync(this.directory, { recursive: true, force: true });
    this.#ended.resolve(end);
  }

  #describe(reason: GuestEnd['reason'], code: number | null): string {
    const where = this.#stage === 'ready' ? '' : ` (while at the stage '${this.#stage}')`;
    const tail =
      this.#console.length === 0
        ? '\nIts console was empty.'
        : `\nThe last lines of its console:\n${indent(this.consoleTail)}`;
    switch (reason) {
      case 'power-off':
        return `The guest powered off${where}.`;
      case 'stopped':
        return `The guest was stopped${where}.`;
      case 'panic':
        return `The guest's kernel panicked${where}.${tail}`;
      case 'broken':
        return (
          `The guest cannot be used: ${this.#detail}${where}. The kernel's messages about clocks and timers:\n` +
          indent(
            this.#console.filter((line) => /apic|hpet|timer|tsc|clock|calibrat/i.test(line)).join('\n'),
          ) +
          this.#findings
        );
      case 'time-out':
        return `The guest was stopped: ${this.#detail}${where}.${tail}`;
      case 'agent-died':
        return `The guest ended: ${this.#detail}.${tail}`;
      case 'qemu-failed': {
        const said = this.#stderr.trim() === '' ? tail : `\nQEMU said:\n${indent(this.#stderr.trim())}`;
        return `QEMU ended with status ${code ?? 'none (killed)'}${where}.${said}`;
      }
    }
  }
}

function indent(text: string): string {
  return text.replace(/^/gm, '  ');
}

async function listen(path: string): Promise<Server> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  server.once('error', reject);
  server.listen(path, () => resolve(undefined));
  await promise;
  return server;
}
