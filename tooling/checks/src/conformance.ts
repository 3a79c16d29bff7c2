/**
 * The conformance ledger. Each package's `conformance.json` lists the driver requirements of the specification that concern it, each
 * with the test that shows it or the reason why there is none; and how many requirements each section of its chapter has. This
 * checks that no requirement is missing, that every test named exists and passed in this very run, and writes the page that
 * people read.
 *
 * `node conformance.ts [vitest's JSON report, the harness's report …]`: without reports it checks the ledgers' form only.
 */
import fs from 'node:fs';
import path from 'node:path';
import { libraries, root } from './workspace.ts';

const SECTION = /^\d+(\.\d+)*$/;
const LEVELS = ['MUST', 'MUST NOT', 'SHOULD', 'SHOULD NOT', 'MAY'];

/** One requirement. */
export interface Requirement {
  /** The section of VIRTIO 1.4. */
  readonly section: string;
  readonly level: string;
  /** In our own words. */
  readonly requirement: string;
  /** How many of the specification's sentences the row stands for (default 1). */
  readonly count?: number;
  /** The file that obeys it. */
  readonly where?: string;
  /** The title of the test that shows it, as in `it('…')`. */
  readonly test?: string;
  /** Why no test shows it. */
  readonly reason?: string;
}

/** A package's `conformance.json`. */
export interface Ledger {
  /**
   * The sections of VIRTIO 1.4 that the package implements, and how many requirements (MUST, MUST NOT) each has for drivers: each
   * MUST of a section "Driver Requirements", and one for a section of another kind that obliges drivers. Rows of any
   * package count for a section.
   */
  readonly sections: Readonly<Record<string, number>>;
  readonly requirements: readonly Requirement[];
}

/** The tests that ran: title to whether all tests of that title passed. */
export type Results = ReadonlyMap<string, boolean>;

/** What is wrong with a requirement, or `undefined`. Without `results`, tests are not looked for. */
export function judgeRequirement(row: Requirement, results: Results | undefined): string | undefined {
  if (!SECTION.test(row.section)) return `"${row.section}" is not a section`;
  if (!LEVELS.includes(row.level)) return `"${row.level}" is not one of ${LEVELS.join(', ')}`;
  if (row.requirement === '') return 'the requirement has no text';
  if (row.count !== undefined && !(Number.isInteger(row.count) && row.count > 1)) {
    return `its count is ${row.count}`;
  }
  if ((row.test === undefined) === (row.reason === undefined)) {
    return 'names neither a test nor a reason, or both';
  }
  if (row.test === undefined || results === undefined) return undefined;
  const passed = results.get(row.test);
  if (passed === undefined) return `no test "${row.test}" ran`;
  return passed ? undefined : `the test "${row.test}" failed`;
}

/** What is wrong with the form of a ledger, or `undefined`. */
export function judgeForm(ledger: unknown): string | undefined {
  const { sections, requirements } = (ledger ?? {}) as Partial<Record<keyof Ledger, unknown>>;
  if (typeof sections !== 'object' || sections === null || !Array.isArray(requirements)) {
    return 'is not { "sections": { "5.4.6.1": 2, … }, "requirements": [ … ] }';
  }
  const bad = Object.entries(sections).find(
    ([section, count]) => !SECTION.test(section) || !Number.isInteger(count) || (count as number) < 1,
  );
  return bad === undefined ? undefined : `has "${bad[0]}": ${String(bad[1])} among its sections`;
}

/** The sections that have more requirements than the ledgers have rows for, in words. */
export function missingRequirements(ledgers: readonly Ledger[]): string[] {
  const found = new Map<string, number>();
  for (const { section, level, count = 1 } of ledgers.flatMap(({ requirements }) => requirements)) {
    if (level.startsWith('MUST')) found.set(section, (found.get(section) ?? 0) + count);
  }
  return ledgers
    .flatMap(({ sections }) => Object.entries(sections))
    .filter(([section, count]) => (found.get(section) ?? 0) < count)
    .map(
      ([section, count]) =>
        `${section} has ${count} requirements for drivers, the ledgers have ${found.get(section) ?? 0}`,
    );
}

interface VitestReport {
  readonly testResults: readonly {
    readonly assertionResults: readonly { readonly title: string; readonly status: string }[];
  }[];
}

interface GuestReport {
  readonly runs: readonly { readonly tests: readonly { readonly name: string; readonly status: string }[] }[];
}

/** Reads the titles and outcomes of a report of either runner. */
export function readResults(reports: readonly (VitestReport | GuestReport)[]): Results {
  const results = new Map<string, boolean>();
  const add = (title: string, status: string): void => {
    if (status !== 'passed' && status !== 'failed') return;
    results.set(title, (results.get(title) ?? true) && status === 'passed');
  };
  for (const report of reports) {
    if ('testResults' in report) {
      for (const file of report.testResults) {
        for (const { title, status } of file.assertionResults) add(title, status);
      }
    } else {
      for (const run of report.runs) for (const { name, status } of run.tests) add(name, status);
    }
  }
  return results;
}

const escape = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

/** The page: a table a package. */
export function page(ledgers: ReadonlyMap<string, Ledger>): string {
  const parts = [
    '---',
    'title: Conformance',
    '---',
    '',
    '# Conformance',
    '',
    "The driver requirements of the VIRTIO specification 1.4, in our own words, with the test that shows each, or, in italics, why none does. Made from the packages' `conformance.json`.",
  ];
  for (const [name, { requirements }] of ledgers) {
    // A path within the package begins there, as columns are narrow.
    const own = `${name.replace('@virtio', 'packages')}/`;
    parts.push(
      '',
      `## ${name}`,
      '',
      '| section | level | requirement | obeyed in | shown by |',
      '|---|---|---|---|---|',
    );
    for (const { section, level, requirement, where = '', test, reason = '' } of requirements) {
      parts.push(
        `| ${section} | ${level} | ${escape(requirement)} | ${escape(where.replaceAll(own, ''))} | ${escape(test ?? `*${reason}*`)} |`,
      );
    }
  }
  return `${parts.join('\n')}\n`;
}

/** The ledgers of all packages, and which files they are. */
export function readLedgers(): Map<string, { readonly file: string; readonly ledger: Ledger }> {
  const found = new Map<string, { file: string; ledger: Ledger }>();
  for (const { name, folder } of libraries()) {
    const file = path.join(folder, 'conformance.json');
    if (!fs.existsSync(file)) continue;
    found.set(name, { file, ledger: JSON.parse(fs.readFileSync(file, 'utf8')) as Ledger });
  }
  return found;
}

/** Writes `docs/conformance.md`. */
export function writePage(ledgers: ReadonlyMap<string, Ledger>): void {
  fs.mkdirSync(path.join(root, 'docs'), { recursive: true });
  fs.writeFileSync(path.join(root, 'docs/conformance.md'), page(ledgers));
}

function main(files: readonly string[]): void {
  const results =
    files.length === 0
      ? undefined
      : readResults(
          files.map((file) => JSON.parse(fs.readFileSync(file, 'utf8')) as VitestReport | GuestReport),
        );
  const ledgers = new Map<string, Ledger>();
  let wrong = 0;
  const complain = (problem: string): void => {
    wrong += 1;
    console.error(problem);
  };
  for (const [name, { file, ledger }] of readLedgers()) {
    const malformed = judgeForm(ledger);
    if (malformed !== undefined) {
      complain(`${path.relative(root, file)} ${malformed}`);
      continue;
    }
    ledgers.set(name, ledger);
    for (const row of ledger.requirements) {
      const problem =
        row.where?.split(', ').some((where) => !fs.existsSync(path.join(root, where))) === true
          ? `${row.where} does not exist`
          : judgeRequirement(row, results);
      if (problem !== undefined) {
        complain(`${name} ${row.section}: ${row.level} ${row.requirement}\n  ${problem}`);
      }
    }
  }
  missingRequirements([...ledgers.values()]).forEach(complain);
  const rows = [...ledgers.values()].flatMap(({ requirements }) => requirements);
  const shown = rows.filter((row) => row.test !== undefined).length;
  writePage(ledgers);
  console.log(
    `${rows.length} requirements in ${ledgers.size} packages: ${shown} shown by tests, ${rows.length - shown} with a reason, ${wrong} wrong; docs/conformance.md`,
  );
  if (wrong > 0 || rows.length === 0) process.exitCode = 1;
}

if (import.meta.main) main(process.argv.slice(2));
