/**
 * Tries the publishing step of the release workflow as a runner would run it: the same commands with the same variables, but npm's
 * registry and GitHub's tokens are a server on loopback that has nothing and grants nothing. So nothing is published or signed.
 */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { parse, type Workflow } from './workflow-rules.ts';
import { root } from './workspace.ts';

const exec = promisify(execFile);
const TOKEN = 'a-token';

/** The steps of the job that publishes. */
function publishSteps({ jobs }: Workflow): { prepare: string[]; env: Readonly<Record<string, string>> } {
  for (const { steps = [] } of Object.values(jobs)) {
    const at = steps.findIndex(({ uses = '' }) => uses.startsWith('changesets/action/publish@'));
    if (at < 0) continue;
    // What is built is there already, as far as it is needed.
    const prepare = steps
      .slice(0, at)
      .flatMap(({ run }) => (run === undefined || run === 'npm run build' ? [] : [run]));
    return { prepare, env: steps[at]?.env ?? {} };
  }
  throw new Error('no job of the workflow publishes');
}

/** Tries to publish the package of the workspace in `folder`; what would go wrong, a complaint each. */
export async function publishProblems(folder: string): Promise<string[]> {
  const file = path.join(root, '.github/workflows/release.yml');
  const { prepare, env: given } = publishSteps(parse(fs.readFileSync(file, 'utf8')));
  const asked: { readonly what: string; readonly authorization: string | undefined }[] = [];
  const server = http.createServer(({ method = '', url = '', headers: { authorization } }, response) => {
    asked.push({ what: `${method} ${decodeURIComponent(url)}`, authorization });
    response.statusCode = url.startsWith('/token') ? 403 : 404;
    response.end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const home = path.join(folder, '.home');
  fs.mkdirSync(home);
  fs.writeFileSync(path.join(home, '.npmrc'), `registry=${address}\n`);
  const secrets = Object.entries(given).map(([name, value]) => [
    name,
    value.startsWith('${{ secrets.') ? TOKEN : value,
  ]);
  const env = {
    ...(Object.fromEntries(secrets) as Record<string, string>),
    PATH: process.env.PATH,
    HOME: home,
    CI: 'true',
    GITHUB_ACTIONS: 'true',
    GITHUB_SERVER_URL: 'https://github.com',
    GITHUB_REPOSITORY: 'somebody/something',
    ACTIONS_ID_TOKEN_REQUEST_URL: `${address}token?of=this-run`,
    ACTIONS_ID_TOKEN_REQUEST_TOKEN: TOKEN,
  };
  let printed: string;
  try {
    for (const script of prepare) await exec('bash', ['-ec', script], { cwd: folder, env });
    const { stdout } = await exec('changeset', ['publish'], { cwd: folder, env });
    printed = stdout;
  } catch (error) {
    printed = error instanceof Error && 'stdout' in error ? String(error.stdout) : String(error);
  } finally {
    server.closeAllConnections();
    server.close();
  }

  const problems: string[] = [];
  if (!asked.some(({ what }) => what.startsWith('GET /token') && what.endsWith('audience=sigstore'))) {
    problems.push(`it would be published without provenance: ${printed.trim()}`);
  }
  const looked = asked.filter(({ what }) => what.startsWith('GET /@virtio/'));
  if (looked.length === 0) problems.push(`the registry is not asked for the packages: ${printed.trim()}`);
  for (const { what, authorization } of looked) {
    if (authorization !== `Bearer ${TOKEN}`) problems.push(`the registry does not get the token: ${what}`);
  }
  for (const { what } of asked) {
    if (what.startsWith('PUT')) problems.push(`published although nothing was signed: ${what}`);
  }
  return problems;
}
