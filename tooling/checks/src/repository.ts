/**
 * Writes to each package where its source is, before it is published: a package with provenance must name the repository that publishes it.
 * The manifests that are committed do not name it, so that a fork publishes as well; GitHub tells a workflow its address.
 */
import fs from 'node:fs';
import path from 'node:path';
import { libraries, root } from './workspace.ts';

/** A manifest, as text, that names its repository. */
export function withRepository(manifest: string, url: string, directory: string): string {
  const repository = { type: 'git', url: `git+${url}.git`, directory };
  return `${JSON.stringify({ ...(JSON.parse(manifest) as object), repository }, undefined, 2)}\n`;
}

if (import.meta.main) {
  const { GITHUB_SERVER_URL: server = '', GITHUB_REPOSITORY: name = '' } = process.env;
  if (server === '' || name === '') {
    console.log('not in a workflow of GitHub: the packages name no repository, and cannot have provenance');
  } else {
    for (const { folder } of libraries()) {
      const file = path.join(folder, 'package.json');
      const text = withRepository(
        fs.readFileSync(file, 'utf8'),
        `${server}/${name}`,
        path.relative(root, folder),
      );
      fs.writeFileSync(file, text);
    }
    console.log(`${libraries().length} packages name ${server}/${name}`);
  }
}
