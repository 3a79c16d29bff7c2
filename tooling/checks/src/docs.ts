/** Writes the reference manual of all packages to `docs/`; a broken link in a doc comment fails it. */
import path from 'node:path';
import { run } from '@virtio/setup/processes';
import { root } from './workspace.ts';

const bin = path.join(import.meta.dirname, '../node_modules/typedoc/bin/typedoc');
process.exitCode = await run(process.execPath, [bin, '--options', path.join(root, 'typedoc.json')], {
  cwd: root,
});
