/** What the runner of unit tests needs of an engine, for those that have the modules of Node.js'. */
import { existsSync, readFileSync, writeSync } from 'node:fs';

Object.assign(globalThis, {
  printLine: (text: string) => void writeSync(1, `${text}\n`),
  readText: (path: string) => (existsSync(path) ? readFileSync(path, 'latin1') : undefined),
});
