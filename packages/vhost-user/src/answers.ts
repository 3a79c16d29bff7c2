/** Parsers of the back end's answers. The back end is not trusted: each answer is checked before anything in it is used. */
import { fstatSync } from 'node:fs';
import { type FieldTable, type Layout, type Values, VirtioError } from '@virtio/core';
import { ConfigAccess, Inflight, U64, VringState } from './protocol.ts';
import type { Message } from './message.ts';

/** Checks the answer to a request and returns its value. */
export type Parser<T> = (message: Message) => T;

function lied(what: string): VirtioError {
  return new VirtioError('DEVICE_MISBEHAVED', what);
}

function structure<T extends FieldTable>(layout: Layout<T>, { payload }: Message): Values<T> {
  if (payload.byteLength !== layout.size) {
    throw lied(`answered with ${payload.byteLength} bytes where a ${layout.name} has ${layout.size}`);
  }
  return layout.read(payload);
}

/** A number. */
export const parseU64: Parser<bigint> = (message) => structure(U64, message).value;

/** A count; values above the limit are read as the limit. */
export function parseCount(limit: number): Parser<number> {
  return (message) => {
    const value = parseU64(message);
    return value > BigInt(limit) ? limit : Number(value);
  };
}

/** The base of the vring that was asked for. */
export function parseVringState(index: number): Parser<number> {
  return (message) => {
    const state = structure(VringState, message);
    if (state.index !== index) {
      throw lied(`answered with the state of vring ${state.index} when asked for that of vring ${index}`);
    }
    return state.num;
  };
}

/**
 * The configuration space from its start: at most as many bytes as were asked for. Some back ends answer with fewer bytes, and with
 * none in case of an error.
 */
export function parseConfig(length: number): Parser<Uint8Array<ArrayBuffer>> {
  return ({ payload }) => {
    if (payload.byteLength < ConfigAccess.size) return new Uint8Array(0);
    const { offset, size } = ConfigAccess.read(payload);
    const bytes = payload.byteLength - ConfigAccess.size;
    if (bytes === 0) return new Uint8Array(0);
    if (offset !== 0 || bytes > length || size > bytes) {
      throw lied(
        `answered with ${bytes} bytes of configuration (its header says ${size} at ${offset}) when asked for ${length} at 0`,
      );
    }
    return new Uint8Array(payload.buffer, payload.byteOffset + ConfigAccess.size, size).slice();
  };
}

/** The record of requests in flight: memory of the back end that the front end keeps for it. */
export interface InflightRecord {
  /** The memory. */
  readonly fd: number;
  readonly mmapSize: bigint;
  readonly mmapOffset: bigint;
}

/** The record of requests in flight, whose descriptor the caller closes; `undefined` if the back end has no memory for one. */
export const parseInflight: Parser<InflightRecord | undefined> = (message) => {
  const { mmapSize, mmapOffset } = structure(Inflight, message);
  if (mmapSize === 0n) return undefined;
  const [fd] = message.descriptors;
  if (message.descriptors.length !== 1 || fd === undefined) {
    throw lied(
      `answered with ${message.descriptors.length} descriptors when asked for the record of requests in flight, which has one`,
    );
  }
  const file = fstatSync(fd, { bigint: true });
  if (!file.isFile() || mmapOffset + mmapSize > file.size) {
    throw lied(
      `answered with ${mmapSize} bytes at ${mmapOffset} of ${file.isFile() ? `a file of ${file.size}` : 'what is not a file'} when ` +
        'asked for the record of requests in flight',
    );
  }
  message.descriptors.length = 0;
  return { fd, mmapSize, mmapOffset };
};
