/** Writes the reference manual of all packages to `docs/reference/`; a broken link in a doc comment fails it. */
import path from 'node:path';
import {
  Application,
  type CommentDisplayPart,
  type DeclarationReflection,
  JSX,
  type ProjectReflection,
} from 'typedoc';
import { buildPlayground } from '@virtio/playground/build';
import ts from 'typescript';
import { USAGE } from '@virtio/setup/usage';
import { libraries, root } from './workspace.ts';

/**
 * `@throws {@link VirtioError}` is how TSDoc writes it, but TypeScript takes those braces for a type, so that TypeDoc
 * gets no target for the link. Where it names an export of any of our packages, that is what it means.
 */
function linkThrows(project: ProjectReflection): void {
  const exported = new Map<string, DeclarationReflection>();
  for (const module of project.children ?? []) {
    for (const child of module.children ?? []) exported.set(child.name, child);
  }
  const link = (part: CommentDisplayPart): void => {
    if (part.kind !== 'inline-tag' || part.tag !== '@link' || part.target !== undefined) return;
    const target = exported.get(part.text.trim());
    if (target !== undefined) part.target = target;
  };
  for (const reflection of Object.values(project.reflections)) {
    const tags = reflection.comment?.blockTags ?? [];
    for (const tag of tags) if (tag.tag === '@throws') tag.content.forEach(link);
  }
}

/** A README begins with its name, which the page has as its title already. */
function dropTitles(project: ProjectReflection): void {
  for (const { readme } of [project, ...(project.children ?? [])]) {
    const [first] = readme ?? [];
    if (first?.kind === 'text') first.text = first.text.replace(/^\s*# .*\n/, '');
  }
}

/**
 * One program with all packages. TypeDoc makes one a package, each of which parses the packages that it imports, the declarations of
 * Node.js and its own tests: that took half of the time. Types are not checked here (`skipErrorChecking`): `npm run typecheck` does.
 */
function parseAll(): ts.Program {
  const base = ts.readConfigFile(path.join(root, 'tsconfig.base.json'), (file) => ts.sys.readFile(file));
  const { compilerOptions } = base.config as { compilerOptions: object };
  const { options } = ts.convertCompilerOptionsFromJson(
    { ...compilerOptions, types: ['node'], typeRoots: [path.join(root, 'node_modules/@types')] },
    root,
  );
  return ts.createProgram(
    libraries().map(({ folder }) => path.join(folder, 'src/index.ts')),
    options,
  );
}

const [unknown] = process.argv.slice(2);
if (unknown !== undefined) {
  console.error(`There is no argument ${unknown}.\n\n${USAGE.docs}`);
  process.exit(2);
}
process.chdir(root);
const app = await Application.bootstrapWithPlugins({ options: path.join(root, 'typedoc.json') });
const program = parseAll();
// Asked for each package, with the options of that package.
app.getEntryPoints = () =>
  app.options.getValue('entryPoints').map((file) => {
    const sourceFile = program.getSourceFile(file);
    if (sourceFile === undefined) throw new Error(`${file} is none of the packages' files`);
    return { displayName: '', program, sourceFile };
  });
app.renderer.hooks.on('pageSidebar.begin', ({ relativeURL }) => {
  const href = relativeURL('playground/index.html') ?? '';
  return JSX.createElement('p', null, JSX.createElement('a', { href }, 'Playground: try it in your browser'));
});
const project = await app.convert();
if (project === undefined) process.exit(1);
linkThrows(project);
dropTitles(project);
app.validate(project);
await app.generateOutputs(project);
await buildPlayground(path.join(root, 'docs/reference/playground'));
const { warningCount, errorCount } = app.logger;
if (warningCount + errorCount > 0) process.exitCode = 1;
console.log(
  `${Object.keys(project.reflections).length} items, ${errorCount} errors, ${warningCount} warnings`,
);
