/**
 * A network device for tests, written from the specification and from what QEMU does, with no code of the driver's: numbers stand here
 * once more. It filters, merges, answers control commands, and lies when it is told to.
 */
import { CommonFeatures, DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, FakeTransport, type FakeTransportOptions } from '@virtio/testing';

const bit = (n: number): bigint => 1n << BigInt(n);

/** The feature bits, as numbers. */
export const F = {
  CSUM: bit(0),
  GUEST_CSUM: bit(1),
  CTRL_GUEST_OFFLOADS: bit(2),
  MTU: bit(3),
  MAC: bit(5),
  GUEST_TSO4: bit(7),
  GUEST_TSO6: bit(8),
  GUEST_ECN: bit(9),
  GUEST_UFO: bit(10),
  HOST_TSO4: bit(11),
  HOST_TSO6: bit(12),
  HOST_ECN: bit(13),
  HOST_UFO: bit(14),
  MRG_RXBUF: bit(15),
  STATUS: bit(16),
  CTRL_VQ: bit(17),
  CTRL_RX: bit(18),
  CTRL_VLAN: bit(19),
  CTRL_RX_EXTRA: bit(20),
  GUEST_ANNOUNCE: bit(21),
  MQ: bit(22),
  CTRL_MAC_ADDR: bit(23),
  DEVICE_STATS: bit(50),
  HASH_TUNNEL: bit(51),
  VQ_NOTF_COAL: bit(52),
  NOTF_COAL: bit(53),
  GUEST_USO4: bit(54),
  GUEST_USO6: bit(55),
  HOST_USO: bit(56),
  HASH_REPORT: bit(57),
  GUEST_HDRLEN: bit(59),
  RSS: bit(60),
  RSC_EXT: bit(61),
  STANDBY: bit(62),
  SPEED_DUPLEX: bit(63),
} as const;

export const SPLIT = CommonFeatures.set('EVENT_IDX', 'INDIRECT_DESC').bits;

/** What QEMU offers by default. */
export const QEMU =
  SPLIT |
  F.MAC |
  F.STATUS |
  F.MRG_RXBUF |
  F.CTRL_VQ |
  F.CTRL_RX |
  F.CTRL_VLAN |
  F.CTRL_RX_EXTRA |
  F.CTRL_MAC_ADDR |
  F.CTRL_GUEST_OFFLOADS |
  F.GUEST_ANNOUNCE;

export const MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/** A header as the model reads or writes it. */
export interface ModelHeader {
  flags: number;
  gsoType: number;
  hdrLen: number;
  gsoSize: number;
  csumStart: number;
  csumOffset: number;
  numBuffers: number;
  hashValue: number;
  hashReport: number;
}

/** A packet that the driver sent. */
export interface SentPacket {
  readonly pair: number;
  readonly header: ModelHeader;
  readonly frame: Uint8Array<ArrayBuffer>;
  /** The bytes of each descriptor. */
  readonly pieces: readonly number[];
}

/** A control command that the driver sent. */
export interface ControlCommand {
  readonly class: number;
  readonly command: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

export interface ModelOptions {
  readonly features?: bigint;
  readonly queueSize?: number;
  /** The size of transmit queues, if it is another one. */
  readonly transmitSize?: number;
  readonly controlSize?: number;
  readonly maxPairs?: number;
  readonly mac?: readonly number[];
  readonly mtu?: number;
  readonly speed?: number;
  readonly duplex?: number;
  readonly linkUp?: boolean;
  readonly maxKeySize?: number;
  readonly maxTable?: number;
  readonly hashTypes?: number;
  readonly tunnelTypes?: number;
  readonly legacy?: boolean;
  readonly interrupts?: FakeTransportOptions['interrupts'];
}

/** How a packet is delivered: well, or with lies. */
export interface Delivery {
  readonly pair?: number;
  readonly header?: Partial<ModelHeader>;
  /** The used length of the first buffer, if it is not what was written. */
  readonly usedLength?: number;
}

const OK = 0;
const ERR = 1;

export class NetModel {
  readonly device: FakeDevice;
  readonly transport: FakeTransport;
  readonly maxPairs: number;
  readonly sent: SentPacket[] = [];
  readonly commands: ControlCommand[] = [];
  /** Of each of them, the bytes of each descriptor. */
  readonly framing: number[][] = [];
  /** Packets for which there was no buffer. */
  overruns = 0;
  /** While true, what the driver sends is not taken. */
  throttled = false;
  /** Decides the answer to a command in place of the model; `undefined` answers as usual, `null` not at all. */
  answer: ((command: ControlCommand) => number | null | undefined) | undefined;
  /** Commands that were not answered. */
  readonly unanswered: Chain[] = [];

  // What control commands have set.
  promiscuous = true;
  readonly modes = new Map<number, number>();
  unicast: string[] = [];
  multicast: string[] = [];
  readonly vlans = new Set<number>();
  pairs = 1;
  rss:
    { types: number; table: number[]; unclassified: number; transmit: number; key: Uint8Array } | undefined;
  hash: { types: number; key: Uint8Array } | undefined;
  tunnels = 0;
  offloads: bigint | undefined;
  readonly coalescing = new Map<number, readonly [packets: number, usecs: number]>();
  readonly #held = new Map<number, Chain[]>();
  acknowledged = 0;

  constructor(options: ModelOptions = {}) {
    const { features = QEMU, queueSize = 16, controlSize = 64, maxPairs = 1, legacy = false } = options;
    this.maxPairs = maxPairs;
    const config = new DataView(new ArrayBuffer(28));
    (options.mac ?? MAC).forEach((byte, i) => config.setUint8(i, byte));
    config.setUint16(6, options.linkUp === false ? 0 : 1, true);
    config.setUint16(8, maxPairs, true);
    config.setUint16(10, options.mtu ?? 1500, true);
    config.setUint32(12, options.speed ?? 1000, true);
    config.setUint8(16, options.duplex ?? 1);
    config.setUint8(17, options.maxKeySize ?? 40);
    config.setUint16(18, options.maxTable ?? 128, true);
    config.setUint32(20, options.hashTypes ?? 0x1ff, true);
    config.setUint32(24, options.tunnelTypes ?? 0x1ff, true);
    const { transmitSize = queueSize } = options;
    const queues = Array.from({ length: 2 * maxPairs }, (_, n) => (n % 2 === 0 ? queueSize : transmitSize));
    if ((features & F.CTRL_VQ) !== 0n) queues.push(controlSize);
    this.device = new FakeDevice({
      type: DeviceType.Network,
      features,
      config: new Uint8Array(config.buffer),
      queues,
      legacy,
    });
    const { interrupts } = options;
    this.transport = new FakeTransport(this.device, interrupts === undefined ? {} : { interrupts });
    this.device.onReset = () => {
      this.#reset();
    };
    for (let pair = 0; pair < maxPairs; pair += 1) {
      this.device.handle(2 * pair + 1, (chain) => {
        this.#transmit(pair, chain);
      });
    }
    // Where it is depends on what was negotiated [5.1.2].
    this.device.onDriverOk = () => {
      if (!this.accepted(F.CTRL_VQ)) return;
      this.device.handle(this.controlIndex, (chain) => {
        this.#control(chain);
      });
    };
  }

  get controlIndex(): number {
    return this.accepted(F.MQ) || this.accepted(F.RSS) ? 2 * this.maxPairs : 2;
  }

  get headerSize(): number {
    if (this.accepted(F.HASH_REPORT)) return 20;
    return this.device.has('VERSION_1') || this.accepted(F.MRG_RXBUF) ? 12 : 10;
  }

  accepted(feature: bigint): boolean {
    return (this.device.accepted & feature) !== 0n;
  }

  /** Delivers a packet; returns whether there was room for it. A packet without room is dropped. */
  deliver(frame: ArrayLike<number>, { pair = 0, header = {}, usedLength }: Delivery = {}): boolean {
    const queue = this.device.queue(2 * pair);
    const merges = this.accepted(F.MRG_RXBUF);
    const size = this.headerSize;
    const chains: Chain[] = [];
    let room = 0;
    while (room < size + frame.length) {
      const chain = this.#held.get(pair)?.shift() ?? queue.pop();
      if (chain === undefined) break;
      chains.push(chain);
      room += chain.writable;
      if (!merges) break;
    }
    if (room < size + frame.length) {
      this.overruns += 1;
      // A ring cannot be put back, so what was looked at is used first the next time.
      this.#held.set(pair, chains);
      return false;
    }
    const bytes = new Uint8Array(size + frame.length);
    writeHeader(bytes, { numBuffers: chains.length, ...header });
    bytes.set(frame, size);
    let at = 0;
    for (const chain of chains) {
      const part = bytes.subarray(at, at + chain.writable);
      chain.write(part);
      at += part.length;
    }
    chains.forEach((chain, i) => {
      if (i === 0 && usedLength !== undefined) chain.complete(usedLength);
      else chain.complete();
    });
    return true;
  }

  /** Fills the next buffer with bytes as they are, a header included or not. */
  deliverRaw(bytes: ArrayLike<number>, usedLength?: number, pair = 0): boolean {
    const chain = this.device.queue(2 * pair).pop();
    if (chain === undefined) return false;
    chain.write(bytes);
    chain.complete(usedLength ?? chain.written);
    return true;
  }

  /** Whether a frame passes the filters that were set. */
  wants(frame: ArrayLike<number>): boolean {
    if (this.promiscuous) return true;
    const tag = ((frame[12] ?? 0) << 8) | (frame[13] ?? 0);
    const vlan = (((frame[14] ?? 0) << 8) | (frame[15] ?? 0)) & 0xfff;
    if (this.accepted(F.CTRL_VLAN) && tag === 0x8100 && !this.vlans.has(vlan)) return false;
    const to = Array.from({ length: 6 }, (_, i) => frame[i] ?? 0).join();
    if (to === '255,255,255,255,255,255') return this.modes.get(5) !== 1;
    if (((frame[0] ?? 0) & 1) === 1) {
      return this.modes.get(3) !== 1 && (this.modes.get(1) === 1 || this.multicast.includes(to));
    }
    if (this.modes.get(4) === 1) return false;
    return this.modes.get(2) === 1 || to === Array.from(this.mac).join() || this.unicast.includes(to);
  }

  get mac(): Uint8Array {
    return this.device.config.slice(0, 6);
  }

  setLink(up: boolean): void {
    this.#status((status) => (up ? status | 1 : status & ~1));
  }

  /** Asks the driver to announce itself. */
  announce(): void {
    this.#status((status) => status | 2);
  }

  /** Takes what was throttled. */
  unthrottle(): void {
    this.throttled = false;
    for (let pair = 0; pair < this.maxPairs; pair += 1) {
      const ring = this.device.queues[2 * pair + 1]?.ring;
      for (const chain of ring?.chains ?? []) {
        this.#read(pair, chain);
        chain.complete();
      }
    }
  }

  /** Completes commands that were left unanswered. */
  answerLate(ack: number): void {
    for (const chain of this.unanswered.splice(0)) {
      if (chain.pending) chain.write([ack]).complete();
    }
  }

  #status(change: (status: number) => number): void {
    this.device.changeConfig((config) => config.setUint16(6, change(config.getUint16(6, true)), true));
  }

  #reset(): void {
    this.promiscuous = true;
    this.modes.clear();
    this.unicast = [];
    this.multicast = [];
    this.vlans.clear();
    this.pairs = 1;
    this.rss = undefined;
    this.hash = undefined;
    this.tunnels = 0;
    this.offloads = undefined;
    this.coalescing.clear();
    this.unanswered.length = 0;
    this.#held.clear();
  }

  #transmit(pair: number, chain: Chain): void {
    if (chain.writable > 0) throw this.device.violated('a writable buffer in a transmit queue [5.1.9.2]');
    if (chain.readable < this.headerSize) {
      throw this.device.violated(
        `${chain.readable} bytes were sent; the header has ${this.headerSize} [5.1.9.2.1]`,
      );
    }
    if (pair >= this.pairs) {
      throw this.device.violated(
        `a packet on transmit queue ${pair}; ${this.pairs} are in use [5.1.9.5.6.1]`,
      );
    }
    if (this.throttled) chain.defer();
    else this.#read(pair, chain);
  }

  #read(pair: number, chain: Chain): void {
    const bytes = chain.bytes();
    const header = readHeader(bytes, this.headerSize);
    const { flags, gsoType, gsoSize, csumStart, csumOffset, numBuffers } = header;
    const frame = bytes.slice(this.headerSize);
    if (numBuffers !== 0) throw this.device.violated('num_buffers of a sent packet is not 0 [5.1.9.2.1]');
    if ((flags & ~1) !== 0) {
      throw this.device.violated(`flags 0x${flags.toString(16)} of a sent packet [5.1.9.2.1]`);
    }
    if (flags !== 0 && !this.accepted(F.CSUM)) throw this.device.violated('flags without CSUM [5.1.9.2.1]');
    if (flags !== 0 && csumStart + csumOffset + 2 > frame.length) {
      throw this.device.violated('a checksum beyond the packet');
    }
    if (gsoType !== 0 && (flags === 0 || gsoSize === 0)) {
      throw this.device.violated('GSO without NEEDS_CSUM or gso_size [5.1.9.2.1]');
    }
    const needed = [0n, F.HOST_TSO4, 0n, F.HOST_UFO, F.HOST_TSO6, F.HOST_USO][gsoType & 0x7f] ?? 0n;
    if (gsoType !== 0 && !this.accepted(needed)) {
      throw this.device.violated(`gso_type ${gsoType} was not negotiated [5.1.9.2.1]`);
    }
    if (this.accepted(F.MTU) && gsoType === 0) {
      const mtu = new DataView(this.device.config.buffer).getUint16(10, true);
      // A VLAN tag is no part of what the MTU counts.
      if (frame.length > mtu + 18) {
        throw this.device.violated(`a packet of ${frame.length} bytes; the MTU is ${mtu} [5.1.4.2]`);
      }
    }
    this.sent.push({ pair, header, frame, pieces: chain.elements.map(({ length }) => length) });
  }

  #control(chain: Chain): void {
    const bytes = chain.bytes();
    if (bytes.length < 2 || chain.writable < 1) {
      throw this.device.violated('a control command without head or ack [5.1.9.5]');
    }
    const command = { class: bytes[0] ?? 0, command: bytes[1] ?? 0, data: bytes.slice(2) };
    this.commands.push(command);
    this.framing.push(chain.elements.map(({ length }) => length));
    const chosen = this.answer?.(command);
    if (chosen === null) {
      this.unanswered.push(chain);
      chain.defer();
      return;
    }
    const result: number[] = [];
    const ack = chosen ?? this.#obey(command, result);
    chain.write([ack, ...(ack === OK ? result : [])].slice(0, chain.writable));
  }

  #need(feature: bigint, name: string): void {
    if (!this.accepted(feature)) {
      throw this.device.violated(`a command that needs ${name}, which was not negotiated`);
    }
  }

  #obey({ class: group, command, data }: ControlCommand, result: number[]): number {
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    switch (group) {
      case 0: {
        if (command <= 1) this.#need(F.CTRL_RX, 'CTRL_RX');
        else this.#need(F.CTRL_RX_EXTRA, 'CTRL_RX_EXTRA');
        if (command > 5 || data.length !== 1) return ERR;
        if (command === 0) this.promiscuous = data[0] === 1;
        else this.modes.set(command, data[0] ?? 0);
        return OK;
      }
      case 1: {
        this.#need(F.CTRL_RX, 'CTRL_RX');
        if (command === 1) {
          this.#need(F.CTRL_MAC_ADDR, 'CTRL_MAC_ADDR');
          if (data.length !== 6) return ERR;
          this.device.config.set(data, 0);
          return OK;
        }
        const tables: string[][] = [];
        let at = 0;
        for (let table = 0; table < 2; table += 1) {
          if (at + 4 > data.length) return ERR;
          const entries = view.getUint32(at, true);
          at += 4;
          if (at + 6 * entries > data.length) return ERR;
          tables.push(
            Array.from({ length: entries }, (_, i) =>
              Array.from(data.subarray(at + 6 * i, at + 6 * i + 6)).join(),
            ),
          );
          at += 6 * entries;
        }
        [this.unicast = [], this.multicast = []] = tables;
        return at === data.length ? OK : ERR;
      }
      case 2: {
        this.#need(F.CTRL_VLAN, 'CTRL_VLAN');
        if (data.length !== 2) return ERR;
        const id = view.getUint16(0, true);
        if (id >= 4096) return ERR;
        if (command === 0) this.vlans.add(id);
        else this.vlans.delete(id);
        return OK;
      }
      case 3: {
        this.#need(F.GUEST_ANNOUNCE, 'GUEST_ANNOUNCE');
        const status = this.device.config[6] ?? 0;
        if ((status & 2) === 0) return ERR;
        this.device.config[6] = status & ~2;
        this.acknowledged += 1;
        return OK;
      }
      case 4:
        return this.#multiqueue(command, data, view);
      case 5: {
        this.#need(F.CTRL_GUEST_OFFLOADS, 'CTRL_GUEST_OFFLOADS');
        this.offloads = view.getBigUint64(0, true);
        if ((this.offloads & ~this.device.accepted) !== 0n) {
          throw this.device.violated('an offload was enabled that was not negotiated [5.1.9.5.9]');
        }
        return OK;
      }
      case 6:
        return this.#coalesce(command, data, view, result);
      case 7: {
        this.#need(F.HASH_TUNNEL, 'HASH_TUNNEL');
        this.tunnels = view.getUint32(0, true);
        return OK;
      }
      case 8:
        return this.#statistics(command, data, view, result);
      default:
        return ERR;
    }
  }

  /** Sends what is available on the pairs that end: none may follow. */
  #finish(pairs: number): void {
    for (let pair = pairs; pair < this.pairs; pair += 1) {
      const ring = this.device.queues[2 * pair + 1]?.ring;
      for (let chain = ring?.pop(); chain !== undefined; chain = ring?.pop()) {
        this.#transmit(pair, chain);
        if (!this.throttled) chain.complete();
      }
    }
  }

  #multiqueue(command: number, data: Uint8Array, view: DataView): number {
    if (command === 0) {
      this.#need(F.MQ, 'MQ');
      const pairs = view.getUint16(0, true);
      if (pairs < 1 || pairs > this.maxPairs) {
        throw this.device.violated(`${pairs} pairs of queues [5.1.9.5.6.1]`);
      }
      for (let index = 0; index < 2 * pairs; index += 1) {
        if (this.device.queues[index]?.ring === undefined) {
          throw this.device.violated(
            `pair ${index >> 1} was enabled before its queues were set up [5.1.9.5.6.1]`,
          );
        }
      }
      this.#finish(pairs);
      this.pairs = pairs;
      this.rss = undefined;
      return OK;
    }
    if (command === 1) {
      this.#need(F.RSS, 'RSS');
      const entries = view.getUint16(4, true) + 1;
      if ((entries & (entries - 1)) !== 0) {
        throw this.device.violated('the table is no power of two [5.1.9.5.7.2]');
      }
      const table = Array.from({ length: entries }, (_, i) => view.getUint16(8 + 2 * i, true));
      const end = 8 + 2 * entries;
      const transmit = view.getUint16(end, true);
      const keyLength = view.getUint8(end + 2);
      if (data.length !== end + 3 + keyLength) return ERR;
      if (table.some((pair) => this.device.queues[2 * pair]?.ring === undefined)) {
        throw this.device.violated('the table names a queue that is not set up [5.1.9.5.7.2]');
      }
      this.rss = {
        types: view.getUint32(0, true),
        table,
        unclassified: view.getUint16(6, true),
        transmit,
        key: data.slice(end + 3),
      };
      this.#finish(transmit);
      this.pairs = transmit;
      return OK;
    }
    if (command !== 2) return ERR;
    this.#need(F.HASH_REPORT, 'HASH_REPORT');
    if (data.subarray(4, 12).some((byte) => byte !== 0)) {
      throw this.device.violated('reserved is not 0 [5.1.9.5.6.4]');
    }
    if (data.length !== 13 + view.getUint8(12)) return ERR;
    this.hash = { types: view.getUint32(0, true), key: data.slice(13) };
    return OK;
  }

  #coalesce(command: number, data: Uint8Array, view: DataView, result: number[]): number {
    if (command <= 1) {
      this.#need(F.NOTF_COAL, 'NOTF_COAL');
      for (let queue = command === 0 ? 1 : 0; queue < 2 * this.maxPairs; queue += 2) {
        this.coalescing.set(queue, [view.getUint32(0, true), view.getUint32(4, true)]);
      }
      return OK;
    }
    this.#need(F.VQ_NOTF_COAL, 'VQ_NOTF_COAL');
    const queue = view.getUint16(0, true);
    const receiving =
      this.rss === undefined ? this.pairs : 1 + Math.max(...this.rss.table, this.rss.unclassified);
    if (queue >> 1 >= (queue % 2 === 0 ? receiving : this.pairs)) return ERR;
    if (command === 2) {
      this.coalescing.set(queue, [view.getUint32(4, true), view.getUint32(8, true)]);
      return OK;
    }
    if (data.length !== 4) return ERR;
    const [packets, usecs] = this.coalescing.get(queue) ?? [0, 0];
    result.push(...le(packets, 4), ...le(usecs, 4));
    return OK;
  }

  #statistics(command: number, data: Uint8Array, view: DataView, result: number[]): number {
    this.#need(F.DEVICE_STATS, 'DEVICE_STATS');
    if (command === 0) {
      // Basic ones of all queues.
      result.push(...le(1 | (1 << 16), 4), ...le(1, 4));
      return OK;
    }
    for (let at = 0; at < data.length; at += 16) {
      const queue = view.getUint16(at, true);
      const types = view.getBigUint64(at + 8, true);
      const kinds: readonly (readonly [bits: number, counters: number])[] = [
        [0, 6],
        [16, 6],
        [32, 2],
      ];
      for (const [type, counters] of kinds) {
        if ((types & bit(type)) === 0n) continue;
        result.push(type, 0, ...le(queue, 2), 0, 0, ...le(8 + 8 * counters, 2));
        for (let i = 0; i < counters; i += 1) result.push(...le(100 * queue + i, 4), ...le(0, 4));
      }
    }
    return OK;
  }
}

const le = (value: number, size: number): number[] =>
  Array.from({ length: size }, (_, i) => (value >>> (8 * i)) & 0xff);

/** Writes a header of any length. */
export function writeHeader(bytes: Uint8Array, header: Partial<ModelHeader>): void {
  const fields: readonly (readonly [keyof ModelHeader, number, number])[] = [
    ['flags', 0, 1],
    ['gsoType', 1, 1],
    ['hdrLen', 2, 2],
    ['gsoSize', 4, 2],
    ['csumStart', 6, 2],
    ['csumOffset', 8, 2],
    ['numBuffers', 10, 2],
    ['hashValue', 12, 4],
    ['hashReport', 16, 2],
  ];
  for (const [name, at, size] of fields) {
    const value = header[name];
    if (value === undefined) continue;
    le(value, size).forEach((byte, i) => {
      bytes[at + i] = byte;
    });
  }
}

function readHeader(bytes: Uint8Array, size: number): ModelHeader {
  const at = (offset: number, width: number): number => {
    let value = 0;
    for (let i = width - 1; i >= 0; i -= 1) {
      value = value * 256 + (offset + i < size ? (bytes[offset + i] ?? 0) : 0);
    }
    return value;
  };
  return {
    flags: at(0, 1),
    gsoType: at(1, 1),
    hdrLen: at(2, 2),
    gsoSize: at(4, 2),
    csumStart: at(6, 2),
    csumOffset: at(8, 2),
    numBuffers: at(10, 2),
    hashValue: at(12, 4),
    hashReport: at(16, 2),
  };
}

/** A frame of so many bytes from one station to another, with bytes that tell it from others. */
export function frame(length: number, seed = 1, to: readonly number[] = MAC): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from({ length }, (_, i) => (i * 7 + seed * 13 + (i >> 8)) & 0xff);
  bytes.set(to.slice(0, Math.min(6, length)), 0);
  bytes.set(
    [0x02, 0, 0, 0, 0, seed & 0xff].slice(0, Math.max(0, Math.min(6, length - 6))),
    Math.min(6, length),
  );
  if (length >= 14) bytes.set([0x88, 0xb5], 12);
  return bytes;
}
