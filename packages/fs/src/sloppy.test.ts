/** Servers that lack a request or are careless in an answer, where Linux's client goes on. */
import { describe, expect, it } from 'vitest';
import { type Asked, encode, FILE, open, reply, serve } from '../test/set-up.ts';
import {
  DirectoryEntry,
  type FileHandle,
  FuseFileSystem,
  In,
  InHeader,
  InitFlag,
  Opcode,
  Out,
} from './index.ts';

const ENOSYS = 38;
const EIO = 5;

async function mounted(other: (asked: Asked) => boolean) {
  const { device, driver } = open();
  const { seen, forgotten } = serve(device, other);
  const fs = await FuseFileSystem.mount(driver);
  const end = async (): Promise<void> => {
    expect(fs.client.nodesInUse).toBe(0);
    await fs.unmount();
    driver[Symbol.dispose]();
    device.assertClean();
  };
  return { fs, seen, forgotten, end };
}

describe('a server', () => {
  it.each([ENOSYS, EIO])('that answers RELEASE with error %i has closed the file', async (errno) => {
    const { fs, seen, forgotten, end } = await mounted((asked) => {
      const refuses = asked.opcode === Opcode.RELEASE || asked.opcode === Opcode.RELEASEDIR;
      if (refuses) reply(asked, errno);
      return refuses;
    });
    const handle = await fs.open('/file');
    await handle.close();
    fs.openSync('/file').closeSync();
    expect(seen.filter((opcode) => opcode === Opcode.RELEASE)).toHaveLength(2);
    expect(forgotten).toHaveLength(2);
    await end();
  });

  it('that gives a FLUSH back without a reply has nothing to report', async () => {
    const { fs, seen, end } = await mounted(({ opcode }) => opcode === Opcode.FLUSH);
    await (await fs.open('/file')).close();
    expect(seen).toContain(Opcode.RELEASE);
    await end();
  });

  it('whose FLUSH fails reports it, and the file is closed', async () => {
    const { fs, seen, end } = await mounted((asked) => {
      const fails = asked.opcode === Opcode.FLUSH || asked.opcode === Opcode.RELEASE;
      if (fails) reply(asked, asked.opcode === Opcode.FLUSH ? 28 : EIO);
      return fails;
    });
    const handle = await fs.open('/file');
    await expect(handle.close()).rejects.toMatchObject({ code: 'ENOSPC', syscall: 'close' });
    expect(seen.filter((opcode) => opcode === Opcode.RELEASE)).toHaveLength(1);
    await end();
  });

  it('that does not know FSYNC has nothing to write', async () => {
    let errno = ENOSYS;
    const { fs, seen, end } = await mounted((asked) => {
      const syncs = asked.opcode === Opcode.FSYNC;
      if (syncs) reply(asked, errno);
      return syncs;
    });
    const sync = (handle: FileHandle): Promise<void>[] => [handle.sync(), handle.datasync()];
    const handle = await fs.open('/file', 'r+');
    await Promise.all(sync(handle));
    handle.fsyncSync();
    expect(seen.filter((opcode) => opcode === Opcode.FSYNC)).toHaveLength(3);
    errno = EIO;
    await expect(handle.sync()).rejects.toMatchObject({ code: 'EIO' });
    await handle.close();
    await end();
  });

  it('that does not know OPEN and OPENDIR has files that are always open', async () => {
    const lacks: readonly number[] = [
      Opcode.OPEN,
      Opcode.OPENDIR,
      Opcode.RELEASE,
      Opcode.RELEASEDIR,
      Opcode.FLUSH,
    ];
    const handles: bigint[] = [];
    let truncated = 0;
    const { fs, end } = await mounted((asked) => {
      const { opcode, chain } = asked;
      if (opcode === Opcode.READ) {
        handles.push(In.io.read(new DataView(chain.readAt(InHeader.size, In.io.size).buffer)).fh);
      }
      if (opcode === Opcode.SETATTR) {
        truncated += 1;
        reply(asked, encode(Out.attr, { ino: 7n, mode: FILE }));
        return true;
      }
      if (opcode === Opcode.INIT) {
        const flags = InitFlag.ATOMIC_O_TRUNC;
        reply(asked, encode(Out.init, { major: 7, minor: 31, maxWrite: 65536, flags }));
        return true;
      }
      if (lacks.includes(opcode)) reply(asked, ENOSYS);
      return lacks.includes(opcode);
    });
    expect(await fs.readFile('/file', 'utf8')).toBe('hello');
    expect(new Set(handles)).toEqual(new Set([0n]));
    expect(await fs.readdir('/')).toEqual([]);
    expect(truncated).toBe(0);
    // Without OPEN, there is nothing else that would truncate it.
    await (await fs.open('/file', 'r+')).close();
    expect(truncated).toBe(0);
    await (await fs.open('/file', 'w')).close();
    expect(truncated).toBe(1);
    await end();
  });

  it('that says nothing of the longest write gets 4 KiB at once, as from Linux', async () => {
    const sizes: number[] = [];
    const { fs, end } = await mounted((asked) => {
      const { opcode, chain } = asked;
      if (opcode === Opcode.INIT) reply(asked, encode(Out.init, { major: 7, minor: 31, maxWrite: 0 }));
      if (opcode === Opcode.WRITE) {
        const { size } = In.io.read(new DataView(chain.readAt(InHeader.size, In.io.size).buffer));
        sizes.push(size);
        reply(asked, encode(Out.write, { size }));
      }
      return opcode === Opcode.INIT || opcode === Opcode.WRITE;
    });
    const handle = await fs.open('/file', 'r+');
    await handle.write(new Uint8Array(10_000));
    await handle.close();
    expect(sizes).toEqual([4096, 4096, 1808]);
    await end();
  });

  it('whose last entry of a directory is cut off is asked for it again', async () => {
    const names = ['one', 'second', 'the-third', 'x'];
    let whole = true;
    const { fs, end } = await mounted((asked) => {
      if (asked.opcode !== Opcode.READDIR) return false;
      const { offset } = In.io.read(new DataView(asked.chain.readAt(InHeader.size, In.io.size).buffer));
      const entries = names.slice(Number(offset)).map((name, i) => {
        const bytes = new Uint8Array(DirectoryEntry.size + Math.ceil(name.length / 8) * 8);
        const fields = { offset: offset + BigInt(i + 1), namelen: name.length, type: 8 };
        DirectoryEntry.write(new DataView(bytes.buffer), 0, fields);
        bytes.set(new TextEncoder().encode(name), DirectoryEntry.size);
        return [...bytes];
      });
      // It fills what it takes for the buffer to the last byte.
      const most = whole ? 50 : 30;
      reply(asked, Uint8Array.from(entries.flat().slice(0, most)));
      return true;
    });
    expect(await fs.readdir('/')).toEqual(names);
    expect(fs.readdirSync('/')).toEqual(names);
    // With not even one whole entry there is no way to go on.
    whole = false;
    await expect(fs.readdir('/')).rejects.toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    await end();
  });
});
