/** IPv4, UDP and TCP by hand, as far as the tests need it: frames between the guest and a station of the host. */
import { GUEST_MAC } from './_frames.ts';

/** The addresses of both ends. */
export const HOST_IP = '10.77.0.1';
export const GUEST_IP = '10.77.0.2';
/** The ports of the host: one sends back what comes, one keeps it, one takes a stream and answers with another. */
export const PORTS = { echo: 7001, sink: 7002, stream: 7003 } as const;

export const ETHERNET = 14;
const IP = 20;
export const UDP_HEADERS = ETHERNET + IP + 8;
export const TCP_HEADERS = ETHERNET + IP + 20;
const PROTOCOL = { tcp: 6, udp: 17 } as const;
/** Where each protocol has its checksum. */
const SUM = { tcp: 16, udp: 6 } as const;

const octets = (address: string): number[] => address.split('.').map(Number);
const be16 = (bytes: Uint8Array, at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
const put16 = (bytes: Uint8Array, at: number, value: number): void => {
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 0xff;
};

function sumOf(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let i = 0; i < bytes.length; i += 2) sum += be16(bytes, i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** The sum of the pseudo header of a frame's transport. */
function pseudoSum(frame: Uint8Array): number {
  const length = frame.length - ETHERNET - IP;
  return sumOf(frame.subarray(ETHERNET + 12, ETHERNET + 20), (frame[ETHERNET + 9] ?? 0) + length);
}

/** Whether the checksum of a frame's transport is right. */
export function hasGoodSum(frame: Uint8Array): boolean {
  return sumOf(frame.subarray(ETHERNET + IP), pseudoSum(frame)) === 0xffff;
}

/** A frame to the host around a transport header and its payload. `partial` leaves the checksum to the device. */
function ipFrame(
  protocol: keyof typeof PROTOCOL,
  hostMac: Uint8Array,
  transport: Uint8Array,
  payload: Uint8Array,
  partial: boolean,
): Uint8Array<ArrayBuffer> {
  const length = IP + transport.length + payload.length;
  const frame = new Uint8Array(ETHERNET + length);
  frame.set(hostMac, 0);
  frame.set(GUEST_MAC, 6);
  put16(frame, 12, 0x0800);
  frame[ETHERNET] = 0x45;
  put16(frame, ETHERNET + 2, length);
  frame[ETHERNET + 8] = 64;
  frame[ETHERNET + 9] = PROTOCOL[protocol];
  frame.set(octets(GUEST_IP), ETHERNET + 12);
  frame.set(octets(HOST_IP), ETHERNET + 16);
  put16(frame, ETHERNET + 10, ~sumOf(frame.subarray(ETHERNET, ETHERNET + IP)) & 0xffff);
  frame.set(transport, ETHERNET + IP);
  frame.set(payload, ETHERNET + IP + transport.length);
  const at = ETHERNET + IP + SUM[protocol];
  const pseudo = pseudoSum(frame);
  put16(frame, at, partial ? pseudo : ~sumOf(frame.subarray(ETHERNET + IP), pseudo) & 0xffff || 0xffff);
  return frame;
}

/** What a device needs to complete the checksum of a frame. */
export const partialSum = (protocol: keyof typeof SUM): { start: number; offset: number } => ({
  start: ETHERNET + IP,
  offset: SUM[protocol],
});

/** A datagram to the host. */
export function udpFrame(
  hostMac: Uint8Array,
  [from, to]: readonly [number, number],
  payload: Uint8Array,
  partial = false,
): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(8);
  put16(header, 0, from);
  put16(header, 2, to);
  put16(header, 4, 8 + payload.length);
  return ipFrame('udp', hostMac, header, payload, partial);
}

/** The payload of a datagram of the host between these ports, `undefined` for any other frame. */
export function udpPayload(frame: Uint8Array, [from, to]: readonly [number, number]): Uint8Array | undefined {
  const at = ETHERNET + IP;
  if (be16(frame, 12) !== 0x0800 || frame[ETHERNET + 9] !== PROTOCOL.udp) return undefined;
  if (be16(frame, at) !== from || be16(frame, at + 2) !== to) return undefined;
  return frame.subarray(at + 8, at + be16(frame, at + 4));
}

/** The bits of TCP that are used here. */
export const Tcp = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16 } as const;

/** A segment as both ways have it. */
export interface Segment {
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

const WINDOW = 65_535;

/** A segment to the host. */
export function tcpFrame(
  hostMac: Uint8Array,
  [from, to]: readonly [number, number],
  { seq, ack, flags, payload }: Segment,
  partial = false,
): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(20);
  const view = new DataView(header.buffer);
  view.setUint16(0, from);
  view.setUint16(2, to);
  view.setUint32(4, seq);
  view.setUint32(8, ack);
  view.setUint8(12, 5 << 4);
  view.setUint8(13, flags);
  view.setUint16(14, WINDOW);
  return ipFrame('tcp', hostMac, header, payload, partial);
}

/** A segment of the host between these ports, `undefined` for any other frame. */
export function tcpSegment(frame: Uint8Array, [from, to]: readonly [number, number]): Segment | undefined {
  const at = ETHERNET + IP;
  if (be16(frame, 12) !== 0x0800 || frame[ETHERNET + 9] !== PROTOCOL.tcp) return undefined;
  if (be16(frame, at) !== from || be16(frame, at + 2) !== to) return undefined;
  const view = new DataView(frame.buffer, frame.byteOffset + at);
  return {
    seq: view.getUint32(4),
    ack: view.getUint32(8),
    flags: view.getUint8(13),
    payload: frame.subarray(at + 4 * (view.getUint8(12) >> 4), ETHERNET + be16(frame, ETHERNET + 2)),
  };
}
