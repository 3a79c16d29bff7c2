/** Copies trees through the client, as a program of the guest would: many files at once, holes as holes. */
import type { Dirent, FileHandle, P9FileSystem, Stats } from '@virtio/9p';

const PIECE = 1 << 20;
const HOLE = 65_536;
const ZEROS = new Uint8Array(HOLE);

/** Runs tasks, so many at once. Tasks may add tasks. */
export async function crew(workers: number, tasks: (() => Promise<void>)[]): Promise<void> {
  let busy = 0;
  const wake: (() => void)[] = [];
  const work = async (): Promise<void> => {
    for (;;) {
      const task = tasks.shift();
      if (task !== undefined) {
        busy++;
        try {
          await task();
        } finally {
          busy--;
          for (const resolve of wake.splice(0)) resolve();
        }
      } else if (busy === 0) {
        return;
      } else {
        await new Promise<void>((resolve) => wake.push(resolve));
      }
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
}

/** Copies a tree with everything that files have. */
export async function copyTree(
  fs: P9FileSystem,
  from: string,
  to: string,
  workers = 32,
): Promise<{ readonly files: number; readonly bytes: number }> {
  const first = new Map<bigint, Promise<string>>();
  const directories: { readonly path: string; readonly stats: Stats }[] = [];
  let files = 0;
  let bytes = 0;

  const copyFile = async (source: string, target: string, stats: Stats): Promise<string> => {
    {
      await using input = await fs.open(source);
      await using output = await fs.open(target, 'wx', 0o600);
      const written = await copyBytes(input, output, stats.size);
      bytes += written;
      await output.chown(stats.uid, stats.gid);
      await output.chmod(stats.mode & 0o7777);
      await output.utimes(stats.atimeNs, stats.mtimeNs);
    }
    return target;
  };
  const copy = async (source: string, target: string, entry: Dirent): Promise<void> => {
    files++;
    if (entry.isDirectory()) {
      await copyDirectory(source, target);
    } else if (entry.isSymbolicLink()) {
      await fs.symlink(await fs.readlink(source), target);
    } else {
      const stats = await fs.lstat(source);
      const known = first.get(stats.qid.path);
      if (known !== undefined) {
        await fs.link(await known, target);
      } else {
        const copied = copyFile(source, target, stats);
        if (stats.nlink > 1) first.set(stats.qid.path, copied);
        await copied;
      }
    }
  };
  const tasks: (() => Promise<void>)[] = [];
  const copyDirectory = async (source: string, target: string): Promise<void> => {
    const stats = await fs.lstat(source);
    await fs.mkdir(target, { mode: 0o700 });
    directories.push({ path: target, stats });
    for (const entry of await fs.readdir(source, { withFileTypes: true })) {
      tasks.push(() => copy(`${source}/${entry.name}`, `${target}/${entry.name}`, entry));
    }
  };
  tasks.push(() => copyDirectory(from, to));
  await crew(workers, tasks);
  // The times of a directory last: they change with each entry.
  for (const { path, stats } of directories) {
    await fs.chown(path, stats.uid, stats.gid);
    await fs.chmod(path, stats.mode & 0o7777);
    await fs.utimes(path, stats.atimeNs, stats.mtimeNs);
  }
  return { files, bytes };
}

/** Copies the contents of a file. What is all zero is left out, so that the copy has holes where the file may have. */
async function copyBytes(input: FileHandle, output: FileHandle, size: number): Promise<number> {
  const buffer = new Uint8Array(Math.min(PIECE, Math.max(size, 1)));
  let written = 0;
  let end = 0;
  for (let at = 0; at < size;) {
    const { bytesRead } = await input.read(buffer, { position: at });
    if (bytesRead === 0) break;
    for (let start = 0; start < bytesRead; start += HOLE) {
      const part = buffer.subarray(start, Math.min(start + HOLE, bytesRead));
      if (Buffer.compare(part, ZEROS.subarray(0, part.length)) === 0) continue;
      await output.write(part, { position: at + start });
      written += part.length;
      end = at + start + part.length;
    }
    at += bytesRead;
  }
  if (end < size) await output.truncate(size);
  return written;
}
