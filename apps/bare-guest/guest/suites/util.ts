/** Stands for `node:util` in tests that run in a bare guest. */
import { same } from './assert.ts';

export { same as isDeepStrictEqual };
