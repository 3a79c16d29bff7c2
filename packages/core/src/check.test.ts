import { describe, expect, it } from 'vitest';
import { requireBytes } from './check.ts';

describe('bytes', () => {
  it('are a Uint8Array, which may be empty', () => {
    requireBytes('here', new Uint8Array(4));
    requireBytes('here', new Uint8Array(0));
    for (const wrong of [undefined, [1], new Uint32Array(1), new ArrayBuffer(4)]) {
      expect(() => {
        requireBytes('here', wrong);
      }).toThrow(/^here: a Uint8Array was expected/);
    }
  });

  it('are not those of a buffer that was transferred', () => {
    const gone = new Uint8Array(4);
    gone.buffer.transfer();
    expect(() => {
      requireBytes('here', gone);
    }).toThrow(/^here: the array's buffer was transferred before the call/);
  });
});
