/**
 * QuickJS on the host, of the version that bare guests have: as an engine, and as a compiler. An emulated processor takes most of a
 * short boot to parse a script, so scripts are compiled here.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeTemporary } from '@virtio/qemu-harness/src/boot/temporary.ts';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import { run } from '@virtio/qemu-harness/src/run.ts';
import { ensureUnpacked } from '@virtio/qemu-harness/src/setup/unpacked-program.ts';
import { SUITE } from './packages.ts';

/** The command of a program of the package, which is unpacked, never installed, with the C library that it was made for. */
export const ensureQuickJs = (
  program: 'qjs' | 'qjsc',
  report: (line: string) => void,
): Promise<readonly string[]> =>
  ensureUnpacked(
    { package: 'quickjs', path: `usr/bin/${program}`, suite: SUITE, libraries: ['libc6'] },
    report,
  );

/** Compiles an ES module to what the engine of a bare guest loads. Its name in stack traces is `script`. */
export async function compileModule(text: Uint8Array): Promise<Uint8Array> {
  const [program = 'qjsc', ...args] = await ensureQuickJs('qjsc', () => undefined);
  const directory = makeTemporary();
  try {
    writeFileSync(join(directory, 'script'), text);
    // The compiler writes C: an array of bytes, each as 0x and two digits.
    await run('BUNDLE_FAILED', program, [...args, '-c', '-m', '-o', 'script.c', 'script'], {
      cwd: directory,
    });
    const source = readFileSync(join(directory, 'script.c'), 'latin1');
    const [, size, bytes] = /uint8_t \w+\[(\d+)\] = \{([^}]*)\}/.exec(source) ?? [];
    const compiled = Buffer.from((bytes ?? '').replace(/[^0-9a-fx]|0x/g, ''), 'hex');
    if (compiled.length === 0 || compiled.length !== Number(size)) {
      throw new HarnessError(
        'BUNDLE_FAILED',
        'The compiler of QuickJS wrote no bytecode that is understood here.',
      );
    }
    return compiled;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
