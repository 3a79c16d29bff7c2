/**
 * What is supported, from what was tested: each device with each kind of guest, how many of its tests passed there, how many requirements of
 * the specification are shown, and a table a device of what it negotiated where. `node support.ts [reports of guests…]`; writes
 * `docs/support.md`.
 */
import fs from 'node:fs';
import path from 'node:path';
import { deviceTypeName } from '@virtio/core';
import { libraries, root } from './workspace.ts';

interface Negotiated {
  readonly deviceType: number;
  readonly offered: readonly string[];
  readonly implemented: readonly string[];
  readonly accepted: readonly string[];
}

interface Test {
  readonly device: string;
  readonly status: string;
  readonly negotiated?: readonly Negotiated[];
}

interface Run {
  readonly arch: string;
  readonly machine: string;
  readonly transport: string;
  readonly ring: string;
  readonly qemu: string;
  readonly guest?: { readonly kernel: string; readonly node: string };
  readonly tests: readonly Test[];
}

/** As far as this page needs it. */
export interface Report {
  readonly runs: readonly Run[];
}

interface Requirement {
  readonly test?: string;
  readonly count?: number;
}

/** What became of a feature, from the least to the most. */
const MARKS = { absent: '–', declined: 'declined', accepted: '**accepted**' } as const;

/** The page for a report; `ledgers` has a package's requirements by its name without scope. */
export function supportPage(report: Report, ledgers: ReadonlyMap<string, readonly Requirement[]>): string {
  const kinds = new Map<string, Test[]>();
  const guests = new Set<string>();
  for (const run of report.runs) {
    const kind = kindOf(run);
    kinds.set(kind, [...(kinds.get(kind) ?? []), ...run.tests]);
    if (run.guest !== undefined) guests.add(`QEMU ${run.qemu}, ${system(run.guest)}`);
  }
  return [
    '---',
    'title: Support',
    '---',
    '',
    '# Support',
    '',
    `What passed in the last run of the tests: ${[...guests].join('; ')}.`,
    '',
    ...testsTable(kinds, ledgers),
    '## Features',
    '',
    "A table a device: what its driver and the device agreed on in the tests of each kind of guest. **accepted**: negotiated, and used. declined: the device offers it, and the driver does not take it; the package's README says why. –: the device does not offer it there. Kinds of guests in which no test initialized the device are left out. Implemented are those that the driver accepts where a device offers them.",
    '',
    ...featureTables(kinds),
  ].join('\n');
}

function testsTable(
  kinds: ReadonlyMap<string, readonly Test[]>,
  ledgers: ReadonlyMap<string, readonly Requirement[]>,
): string[] {
  const names = new Set([...kinds.values()].flatMap((tests) => tests.map(({ device }) => device)));
  const rows = [...names].sort().map((name) => {
    const rows = ledgers.get(name);
    const shown = rows?.filter(({ test }) => test !== undefined).length;
    const cells = [...kinds.values()].map((tests) => {
      const count = (status: string): number =>
        tests.filter((test) => test.device === name && test.status === status).length;
      const [passed, failed] = [count('passed'), count('failed')];
      if (passed + failed === 0) return '–';
      return `${passed}${failed > 0 ? `, **${failed} failed**` : ''}`;
    });
    return [name, rows === undefined ? '–' : `${shown} of ${rows.length}`, ...cells];
  });
  return [
    '## Tests',
    '',
    'A number is how many tests of the device passed in that kind of guest; – is none ran.',
    '',
    ...table(['device', 'requirements shown by a test', ...kinds.keys()], rows),
  ];
}

/** A table for each type of device that a test has initialized. */
function featureTables(kinds: ReadonlyMap<string, readonly Test[]>): string[] {
  const types = new Map<number, Map<string, Negotiated[]>>();
  for (const [kind, tests] of kinds) {
    for (const negotiated of tests.flatMap((test) => test.negotiated ?? [])) {
      const byKind = types.get(negotiated.deviceType) ?? new Map<string, Negotiated[]>();
      types.set(negotiated.deviceType, byKind);
      byKind.set(kind, [...(byKind.get(kind) ?? []), negotiated]);
    }
  }
  return [...types].flatMap(([type, byKind]) => {
    const all = [...byKind.values()].flat();
    const implemented = new Set(all.flatMap((one) => one.implemented));
    const names = new Set(all.flatMap((one) => [...one.implemented, ...one.offered]));
    const rows = [...names].map((name) => [
      `\`${name}\``,
      implemented.has(name) ? 'yes' : 'no',
      ...[...byKind.values()].map((negotiated) => mark(name, negotiated)),
    ]);
    return [
      `### ${deviceTypeName(type)} (device type ${type})`,
      '',
      ...table(['feature', 'implemented', ...byKind.keys()], rows),
    ];
  });
}

function mark(name: string, seen: readonly Negotiated[]): string {
  if (seen.some(({ accepted }) => accepted.includes(name))) return MARKS.accepted;
  return seen.some(({ offered }) => offered.includes(name)) ? MARKS.declined : MARKS.absent;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line), ''];
}

/** A bare machine names its architecture itself. */
function kindOf({ arch, machine, transport, ring }: Run): string {
  return `${machine.startsWith(arch) ? machine : `${arch} ${machine}`} · ${transport} · ${ring}`;
}

/** What a guest runs: a bare one has no kernel. */
function system({ kernel, node }: { readonly kernel: string; readonly node: string }): string {
  return kernel === 'none' ? `${node} with no operating system` : `Linux ${kernel}, Node.js ${node}`;
}

if (import.meta.main) {
  const [, , ...named] = process.argv;
  const files = named.length > 0 ? named : [path.join(root, 'apps/qemu-harness/report/report.json')];
  for (const file of files) {
    if (fs.existsSync(file)) continue;
    console.error(`There is no ${file}: npm start writes one.`);
    process.exit(1);
  }
  const reports = files.map((file) => JSON.parse(fs.readFileSync(file, 'utf8')) as Report);
  const ledgers = new Map<string, readonly Requirement[]>();
  for (const { name, folder } of libraries()) {
    const ledger = path.join(folder, 'conformance.json');
    if (!fs.existsSync(ledger)) continue;
    const { requirements } = JSON.parse(fs.readFileSync(ledger, 'utf8')) as { requirements: Requirement[] };
    ledgers.set(name.replace('@virtio/', ''), requirements);
  }
  const page = supportPage({ runs: reports.flatMap(({ runs }) => runs) }, ledgers);
  fs.mkdirSync(path.join(root, 'docs'), { recursive: true });
  fs.writeFileSync(path.join(root, 'docs/support.md'), page);
  console.log(`tables of features: ${page.split('\n### ').length - 1}; docs/support.md`);
}
