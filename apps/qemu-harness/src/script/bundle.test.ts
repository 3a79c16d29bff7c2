import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundleSuites } from '../framework/discover.ts';
import { bundle } from './bundle.ts';

describe('bundle', () => {
  let directory = '';
  const write = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text);
    return join(directory, name);
  };
  beforeAll(() => void (directory = mkdtempSync(join(tmpdir(), 'bundle-test-'))));
  afterAll(() => rmSync(directory, { recursive: true }));

  it('takes a script from anywhere, with the packages of the house from their sources', async () => {
    const script = write(
      'a.ts',
      "import { DeviceStatus } from '@virtio/core';\nimport koffi from 'koffi';\nconsole.log(DeviceStatus, koffi);\n",
    );
    const text = Buffer.from(await bundle(script)).toString('utf8');
    expect(text).toContain('ACKNOWLEDGE');
    expect(text).toMatch(/from "koffi"/);
    expect(text).not.toMatch(/from "@virtio/);
  });

  it('says which import is missing, and where', async () => {
    const script = write('b.ts', "import './not-there.ts';\n");
    await expect(bundle(script)).rejects.toThrow(/b\.ts:1:8: Could not resolve "\.\/not-there\.ts"/);
  });

  it('says where the syntax is wrong', async () => {
    await expect(bundle(write('c.ts', 'const = 1;\n'))).rejects.toThrow(/c\.ts:1:7/);
  });

  it('says that there is no such file', async () => {
    await expect(bundle(join(directory, 'none.ts'))).rejects.toThrow(/There is no file .*none\.ts/);
  });
});

describe('bundleSuites', () => {
  it('carries nothing into the guest that only the host needs', async () => {
    const text = Buffer.from((await bundleSuites()).code).toString('utf8');
    const sources = [...text.matchAll(/^\/\/ ((?:src|guest)\/\S+\.ts)$/gm)].map(([, path]) => path);
    expect(sources).toContain('guest/test-runner.ts');
    expect(
      sources.filter(
        (path) =>
          path !== undefined &&
          !/^(guest\/|src\/suites\/|src\/framework\/(define|mmio-windows)\.ts)/.test(path),
      ),
    ).toEqual([]);
  });
});
