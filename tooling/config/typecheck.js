// Type-checks a package that runs without an operating system, twice: all its files with Node.js's types, which tests and
// benchmarks need, and what it ships alone, with ECMAScript's types only. Start it in the package's folder, or at the root:
// there it does the same for all packages at once.
import path from 'node:path';
import process from 'node:process';
import ts from 'typescript';
import { allFiles, allShipped, createProgram, root, shipped } from './programs.js';

const folder = process.cwd();

/** @param {object} config */
function check(config) {
  const { program, errors } = createProgram(config, { folder });
  return [...errors, ...ts.getPreEmitDiagnostics(program)];
}

const configs =
  folder === root
    ? [...allFiles(), allShipped()]
    : [{ extends: path.join(folder, 'tsconfig.json') }, shipped(['src'])];
const found = ts.sortAndDeduplicateDiagnostics(configs.flatMap(check));
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
