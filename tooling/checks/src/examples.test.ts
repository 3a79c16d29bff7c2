import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkExamples, checkExtracts, findExamples } from './examples.ts';
import { root } from './workspace.ts';

const fence = '```';

describe('findExamples', () => {
  it('takes the ts blocks of a Markdown file and leaves the others', () => {
    const text = ['# Title', `${fence}ts`, 'const a = 1;', fence, `${fence}sh`, 'npm test', fence].join('\n');
    expect(findExamples('/x/README.md', text)).toEqual([
      { file: '/x/README.md', line: 3, code: 'const a = 1;' },
    ]);
  });

  it('takes the blocks of doc comments without their stars', () => {
    const text = ['/**', ` * ${fence}ts`, ' * if (a) {', ' *   b();', ' * }', ` * ${fence}`, ' */'].join(
      '\n',
    );
    expect(findExamples('/x/a.ts', text)).toEqual([
      { file: '/x/a.ts', line: 3, code: 'if (a) {\n  b();\n}' },
    ]);
  });

  it('refuses a block that is never closed', () => {
    expect(() => findExamples('/x/README.md', `${fence}ts\nconst a = 1;`)).toThrow('/x/README.md:1');
  });
});

// Each of them compiles with the whole of core.
describe('checkExamples', { timeout: 120_000 }, () => {
  const file = path.join(root, 'README.md');

  it('accepts what compiles, with await at the top', () => {
    expect(checkExamples([{ file, line: 1, code: 'const n: number = await Promise.resolve(1);' }])).toEqual(
      [],
    );
  });

  it('reports an error at its line in the file', () => {
    const errors = checkExamples([{ file, line: 7, code: '// fine\nconst n: number = "text";' }]);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatch(/^README\.md:8:7: .*TS2322/);
  });

  it('resolves the packages of the house to their sources, and an unknown one to an error', () => {
    expect(checkExamples([{ file, line: 1, code: "import { DeviceType } from '@virtio/core';" }])).toEqual(
      [],
    );
    expect(checkExamples([{ file, line: 1, code: "import { x } from '@virtio/no-such';" }])[0]).toMatch(
      /TS2307/,
    );
  });
});

describe('checkExtracts', () => {
  const from = 'apps/examples/src/devices.ts';
  const text = fs.readFileSync(path.join(root, from), 'utf8').trim();
  const example = (code: string) => ({ file: path.join(root, 'guides/x.md'), line: 5, code, from });

  it('wants what stands in the file, and all of it', () => {
    expect(checkExtracts([example(text)])).toEqual([]);
    const [first = '', ...rest] = text.split('\n');
    expect(checkExtracts([example(first), example(rest.join('\n'))])).toEqual([]);
    expect(checkExtracts([example(first)])).toEqual([expect.stringContaining('no guide shows')]);
    expect(checkExtracts([example(text), example('const other = 1;')])).toEqual([
      `guides/x.md:5: this differs from ${from}`,
    ]);
  });

  it('knows them by the comment before the block', () => {
    const lines = [`<!-- ${from} -->`, '', `${fence}ts`, 'a();', fence, '', `${fence}ts`, 'b();', fence];
    expect(findExamples('/x/a.md', lines.join('\n')).map((found) => found.from)).toEqual([from, undefined]);
  });
});
