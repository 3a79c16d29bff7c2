/** Whole trees and large files, copied in and out, and compared on the host. */
import { encodeUtf8Lossless } from '@virtio/core';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { guestTest, pattern } from '../../framework/define.ts';
import { attributeLine, digestLine, host } from './_compare.ts';
import { copyTree, crew } from './_copy.ts';
import { FILES, makeShare, makeTree, mount, NAMES, RAW_NAME, share, SPARSE_SIZE } from './_share.ts';

const BIG = 200 << 20;

export default [
  guestTest({
    device: '9p',
    name: 'copies a tree of 2,000 files, with links, permissions, holes and names in many scripts',
    long: true,
    devices: { share: share() },
    timeoutS: 400,
    prepare: (directory) => makeTree(join(makeShare(directory), 'in')),
    host,
    async guest(context) {
      await using mounted = await mount(context);
      const { fs, device } = mounted;
      let most = 0;
      const sampler = setInterval(() => (most = Math.max(most, device.inFlight)), 1);
      const began = performance.now();
      const { files, bytes } = await copyTree(fs, '/in', '/out');
      clearInterval(sampler);
      context.note(
        `${files} entries, ${bytes} bytes written, ${Math.round(performance.now() - began)} ms, ` +
          `${most} requests seen in flight`,
      );
      ok(files > FILES);
      const { onlyInA, onlyInB } = await context.host('differences', { a: 'in', b: 'out' });
      deepEqual([onlyInA, onlyInB], [[], []]);
      const sparse = await context.host('stat', { path: 'out/sparse' });
      equal(sparse.size, SPARSE_SIZE);
      ok(sparse.blocks * 512 < 1 << 20, `the copy of the sparse file takes ${sparse.blocks} blocks`);
      await fs.rm('/out', { recursive: true });
      deepEqual(await context.host('list', { path: '' }), ['in']);
    },
  }),

  guestTest({
    device: '9p',
    name: 'sees the attributes and names that the host sees',
    long: true,
    devices: { share: share({ hostInodes: true }) },
    timeoutS: 300,
    prepare: (directory) => makeTree(join(makeShare(directory), 'in')),
    host,
    async guest(context) {
      await using mounted = await mount(context);
      const { fs } = mounted;
      const lines: string[] = [];
      const tasks: (() => Promise<void>)[] = [];
      const visit = async (path: string, prefix: string): Promise<void> => {
        for (const name of await fs.readdir(path)) {
          const child = `${path}/${name}`;
          const bytes = Buffer.from(encodeUtf8Lossless(name) ?? []).toString('hex');
          tasks.push(async () => {
            const stats = await fs.lstat(child);
            lines.push(attributeLine(`${prefix}${bytes}`, stats, stats.qid.path));
            if (stats.isDirectory()) await visit(child, `${prefix}${bytes}2f`);
          });
        }
      };
      tasks.push(() => visit('/in', ''));
      await crew(48, tasks);
      context.note(`${lines.length} files`);
      ok(lines.length > FILES);
      lines.sort();
      const seen = await context.host('attributes', { path: 'in', digests: lines.map(digestLine) });
      deepEqual([seen.unknown.map((index) => lines[index]), seen.missing], [[], []]);
      equal(lines.length, seen.files);
      equal((await fs.readdir('/in', { recursive: true })).length, seen.files);
      for (const name of NAMES) equal(await fs.readFile(`/in/names/${name}`, 'utf8'), name);
      const odd = (await fs.readdir('/in/names')).find((name) => encodeUtf8Lossless(name)?.includes(0xff));
      deepEqual(Buffer.from(await fs.readFile(`/in/names/${odd ?? ''}`)), RAW_NAME);
      equal(await fs.readFile('/in/links/relative', 'utf8'), '日本語');
      equal(await fs.readFile('/in/links/directory/plain', 'utf8').catch(() => 'outside'), 'outside');
      equal(await fs.realpath('/in/links/../links/relative'), '/in/names/日本語');
    },
  }),

  guestTest({
    device: '9p',
    name: 'copies a file of 200 MB',
    long: true,
    devices: { share: share() },
    timeoutS: 400,
    prepare(directory) {
      const file = openSync(join(makeShare(directory), 'big'), 'w');
      const piece = new Uint8Array(1 << 20);
      for (let at = 0; at < BIG; at += piece.length) writeSync(file, pattern(piece, 5, at));
      closeSync(file);
    },
    host,
    async guest(context) {
      await using mounted = await mount(context);
      const { fs } = mounted;
      const began = performance.now();
      await fs.copyFile('/big', '/copy');
      const ms = performance.now() - began;
      context.note(`${Math.round(BIG / 1000 / ms)} MB/s there and back`);
      equal((await fs.stat('/copy')).size, BIG);
      equal(await context.host('hash', { path: 'copy' }), await context.host('hash', { path: 'big' }));

      const source = await fs.open('/big');
      let total = 0;
      for await (const piece of source.createReadStream({ start: BIG - 10_000_000 })) total += piece.length;
      equal(total, 10_000_000);
      await source.close();
    },
  }),
];
