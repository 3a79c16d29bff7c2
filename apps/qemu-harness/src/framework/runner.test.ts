import { describe, expect, it } from 'vitest';
import { judge, type Course } from './runner.ts';

const course = (more: Partial<Course> = {}): Course => ({
  output: '',
  notes: [],
  verdict: undefined,
  timedOut: false,
  ...more,
});

describe('judge', () => {
  it('passes a test that says so and ends well', () => {
    expect(judge(course({ verdict: { type: 'passed' } }), 1000, 0, undefined)).toEqual([]);
  });

  it('fails a test that never reports', () => {
    expect(judge(course(), 1000, 0, undefined)).toEqual(['Its process ended before it did: status 0.']);
    expect(judge(course(), 1000, 139, 'SIGSEGV')).toEqual([
      'Its process ended before it did: killed by SIGSEGV.',
    ]);
  });

  it('fails a test that passed but hangs or crashes at its end', () => {
    expect(judge(course({ verdict: { type: 'passed' } }), 1000, 137, 'SIGKILL')).toHaveLength(1);
    expect(judge(course({ verdict: { type: 'passed' } }), 1000, 139, 'SIGSEGV')).toHaveLength(1);
    expect(judge(course({ verdict: { type: 'passed' } }), 1000, 1, undefined)).toHaveLength(1);
  });

  it('fails a test that takes too long, and gives its own reason otherwise', () => {
    expect(judge(course({ timedOut: true }), 5000, 137, 'SIGKILL')).toEqual(['It did not end within 5 s.']);
    expect(judge(course({ verdict: { type: 'failed', message: 'wrong' } }), 1000, 0, undefined)).toEqual([
      'wrong',
    ]);
  });
});
