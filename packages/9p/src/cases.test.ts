import { describe, it } from 'vitest';
import { cases } from '../../files/test/cases.ts';
import { leavesNothing, mounted } from '../test/set-up.ts';

describe('a file system over 9P', () => {
  it.each(Object.entries(cases))('%s', async (_name, body) => {
    const rig = await mounted();
    await body(rig.fs);
    await leavesNothing(rig, rig.fs);
  });
});
