/** A scripted vhost-user back end for tests, in a process of its own; see `fake-backend.process.ts`. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SharedFile } from '@virtio/linux';

/** How the back end answers a request wrongly. */
export type Lie =
  | 'wrong request'
  | 'no reply flag'
  | 'version 2'
  | 'huge size'
  | 'short payload'
  | 'long payload'
  | 'silent'
  | 'close'
  | 'answer and close'
  | 'half a message'
  | 'descriptors'
  | 'twice'
  | 'bytewise'
  | 'raw';

/** What the back end is. */
export interface BackendScript {
  features: bigint;
  protocol: bigint;
  queues: number;
  slots: number;
  config: Uint8Array;
  /** By request of the front end: how it is answered. */
  lies: Record<number, Lie>;
  /** What is sent for the lie `raw`. */
  raw: Uint8Array | undefined;
  /** A request that is not acknowledged with success. */
  refuse: number | undefined;
  /** Requests are taken and kept. */
  hold: boolean;
  /** Nothing is read from the socket. */
  hang: boolean;
  /** GET_VRING_BASE is answered at once, and what was held is completed so many milliseconds later. */
  drainMs: number | undefined;
  /** So many kicks are not heard. */
  deaf: number;
  /** Bits that the device status does not show. */
  clearStatus: number;
  /** Bits that it shows in addition, until a reset. */
  showStatus: number;
}

export type BackendCommand =
  | {
      do: 'start';
      path: string;
      script: BackendScript;
      /** The memory of the disk: sectors, then how often each was written. */
      disk: string;
      size: number;
      sectorBytes: number;
      /** Connects, and does not listen. */
      connect: boolean;
    }
  | { do: 'change'; script: Partial<BackendScript> }
  | { do: 'close' | 'die' | 'state' | 'stop' | 'error' | 'backend close' }
  | { do: 'release'; count?: number; dieBefore?: boolean; afterMs?: number }
  | { do: 'config change'; times?: number; request?: number; descriptors?: boolean }
  | { do: 'backend raw'; bytes: Uint8Array };

/** What the back end has seen. */
export interface BackendState {
  /** The requests of the front end, in order. */
  readonly log: number[];
  features: bigint;
  protocol: bigint;
  status: number;
  connections: number;
  /** Bytes that the front end answered on the back end's channel. */
  readonly replies: number[];
  /** Requests that were taken from rings. */
  taken: number;
  /** The bases of vrings, as they were set. */
  readonly bases: number[];
}

/** VERSION_1, EVENT_IDX, INDIRECT_DESC, FLUSH, and the features of the protocol. */
export const FEATURES = (1n << 32n) | (1n << 30n) | (1n << 29n) | (1n << 28n) | (1n << 9n);
export const PACKED = 1n << 34n;
/** MQ, REPLY_ACK, BACKEND_REQ, CONFIG, CONFIGURE_MEM_SLOTS. */
export const PROTOCOL = (1n << 0n) | (1n << 3n) | (1n << 5n) | (1n << 9n) | (1n << 15n);
export const INFLIGHT = 1n << 12n;
export const RESET_DEVICE = 1n << 13n;
export const STATUS = 1n << 16n;

export const SECTORS = 2048;

/** The configuration space of a disk of so many sectors. */
export function blkConfig(sectors: number, size = 96): Uint8Array {
  const config = new Uint8Array(size);
  new DataView(config.buffer).setBigUint64(0, BigInt(sectors), true);
  return config;
}

/** A folder for sockets that is removed at the end of the block. */
export function temporarySocket(): { path: string } & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'vhost-user-'));
  return {
    path: join(folder, 'a.sock'),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

const DISK_SIZE = 2 << 20;

/** What stays the same when one back end follows another: memory that this process and the back end's share. */
export class Disk {
  readonly #file = SharedFile.create('disk', DISK_SIZE, false);
  readonly #mapping = this.#file.map(0, DISK_SIZE);
  readonly bytes = new Uint8Array(this.#mapping.view(0, 512 * SECTORS));
  /** How often each sector was written. */
  readonly writeCounts = new Int32Array(this.#mapping.view(512 * SECTORS, 4 * SECTORS));

  /** Where another process finds it. */
  get path(): string {
    return `/proc/${process.pid}/fd/${this.#file.fd}`;
  }
}

/** Processes whose back end has stopped: starting one takes a second. */
const idle: ChildProcess[] = [];

function newProcess(): ChildProcess {
  return fork(fileURLToPath(new URL('./fake-backend.process.ts', import.meta.url)), {
    execArgv: ['--conditions=@virtio/source'],
    serialization: 'advanced',
  });
}

export class FakeBackend implements AsyncDisposable {
  readonly #process: ChildProcess;
  #stopped = false;

  private constructor(child: ChildProcess) {
    this.#process = child;
  }

  static async start(
    path: string,
    script: Partial<BackendScript> = {},
    { disk = new Disk(), connect = false }: { disk?: Disk; connect?: boolean } = {},
  ): Promise<FakeBackend> {
    const whole: BackendScript = {
      features: FEATURES,
      protocol: PROTOCOL,
      queues: 1,
      slots: 32,
      config: blkConfig(SECTORS),
      lies: {},
      raw: undefined,
      refuse: undefined,
      hold: false,
      hang: false,
      drainMs: undefined,
      clearStatus: 0,
      deaf: 0,
      showStatus: 0,
      ...script,
    };
    const backend = new FakeBackend(idle.pop() ?? newProcess());
    backend.#process.ref();
    backend.#process.channel?.ref();
    await backend.tell({
      do: 'start',
      path,
      script: whole,
      disk: disk.path,
      size: DISK_SIZE,
      sectorBytes: 512 * SECTORS,
      connect,
    });
    return backend;
  }

  async tell(command: BackendCommand): Promise<BackendState> {
    const answer = once(this.#process, 'message') as Promise<[BackendState]>;
    this.#process.send(command);
    return (await answer)[0];
  }

  state(): Promise<BackendState> {
    return this.tell({ do: 'state' });
  }

  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    await this.tell({ do: 'stop' });
    this.#process.unref();
    this.#process.channel?.unref();
    idle.push(this.#process);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** Open descriptors of this process. */
export function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
