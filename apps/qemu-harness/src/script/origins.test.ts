import { tmpdir } from 'node:os';
import { expect, it } from 'vitest';
import { bundleSource } from './bundle.ts';
import { originsOf } from './origins.ts';

it('puts the places of the sources where a text names those of the bundle', async () => {
  const source =
    'interface Gone {\n  a: 1;\n}\nexport function f(): Gone {\n  throw new Error("text");\n}\nf();\n';
  const { code, map } = await bundleSource(source, tmpdir(), 'a.ts');
  const lines = Buffer.from(code).toString().split('\n');
  const line = lines.findIndex((text) => text.includes('throw')) + 1;
  const column = (lines[line - 1] ?? '').indexOf('new Error') + 1;
  expect([line, column]).not.toEqual([5, 9]);
  const origins = originsOf('/guest/b.mjs', map, tmpdir());
  expect(
    origins(`Error: text\n    at f (file:///guest/b.mjs:${line}:${column})\n    at g (/guest/other.mjs:1:1)`),
  ).toBe('Error: text\n    at f (a.ts:5:9)\n    at g (/guest/other.mjs:1:1)');
  expect(origins('at /guest/b.mjs:100000:1')).toMatch(/^at (?:a\.ts:\d+:\d+|\/guest\/b\.mjs:100000:1)$/);
});
