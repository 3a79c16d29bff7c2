import { describe, expect, it } from 'vitest';
import { ENGINES } from './engines.ts';
import { EXCEPTIONS, judge, type UnitResult } from './exceptions.ts';
import { portablePackages, testFiles } from './portability.ts';

const FILE = 'packages/x/src/a.test.ts';
const result = (title: string, status: UnitResult['status']): UnitResult => ({
  name: `${FILE} > ${title}`,
  status,
});

describe('the judgement of an engine', () => {
  it('finds nothing where all passes', () => {
    const verdict = judge([result('one', 'passed'), result('two', 'long')], {}, [FILE]);
    expect(verdict).toEqual({ unexpected: [], excepted: 0, stale: [] });
  });

  it.each(['failed', 'skipped'] as const)('finds a test that %s and is no exception', (status) => {
    const bad = result('two', status);
    const verdict = judge([result('one', 'passed'), bad], { [`${FILE} > t`]: 'why' }, [FILE]);
    expect(verdict.unexpected).toEqual([bad]);
    expect(verdict.excepted).toBe(0);
  });

  it('excepts a test by its name, and all tests below a subject or a file', () => {
    const results = [result('s > one', 'failed'), result('s > two', 'failed')];
    for (const title of [FILE, `${FILE} > s`]) {
      expect(judge(results, { [title]: 'why' }, [FILE])).toEqual({ unexpected: [], excepted: 2, stale: [] });
    }
    const one = judge(results, { [`${FILE} > s > one`]: 'why' }, [FILE]);
    expect(one).toEqual({ unexpected: [results[1]], excepted: 1, stale: [] });
  });

  it('finds an exception whose test passes, also one of several', () => {
    const results = [result('s > one', 'failed'), result('s > two', 'passed')];
    expect(judge(results, { [`${FILE} > s`]: 'why' }, [FILE]).stale).toEqual([
      `${FILE} > s > two: passes, but is an exception; take it off the list`,
    ]);
  });

  it('finds an exception whose test is no more, if its file was run', () => {
    const exceptions = { [`${FILE} > gone`]: 'why' };
    expect(judge([result('one', 'passed')], exceptions, [FILE]).stale).toEqual([
      `${FILE} > gone: an exception, but there is no such test`,
    ]);
    expect(judge([], exceptions, ['packages/x/src/b.test.ts']).stale).toEqual([]);
  });
});

describe('the exceptions', () => {
  it.each(ENGINES)('of %s name files that are run', (engine) => {
    const files = portablePackages().flatMap(testFiles);
    for (const title of Object.keys(EXCEPTIONS[engine])) {
      const [file = ''] = title.split(' > ', 1);
      expect(files).toContain(file);
    }
  });
});
