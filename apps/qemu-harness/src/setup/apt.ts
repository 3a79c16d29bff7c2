/**
 * apt with a private configuration: its own list of sources and its own package lists, in the cache folder. The sources of the
 * system stay as they are; the record of installed packages is the system's own.
 */
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HarnessError } from '../errors.ts';
import { run, tryRun, type RunOptions } from '../run.ts';
import {
  deriveSources,
  formatDeb822,
  parseDeb822,
  parseOneLine,
  sourcesOfSuite,
  type AptSource,
} from './apt-sources.ts';

/** How apt is to be asked, wherever it is asked. */
const ENVIRONMENT = { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_MODE: 'l' } as const;

/** A package that a suite offers. */
export interface PackageVersion {
  readonly version: string;
  readonly depends: string;
}

/** Reads `VERSION_CODENAME` of os-release. */
export function releaseCodename(): string {
  let text: string;
  try {
    text = readFileSync('/etc/os-release', 'utf8');
  } catch (cause) {
    throw new HarnessError(
      'UNSUPPORTED_HOST',
      'This is not a Debian system: /etc/os-release is missing. Debian 12 or later is needed; a container will do.',
      {
        cause,
      },
    );
  }
  const codename = /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(text)?.[1];
  if (codename !== undefined) return codename;
  if (/^ID="?debian"?$/m.test(text)) return 'sid';
  throw new HarnessError(
    'UNSUPPORTED_HOST',
    '/etc/os-release does not name a release (VERSION_CODENAME). Debian 12 or later is needed; a container will do.',
  );
}

/** All sources of the system's own configuration. */
function systemSources(): AptSource[] {
  const sources: AptSource[] = [];
  const directory = '/etc/apt/sources.list.d';
  const read = (path: string): void => {
    try {
      const text = readFileSync(path, 'utf8');
      sources.push(...(path.endsWith('.sources') ? parseDeb822(text) : parseOneLine(text)));
    } catch {
      // A file that is missing or that only root may read names no source for us.
    }
  };
  read('/etc/apt/sources.list');
  let names: string[] = [];
  try {
    names = readdirSync(directory).sort();
  } catch {
    // No such folder: sources.list was all.
  }
  for (const name of names) if (/\.(list|sources)$/.test(name)) read(join(directory, name));
  return sources;
}

/** The private configuration. */
export class Apt {
  readonly codename: string;
  readonly #options: readonly string[];

  /**
   * @param directory where the lists are kept
   * @param suite another suite of the same mirrors, to be used in place of the release
   * @param architectures Debian's names of those whose packages are wanted, if not the system's own: for downloads
   */
  constructor(directory: string, suite?: string, architectures: readonly string[] = []) {
    this.codename = releaseCodename();
    const own = deriveSources(systemSources(), this.codename);
    const sources = suite === undefined ? own : sourcesOfSuite(own, suite);
    if (sources.length === 0) {
      throw new HarnessError(
        'UNSUPPORTED_HOST',
        `the sources of apt in /etc/apt have no mirror with the component 'main' of this release (${this.codename}); ` +
          'add one, then try again.',
      );
    }
    const parts = join(directory, 'sources.list.d');
    mkdirSync(parts, { recursive: true });
    for (const folder of ['lists/partial', 'cache/archives/partial']) {
      mkdirSync(join(directory, folder), { recursive: true });
    }
    writeFileSync(join(parts, 'harness.sources'), formatDeb822(sources));
    this.#options = [
      'Dir::Etc::SourceList=/dev/null',
      `Dir::Etc::SourceParts=${parts}`,
      `Dir::State::Lists=${join(directory, 'lists')}`,
      `Dir::Cache=${join(directory, 'cache')}`,
      // The cache folder may lie where apt's own unprivileged user cannot go.
      'APT::Sandbox::User=root',
      'DPkg::Lock::Timeout=300',
      'Acquire::Retries=3',
      'Acquire::Languages=none',
      ...architectures.map((name) => `APT::Architectures::=${name}`),
    ].flatMap((option) => ['-o', option]);
  }

  /** The suite that carries newer versions. */
  get backports(): string {
    return `${this.codename}-backports`;
  }

  /** Fetches the package lists. */
  async update(onLine?: (line: string) => void): Promise<void> {
    await this.#run('DOWNLOAD_FAILED', 'apt-get', ['update', '-q'], onLine === undefined ? {} : { onLine });
  }

  /** The version of a package that would be installed from the release or, if named, from another suite. */
  async candidate(name: string, suite?: string): Promise<PackageVersion | undefined> {
    const target = suite === undefined ? [] : ['-t', suite];
    const policy = await tryRun('apt-cache', [...this.#options, ...target, 'policy', name]);
    const version = /^ {2}Candidate: (\S+)$/m.exec(policy.stdout)?.[1];
    if (version === undefined || version === '(none)') return undefined;
    const shown = await tryRun('apt-cache', [...this.#options, 'show', `${name}=${version}`]);
    return { version, depends: /^Depends: (.*)$/m.exec(shown.stdout)?.[1] ?? '' };
  }

  /**
   * The packages of an architecture that a package depends on, itself among them, as arguments of {@link Apt.download}. Of those that run
   * everywhere, the ones of Node.js.
   */
  async closure(name: string, architecture: string): Promise<string[]> {
    const kinds = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances'];
    const { stdout } = await tryRun('apt-cache', [
      ...this.#options,
      ...['depends', '--recurse', ...kinds.map((kind) => `--no-${kind}`), `${name}:${architecture}`],
    ]);
    return parseClosure(stdout, architecture);
  }

  /** Downloads packages into `directory` without installing them. */
  async download(
    packages: readonly string[],
    directory: string,
    onLine?: (line: string) => void,
  ): Promise<void> {
    const options: RunOptions = onLine === undefined ? { cwd: directory } : { cwd: directory, onLine };
    await this.#run('DOWNLOAD_FAILED', 'apt-get', ['download', '-q', ...packages], options);
  }

  /** The arguments of `apt-get` that install packages, for a message or to run. */
  installArguments(packages: readonly string[], suite: string | undefined): string[] {
    const target = suite === undefined ? [] : ['-t', suite];
    return [...this.#options, 'install', '-y', '-q', '--no-install-recommends', ...target, ...packages];
  }

  async #run(
    code: 'DOWNLOAD_FAILED',
    command: string,
    args: readonly string[],
    options: RunOptions,
  ): Promise<void> {
    await run(code, command, [...this.#options, ...args], { ...options, env: ENVIRONMENT });
  }
}

/** Takes the packages from what `apt-cache depends --recurse` prints: those that are real stand at the start of a line. */
export function parseClosure(text: string, architecture: string): string[] {
  const names = text
    .split('\n')
    .filter((line) => line.endsWith(`:${architecture}`) || /^node-[^:]+$/.test(line))
    .filter((line) => /^[a-z0-9]/.test(line));
  return [...new Set(names)];
}

/** The environment of every apt and dpkg that installs something, as arguments of `env`. */
export const INSTALL_ENVIRONMENT: readonly string[] = Object.entries(ENVIRONMENT).map(
  ([name, value]) => `${name}=${value}`,
);
