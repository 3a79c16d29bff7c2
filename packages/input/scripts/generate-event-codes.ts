/**
 * Writes `src/event-codes.ts` from the C headers of Linux, which number the event codes, so that none is typed by hand.
 *
 * `node scripts/generate-event-codes.ts [folder of the headers]`, on Debian with the package linux-libc-dev installed.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

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

function main(folder = '/usr/include/linux'): void {
  const texts = ['input-event-codes.h', 'input.h'].map((file) =>
    fs.readFileSync(path.join(folder, file), 'utf8'),
  );
  const version = execFileSync('dpkg-query', ['-W', '-f', '${Version}', 'linux-libc-dev'], {
    encoding: 'utf8',
  });
  const definitions = parse(texts);
  const head = `/**
 * Linux's names for what input devices send, as the VIRTIO specification takes its event types and codes from there.
 *
 * Generated from input-event-codes.h and input.h of Debian's linux-libc-dev ${version}. Do not edit; to make it anew:
 * \`node scripts/generate-event-codes.ts && prettier --write src/event-codes.ts\`.
 *
 * @see VIRTIO 1.4, 5.8
 */
`;
  const file = path.join(import.meta.dirname, '../src/event-codes.ts');
  fs.writeFileSync(file, [head, ...TABLES.map((one) => table(one, definitions))].join('\n'));
}

main(...process.argv.slice(2, 3));
