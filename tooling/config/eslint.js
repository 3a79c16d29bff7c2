// The project's lint rules: typescript-eslint's strict type-checked set, and the boundaries between packages.
import js from '@eslint/js';
import { defineConfig, globalIgnores } from 'eslint/config';
import tseslint from 'typescript-eslint';

const tests = ['**/*.test.ts', '**/bench/**/*.ts', '**/fuzz/**/*.ts', '**/test/**/*.ts'];

/** Packages with no operating system below them: neither Node.js nor the DOM nor a transport-specific import. */
const transports = ['mmio', 'pci', 'pci-x86'];
const notDevices = ['core', 'testing', 'linux', 'vhost-user', 'bare', 'cli', ...transports];

const onlyWorkspace = (allowed, what) => [
  'error',
  {
    patterns: [
      {
        regex: `^(?!\\.{1,2}/)(?!(?:${['$^', ...allowed].join('|')})$)`,
        message: `${what}; imports point one way (README, "What is in the repository").`,
      },
      { regex: '^\\.{1,2}/.*(?<!\\.ts|\\.json)$', message: 'Relative imports carry their .ts extension.' },
      { regex: '^\\.\\./.*/src/', message: 'Import another package by its name, not by its path.' },
    ],
  },
];

/** What an engine that people run makes something else of. */
const MISCOMPILED = [
  {
    selector: 'ForOfStatement > YieldExpression[delegate=true].right',
    message: 'QuickJS 2025-04-26 miscompiles a loop over a yield*: give its result a name first.',
  },
  {
    selector: 'CallExpression[callee.object.name="BigInt"][callee.property.name="asUintN"]',
    message: 'QuickJS 2025-04-26 is wrong about BigInt.asUintN(64, -1n): mask with & (2n ** 64n - 1n).',
  },
];

export default defineConfig(
  globalIgnores(['**/dist/', '**/docs/', '**/coverage/', '**/.cache/', '**/.turbo/', '**/report/']),
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/consistent-type-exports': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      // Numbers and flags are what drivers print.
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      // There is no enum in this project (`erasableSyntaxOnly`).
      '@typescript-eslint/no-unsafe-enum-assignment': 'off',
      // Array indices that the loop bounds are the hot path's manner, with typed arrays.
      '@typescript-eslint/prefer-for-of': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // `array[i] as number` says that the index is in range, which `!` would not; see core's virt-queue.ts.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      // A poll loop has no other condition.
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: true }],
      // `() => queue.kick()` in a test or a callback says enough.
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      eqeqeq: 'error',
      curly: ['error', 'multi-line'],
      'no-console': 'error',
      'no-restricted-syntax': ['error', ...MISCOMPILED],
    },
  },
  {
    files: tests,
    rules: {
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/explicit-module-boundary-types': 'off',
      '@typescript-eslint/unbound-method': 'off',
      'no-console': 'off',
    },
  },
  // The boundaries. Tests, benchmarks and fuzzers may import what they like.
  {
    files: ['packages/core/src/**/*.ts'],
    ignores: tests,
    rules: { 'no-restricted-imports': onlyWorkspace([], 'core imports nothing') },
  },
  {
    files: ['packages/testing/src/**/*.ts', 'packages/mmio/src/**/*.ts', 'packages/pci/src/**/*.ts'],
    ignores: tests,
    rules: { 'no-restricted-imports': onlyWorkspace(['@virtio/core'], 'This package imports core only') },
  },
  {
    files: ['packages/pci-x86/src/**/*.ts'],
    ignores: tests,
    rules: {
      'no-restricted-imports': onlyWorkspace(
        ['@virtio/core', '@virtio/pci'],
        'pci-x86 imports core and pci only',
      ),
    },
  },
  {
    files: ['packages/bare/src/**/*.ts'],
    ignores: tests,
    rules: {
      'no-restricted-imports': onlyWorkspace(
        ['@virtio/core', '@virtio/mmio', '@virtio/pci'],
        'bare imports core, mmio and pci only',
      ),
    },
  },
  {
    files: ['packages/linux/src/**/*.ts'],
    ignores: tests,
    rules: {
      'no-restricted-imports': onlyWorkspace(
        ['@virtio/core', '@virtio/pci', '@virtio/mmio', 'koffi', 'node:[a-z/_]+'],
        'linux imports core, pci, mmio, koffi and Node.js only',
      ),
    },
  },
  {
    files: ['packages/vhost-user/src/**/*.ts'],
    ignores: tests,
    rules: {
      'no-restricted-imports': onlyWorkspace(
        ['@virtio/core', '@virtio/linux', 'node:[a-z/_]+'],
        'vhost-user imports core, linux and Node.js only',
      ),
    },
  },
  {
    files: ['packages/*/src/**/*.ts'],
    ignores: [...tests, ...notDevices.map((name) => `packages/${name}/**`)],
    rules: {
      'no-restricted-imports': onlyWorkspace(
        ['@virtio/core', '@virtio/files'],
        'A device imports core only (a file system files, too): no transport, no other device',
      ),
    },
  },
  {
    files: ['apps/**/*.ts', 'tooling/**'],
    rules: { 'no-console': 'off' },
  },
  {
    files: ['**/*.{js,mjs}'],
    languageOptions: {
      globals: {
        AbortController: 'readonly',
        Buffer: 'readonly',
        URL: 'readonly',
        clearTimeout: 'readonly',
        clearInterval: 'readonly',
        console: 'readonly',
        performance: 'readonly',
        process: 'readonly',
        setInterval: 'readonly',
        setTimeout: 'readonly',
      },
    },
  },
);
