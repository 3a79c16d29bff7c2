/** Lists and copies files of a share. */
import type { Stats } from '@virtio/9p';
import { open } from 'node:fs/promises';
import { posix } from 'node:path';
import { CliError, ExitStatus } from '../errors.ts';
import { contents } from '../files.ts';
import type { Host } from '../host.ts';
import { interruptible } from '../interrupt.ts';
import type { Printer } from '../output.ts';
import { showProgress } from '../progress.ts';
import { formatSize } from '../quantities.ts';
import type { Share } from './share.ts';

/** `ls`. */
export async function list(
  fs: Share,
  printer: Printer,
  path: string,
  { recursive = false, signal }: { readonly recursive?: boolean; readonly signal: AbortSignal },
): Promise<void> {
  const stats = await fs.stat(path, { signal });
  const names = stats.isDirectory()
    ? (await fs.readdir(path, { recursive, signal }))
        .sort()
        .map((name) => [name, posix.join(path, name)] as const)
    : [[path, path] as const];
  const rows: { name: string; stats: Stats }[] = [];
  for (const [name, full] of names) rows.push({ name, stats: await fs.lstat(full, { signal }) });
  printer.result(
    rows.map(({ name, stats: { mode, size, uid, gid, mtime } }) => ({ name, mode, size, uid, gid, mtime })),
  );
  printer.table(
    [],
    rows.map(({ name, stats: each }) => [
      formatMode(each),
      String(each.uid),
      String(each.gid),
      String(each.size),
      each.mtime.toISOString().slice(0, 16).replace('T', ' '),
      each.isDirectory() ? printer.colors.blue(`${name}/`) : name,
    ]),
  );
}

/** Formats a mode as `ls -l` does. */
export function formatMode(stats: Stats): string {
  const kind = stats.isDirectory() ? 'd' : stats.isSymbolicLink() ? 'l' : stats.isFile() ? '-' : '?';
  const bits = Array.from('rwxrwxrwx', (letter, n) => ((stats.mode >> (8 - n)) & 1 ? letter : '-'));
  return kind + bits.join('');
}

/** `get`. */
export async function get(
  fs: Share,
  { signal, ...host }: Host,
  printer: Printer,
  path: string,
  file: string,
): Promise<void> {
  await using source = await fs.open(path, 'r');
  const { size } = await source.stat({ signal });
  const target = file === '-' ? undefined : await open(file, 'w');
  using bar = showProgress({ ...host, signal }, printer.json || target === undefined, 'copying', size);
  let bytes = 0;
  try {
    for await (const piece of source.createReadStream({ signal })) {
      if (target === undefined) host.stdout.write(piece);
      else await target.writeFile(piece);
      bytes += piece.length;
      bar.update(bytes);
      await printer.settle();
    }
  } finally {
    await target?.close();
  }
  if (target === undefined) return;
  printer.result({ path, file, bytes });
  printer.note(`${formatSize(bytes)} copied to ${file}`);
}

/** `put`. */
export async function put(
  fs: Share,
  host: Host,
  printer: Printer,
  file: string,
  path: string,
  force: boolean,
): Promise<void> {
  const { signal } = host;
  const there = await fs.stat(path, { signal }).catch(() => undefined);
  const full = there?.isDirectory() === true ? posix.join(path, posix.basename(file)) : path;
  const old = full === path ? there : await fs.stat(full, { signal }).catch(() => undefined);
  if (old !== undefined && !force) {
    throw new CliError(
      ExitStatus.REFUSED,
      `nothing was written: ${full} exists already, with ${old.size} bytes`,
      'add --force to overwrite it',
    );
  }
  const source: AsyncIterable<Uint8Array> = file === '-' ? host.stdin : contents(file);
  let bytes = 0;
  const counted = async function* (): AsyncGenerator<Uint8Array, undefined> {
    for await (const piece of interruptible(source, signal)) {
      bytes += piece.length;
      yield piece;
    }
    return undefined;
  };
  await fs.writeFile(full, counted(), { signal });
  printer.result({ file, path: full, bytes });
  printer.note(`${formatSize(bytes)} copied to ${full} of the share`);
}
