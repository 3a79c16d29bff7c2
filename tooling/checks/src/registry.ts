/** A package registry on loopback for checks. What is not published to it, it fetches from npm's and keeps for the next time. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { runServer } from 'verdaccio';

export interface Registry {
  /** Its address, ending with a slash. */
  readonly url: string;
  close(): void;
}

/** Starts a registry with its storage in `folder`, without a package of ours, on a port that is free. */
export async function startRegistry(folder: string): Promise<Registry> {
  fs.rmSync(path.join(folder, 'storage/ours'), { recursive: true, force: true });
  fs.rmSync(path.join(folder, 'storage/.verdaccio-db.json'), { force: true });
  fs.mkdirSync(folder, { recursive: true });
  const npm = execFileSync('npm', ['config', 'get', 'registry'], { cwd: folder, encoding: 'utf8' }).trim();
  const everyone = { access: '$all', publish: '$all', unpublish: '$all' };
  const config = {
    configPath: path.join(folder, 'config.yaml'),
    self_path: path.join(folder, 'config.yaml'),
    storage: path.join(folder, 'storage'),
    // Its default is to ask no more for five minutes after two failures.
    uplinks: { npm: { url: npm, maxage: '30d', timeout: '90s', max_fails: 100, fail_timeout: '1s' } },
    packages: { '@virtio/*': { ...everyone, storage: 'ours' }, '**': { access: '$all', proxy: 'npm' } },
    auth: { htpasswd: { file: path.join(folder, 'htpasswd') } },
    max_body_size: '50mb',
    log: { type: 'stdout', format: 'pretty', level: 'fatal' },
  };
  const app = (await runServer(config)) as Server;
  await new Promise<void>((resolve, reject) => {
    app.once('error', reject);
    app.listen(0, '127.0.0.1', resolve);
  });
  const { port } = app.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    close: () => {
      app.closeAllConnections();
      app.close();
    },
  };
}
