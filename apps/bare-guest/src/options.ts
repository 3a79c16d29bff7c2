/** The command line of `guest --bare` and of the bare tests. */
import { parseArgs } from 'node:util';
import { USAGE } from '@virtio/setup/usage';
import { splitArgs } from '@virtio/qemu-harness/src/boot/split-args.ts';
import { HarnessError } from '@virtio/qemu-harness/src/errors.ts';
import { type Architecture, ARCHITECTURES, type BareTransport, TRANSPORTS } from './machines.ts';

/** What `guest --bare` was asked to do. */
export interface BareScriptOptions {
  readonly arch: Architecture;
  readonly transport: BareTransport;
  readonly script: string;
  readonly args: readonly string[];
  readonly disks: readonly string[];
  readonly qemu: readonly string[];
  readonly timeoutMs: number;
}

const DEFAULT_TIMEOUT_S = 3600;

const SCRIPT_OPTIONS = {
  bare: { type: 'string' },
  transport: { type: 'string' },
  disk: { type: 'string', multiple: true },
  qemu: { type: 'string', multiple: true },
  timeout: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

/**
 * Parses the arguments after `guest`.
 *
 * @returns `undefined` if only help was asked for
 * @throws HarnessError `BAD_ARGUMENTS`
 */
export function parseScriptOptions(argv: readonly string[]): BareScriptOptions | undefined {
  // Values may begin with a dash (--qemu '-device …'), which the strict mode of parseArgs refuses.
  const lenient = { options: SCRIPT_OPTIONS, strict: false, allowPositionals: true, tokens: true } as const;
  const script = parseArgs({ ...lenient, args: [...argv] }).tokens.find(({ kind }) => kind !== 'option');
  const own = argv.slice(0, script?.index);
  const { values, tokens } = parseArgs({ ...lenient, args: own });
  for (const token of tokens) {
    if (token.kind !== 'option') continue;
    if (!(token.name in SCRIPT_OPTIONS)) throw bad(`a bare guest does not have the option ${token.rawName}`);
    if (token.name !== 'help' && token.value === undefined) throw bad(`${token.rawName} needs a value`);
  }
  if (values.help !== undefined) return undefined;
  const texts = values as Partial<Record<'bare' | 'transport' | 'timeout', string>>;
  const lists = values as Partial<Record<'disk' | 'qemu', readonly string[]>>;
  const args = argv.slice((script?.index ?? argv.length) + (script?.kind === 'option-terminator' ? 1 : 0));
  const [file] = args;
  if (file === undefined) throw bad('a script is missing');
  const timeout = Number(texts.timeout ?? DEFAULT_TIMEOUT_S);
  if (!(timeout > 0)) throw bad(`--timeout ${texts.timeout ?? ''}: must be a positive number`);
  return {
    arch: oneOf('--bare', ARCHITECTURES, texts.bare ?? ''),
    transport: oneOf('--transport', TRANSPORTS, texts.transport ?? TRANSPORTS[0]),
    script: file,
    args: args.slice(1),
    disks: lists.disk ?? [],
    qemu: lists.qemu?.flatMap(splitArgs) ?? [],
    timeoutMs: timeout * 1000,
  };
}

/** What the bare tests were asked to do. */
export interface BareTestOptions {
  readonly filters: readonly string[];
  /** How much runs: a part that suits each change, the essential tests in every kind of guest, or all tests. */
  readonly extent: 'short' | 'essential' | 'full';
  readonly json: string | undefined;
}

/** Parses the arguments after `test`. */
export function parseTestOptions(argv: readonly string[]): BareTestOptions {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      options: { short: { type: 'boolean' }, full: { type: 'boolean' }, json: { type: 'string' } },
      allowPositionals: true,
    });
    const extent = values.full === true ? 'full' : values.short === true ? 'short' : 'essential';
    return { filters: positionals, extent, json: values.json };
  } catch (error) {
    throw new HarnessError('BAD_ARGUMENTS', error instanceof Error ? error.message : String(error));
  }
}

function oneOf<T extends string>(option: string, known: readonly T[], value: string): T {
  const found = known.find((name) => name === value);
  if (found !== undefined) return found;
  throw bad(`${option} ${value}: must be one of ${known.join(', ')}`);
}

function bad(what: string): HarnessError {
  return new HarnessError('BAD_ARGUMENTS', `${what}.\n\n${USAGE.guest}`);
}
