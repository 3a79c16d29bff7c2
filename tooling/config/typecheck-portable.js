// Type-checks a package that runs without an operating system, twice: all its files with Node.js's types, which tests and
// benchmarks need, and what it ships alone, with ECMAScript's types only. Start it in the package's folder.
import path from 'node:path';
import process from 'node:process';
import ts from 'typescript';

const folder = process.cwd();
const base = path.resolve(import.meta.dirname, '../../tsconfig.base.json');
const programs = [
  { extends: path.join(folder, 'tsconfig.json') },
  { extends: base, compilerOptions: { types: [] }, include: ['src'], exclude: ['src/**/*.test.ts'] },
];

/** Both programs read the same declarations: each is parsed once. */
const parsed = new Map();

/** @param {object} config */
function check(config) {
  const { options, fileNames, errors } = ts.parseJsonConfigFileContent(config, ts.sys, folder);
  const host = ts.createCompilerHost(options);
  const getSourceFile = host.getSourceFile.bind(host);
  host.getSourceFile = (file, ...rest) => {
    if (!parsed.has(file)) parsed.set(file, getSourceFile(file, ...rest));
    return parsed.get(file);
  };
  const program = ts.createProgram(fileNames, options, host);
  return [...errors, ...ts.getPreEmitDiagnostics(program)];
}

const found = ts.sortAndDeduplicateDiagnostics(programs.flatMap(check));
if (found.length > 0) {
  const format = process.stdout.isTTY ? ts.formatDiagnosticsWithColorAndContext : ts.formatDiagnostics;
  process.stdout.write(
    format(found, {
      getCurrentDirectory: () => folder,
      getCanonicalFileName: (name) => name,
      getNewLine: () => '\n',
    }),
  );
  process.exitCode = 1;
}
