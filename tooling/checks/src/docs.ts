/** Writes the reference manual of all packages to `docs/reference/`; a broken link in a doc comment fails it. */
import path from 'node:path';
import {
  Application,
  type CommentDisplayPart,
  type DeclarationReflection,
  type ProjectReflection,
} from 'typedoc';
import { buildPlayground } from '@virtio/playground/build';
import { USAGE } from '@virtio/setup/usage';
import { root } from './workspace.ts';

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

const [unknown] = process.argv.slice(2);
if (unknown !== undefined) {
  console.error(`There is no argument ${unknown}.\n\n${USAGE.docs}`);
  process.exit(2);
}
process.chdir(root);
const app = await Application.bootstrapWithPlugins({ options: path.join(root, 'typedoc.json') });
const project = await app.convert();
if (project === undefined) process.exit(1);
linkThrows(project);
app.validate(project);
await app.generateOutputs(project);
await buildPlayground(path.join(root, 'docs/reference/playground'));
const { warningCount, errorCount } = app.logger;
if (warningCount + errorCount > 0) process.exitCode = 1;
console.log(
  `${Object.keys(project.reflections).length} items, ${errorCount} errors, ${warningCount} warnings`,
);
