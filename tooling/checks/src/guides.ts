/**
 * Checks the guides: each error code must have its paragraph, and each counterpart of an item of the Rust crate must be
 * exported. `--write` writes the page about the crate from its table, `guides/coming-from-rust.json`.
 */
import fs from 'node:fs';
import path from 'node:path';
import prettier from 'prettier';
import ts from 'typescript';
import { libraries, root } from './workspace.ts';

interface Group {
  readonly title: string;
  readonly items: readonly {
    /** Items of the crate, e.g. `VirtQueue::add`. */
    readonly rust: readonly string[];
    /** What does it here, as `package:Export` or `package:Export.member`. */
    readonly ours: readonly string[];
    readonly note?: string;
  }[];
}

const TABLE = path.join(root, 'guides/coming-from-rust.json');
const PAGE = path.join(root, 'guides/coming-from-rust.md');
const ERRORS = path.join(root, 'packages/core/errors.md');

/** The codes that the sources know: those of core's type, and those of sockets that are thrown. */
export function errorCodes(): string[] {
  const file = path.join(root, 'packages/core/src/errors.ts');
  const source = ts.createSourceFile(file, fs.readFileSync(file, 'utf8'), ts.ScriptTarget.ES2024);
  const codes = new Set<string>();
  for (const statement of source.statements) {
    if (!ts.isTypeAliasDeclaration(statement) || statement.name.text !== 'VirtioErrorCode') continue;
    if (!ts.isUnionTypeNode(statement.type)) continue;
    for (const type of statement.type.types) {
      if (ts.isLiteralTypeNode(type) && ts.isStringLiteral(type.literal)) codes.add(type.literal.text);
    }
  }
  for (const name of fs.globSync('packages/*/src/**/*.ts', { cwd: root })) {
    if (name.endsWith('.test.ts')) continue;
    const text = fs.readFileSync(path.join(root, name), 'utf8');
    for (const [, code = ''] of text.matchAll(/'(SOCKET_[A-Z_]+)'/g)) codes.add(code);
  }
  return [...codes].sort();
}

/** What is wrong with the guide of the errors, a complaint each. */
export function errorProblems(page: string, codes: readonly string[]): string[] {
  const explained = [...page.matchAll(/^### ([A-Z_]+)$/gm)].map(([, code = '']) => code);
  return [
    ...codes.filter((code) => !explained.includes(code)).map((code) => `${code} is not explained`),
    ...explained.filter((code) => !codes.includes(code)).map((code) => `there is no code ${code}`),
  ];
}

/** Finds out which of `package:Export.member` do not exist. */
export function missingExports(names: readonly string[]): string[] {
  const entries = new Map(
    libraries().map(({ name, folder }) => [name.replace('@virtio/', ''), path.join(folder, 'src/index.ts')]),
  );
  const base = ts.readConfigFile(path.join(root, 'tsconfig.base.json'), (file) => ts.sys.readFile(file));
  const json = (base.config as { compilerOptions: object }).compilerOptions;
  const { options } = ts.convertCompilerOptionsFromJson(
    { ...json, types: ['node'], typeRoots: [path.join(root, 'node_modules/@types')] },
    root,
  );
  const program = ts.createProgram([...entries.values()], options);
  const checker = program.getTypeChecker();
  const exists = (name: string): boolean => {
    const [library = '', what = ''] = name.split(':');
    const [exported, member] = what.split('.');
    const source = program.getSourceFile(entries.get(library) ?? '');
    const module = source && checker.getSymbolAtLocation(source);
    let symbol = module && checker.getExportsOfModule(module).find((each) => each.name === exported);
    if (symbol === undefined) return false;
    if (member === undefined) return true;
    if ((symbol.flags & ts.SymbolFlags.Alias) !== 0) symbol = checker.getAliasedSymbol(symbol);
    const instance = checker.getDeclaredTypeOfSymbol(symbol).getProperty(member);
    return instance !== undefined || symbol.exports?.has(ts.escapeLeadingUnderscores(member)) === true;
  };
  return names.filter((name) => !exists(name));
}

const anchor = ([library = '', what = '']: string[]): string => `\`${what}\` of \`${library}\``;

function cratePage(groups: readonly Group[]): string {
  const lines = [
    '---',
    'title: Coming from the Rust crate',
    '---',
    '',
    '# Coming from the Rust crate',
    '',
    'Every public item of the crate `virtio-drivers` 0.13, and what there is in its place here. Names are those of the specification in both, in the case of the ' +
      'language. The same holds for all: errors are thrown; a driver takes any transport; each request has a form that waits without blocking, ' +
      'one that spins (`…Sync`), and one that polls (`submit…`).',
  ];
  for (const { title, items } of groups) {
    lines.push('', `## ${title}`, '', '| `virtio-drivers` | here | |', '| --- | --- | --- |');
    for (const { rust, ours, note = '' } of items) {
      const there = rust.map((item) => (item.includes(' ') ? item : `\`${item}\``)).join(', ');
      lines.push(`| ${there} | ${ours.map((name) => anchor(name.split(':'))).join(', ') || '–'} | ${note} |`);
    }
  }
  return `${lines.join('\n')}\n`;
}

if (import.meta.main) {
  const groups = JSON.parse(fs.readFileSync(TABLE, 'utf8')) as Group[];
  const rows = groups.flatMap(({ items }) => items);
  const settings = (await prettier.resolveConfig(PAGE)) ?? {};
  const page = await prettier.format(cratePage(groups), { ...settings, parser: 'markdown' });
  if (process.argv[2] === '--write') fs.writeFileSync(PAGE, page);
  const problems = [
    ...errorProblems(fs.readFileSync(ERRORS, 'utf8'), errorCodes()).map((problem) => `errors.md: ${problem}`),
    ...missingExports(rows.flatMap(({ ours }) => ours)).map((name) => `${name} is not exported`),
    ...rows
      .filter(({ ours, note }) => ours.length === 0 && note === undefined)
      .map(({ rust }) => `${rust.join(', ')}: has neither a counterpart nor a note that explains why`),
  ];
  if (!fs.existsSync(PAGE) || fs.readFileSync(PAGE, 'utf8') !== page) {
    problems.push(
      'coming-from-rust.md does not match its table; run: node tooling/checks/src/guides.ts --write',
    );
  }
  for (const problem of problems) console.error(problem);
  const items = rows.flatMap(({ rust }) => rust).length;
  console.log(`${errorCodes().length} codes, ${items} items of the crate, ${problems.length} problems`);
  if (problems.length > 0 || rows.length === 0) process.exitCode = 1;
}
