/**
 * koffi, loaded when the first system call needs it: what makes none (listing devices, help of a program) works without it, and where
 * it is missing an error says what to do, which an `import` that fails cannot.
 */
import { createRequire } from 'node:module';
import { VirtioError } from '@virtio/core';
import type * as koffiModule from 'koffi';
import { errorName } from './system-error.ts';

type Koffi = typeof koffiModule;

let loaded: Koffi | undefined;

/**
 * koffi.
 *
 * @throws {@link VirtioError} `UNSUPPORTED` if it is not installed, or has no library for this platform
 */
export function koffi(): Koffi {
  loaded ??= load();
  return loaded;
}

function load(): Koffi {
  try {
    return createRequire(import.meta.url)('koffi') as Koffi;
  } catch (error) {
    const platform = `${process.platform}-${process.arch}`;
    const absent = errorName(error) === 'MODULE_NOT_FOUND';
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new VirtioError(
      'UNSUPPORTED',
      `@virtio/linux makes system calls through the package koffi, ${
        absent
          ? `which was not found; run "npm install koffi" where @virtio/linux is installed, and leave it out of bundles`
          : `which does not load here (${reason}); on this machine, delete node_modules and run "npm install" without ` +
            `--omit=optional, so that its library for ${platform} (@koromix/koffi-${platform}) is installed`
      }`,
      { cause: error },
    );
  }
}
