import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { withRepository } from './repository.ts';
import { root } from './workspace.ts';

it('names the repository that publishes, as provenance needs it, and changes nothing else', () => {
  const before = fs.readFileSync(path.join(root, 'packages/rng/package.json'), 'utf8');
  const after = withRepository(before, 'https://github.com/somebody/virtio', 'packages/rng');
  expect(JSON.parse(after)).toEqual({
    ...(JSON.parse(before) as object),
    repository: {
      type: 'git',
      url: 'git+https://github.com/somebody/virtio.git',
      directory: 'packages/rng',
    },
  });
});

it('is a step of the release', () => {
  const { scripts } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const release = scripts.release ?? '';
  expect(release).toMatch(/repository\.ts && .*changeset publish$/);
});
