/** Writes the reference manual of all packages to `docs/reference/`; a broken link in a doc comment fails it. */
import fs from 'node:fs';
import path from 'node:path';
import {
  Application,
  type CommentDisplayPart,
  type DeclarationReflection,
  DocumentReflection,
  IndexEvent,
  PageEvent,
  JSX,
  type ProjectReflection,
} from 'typedoc';
import { buildPlayground } from '@virtio/playground/build';
import ts from 'typescript';
import { USAGE } from '@virtio/setup/usage';
import { readLedgers, writePage } from './conformance.ts';
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

/**
 * Mends what the theme leaves out: tables that are wider than the page get a box to be scrolled in, by keys, too; and for those who do not
 * see the page, what is the main part and what beside it, the levels of the first headings, table heads that are empty, and links within
 * what folds and unfolds.
 */
function mend(html: string): string {
  const second = html.indexOf('<h2');
  // Below the title there are headings of the fourth and fifth level.
  const top = html.slice(0, Math.max(0, second)).replaceAll(/<h[45]\b/g, '$& aria-level="2"');
  return (top + html.slice(Math.max(0, second)))
    .replaceAll('<table>', '<div class="table" tabindex="0"><table>')
    .replaceAll('</table>', '</table></div>')
    .replace('<div class="col-content">', '<div class="col-content" role="main">')
    .replace('<div class="page-menu">', '<div class="page-menu" role="complementary" aria-label="This page">')
    .replaceAll(/<th( [^>]*)?><\/th>/g, '<td$1></td>')
    .replaceAll(/<summary\b.*?<\/summary>/gs, (summary) =>
      summary.replaceAll(/<a [^>]*class="tsd-anchor-icon".*?<\/a>/gs, ''),
    );
}

/** The headings of guides are found first: of the codes of errors, for one, the page that explains them and not each that mentions them. */
function indexHeadings(event: IndexEvent): void {
  // As long as a field is compared with its average, which is next to nothing here, as only guides have any, it counts for little.
  event.searchFieldWeights.headings = 2000;
  for (const [index, reflection] of event.searchResults.entries()) {
    const fields = event.searchFields[index];
    if (fields === undefined || !(reflection instanceof DocumentReflection)) continue;
    const text = reflection.content.map((part) => part.text).join('');
    fields.headings = Array.from(text.matchAll(/^#+ (.*)$/gm), ([, heading = '']) => heading).join(' ');
  }
}

/** A README begins with its name, which the page has as its title already. */
function dropTitles(project: ProjectReflection): void {
  for (const { readme } of [project, ...(project.children ?? [])]) {
    const [first] = readme ?? [];
    if (first?.kind === 'text') first.text = first.text.replace(/^\s*# .*\n/, '');
  }
}

/** Pages that TypeDoc names after their files (SECURITY, apps/examples/README) get the name that they begin with. */
function namePages({ documents = [] }: ProjectReflection): void {
  for (const page of documents) {
    const heading = /^\s*# (.+)$/m.exec(page.content[0]?.text ?? '')?.[1];
    if (heading !== undefined && /^[A-Z]+$|\//.test(page.name)) page.name = heading;
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

/** The guides; then the pages that are made: the requirements, and what passed, as far as the tests have run here. */
function documents(): string[] {
  const { projectDocuments } = JSON.parse(fs.readFileSync(path.join(root, 'typedoc.json'), 'utf8')) as {
    projectDocuments: string[];
  };
  writePage(new Map([...readLedgers()].map(([name, { ledger }]) => [name, ledger])));
  const made = ['docs/conformance.md', 'docs/support.md'];
  return [...projectDocuments, ...made.filter((file) => fs.existsSync(path.join(root, file)))];
}

const [unknown] = process.argv.slice(2);
if (unknown !== undefined) {
  console.error(`Unknown argument ${unknown}.\n\n${USAGE.docs}`);
  process.exit(2);
}
process.chdir(root);
const app = await Application.bootstrapWithPlugins({
  options: path.join(root, 'typedoc.json'),
  projectDocuments: documents(),
});
const program = parseAll();
// Asked for each package, with the options of that package.
app.getEntryPoints = () =>
  app.options.getValue('entryPoints').map((file) => {
    const sourceFile = program.getSourceFile(file);
    if (sourceFile === undefined) throw new Error(`${file} does not belong to a package`);
    return { displayName: '', program, sourceFile };
  });
app.renderer.hooks.on('pageSidebar.begin', ({ relativeURL }) => {
  const href = relativeURL('playground/index.html');
  return JSX.createElement('p', null, JSX.createElement('a', { href }, 'Playground: try it in your browser'));
});
const project = await app.convert();
if (project === undefined) process.exit(1);
linkThrows(project);
dropTitles(project);
namePages(project);
app.renderer.on(IndexEvent.PREPARE_INDEX, indexHeadings);
// The highlighter gives up on a line after half a second, which its first one may take on a busy machine: that one is of no page.
let warm = false;
app.renderer.on(PageEvent.BEGIN, () => {
  if (!warm) app.renderer.markedPlugin.getHighlighted("import { a } from 'b';\nusing c = a(`${1}`);\n", 'ts');
  warm = true;
});
app.renderer.on(PageEvent.END, (page: PageEvent) => {
  if (page.contents !== undefined) page.contents = mend(page.contents);
});
app.validate(project);
await app.generateOutputs(project);
await buildPlayground(path.join(root, 'docs/reference/playground'));
const { warningCount, errorCount } = app.logger;
if (warningCount + errorCount > 0) process.exitCode = 1;
console.log(
  `${Object.keys(project.reflections).length} items, ${errorCount} errors, ${warningCount} warnings`,
);
