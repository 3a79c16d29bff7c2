/**
 * A very small IP stack on the streams of a driver, for engines that have no kernel: ARP, ICMP echo both ways, UDP over IPv4. It is an
 * example of how a stack is plugged into `readable` and `writable`, not one to build on: no fragments, no options, no routing beyond one
 * gateway, nothing is sent again.
 *
 *     const stack = new TinyStack(
 *       { readable: net.readable(ReadableStream<Uint8Array>), writable: net.writable(WritableStream<Uint8Array>) },
 *       { macAddress: net.macAddress, address: '10.0.2.15', gateway: '10.0.2.2' },
 *     );
 *     await stack.ping('10.0.2.2');
 *     await stack.close();
 */

/** Frames in both directions. */
export interface Frames {
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
}

/** Who this station is. */
export interface Station {
  /** Six bytes. */
  readonly macAddress: Uint8Array;
  /** The IPv4 address, such as `10.0.2.15`. */
  readonly address: string;
  /** Who forwards what is for other networks (default: nobody). */
  readonly gateway?: string;
  /** The bits of an address that name the network (default 24). */
  readonly prefix?: number;
}

/** A datagram that came. */
export interface Datagram {
  readonly address: string;
  readonly port: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

const ETHER_ARP = 0x0806;
const ETHER_IPV4 = 0x0800;
const ICMP = 1;
const UDP = 17;
const ETHERNET = 14;
const IPV4 = 20;
const ARP_SIZE = 28;
const BROADCAST = new Uint8Array(6).fill(0xff);
/** Datagrams that wait for a port's reader; what comes beyond is dropped, as UDP may. */
const BACKLOG = 64;

const be16 = (bytes: Uint8Array, at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
const words = (...values: number[]): number[] =>
  values.flatMap((value) => [(value >> 8) & 0xff, value & 0xff]);
const join = (...parts: ArrayLike<number>[]): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(parts.flatMap((part) => Array.from(part)));
const dotted = (bytes: Uint8Array): string => bytes.join('.');

function parse(address: string): Uint8Array<ArrayBuffer> {
  const numbers = address.split('.').map(Number);
  if (numbers.length === 4 && numbers.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255)) {
    return Uint8Array.from(numbers);
  }
  throw new Error(`'${address}' is not an IPv4 address`);
}

/** The checksum of IP, ICMP and UDP [RFC 1071]. */
function sum(...parts: Uint8Array[]): number {
  let total = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) total += be16(part, i);
  }
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return ~total & 0xffff;
}

function withSum(
  bytes: Uint8Array<ArrayBuffer>,
  at: number,
  ...before: Uint8Array[]
): Uint8Array<ArrayBuffer> {
  bytes.set(words(sum(...before, bytes)), at);
  return bytes;
}

/** A port for datagrams. Close it when it is no longer needed. */
export class UdpPort implements Disposable {
  readonly port: number;
  readonly #send: (address: string, port: number, data: Uint8Array) => Promise<void>;
  readonly #close: () => void;
  readonly #came: Datagram[] = [];
  readonly #waiting: ((datagram: Datagram) => void)[] = [];

  constructor(port: number, send: UdpPort['send'], close: () => void) {
    this.port = port;
    this.#send = send;
    this.#close = close;
  }

  /** Sends a datagram; it may be lost on its way. */
  send(address: string, port: number, data: Uint8Array): Promise<void> {
    return this.#send(address, port, data);
  }

  /** The next datagram. */
  receive(): Promise<Datagram> {
    const next = this.#came.shift();
    if (next !== undefined) return Promise.resolve(next);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** A datagram came. */
  take(datagram: Datagram): void {
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) waiting(datagram);
    else if (this.#came.length < BACKLOG) this.#came.push(datagram);
  }

  [Symbol.dispose](): void {
    this.#close();
  }
}

/** The stack. */
export class TinyStack {
  readonly #mac: Uint8Array;
  readonly #address: Uint8Array;
  readonly #gateway: Uint8Array | undefined;
  readonly #prefix: number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  /** MAC addresses by IP address. */
  readonly #neighbours = new Map<string, Uint8Array>();
  readonly #resolving = new Map<string, PromiseWithResolvers<Uint8Array>>();
  readonly #echoes = new Map<number, () => void>();
  readonly #ports = new Map<number, UdpPort>();
  readonly #running: Promise<void>;
  #sequence = 0;

  constructor({ readable, writable }: Frames, { macAddress, address, gateway, prefix = 24 }: Station) {
    this.#mac = macAddress;
    this.#address = parse(address);
    this.#gateway = gateway === undefined ? undefined : parse(gateway);
    this.#prefix = prefix;
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    this.#running = this.#run();
    this.#running.catch(() => undefined);
  }

  /** Asks a station for an echo, and waits for it. It may never come: put a time limit on it. */
  async ping(address: string, data: Uint8Array = new Uint8Array(56)): Promise<void> {
    const sequence = (this.#sequence = (this.#sequence + 1) & 0xffff);
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#echoes.set(sequence, () => resolve(undefined));
    await this.#sendIp(parse(address), ICMP, withSum(join([8, 0, 0, 0], words(1, sequence), data), 2));
    await promise;
  }

  /** Opens a port for datagrams. */
  udp(port: number): UdpPort {
    if (this.#ports.has(port)) throw new Error(`port ${port} is open already`);
    const opened = new UdpPort(
      port,
      (address, to, data) => this.#sendUdp(port, parse(address), to, data),
      () => this.#ports.delete(port),
    );
    this.#ports.set(port, opened);
    return opened;
  }

  /** Stops, and lets go of both streams. */
  async close(): Promise<void> {
    await this.#reader.cancel();
    await this.#running.catch(() => undefined);
    await this.#writer.close();
  }

  async #run(): Promise<void> {
    for (;;) {
      const { done, value } = await this.#reader.read();
      if (done) return;
      await this.#take(value);
    }
  }

  async #take(frame: Uint8Array): Promise<void> {
    const isMine = [this.#mac, BROADCAST].some((mac) => mac.every((byte, i) => frame[i] === byte));
    if (!isMine || frame.length < ETHERNET) return;
    const payload = frame.subarray(ETHERNET);
    if (be16(frame, 12) === ETHER_ARP) await this.#takeArp(payload);
    else if (be16(frame, 12) === ETHER_IPV4) await this.#takeIp(payload, frame.subarray(6, 12));
  }

  /** RFC 826: learns who asks or answers, and answers who asks for this station. */
  async #takeArp(packet: Uint8Array): Promise<void> {
    if (packet.length < ARP_SIZE || be16(packet, 2) !== ETHER_IPV4) return;
    const [mac, address] = [packet.slice(8, 14), packet.slice(14, 18)];
    if (dotted(packet.subarray(24, 28)) !== dotted(this.#address)) return;
    this.#neighbours.set(dotted(address), mac);
    this.#resolving.get(dotted(address))?.resolve(mac);
    this.#resolving.delete(dotted(address));
    if (be16(packet, 6) === 1) await this.#sendArp(2, mac, address);
  }

  async #takeIp(packet: Uint8Array, mac: Uint8Array): Promise<void> {
    const head = 4 * ((packet[0] ?? 0) & 15);
    const length = be16(packet, 2);
    if ((packet[0] ?? 0) >> 4 !== 4 || head < IPV4 || length < head || length > packet.length) return;
    // A fragment, or a header that is not what was sent.
    if ((be16(packet, 6) & 0x3fff) !== 0 || sum(packet.subarray(0, head)) !== 0) return;
    if (dotted(packet.subarray(16, 20)) !== dotted(this.#address)) return;
    const source = packet.slice(12, 16);
    const data = packet.slice(head, length);
    if (packet[9] === ICMP) await this.#takeIcmp(data, source, mac);
    else if (packet[9] === UDP && data.length >= 8) {
      const size = be16(data, 4);
      if (size < 8 || size > data.length) return;
      const received = { address: dotted(source), port: be16(data, 0), data: data.slice(8, size) };
      this.#ports.get(be16(data, 2))?.take(received);
    }
  }

  async #takeIcmp(data: Uint8Array<ArrayBuffer>, source: Uint8Array, mac: Uint8Array): Promise<void> {
    if (data.length < 8 || sum(data) !== 0) return;
    if (data[0] === 8) {
      // Back the way it came, so that no flood of echoes makes this station ask for addresses.
      data.set([0, 0, 0, 0]);
      await this.#sendFrame(mac, ETHER_IPV4, this.#ip(source, ICMP, withSum(data, 2)));
    } else if (data[0] === 0 && be16(data, 4) === 1) {
      this.#echoes.get(be16(data, 6))?.();
      this.#echoes.delete(be16(data, 6));
    }
  }

  async #sendUdp(from: number, address: Uint8Array, to: number, data: Uint8Array): Promise<void> {
    const packet = join(words(from, to, 8 + data.length, 0), data);
    const pseudo = join(this.#address, address, [0, UDP], words(packet.length));
    await this.#sendIp(address, UDP, withSum(packet, 6, pseudo));
  }

  async #sendIp(address: Uint8Array, protocol: number, data: Uint8Array): Promise<void> {
    const bits = (of: Uint8Array): number => ((be16(of, 0) << 16) | be16(of, 2)) >>> (32 - this.#prefix);
    const isNear = bits(address) === bits(this.#address);
    const hop = isNear ? address : this.#gateway;
    if (hop === undefined) {
      throw new Error(`${dotted(address)} is in another network, and there is no gateway`);
    }
    await this.#sendFrame(await this.#resolve(hop), ETHER_IPV4, this.#ip(address, protocol, data));
  }

  #ip(address: Uint8Array, protocol: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
    const head = join(words(0x4500, IPV4 + data.length, 0, 0), [64, protocol, 0, 0], this.#address, address);
    return join(withSum(head, 10), data);
  }

  async #resolve(address: Uint8Array): Promise<Uint8Array> {
    const name = dotted(address);
    const known = this.#neighbours.get(name);
    if (known !== undefined) return known;
    const waiting = this.#resolving.get(name) ?? Promise.withResolvers<Uint8Array>();
    this.#resolving.set(name, waiting);
    await this.#sendArp(1, BROADCAST, address);
    return waiting.promise;
  }

  #sendArp(operation: 1 | 2, mac: Uint8Array, address: Uint8Array): Promise<void> {
    const target = operation === 1 ? new Uint8Array(6) : mac;
    const head = words(1, ETHER_IPV4, 0x0604, operation);
    return this.#sendFrame(mac, ETHER_ARP, join(head, this.#mac, this.#address, target, address));
  }

  async #sendFrame(to: Uint8Array, type: number, payload: Uint8Array): Promise<void> {
    const frame = join(to, this.#mac, words(type), payload);
    // Short frames are padded: not all that forward them do.
    const padded = new Uint8Array(Math.max(60, frame.length));
    padded.set(frame);
    await this.#writer.write(padded);
  }
}
