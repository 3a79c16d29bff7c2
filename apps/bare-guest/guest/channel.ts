/**
 * Messages between a script and the host, over the serial console. A message is a line that begins with the character RS
 * (0x1E); all other lines are the output of the script.
 */
import { machine } from './machine.ts';
import { decodeUtf8 } from '@virtio/core';

const MARK = '\x1e';
const NEWLINE = 10;

let line: number[] = [];
let listener: ((message: unknown) => void) | undefined;

/** Sends a message. */
export function send(message: unknown): void {
  machine.write(`${MARK}${JSON.stringify(message)}\n`);
}

/** Sets the one listener. */
export function onMessage(handler: (message: unknown) => void): void {
  listener = handler;
}

/** Takes a byte that came from the host. */
export function takeByte(byte: number): void {
  if (byte !== NEWLINE) {
    line.push(byte);
    return;
  }
  const text = decodeUtf8(Uint8Array.from(line));
  line = [];
  listener?.(JSON.parse(text));
}
