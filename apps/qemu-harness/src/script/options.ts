/** The command line of `guest`: options of the harness, then a script, then the script's own arguments. */
import { parseArgs } from 'node:util';
import { USAGE } from '@virtio/setup/usage';
import { HarnessError } from '../errors.ts';
import { splitArgs } from '../boot/split-args.ts';
import { TRANSPORTS, type Machine, type TransportKind } from '../boot/qemu-args.ts';

/** What `guest` was asked to do. */
export interface GuestOptions {
  readonly machine: Machine;
  readonly transport: TransportKind;
  readonly script: string;
  readonly args: readonly string[];
  readonly qemu: readonly string[];
  readonly disks: readonly string[];
  readonly memoryMiB: number | undefined;
  readonly timeoutMs: number;
  readonly console: boolean;
  /** Show the guest's display. */
  readonly display: boolean;
  /** The WAV file that gets what the guest plays. */
  readonly sound: string | undefined;
}

const MACHINES = ['q35', 'microvm'] as const;
const DEFAULT_TIMEOUT_S = 3600;

const OPTIONS = {
  qemu: { type: 'string', multiple: true },
  disk: { type: 'string', multiple: true },
  machine: { type: 'string' },
  transport: { type: 'string' },
  memory: { type: 'string' },
  timeout: { type: 'string' },
  console: { type: 'boolean' },
  display: { type: 'boolean' },
  sound: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

/**
 * Parses the arguments after `guest`.
 *
 * @returns `undefined` if only help was asked for
 * @throws {@link HarnessError} `BAD_ARGUMENTS`
 */
export function parseGuestOptions(argv: readonly string[]): GuestOptions | undefined {
  // Values may begin with a dash (--qemu '-device …'), which the strict mode of parseArgs refuses.
  const lenient = { options: OPTIONS, strict: false, allowPositionals: true, tokens: true } as const;
  const script = parseArgs({ ...lenient, args: [...argv] }).tokens.find(({ kind }) => kind !== 'option');
  const { values, tokens } = parseArgs({ ...lenient, args: argv.slice(0, script?.index) });
  for (const token of tokens) {
    if (token.kind !== 'option') continue;
    const type = Object.entries(OPTIONS).find(([name]) => name === token.name)?.[1].type;
    if (type === undefined) throw bad(`there is no option ${token.rawName}`);
    if (type === 'string' && token.value === undefined) throw bad(`${token.rawName} needs a value`);
    if (type === 'boolean' && token.value !== undefined) throw bad(`${token.rawName} takes no value`);
  }
  // What parseArgs leaves open where it is not strict, and the loop has made sure of.
  const texts = values as Partial<Record<'machine' | 'transport' | 'memory' | 'timeout' | 'sound', string>>;
  const lists = values as Partial<Record<'qemu' | 'disk', readonly string[]>>;
  if (values.help !== undefined) return undefined;
  const args = argv.slice((script?.index ?? argv.length) + (script?.kind === 'option-terminator' ? 1 : 0));
  const [file] = args;
  if (file === undefined) throw bad('a script is missing');
  return {
    ...chooseTransport(texts.machine, texts.transport),
    script: file,
    args: args.slice(1),
    qemu: lists.qemu?.flatMap(splitArgs) ?? [],
    disks: lists.disk ?? [],
    memoryMiB: texts.memory === undefined ? undefined : positive('--memory', texts.memory),
    timeoutMs: positive('--timeout', texts.timeout ?? String(DEFAULT_TIMEOUT_S)) * 1000,
    console: values.console !== undefined,
    display: values.display !== undefined,
    sound: texts.sound,
  };
}

function chooseTransport(
  machine: string | undefined,
  transport: string | undefined,
): Pick<GuestOptions, 'machine' | 'transport'> {
  if (machine !== undefined && !MACHINES.some((name) => name === machine)) {
    throw bad(`--machine ${machine}: must be ${MACHINES.join(' or ')}`);
  }
  for (const name of MACHINES) {
    if (machine !== undefined && machine !== name) continue;
    const found = TRANSPORTS[name].find((kind) => transport === undefined || kind === transport);
    if (found !== undefined) return { machine: name, transport: found };
  }
  const known = MACHINES.flatMap((name) => TRANSPORTS[name].map((kind) => `${kind} (${name})`));
  throw bad(
    `--transport ${transport ?? ''}${machine === undefined ? '' : ` on ${machine}`}: must be one of ${known.join(', ')}`,
  );
}

function positive(name: string, text: string): number {
  const number = Number(text);
  if (!Number.isFinite(number) || number <= 0) throw bad(`${name} ${text}: must be a positive number`);
  return number;
}

function bad(what: string): HarnessError {
  return new HarnessError('BAD_ARGUMENTS', `${what}.\n\n${USAGE.guest}`);
}
