/**
 * The table of what is supported, from what was tested: each device with each kind of guest, how many of its tests passed there, and
 * how many requirements of the specification are shown. `node support.ts [reports of guests…]`; writes `docs/support.md`.
 */
import fs from 'node:fs';
import path from 'node:path';
import { libraries, root } from './workspace.ts';

interface Report {
  readonly qemu?: string;
  readonly runs: readonly {
    readonly arch: string;
    readonly machine: string;
    readonly transport: string;
    readonly ring: string;
    readonly qemu: string;
    readonly guest?: { readonly kernel: string; readonly node: string };
    readonly tests: readonly { readonly device: string; readonly status: string }[];
  }[];
}

interface Requirement {
  readonly test?: string;
  readonly count?: number;
}

/** The page for a report; `ledgers` has a package's requirements by its name without scope. */
export function supportPage(report: Report, ledgers: ReadonlyMap<string, readonly Requirement[]>): string {
  const kinds = new Map<string, Map<string, { passed: number; failed: number; skipped: number }>>();
  const guests = new Set<string>();
  for (const { arch, machine, transport, ring, qemu, guest, tests } of report.runs) {
    // A bare machine names its architecture itself.
    const where = machine.startsWith(arch) ? machine : `${arch} ${machine}`;
    const kind = `${where} · ${transport} · ${ring}`;
    const devices = kinds.get(kind) ?? new Map<string, { passed: number; failed: number; skipped: number }>();
    kinds.set(kind, devices);
    if (guest !== undefined) guests.add(`QEMU ${qemu}, ${system(guest)}`);
    for (const { device, status } of tests) {
      const counts = devices.get(device) ?? { passed: 0, failed: 0, skipped: 0 };
      devices.set(device, counts);
      if (status === 'passed' || status === 'failed') counts[status] += 1;
      else counts.skipped += 1;
    }
  }
  const columns = [...kinds.keys()];
  const names = [...new Set([...kinds.values()].flatMap((devices) => [...devices.keys()]))].sort();
  const lines = [
    '# Support',
    '',
    `What passed in the last run of the tests: ${[...guests].join('; ')}. A cell is how many tests of the device passed in that kind of guest; – is none ran.`,
    '',
    `| device | requirements shown by a test | ${columns.join(' | ')} |`,
    `| --- | --- | ${columns.map(() => '---').join(' | ')} |`,
  ];
  for (const name of names) {
    const rows = ledgers.get(name);
    const shown = rows?.filter(({ test }) => test !== undefined).length;
    const cells = columns.map((column) => {
      const counts = kinds.get(column)?.get(name);
      if (counts === undefined || counts.passed + counts.failed === 0) return '–';
      return `${counts.passed} passed${counts.failed > 0 ? `, **${counts.failed} failed**` : ''}`;
    });
    lines.push(
      `| ${name} | ${rows === undefined ? '–' : `${shown} of ${rows.length}`} | ${cells.join(' | ')} |`,
    );
  }
  return `${lines.join('\n')}\n`;
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
  console.log(`${page.split('\n').length - 7} devices; docs/support.md`);
}
