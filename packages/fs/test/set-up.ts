/** A file system device with a FUSE server behind it that has one file, and what tests drive it with. */
import type { FieldTable, Layout, Values } from '@virtio/core';
import { type Chain, type FakeDevice, FakeTransport } from '@virtio/testing';
import { In, InHeader, Opcode, Out, OutHeader, ROOT_ID, VirtioFs } from '../src/index.ts';
import { fsDevice } from './contract-subject.ts';

const DIRECTORY = 0o040755;
export const FILE = 0o100644;
const INDIRECT = 1n << 28n;

export interface Asked {
  readonly opcode: number;
  readonly nodeid: bigint;
  readonly unique: bigint;
  readonly chain: Chain;
}

/** Writes a reply: an error, or what follows the header. */
export function reply({ chain, unique }: Asked, body: Uint8Array | number = new Uint8Array(0)): void {
  const bytes = typeof body === 'number' ? new Uint8Array(0) : body;
  const header = new Uint8Array(OutHeader.size);
  OutHeader.write(new DataView(header.buffer), 0, {
    len: header.length + bytes.length,
    error: typeof body === 'number' ? -body : 0,
    unique,
  });
  chain.write(header);
  chain.write(bytes);
}

export const encode = <T extends FieldTable>(layout: Layout<T>, values: Partial<Values<T>>): Uint8Array => {
  const bytes = new Uint8Array(layout.size);
  layout.write(new DataView(bytes.buffer), 0, values);
  return bytes;
};

/** A server with one file, node 7, whose answers to some requests can be others. */
export function serve(
  device: FakeDevice,
  other: (asked: Asked) => boolean = () => false,
): {
  /** What was forgotten. */
  readonly forgotten: { readonly nodeid: bigint; readonly nlookup: bigint }[];
  /** The opcodes of all requests. */
  readonly seen: number[];
} {
  const forgotten: { readonly nodeid: bigint; readonly nlookup: bigint }[] = [];
  const seen: number[] = [];
  device.handle(0, (chain) => {
    const header = InHeader.read(new DataView(chain.readAt(0, InHeader.size).buffer));
    if (header.opcode !== Opcode.FORGET) return;
    const { nlookup } = In.forget.read(new DataView(chain.readAt(InHeader.size, In.forget.size).buffer));
    forgotten.push({ nodeid: header.nodeid, nlookup });
  });
  device.handle(1, (chain) => {
    const { opcode, nodeid, unique } = InHeader.read(new DataView(chain.readAt(0, InHeader.size).buffer));
    const asked = { opcode, nodeid, unique, chain };
    seen.push(opcode);
    if (other(asked)) return;
    const attr = nodeid === ROOT_ID ? { ino: 1n, mode: DIRECTORY } : { ino: 7n, mode: FILE, size: 5n };
    if (opcode === Opcode.INIT) reply(asked, encode(Out.init, { major: 7, minor: 31, maxWrite: 65536 }));
    else if (opcode === Opcode.GETATTR) reply(asked, encode(Out.attr, attr));
    else if (opcode === Opcode.LOOKUP) reply(asked, encode(Out.entry, { nodeid: 7n, ino: 7n, mode: FILE }));
    else if (opcode === Opcode.OPEN || opcode === Opcode.OPENDIR) reply(asked, encode(Out.open, { fh: 3n }));
    else if (opcode === Opcode.READ) reply(asked, new TextEncoder().encode('hello'));
    else reply(asked);
  });
  return { forgotten, seen };
}

export function open(device = fsDevice(INDIRECT, 64)): {
  readonly device: FakeDevice;
  readonly driver: VirtioFs;
} {
  const driver = new VirtioFs(new FakeTransport(device), device.hal);
  return { device, driver };
}

export function message(opcode: number, size: number = InHeader.size): Uint8Array {
  return encode(InHeader, { len: size, opcode, unique: 2n });
}

/** Requests that a server holds back. */
export class Held {
  readonly #asked: Asked[] = [];

  /** How many there are. */
  get count(): number {
    return this.#asked.length;
  }

  /** Holds a request back. */
  hold(asked: Asked): true {
    asked.chain.defer();
    this.#asked.push(asked);
    return true;
  }

  /** Answers the first one. */
  answer(body?: Uint8Array | number): void {
    const asked = this.#asked.shift();
    if (asked === undefined) throw new Error('nothing is held back');
    reply(asked, body);
    asked.chain.complete();
  }
}
