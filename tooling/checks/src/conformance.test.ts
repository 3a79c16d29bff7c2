import { describe, expect, it } from 'vitest';
import { judgeForm, judgeRequirement, missingRequirements, page, readResults } from './conformance.ts';

const row = { section: '2.7.1', level: 'MUST', requirement: 'Align.', test: 'aligns' };

describe('the conformance ledger', () => {
  const results = readResults([
    { testResults: [{ assertionResults: [{ title: 'aligns', status: 'passed' }] }] },
    {
      runs: [
        {
          tests: [
            { name: 'twice', status: 'passed' },
            { name: 'not now', status: 'skipped' },
          ],
        },
        { tests: [{ name: 'twice', status: 'failed' }] },
      ],
    },
  ]);

  it('accepts a requirement whose test passed, or that has a reason', () => {
    expect(judgeRequirement(row, results)).toBeUndefined();
    expect(
      judgeRequirement({ section: '2', level: 'MAY', requirement: 'x', reason: 'y' }, results),
    ).toBeUndefined();
  });

  it('refuses a test that did not run, was skipped, or failed in any run', () => {
    expect(judgeRequirement({ ...row, test: 'aligned' }, results)).toMatch(/no test/);
    expect(judgeRequirement({ ...row, test: 'not now' }, results)).toMatch(/no test/);
    expect(judgeRequirement({ ...row, test: 'twice' }, results)).toMatch(/failed/);
  });

  it('refuses rows that are not whole', () => {
    expect(judgeRequirement({ ...row, section: 'x' }, results)).toMatch(/section/);
    expect(judgeRequirement({ ...row, level: 'must' }, results)).toMatch(/not one of/);
    expect(judgeRequirement({ ...row, reason: 'both' }, results)).toMatch(/neither/);
    expect(judgeRequirement({ section: '1', level: 'MUST', requirement: 'x' }, results)).toMatch(/neither/);
  });

  it('refuses a count that counts nothing', () => {
    for (const count of [0, 1, 1.5]) expect(judgeRequirement({ ...row, count }, results)).toMatch(/count/);
  });

  it('refuses a ledger of another form', () => {
    expect(judgeForm({ sections: { '2.7.1': 1 }, requirements: [row] })).toBeUndefined();
    for (const other of [[row], {}, null, { sections: null, requirements: [] }]) {
      expect(judgeForm(other)).toMatch(/is not/);
    }
    expect(judgeForm({ sections: { '2.7.1': 0 }, requirements: [] })).toMatch('"2.7.1": 0');
    expect(judgeForm({ sections: { x: 1 }, requirements: [] })).toMatch('"x": 1');
  });

  it('misses requirements that no row of any package stands for', () => {
    const others = [
      { ...row, level: 'MUST NOT', count: 2 },
      { ...row, section: '2.8.11', level: 'SHOULD' },
    ];
    const missing = (sections: Record<string, number>) =>
      missingRequirements([
        { sections, requirements: [row] },
        { sections: {}, requirements: others },
      ]);
    expect(missing({ '2.7.1': 3 })).toEqual([]);
    expect(missing({ '2.7.1': 4, '2.8.11': 1 })).toEqual([
      '2.7.1 has 4 requirements for drivers, the ledgers have 3',
      '2.8.11 has 1 requirements for drivers, the ledgers have 0',
    ]);
  });

  it('prints a table a package, with bars escaped', () => {
    const ledger = { sections: {}, requirements: [{ ...row, requirement: 'A | B' }] };
    expect(page(new Map([['@virtio/core', ledger]]))).toContain('| 2.7.1 | MUST | A \\| B |  | aligns |');
  });
});
