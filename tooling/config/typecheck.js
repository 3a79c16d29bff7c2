// Type-checks a package that runs without an operating system, twice: all its files with Node.js's types, which tests and
// benchmarks need, and what it ships alone, with ECMAScript's types only. Start it in the package's folder, or at the root:
// there it does the same for all packages at once, which takes a fraction of the time.
import fs from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import ts from 'typescript';

const folder = process.cwd();
const root = path.resolve(import.meta.dirname, '../..');
/** What small engines have of ECMAScript 2024: of a QuickJS that Debian has, `ArrayBuffer.prototype.transfer` is missing. */
const PORTABLE_LIB = [
  'ES2023',
  ...['Collection', 'Object', 'Promise', 'RegExp', 'SharedMemory', 'String'].map((part) => `ES2024.${part}`),
  'ESNext.Disposable',
];
const shipped = (/** @type {string[]} */ sources) => ({
  extends: path.join(root, 'tsconfig.base.json'),
  compilerOptions: { types: [], lib: PORTABLE_LIB },
  include: sources,
  exclude: ['**/*.test.ts'],
});

/** @param {string} manifest */
const isPortable = (manifest) =>
  JSON.parse(fs.readFileSync(manifest, 'utf8')).scripts?.typecheck?.includes(
    path.basename(import.meta.filename),
  );

function wholeTree() {
  const manifests = fs.globSync('{packages,apps,tooling}/*/package.json', { cwd: root });
  const configs = manifests.map((manifest) => path.join(path.dirname(manifest), 'tsconfig.json'));
  const own = configs
    .filter((config) => fs.existsSync(config))
    .map((config) => parse(ts.readConfigFile(config, ts.sys.readFile).config, path.dirname(config)));
  return [
    {
      extends: path.join(root, 'tsconfig.base.json'),
      // The packages' own configurations differ in these two alone.
      compilerOptions: { types: ['node'], allowJs: true, checkJs: true },
      files: [...own.flatMap(({ fileNames }) => fileNames), 'vitest.config.ts'],
    },
    // What runs in a browser, with its types.
    ...fs
      .globSync('{packages,apps,tooling}/*/browser/tsconfig.json', { cwd: root })
      .map((config) => ({ extends: path.join(root, config) })),
    shipped(manifests.filter(isPortable).map((manifest) => path.join(path.dirname(manifest), 'src'))),
  ];
}

/** @param {object} config @param {string} base */
const parse = (config, base) => ts.parseJsonConfigFileContent(config, ts.sys, path.resolve(base));

/** Both programs read the same declarations: each is parsed once. */
const parsed = new Map();

/** @param {object} config */
function check(config) {
  const { options, fileNames, errors } = parse(config, folder);
  const host = ts.createCompilerHost(options);
  const getSourceFile = host.getSourceFile.bind(host);
  host.getSourceFile = (file, ...rest) => {
    if (!parsed.has(file)) parsed.set(file, getSourceFile(file, ...rest));
    return parsed.get(file);
  };
  const program = ts.createProgram(fileNames, options, host);
  return [...errors, ...ts.getPreEmitDiagnostics(program)];
}

const programs =
  folder === root ? wholeTree() : [{ extends: path.join(folder, 'tsconfig.json') }, shipped(['src'])];
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
