/**
 * Writes `src/event-codes.ts` from the C headers of Linux, which number the event codes, so that none is typed by hand. The
 * file says which headers it is from and has a checksum of its tables, so that a test notices any edit.
 *
 * `node scripts/generate-event-codes.ts [folder of the headers]`, on Debian with the package linux-libc-dev installed.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

/** The headers, below {@link HEADERS_FOLDER}. */
const HEADERS = ['input-event-codes.h', 'input.h'];
/** Where Debian has them. */
export const HEADERS_FOLDER = '/usr/include/linux';

interface Table {
  readonly name: string;
  readonly doc: string;
  readonly prefixes: readonly string[];
}

const TABLES: readonly Table[] = [
  { name: 'EventType', doc: 'The types of events.', prefixes: ['EV'] },
  { name: 'Sync', doc: 'The codes of `EV_SYN`, which groups events.', prefixes: ['SYN'] },
  { name: 'Key', doc: 'The codes of `EV_KEY`: keys and buttons.', prefixes: ['KEY', 'BTN'] },
  { name: 'Rel', doc: 'The codes of `EV_REL`: relative axes, such as those of a mouse.', prefixes: ['REL'] },
  { name: 'Abs', doc: 'The codes of `EV_ABS`: absolute axes, such as those of a tablet.', prefixes: ['ABS'] },
  { name: 'Misc', doc: 'The codes of `EV_MSC`.', prefixes: ['MSC'] },
  { name: 'Switch', doc: 'The codes of `EV_SW`: switches with a state.', prefixes: ['SW'] },
  { name: 'Led', doc: 'The codes of `EV_LED`.', prefixes: ['LED'] },
  { name: 'Sound', doc: 'The codes of `EV_SND`.', prefixes: ['SND'] },
  { name: 'Repeat', doc: 'The codes of `EV_REP`: how keys repeat.', prefixes: ['REP'] },
  { name: 'Property', doc: 'Properties of a device.', prefixes: ['INPUT_PROP'] },
  { name: 'Bus', doc: 'Bus types in the identifiers of a device.', prefixes: ['BUS'] },
  { name: 'MultiTouchTool', doc: 'The values of `ABS_MT_TOOL_TYPE`.', prefixes: ['MT_TOOL'] },
];

/** Bounds of ranges and of C arrays are no codes. */
const NO_CODE = /_(?:MAX|CNT)$|^KEY_MIN_INTERESTING$|^EV_VERSION$/;

interface Definition {
  readonly name: string;
  readonly value: number;
  /** The name that this one is another name for. */
  readonly of?: string;
}

function parse(texts: readonly string[]): Definition[] {
  const values = new Map<string, number>();
  const found: Definition[] = [];
  for (const line of texts.join('\n').split('\n')) {
    const [, name, text] =
      /^#define\s+([A-Z][A-Z0-9_]*)\s+(0x[0-9a-fA-F]+|\d+|[A-Z][A-Z0-9_]*)\s*(?:\/\*.*)?$/.exec(line) ?? [];
    if (name === undefined || text === undefined) continue;
    const alias = values.get(text);
    const value = alias ?? Number(text);
    if (Number.isNaN(value)) continue;
    values.set(name, value);
    if (!NO_CODE.test(name)) found.push(alias === undefined ? { name, value } : { name, value, of: text });
  }
  return found;
}

/** Of several names for one code the last is the one that events print with; aliases therefore come before their originals. */
function order(definitions: readonly Definition[]): Definition[] {
  return definitions
    .filter(({ of }) => of === undefined)
    .flatMap((original) => [...definitions.filter(({ of }) => of === original.name), original]);
}

function table({ name, doc, prefixes }: Table, definitions: readonly Definition[]): string {
  const own = order(
    definitions.filter((one) => prefixes.some((prefix) => one.name.startsWith(`${prefix}_`))),
  );
  if (own.length === 0) {
    throw new Error(`the headers define nothing that begins with ${prefixes.join(' or ')}`);
  }
  const width = name === 'Key' ? 3 : 2;
  const lines = own.map((one) => `  ${one.name}: 0x${one.value.toString(16).padStart(width, '0')},`);
  return `/** ${doc} */\nexport const ${name} = {\n${lines.join('\n')}\n} as const;\n`;
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** The checksum of the tables in the text of a generated file: of all that is behind its head. */
export const checksum = (file: string): string => sha256(file.slice(file.indexOf('*/') + 2));

/** The checksum of the headers in a folder, `undefined` if they are not there. */
export function headersIn(folder: string): string | undefined {
  const files = HEADERS.map((name) => path.join(folder, name));
  if (!files.every((file) => fs.existsSync(file))) return undefined;
  return sha256(files.map((file) => fs.readFileSync(file, 'utf8')).join(''));
}

/** The tables that the headers in a folder make. */
export function generateTables(folder: string): string {
  const definitions = parse(HEADERS.map((name) => fs.readFileSync(path.join(folder, name), 'utf8')));
  return `\n\n${TABLES.map((one) => table(one, definitions)).join('\n')}`;
}

function main(folder = HEADERS_FOLDER): void {
  const headers = headersIn(folder);
  if (headers === undefined) throw new Error(`there is no ${HEADERS.join(' and ')} in ${folder}`);
  const version = execFileSync('dpkg-query', ['-W', '-f', '${Version}', 'linux-libc-dev'], {
    encoding: 'utf8',
  });
  const tables = generateTables(folder);
  const head = `/**
 * Linux's names for what input devices send, as the VIRTIO specification takes its event types and codes from there.
 *
 * Generated from ${HEADERS.join(' and ')} of Debian's linux-libc-dev ${version}. Do not edit; to make it anew:
 * \`node scripts/generate-event-codes.ts\`. SHA-256
 * of the headers: ${headers}
 * of the tables:  ${sha256(tables)}
 *
 * @see VIRTIO 1.4, 5.8
 */`;
  fs.writeFileSync(path.join(import.meta.dirname, '../src/event-codes.ts'), head + tables);
}

if (process.argv[1] === import.meta.filename) main(...process.argv.slice(2, 3));
