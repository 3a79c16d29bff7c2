import { describe, expect, it } from 'vitest';
import { type Course, judge, newCourse } from './test-process.ts';

const course = (more: Partial<Course> = {}): Course => ({ ...newCourse(), ...more });
const passed = { verdict: { type: 'passed' }, left: [] } as const;

describe('judge', () => {
  it('passes a test that says so and leaves nothing open', () => {
    expect(judge(course(passed), 1000)).toEqual([]);
    expect(judge(course({ ...passed, end: { status: 0, signal: undefined } }), 1000)).toEqual([]);
  });

  it('fails a test that never reports', () => {
    expect(judge(course({ end: { status: 0, signal: undefined } }), 1000)).toEqual([
      'Its process ended before the test had: status 0.',
    ]);
    expect(judge(course({ end: { status: 139, signal: 'SIGSEGV' } }), 1000)).toEqual([
      'Its process ended before the test had: killed by SIGSEGV.',
    ]);
  });

  it('fails a test that passed but leaves something open, and says what', () => {
    const left = ['active Timeout', '2 × descriptor of /dev/vfio/3'];
    expect(judge(course({ ...passed, left }), 1000)).toEqual([
      'It left open: active Timeout, 2 × descriptor of /dev/vfio/3.',
    ]);
  });

  it('fails a test that passed but hangs or crashes at its end', () => {
    const killed = course({ verdict: { type: 'passed' }, end: { status: 137, signal: 'SIGKILL' } });
    expect(judge(killed, 1000)).toHaveLength(1);
    expect(judge(course({ ...passed, end: { status: 139, signal: 'SIGSEGV' } }), 1000)).toHaveLength(1);
    expect(judge(course({ ...passed, end: { status: 1, signal: undefined } }), 1000)).toHaveLength(1);
  });

  it('fails a test that takes too long, and gives its own reason otherwise', () => {
    expect(judge(course({ timedOut: true }), 5000)).toEqual(['It did not end within 5 s.']);
    expect(judge(course({ verdict: { type: 'failed', message: 'wrong' }, left: [] }), 1000)).toEqual([
      'wrong',
    ]);
  });
});
