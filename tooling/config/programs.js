// The TypeScript programs that the project is checked with: one package, or all of them at once, which takes a fraction of the time.
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';

export const root = path.resolve(import.meta.dirname, '../..');
/** What small engines have of ECMAScript 2024: of a QuickJS that Debian has, `ArrayBuffer.prototype.transfer` is missing. */
const PORTABLE_LIB = [
  'ES2023',
  ...['Collection', 'Object', 'Promise', 'RegExp', 'SharedMemory', 'String'].map((part) => `ES2024.${part}`),
  'ESNext.Disposable',
];

const manifests = fs
  .globSync('{packages,apps,tooling}/*/package.json', { cwd: root })
  .map((manifest) => path.join(root, manifest));

/** @param {string} manifest */
const isPortable = (manifest) =>
  JSON.parse(fs.readFileSync(manifest, 'utf8')).scripts?.typecheck?.includes('typecheck.js');

/** What runs without an operating system, with ECMAScript's types only. */
export const shipped = (/** @type {string[]} */ sources) => ({
  extends: path.join(root, 'tsconfig.base.json'),
  compilerOptions: { types: [], lib: PORTABLE_LIB },
  include: sources,
  exclude: ['**/*.test.ts'],
});

/** What the portable packages ship. */
export const allShipped = () =>
  shipped(manifests.filter(isPortable).map((manifest) => path.join(path.dirname(manifest), 'src')));

/** All files of all packages, and what runs in a browser, with its types. */
export function allFiles() {
  const configs = manifests.map((manifest) => path.join(path.dirname(manifest), 'tsconfig.json'));
  const own = configs
    .filter((config) => fs.existsSync(config))
    .map((config) => parse(ts.readConfigFile(config, ts.sys.readFile).config, path.dirname(config)));
  return [
    {
      extends: path.join(root, 'tsconfig.base.json'),
      // The packages' own configurations differ in these two alone.
      compilerOptions: { types: ['node'], allowJs: true, checkJs: true },
      files: [
        ...own.flatMap(({ fileNames }) => fileNames),
        ...fs.globSync('*.ts', { cwd: root }).map((file) => path.join(root, file)),
      ],
    },
    ...fs
      .globSync('{packages,apps,tooling}/*/browser/tsconfig.json', { cwd: root })
      .map((config) => ({ extends: path.join(root, config) })),
  ];
}

/** @param {object} config @param {string} base */
const parse = (config, base) => ts.parseJsonConfigFileContent(config, ts.sys, path.resolve(base));

/** The programs read the same declarations: each is parsed once. */
const parsed = new Map();

/**
 * Makes a program of a configuration.
 *
 * @param {object} config
 * @param {{ readonly folder?: string, readonly setParentNodes?: boolean }} [how] `setParentNodes` for linters
 */
export function createProgram(config, { folder = root, setParentNodes = false } = {}) {
  const { options, fileNames, errors } = parse(config, folder);
  const host = ts.createCompilerHost(options, setParentNodes);
  const getSourceFile = host.getSourceFile.bind(host);
  host.getSourceFile = (file, ...rest) => {
    if (!parsed.has(file)) parsed.set(file, getSourceFile(file, ...rest));
    return parsed.get(file);
  };
  return { program: ts.createProgram(fileNames, options, host), errors };
}
