/** The command line of `guest`: options of the harness, then a script, then the script's own arguments. */
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
}

const MACHINES = Object.keys(TRANSPORTS) as Machine[];
const DEFAULT_TIMEOUT_S = 3600;

/**
 * Parses the arguments after `guest`.
 *
 * @returns `undefined` if only help was asked for
 * @throws {@link HarnessError} `BAD_ARGUMENTS`
 */
export function parseGuestOptions(argv: readonly string[]): GuestOptions | undefined {
  const qemu: string[] = [];
  const disks: string[] = [];
  let machine: string | undefined;
  let transport: string | undefined;
  let memoryMiB: number | undefined;
  let timeoutS = DEFAULT_TIMEOUT_S;
  let console = false;
  let index = 0;
  for (; index < argv.length; index++) {
    const word = argv[index] ?? '';
    if (word === '--') {
      index++;
      break;
    }
    if (!word.startsWith('-')) break;
    const [name, inline] = word.startsWith('--') ? splitOnce(word) : [word];
    const value = (): string => {
      const text = inline ?? argv[++index];
      if (text === undefined) throw bad(`${name} needs a value`);
      return text;
    };
    switch (name) {
      case '--help':
      case '-h':
        return undefined;
      case '--qemu':
        qemu.push(...splitArgs(value()));
        break;
      case '--disk':
        disks.push(value());
        break;
      case '--machine':
        machine = value();
        break;
      case '--transport':
        transport = value();
        break;
      case '--memory':
        memoryMiB = positive(name, value());
        break;
      case '--timeout':
        timeoutS = positive(name, value());
        break;
      case '--console':
        console = true;
        break;
      default:
        throw bad(`there is no option ${name}`);
    }
  }
  const script = argv[index];
  if (script === undefined) throw bad('a script is missing');
  const chosen = chooseTransport(machine, transport);
  return {
    ...chosen,
    script,
    args: argv.slice(index + 1),
    qemu,
    disks,
    memoryMiB,
    timeoutMs: timeoutS * 1000,
    console,
  };
}

function chooseTransport(
  machine: string | undefined,
  transport: string | undefined,
): Pick<GuestOptions, 'machine' | 'transport'> {
  if (machine !== undefined && !MACHINES.some((name) => name === machine)) {
    throw bad(`--machine ${machine}: there are ${MACHINES.join(' and ')}`);
  }
  for (const name of MACHINES) {
    if (machine !== undefined && machine !== name) continue;
    const found = TRANSPORTS[name].find((kind) => transport === undefined || kind === transport);
    if (found !== undefined) return { machine: name, transport: found };
  }
  const known = MACHINES.flatMap((name) => TRANSPORTS[name].map((kind) => `${kind} (${name})`));
  throw bad(
    `--transport ${transport ?? ''}${machine === undefined ? '' : ` on ${machine}`}: there are ${known.join(', ')}`,
  );
}

function splitOnce(word: string): [string, string?] {
  const at = word.indexOf('=');
  return at < 0 ? [word] : [word.slice(0, at), word.slice(at + 1)];
}

function positive(name: string, text: string): number {
  const number = Number(text);
  if (!Number.isFinite(number) || number <= 0) throw bad(`${name} ${text}: a positive number is needed`);
  return number;
}

function bad(what: string): HarnessError {
  return new HarnessError('BAD_ARGUMENTS', `${what}.\n\n${USAGE.guest}`);
}
