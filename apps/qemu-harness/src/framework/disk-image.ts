/** Makes disk images for tests and looks into them from outside, as any other program would. */
import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../run.ts';
import { pattern, type DiskSpec, type ImageExtent } from './define.ts';

const PIECE = 1 << 20;

/** An image with its description for QEMU. */
export interface PreparedDisk {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  readonly nodeName: string;
  readonly args: readonly string[];
}

/** Makes the image file of a test's disk. */
export async function prepareDisk(spec: DiskSpec, id: string, directory: string): Promise<PreparedDisk> {
  const format = spec.format ?? 'raw';
  const path = join(directory, `${id}.${format}`);
  const raw = format === 'raw' ? path : `${path}.tmp`;
  if (format !== 'raw' && spec.seed === undefined) {
    await run('QEMU_FAILED', 'qemu-img', ['create', '-q', '-f', format, path, String(spec.size)]);
  } else {
    fillRaw(raw, spec);
  }
  if (format !== 'raw' && spec.seed !== undefined) {
    await run('QEMU_FAILED', 'qemu-img', ['convert', '-f', 'raw', '-O', format, raw, path]);
    await rm(raw);
  }
  const readOnly = spec.readOnly === true;
  const file = { driver: 'file', filename: path, 'read-only': readOnly, discard: 'unmap' };
  const inject = (spec.errors ?? []).map(({ request, ...error }) => ({
    event: 'none',
    iotype: request,
    ...error,
  }));
  const protocol = inject.length === 0 ? file : { driver: 'blkdebug', image: file, 'inject-error': inject };
  const formatNode = {
    driver: format,
    'node-name': `${id}-node`,
    'read-only': readOnly,
    discard: 'unmap',
    file: protocol,
    ...spec.options,
  };
  const args = ['-blockdev', JSON.stringify(formatNode)];
  if (spec.iops === undefined) return { path, format, nodeName: `${id}-node`, args };
  const group = `${id}-limit`;
  const limit = { 'qom-type': 'throttle-group', id: group, limits: { 'iops-total': spec.iops } };
  const filter = {
    driver: 'throttle',
    'node-name': `${id}-slow`,
    'throttle-group': group,
    file: `${id}-node`,
  };
  const slow = [
    '-object',
    JSON.stringify(limit),
    '-blockdev',
    JSON.stringify({ ...filter, 'read-only': readOnly }),
  ];
  return { path, format, nodeName: `${id}-slow`, args: [...args, ...slow] };
}

function fillRaw(path: string, { size, seed }: DiskSpec): void {
  const file = openSync(path, 'w');
  try {
    ftruncateSync(file, size);
    if (seed === undefined) return;
    const piece = new Uint8Array(PIECE);
    for (let offset = 0; offset < size; offset += PIECE) {
      const length = Math.min(PIECE, size - offset);
      writeSync(file, pattern(piece, seed, offset), 0, length, offset);
    }
  } finally {
    closeSync(file);
  }
}

/** Reads what the guest would see of the image. */
export async function readImage(disk: PreparedDisk, offset: number, length: number): Promise<Uint8Array> {
  if (disk.format === 'raw') return readRaw(disk.path, offset, length);
  const raw = `${disk.path}.raw`;
  // -U: QEMU has the image open, too; tests flush before they look.
  await run('QEMU_FAILED', 'qemu-img', ['convert', '-U', '-f', disk.format, '-O', 'raw', disk.path, raw]);
  try {
    return await readRaw(raw, offset, length);
  } finally {
    await rm(raw);
  }
}

async function readRaw(path: string, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await using file = await open(path, 'r');
  const { bytesRead } = await file.read(bytes, 0, length, offset);
  if (bytesRead !== length) {
    throw new Error(`${path} ends at ${offset + bytesRead}; ${length} bytes from ${offset} were asked for.`);
  }
  return bytes;
}

/** The SHA-256 of a part of the image, in hexadecimal. */
export async function hashImage(disk: PreparedDisk, offset: number, length: number): Promise<string> {
  return createHash('sha256')
    .update(await readImage(disk, offset, length))
    .digest('hex');
}

/** The extents of the image. */
export async function mapImage(disk: PreparedDisk): Promise<readonly ImageExtent[]> {
  const text = await run('QEMU_FAILED', 'qemu-img', [
    'map',
    '-U',
    '--output=json',
    '-f',
    disk.format,
    disk.path,
  ]);
  return JSON.parse(text) as ImageExtent[];
}
