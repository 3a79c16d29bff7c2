/** As much of TCP as it takes to send a stream in large segments, and to take one: nothing is ever lost on a tap that is read. */
import type { VirtioNet } from '@virtio/net';
import { equal, ok } from 'node:assert/strict';
import {
  hasGoodSum,
  partialSum,
  PORTS,
  type Segment,
  Tcp,
  TCP_HEADERS,
  tcpFrame,
  tcpSegment,
} from './_ip.ts';

const MSS = 1460;
/** A segment that the device is to cut. */
const LARGE = 30_000;
const PATIENCE_MS = 5000;

/** A connection to the stream port of the host. */
export class MiniTcp {
  /** The longest payload that came in one frame, and how many frames had a partial checksum. */
  longest = 0;
  partial = 0;
  readonly #net: VirtioNet;
  readonly #hostMac: Uint8Array;
  readonly #port: number;
  #seq = 1000;
  #acked = 1000;
  #ack = 0;

  constructor(net: VirtioNet, hostMac: Uint8Array, port: number) {
    this.#net = net;
    this.#hostMac = hostMac;
    this.#port = port;
  }

  async connect(): Promise<void> {
    await this.#say(Tcp.SYN);
    const { seq, flags } = await this.#next();
    equal(flags & (Tcp.SYN | Tcp.ACK), Tcp.SYN | Tcp.ACK);
    this.#ack = (seq + 1) >>> 0;
    this.#seq += 1;
    await this.#say(Tcp.ACK);
  }

  /** Sends bytes in segments that are far larger than those on the wire. The host's window has room for one. */
  async send(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += LARGE) {
      const payload = bytes.subarray(at, at + LARGE);
      const segment = { seq: this.#seq, ack: this.#ack, flags: Tcp.ACK | Tcp.PSH, payload };
      await this.#net.send(tcpFrame(this.#hostMac, [this.#port, PORTS.stream], segment, true), {
        header: {
          checksum: partialSum('tcp'),
          gso: { type: 'TCPV4', size: MSS, headerLength: TCP_HEADERS },
        },
      });
      this.#seq += payload.length;
      while (this.#acked !== this.#seq) await this.#next();
    }
  }

  /** Says that this is all, and takes what the host answers to its end. */
  async finish(): Promise<Uint8Array> {
    await this.#say(Tcp.ACK | Tcp.FIN);
    this.#seq += 1;
    const pieces: Uint8Array[] = [];
    for (let isOver = false; !isOver;) {
      const { seq, flags, payload } = await this.#next();
      if (payload.length === 0 && (flags & Tcp.FIN) === 0) continue;
      if (seq === this.#ack) {
        pieces.push(payload);
        isOver = (flags & Tcp.FIN) !== 0;
        this.#ack = (this.#ack + payload.length + (isOver ? 1 : 0)) >>> 0;
      }
      await this.#say(Tcp.ACK);
    }
    return Buffer.concat(pieces);
  }

  async #say(flags: number): Promise<void> {
    const segment = { seq: this.#seq, ack: this.#ack, flags, payload: new Uint8Array(0) };
    await this.#net.send(tcpFrame(this.#hostMac, [this.#port, PORTS.stream], segment));
  }

  /** The next segment of the host. */
  async #next(): Promise<Segment> {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    for (;;) {
      using packet = await this.#net.receive({ signal });
      const found = tcpSegment(packet.data, [PORTS.stream, this.#port]);
      if (found === undefined) continue;
      if (packet.header.checksum === undefined) ok(hasGoodSum(packet.data), 'a checksum is wrong');
      else this.partial += 1;
      this.longest = Math.max(this.longest, found.payload.length);
      if ((found.flags & Tcp.ACK) !== 0) this.#acked = found.ack;
      ok((found.flags & Tcp.RST) === 0, 'the host has reset the connection');
      return { ...found, payload: found.payload.slice() };
    }
  }
}
