/** One bare guest, from its start to its end: QEMU with the image, the script, a console and the machine protocol. */
import { spawn, type ChildProcess } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { escape } from '@virtio/qemu-harness/src/boot/qemu-args.ts';
import { QmpClient } from '@virtio/qemu-harness/src/boot/qmp.ts';
import { makeTemporary } from '@virtio/qemu-harness/src/boot/temporary.ts';
import { lineSplitter } from '@virtio/qemu-harness/src/run.ts';
import type { BareImage } from './image.ts';
import { type BareMachine, MEMORY_MIB, SCRIPT_OFFSET, TARGETS } from './machines.ts';
import { compileModule } from './quickjs.ts';

/** A message begins with this character; all other lines are what the script prints. */
const MARK = '\x1e';
const MAGIC = 'VIRTIOJS';

/** What a guest is started with. */
export interface BareConfig {
  readonly machine: BareMachine;
  readonly image: BareImage;
  /** The text of an ES module. */
  readonly script: Uint8Array;
  /** QEMU's arguments for its devices. */
  readonly devices: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Programs of the host reach its memory (vhost-user). */
  readonly sharedMemory?: boolean;
  readonly timeoutMs: number;
}

/** What happens in a guest. */
export interface BareEvents {
  readonly onLine: (line: string) => void;
  readonly onMessage?: (message: unknown) => void;
}

/** How a guest ended. */
export interface BareEnd {
  /** QEMU's status, which is the script's; `undefined` if QEMU was killed. */
  readonly status: number | undefined;
  readonly timedOut: boolean;
  /** From the start of QEMU to its end. */
  readonly ms: number;
}

/** A running guest. */
export class BareGuest {
  readonly qmp: Promise<QmpClient>;
  readonly ended: Promise<BareEnd>;
  /** The size of the script as the guest loads it. */
  readonly scriptBytes: number;
  readonly #qemu: ChildProcess;
  #stderr = '';

  private constructor(
    qemu: ChildProcess,
    qmp: Promise<QmpClient>,
    ended: Promise<BareEnd>,
    scriptBytes: number,
  ) {
    this.#qemu = qemu;
    this.scriptBytes = scriptBytes;
    this.qmp = qmp;
    this.ended = ended;
    qemu.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#stderr += text));
  }

  /** Starts a guest. */
  static async start(config: BareConfig, events: BareEvents): Promise<BareGuest> {
    const directory = makeTemporary();
    const script = join(directory, 'script');
    const compiled = await compileModule(config.script);
    const header = Buffer.alloc(16);
    header.write(MAGIC);
    header.writeBigUInt64LE(BigInt(compiled.length), 8);
    writeFileSync(script, Buffer.concat([header, compiled]));
    const server = await listen(join(directory, 'qmp'));
    const qmp = Promise.withResolvers<QmpClient>();
    server.once(
      'connection',
      (socket: Socket) => void QmpClient.connect(socket).then(qmp.resolve, qmp.reject),
    );
    qmp.promise.catch(() => undefined);

    const { machine, image } = config;
    const began = performance.now();
    // setpriv has the kernel kill QEMU when this process is gone, even if it was killed itself.
    const qemu = spawn(
      'setpriv',
      [
        '--pdeathsig',
        'KILL',
        machine.program,
        ...bareArguments(config, image, script, join(directory, 'qmp')),
      ],
      { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...config.environment } },
    );
    const ended = Promise.withResolvers<BareEnd>();
    const guest = new BareGuest(qemu, qmp.promise, ended.promise, compiled.length);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      qemu.kill('SIGKILL');
    }, config.timeoutMs);
    const split = lineSplitter((line) => {
      const at = line.indexOf(MARK);
      if (at < 0) events.onLine(line);
      else events.onMessage?.(JSON.parse(line.slice(at + 1)));
    });
    qemu.stdout.setEncoding('utf8').on('data', split);
    qemu.stdin.on('error', () => undefined);
    qemu.on('error', (error) => (guest.#stderr += error.message));
    qemu.on('close', (code) => {
      clearTimeout(timer);
      server.close();
      rmSync(directory, { recursive: true, force: true });
      qmp.reject(new Error('QEMU has ended'));
      // x86's exit device has no way to say 0.
      const status = code === null ? undefined : machine.arch === 'x86_64' ? code >> 1 : code;
      ended.resolve({ status, timedOut, ms: performance.now() - began });
    });
    return guest;
  }

  /** What QEMU said on its standard error. */
  get complaints(): string {
    return this.#stderr.trim();
  }

  /** Sends the script a message. */
  send(message: unknown): void {
    this.#qemu.stdin?.write(`${JSON.stringify(message)}\n`);
  }

  /** Ends it at once. */
  async stop(): Promise<BareEnd> {
    this.#qemu.kill('SIGKILL');
    return this.ended;
  }
}

function bareArguments(config: BareConfig, image: BareImage, script: string, qmp: string): string[] {
  const { machine, sharedMemory, devices } = config;
  const address = TARGETS[machine.arch].ram + SCRIPT_OFFSET;
  return [
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...machine.args,
    ...['-accel', 'tcg', '-smp', '1', '-m', `${MEMORY_MIB}M`],
    ...(sharedMemory === true
      ? [
          ...['-object', `memory-backend-memfd,id=memory,size=${MEMORY_MIB}M,share=on`],
          ...['-machine', 'memory-backend=memory'],
        ]
      : []),
    ...['-kernel', image.path],
    ...['-device', `loader,file=${escape(script)},addr=0x${address.toString(16)},force-raw=on`],
    ...['-chardev', 'stdio,id=console,signal=off,mux=off', '-serial', 'chardev:console'],
    ...['-chardev', `socket,id=qmp,path=${escape(qmp)}`, '-mon', 'chardev=qmp,mode=control'],
    ...(machine.arch === 'x86_64' ? ['-device', 'isa-debug-exit,iobase=0xf4,iosize=4'] : []),
    ...(machine.arch === 'aarch64' ? ['-semihosting'] : []),
    ...devices,
  ];
}

async function listen(path: string): Promise<Server> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  server.once('error', reject);
  server.listen(path, () => resolve(undefined));
  await promise;
  return server;
}
