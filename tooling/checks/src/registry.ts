/** A package registry on loopback for checks. It has only what is published to it, so that no check depends on the network. */
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

/** Starts an empty registry with its storage in `folder`, on a port that is free. */
export async function startRegistry(folder: string): Promise<Registry> {
  fs.mkdirSync(folder, { recursive: true });
  const config = {
    configPath: path.join(folder, 'config.yaml'),
    self_path: path.join(folder, 'config.yaml'),
    storage: path.join(folder, 'storage'),
    packages: { '**': { access: '$all', publish: '$all' } },
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
