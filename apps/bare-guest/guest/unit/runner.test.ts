import { describe, expect, it, vi } from 'vitest';
import {
  afterEach,
  beforeEach,
  describeOne,
  type Line,
  runFiles,
  type RunOptions,
  testOne,
} from './runner.ts';

const FILE = 'a.test.ts';

/** What the runner says of one file that declares tests, `begun` and `ended` left out. */
async function linesOf(declare: () => void, options: Partial<RunOptions> = {}): Promise<Line[]> {
  const lines: Line[] = [];
  await runFiles(
    { [FILE]: () => Promise.resolve().then(declare) },
    {
      report: (line) => lines.push(line),
      restore: () => undefined,
      longMs: 30_000,
      most: Infinity,
      hangMs: 60_000,
      ...options,
    },
  );
  expect(lines.at(-1)).toEqual({ what: 'ended', file: FILE });
  return lines.filter(({ what }) => what !== 'begun' && what !== 'ended');
}

const nothing = (): void => undefined;
const line = (what: Line['what'], name: string): object => ({ what, file: FILE, name });

describe('the runner of unit tests in other engines', () => {
  it('says what passed and what failed, by its subjects, and why', async () => {
    const lines = await linesOf(() => {
      describeOne('s', () => {
        testOne('good', nothing);
        testOne('bad', () => Promise.reject(new TypeError('no')));
      });
      testOne('after', nothing);
    });
    expect(lines).toEqual([
      line('passed', 's > good'),
      { ...line('failed', 's > bad'), why: 'TypeError: no' },
      line('passed', 'after'),
    ]);
  });

  it('says when a test begins', async () => {
    const report = vi.fn<(line: Line) => void>();
    const options = { report, restore: nothing, longMs: 1, most: 1, hangMs: 1000 };
    const load = async (): Promise<void> => Promise.resolve().then(() => testOne('one', nothing));
    await runFiles({ [FILE]: load }, options);
    expect(report.mock.calls.map(([{ what }]) => what)).toEqual(['begun', 'begun', 'passed', 'ended']);
  });

  it('takes a file that cannot be loaded for a failed test', async () => {
    const lines = await linesOf(() => {
      throw new Error('no such thing');
    });
    expect(lines).toEqual([{ ...line('failed', '(loading the file)'), why: 'Error: no such thing' }]);
  });

  it('calls hooks around each test, those of an outer subject first before and last after it', async () => {
    const called: string[] = [];
    const lines = await linesOf(() => {
      beforeEach(() => called.push('before'));
      afterEach(() => called.push('after'));
      describeOne('s', () => {
        beforeEach(() => called.push('before s'));
        afterEach(() => called.push('after s'));
        testOne('t', () => {
          called.push('t');
          throw new Error('first');
        });
      });
    });
    expect(called).toEqual(['before', 'before s', 't', 'after s', 'after']);
    expect(lines).toEqual([{ ...line('failed', 's > t'), why: 'Error: first' }]);
  });

  it('takes a hook that throws for a failure of its test, and calls the others', async () => {
    const after = vi.fn();
    const body = vi.fn();
    const lines = await linesOf(() => {
      afterEach(after);
      beforeEach(() => {
        throw new Error('hook');
      });
      testOne('t', body);
    });
    expect(lines).toEqual([{ ...line('failed', 't'), why: 'Error: hook' }]);
    expect(body).not.toHaveBeenCalled();
    expect(after).toHaveBeenCalledOnce();
  });

  it('leaves out what says that it takes long, before its body or behind it, and what is skipped', async () => {
    const body = vi.fn();
    const lines = await linesOf(() => {
      testOne('options', { timeout: 30_000 }, body);
      testOne('number', body, 30_000);
      testOne('skipped', body, undefined, true);
      describeOne('subject', () => testOne('within', body), true);
      testOne('short', nothing, 29_999);
    });
    expect(lines).toEqual([
      line('long', 'options'),
      line('long', 'number'),
      line('skipped', 'skipped'),
      line('skipped', 'subject > within'),
      line('passed', 'short'),
    ]);
    expect(body).not.toHaveBeenCalled();
  });

  it('runs some of many tests, at equal distances, and says which are left', async () => {
    const lines = await linesOf(
      () => {
        for (let n = 0; n < 7; n += 1) testOne(`${n}`, nothing);
      },
      { most: 3 },
    );
    expect(lines.map(({ what }) => what)).toEqual([
      'passed',
      'left',
      'left',
      'passed',
      'left',
      'left',
      'passed',
    ]);
  });

  it('ends a test that waits for what cannot come, and goes on', async () => {
    const lines = await linesOf(
      () => {
        testOne('waits', () => new Promise(nothing));
        testOne('next', nothing);
      },
      { hangMs: 5 },
    );
    expect(lines).toEqual([
      { ...line('failed', 'waits'), why: 'Error: nothing came of it in 0.005 s' },
      line('passed', 'next'),
    ]);
  });

  it('restores mocks and clocks before each test and after the last one', async () => {
    const restore = vi.fn();
    await linesOf(
      () => {
        testOne('one', () => expect(restore).toHaveBeenCalledTimes(1));
        testOne('two', () => expect(restore).toHaveBeenCalledTimes(2));
      },
      { restore },
    );
    expect(restore).toHaveBeenCalledTimes(3);
  });

  it('refuses a test without a body', async () => {
    const lines = await linesOf(() => testOne('none', {}));
    expect(lines).toEqual([
      { ...line('failed', '(loading the file)'), why: "Error: the test 'none' has no body" },
    ]);
  });
});
