import { describe, expect, it } from 'vitest';
import { needEvent } from './event-index.ts';

/** The specification's words, taken literally: walk from `old` to `now` and see whether the entry at `event` is written. */
function walk(event: number, now: number, old: number): boolean {
  for (let index = old; index !== now; index = (index + 1) & 0xffff) if (index === event) return true;
  return false;
}

describe('needEvent', () => {
  it('agrees with the walk for every triple around zero, the wrap and the middle [2.7.10.1]', () => {
    const points = [0, 1, 2, 3, 255, 256, 32766, 32767, 32768, 32769, 65533, 65534, 65535];
    for (const old of points) {
      for (const step of [0, 1, 2, 3, 255, 256, 32767, 32768, 65535]) {
        const now = (old + step) & 0xffff;
        for (const event of [
          ...points,
          old,
          now,
          (old - 1) & 0xffff,
          (now - 1) & 0xffff,
          (now + 1) & 0xffff,
        ]) {
          expect(needEvent(event, now, old), `event ${event}, new ${now}, old ${old}`).toBe(
            walk(event, now, old),
          );
        }
      }
    }
  });

  it('agrees with the walk for every event and 16-bit index when one buffer is added', () => {
    let disagreements = 0;
    for (let old = 0; old <= 0xffff; old += 1) {
      const now = (old + 1) & 0xffff;
      for (const event of [old, now, (old - 1) & 0xffff, (old + 32768) & 0xffff]) {
        if (needEvent(event, now, old) !== (event === old)) disagreements += 1;
      }
    }
    expect(disagreements).toBe(0);
  });
});
