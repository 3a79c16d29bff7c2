import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { USAGE } from '@virtio/setup/usage';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { root } from './workspace.ts';

const run = (file: string, ...args: string[]) =>
  spawnSync(process.execPath, [file, ...args], { encoding: 'utf8', timeout: 110_000 });

// Programs are started, and load TypeDoc and the like before they look at their arguments: time for a busy machine.
describe('--help', { timeout: 120_000 }, () => {
  let folder: string;
  beforeEach(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'usage-'));
    fs.cpSync(path.join(root, 'tooling/setup'), path.join(folder, 'tooling/setup'), {
      recursive: true,
      filter: (file) => path.basename(file) !== 'node_modules',
    });
  });
  afterEach(() => {
    fs.rmSync(folder, { recursive: true });
  });

  it.each(Object.entries(USAGE))('of %s is answered before anything is set up', (name, usage) => {
    const cli = path.join(folder, 'tooling/setup/cli.mjs');
    expect(run(cli, name, '--help')).toMatchObject({ status: 0, stdout: `${usage}\n`, stderr: '' });
    expect(fs.readdirSync(folder)).toEqual(['tooling']);
  });
});

describe('wrong arguments', { timeout: 120_000 }, () => {
  it.each(['test', 'docs', 'bench', 'api'] as const)(
    'of %s are answered with its usage and status 2',
    (name) => {
      const { status, stdout, stderr } = run(path.join(root, `tooling/checks/src/${name}.ts`), '--wat');
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
      expect(stderr).toContain('--wat');
      expect(stderr).toContain(USAGE[name]);
    },
  );
});
