import { describe, expect, it } from 'vitest';
import { examples } from './build.ts';
import { type Program, runProgram } from './run-program.ts';

async function run(program: Program) {
  const printed: string[] = [];
  const traced: string[] = [];
  const result = await runProgram(program, {
    print: (level, text) => printed.push(level === 'log' ? text : `${level}: ${text}`),
    trace: (line) => traced.push(line),
  });
  return { printed, traced, ...result };
}

const PRINTED: Readonly<Record<string, readonly string[]>> = {
  Console: ['the user sees: What is your name?', 'the user sees: Hello Ada!'],
  'Shared folder': [
    'the guest reads: Hello from the host',
    'the host reads: Hello from the guest',
    'names: from-host.txt, from-guest.txt',
  ],
  'The balloon of the tutorial': ['the host would like 300 pages', 'it has 300 now', 'and now 100'],
};

describe('the examples of the playground', () => {
  it.each(examples())('$title', async ({ title, files }) => {
    const { printed, traced, error } = await run(files);
    expect(error).toBeUndefined();
    expect(printed).toEqual(PRINTED[title]);
    expect(traced).toContainEqual(expect.stringMatching(/^write device_status = 0x\w+ \(.*DRIVER_OK/));
    expect(traced).toContainEqual(expect.stringMatching(/^queue \d+: published/));
    expect(traced).toContainEqual(expect.stringMatching(/^queue \d+: used/));
  });
});

describe('a program', () => {
  it('fails with what it throws, and names what it may import', async () => {
    expect((await run([['main.ts', 'throw new Error("no")']])).error).toEqual(new Error('no'));
    const { error } = await run([
      ['main.ts', "import x from 'elsewhere'; x();"],
      ['other.ts', ''],
    ]);
    expect(String(error)).toMatch(/no module 'elsewhere'.*@virtio\/core.*\.\/other\.ts/);
  });

  it('says where it makes no sense', async () => {
    expect(String((await run([['main.ts', 'const = 1;']])).error)).toMatch(/main\.ts|\(1:7\)/);
  });

  it('prints values as a console does', async () => {
    const { printed } = await run([
      [
        'main.ts',
        'console.log("a", 1, [2n], new Uint8Array(2), undefined); console.error(new TypeError("b"));',
      ],
    ]);
    expect(printed).toEqual([`a 1 [\n  "2n"\n] Uint8Array(2) [0, 0] undefined`, 'error: TypeError: b']);
  });
});
