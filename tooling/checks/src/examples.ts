/**
 * Type-checks the examples of the documentation: each fenced `ts` block of the READMEs and of the doc comments
 * is compiled as a module of its own, with the sources of every package in reach and the strictness of the project.
 * The blocks are never written to disk; each keeps the line numbers of the file that it stands in.
 */
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { libraries, root } from './workspace.ts';

export interface Example {
  /** The file it stands in, absolute. */
  readonly file: string;
  /** The number of the line behind the opening fence, from 1. */
  readonly line: number;
  readonly code: string;
  /** The file that it is taken from, from the root, where `<!-- FILE -->` stands before the block. */
  readonly from?: string;
}

/** Finds the `ts` blocks of a Markdown file, or of the doc comments of a TypeScript file. */
export function findExamples(file: string, text: string): Example[] {
  const prefix = file.endsWith('.md') ? /^[ \t]*/ : /^\s*\*\s?/;
  const examples: Example[] = [];
  let open: { line: number; code: string[]; fence: string; from: string | undefined } | undefined;
  let from: string | undefined;
  for (const [index, raw] of text.split('\n').entries()) {
    const marker = prefix.exec(raw)?.[0];
    const line = marker === undefined ? raw : raw.slice(marker.length);
    if (open === undefined) {
      const fence = marker === undefined ? undefined : /^(`{3,})(?:ts|typescript)\b/.exec(line)?.[1];
      if (fence !== undefined) open = { line: index + 2, code: [], fence, from };
      if (line !== '') from = /^<!-- (\S+\.ts) -->$/.exec(line)?.[1];
    } else if (line.startsWith(open.fence)) {
      const example = { file, line: open.line, code: open.code.join('\n') };
      examples.push(open.from === undefined ? example : { ...example, from: open.from });
      open = undefined;
    } else {
      open.code.push(line);
    }
  }
  if (open !== undefined) throw new Error(`${file}:${open.line - 1}: the code block is never closed`);
  return examples;
}

/** Compiles the examples together and returns what the compiler says, a line each. */
export function checkExamples(examples: readonly Example[]): string[] {
  const sources = new Map<string, string>();
  for (const { file, line, code } of examples) {
    const isModule = /^\s*(?:import|export)\b/m.test(code);
    sources.set(`${file}.${line}.ts`, '\n'.repeat(line - 1) + code + (isModule ? '\n' : '\nexport {};\n'));
  }

  const base = ts.readConfigFile(path.join(root, 'tsconfig.base.json'), (file) => ts.sys.readFile(file));
  const { options } = ts.convertCompilerOptionsFromJson(
    {
      ...(base.config as { compilerOptions: object }).compilerOptions,
      types: ['node'],
      typeRoots: [path.join(root, 'node_modules/@types')],
      noUnusedLocals: false,
      noUnusedParameters: false,
      // An example may import any package of the project, wherever it is.
      paths: Object.fromEntries(
        libraries().map(({ name, folder }) => [name, [path.join(folder, 'src/index.ts')]]),
      ),
    },
    root,
  );

  const host = ts.createCompilerHost(options);
  const onDisk = { fileExists: host.fileExists.bind(host), readFile: host.readFile.bind(host) };
  host.fileExists = (file) => sources.has(file) || onDisk.fileExists(file);
  host.readFile = (file) => sources.get(file) ?? onDisk.readFile(file);
  const program = ts.createProgram([...sources.keys()], options, host);

  return [...sources.keys()].flatMap((file) => {
    const source = program.getSourceFile(file);
    const found = [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)];
    return found.map((diagnostic) => {
      const { line, character } = ts.getLineAndCharacterOfPosition(
        diagnostic.file ?? ts.createSourceFile(file, '', ts.ScriptTarget.ES2024),
        diagnostic.start ?? 0,
      );
      const where = `${path.relative(root, file.replace(/\.\d+\.ts$/, ''))}:${line + 1}:${character + 1}`;
      return `${where}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n')} (TS${diagnostic.code})`;
    });
  });
}

const unindented = (text: string): string => text.replaceAll(/^[ \t]+/gm, '');

/** Whether the blocks that are taken from files are what stands there, and all of what stands there; a complaint each. */
export function checkExtracts(examples: readonly Example[]): string[] {
  const errors: string[] = [];
  const left = new Map<string, string>();
  for (const { file, line, code, from } of examples) {
    if (from === undefined) continue;
    const where = `${path.relative(root, file)}:${line}`;
    const rest = left.get(from) ?? unindented(fs.readFileSync(path.join(root, from), 'utf8'));
    if (!rest.includes(unindented(code))) {
      errors.push(`${where}: this differs from ${from}`);
    }
    left.set(
      from,
      rest.replace(unindented(code), () => ''),
    );
  }
  for (const [from, rest] of left) {
    const missing = rest.trim().split('\n')[0];
    if (missing !== '') errors.push(`${from}: no guide shows "${missing}"`);
  }
  return errors;
}

function documentedFiles(): string[] {
  const found = ['*.md', 'guides/*.md', 'apps/*/*.md', 'packages/*/*.md', 'packages/*/src/**/*.ts'];
  return fs
    .globSync(found, { cwd: root })
    .filter((file) => !file.endsWith('.api.md'))
    .sort();
}

if (import.meta.main) {
  const examples = documentedFiles().flatMap((file) => {
    const full = path.join(root, file);
    return findExamples(full, fs.readFileSync(full, 'utf8'));
  });
  const errors = [
    ...checkExamples(examples.filter(({ from }) => from === undefined)),
    ...checkExtracts(examples),
  ];
  for (const error of errors) console.error(error);
  const files = new Set(examples.map(({ file }) => file)).size;
  console.log(`${examples.length} examples in ${files} files, ${errors.length} errors`);
  if (errors.length > 0 || examples.length === 0) process.exitCode = 1;
}
