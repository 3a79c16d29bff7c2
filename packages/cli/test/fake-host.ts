/** A host for tests: streams in memory, and devices by address. */
import { VirtioError } from '@virtio/core';
import { Readable, Writable } from 'node:stream';
import { formatAddress } from '../src/address.ts';
import type { Host, KernelDisk, OpenDevice, OpenHow } from '../src/host.ts';
import { run } from '../src/main.ts';

type Listed = ReturnType<Host['system']['listDevices']>;

/** What there is around a command. */
export interface World {
  /** Opens devices, by address. */
  readonly devices?: Readonly<Record<string, () => Pick<OpenDevice, 'transport' | 'hal'>>>;
  readonly listed?: Listed;
  readonly disks?: readonly KernelDisk[];
  readonly features?: bigint;
  readonly input?: Uint8Array | Readable;
  readonly env?: Host['env'];
  readonly isTTY?: boolean;
  /** How wide the terminal is. */
  readonly columns?: number;
  readonly signal?: AbortSignal;
  /** Hears all that was printed so far, whenever more is. */
  readonly onOutput?: (all: string) => void;
}

/** What came of a command. */
export interface Outcome {
  readonly status: number;
  readonly out: string;
  readonly bytes: Buffer;
  readonly err: string;
  /** How devices were opened. */
  readonly opened: readonly OpenHow[];
  /** What was bound, and unbound. */
  readonly bound: readonly string[];
}

class Sink extends Writable {
  readonly isTTY: boolean;
  readonly columns?: number;
  readonly #chunks: Buffer[] = [];
  readonly #onOutput: World['onOutput'];

  constructor(isTTY: boolean, { columns, onOutput }: Pick<World, 'columns' | 'onOutput'> = {}) {
    super();
    this.#onOutput = onOutput;
    this.isTTY = isTTY;
    if (columns !== undefined) this.columns = columns;
  }

  get contents(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.#chunks.push(Buffer.from(chunk));
    this.#onOutput?.(this.contents.toString());
    done();
  }
}

/** Runs a command line in a world. */
export async function virtio(line: string | readonly string[], world: World = {}): Promise<Outcome> {
  const stdout = new Sink(world.isTTY ?? false, world);
  const stderr = new Sink(false);
  const opened: OpenHow[] = [];
  const bound: string[] = [];
  const { input = new Uint8Array(0) } = world;
  const host: Host = {
    stdin: input instanceof Readable ? input : Readable.from(input.length === 0 ? [] : [Buffer.from(input)]),
    stdout,
    stderr,
    env: world.env ?? {},
    signal: world.signal ?? new AbortController().signal,
    system: {
      listDevices: () => world.listed ?? [],
      openDevice: async (address, how) => {
        opened.push(how);
        const name = formatAddress(address);
        const make = world.devices?.[name];
        if (make === undefined) throw new VirtioError('NO_DEVICE', `there is no device at ${name}`);
        const { transport, hal } = make();
        return {
          transport,
          hal,
          [Symbol.dispose]: () => {
            transport[Symbol.dispose]();
          },
        };
      },
      kernelFeatures: () => world.features,
      kernelDisks: () => world.disks ?? [],
      bind: (address, driver, takeOver) => void bound.push(`${address} ${driver ?? '-'} ${takeOver}`),
      unbind: (address) => void bound.push(`${address} unbound`),
    },
  };
  const status = await run(typeof line === 'string' ? line.split(' ') : line, host);
  const bytes = stdout.contents;
  return { status, out: bytes.toString(), bytes, err: stderr.contents.toString(), opened, bound };
}
