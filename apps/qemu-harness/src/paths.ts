/** Where the harness keeps things. All that it downloads or builds is below one folder that git ignores. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of this app. */
export const HARNESS_DIR = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');

/** The root of the repository. */
export const REPO_DIR = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');

/** Downloads and guest images. */
export const CACHE_DIR = join(REPO_DIR, '.cache', 'guest');

/** The last report. */
export const REPORT_DIR = join(HARNESS_DIR, 'report');

/** What is said while another process installs, downloads or builds. */
export const WAITING = 'another set-up is running in this folder: waiting for it';

/** The cache folder, made if it is missing. */
export function ensureCacheDir(): string {
  mkdirSync(CACHE_DIR, { recursive: true });
  return CACHE_DIR;
}
