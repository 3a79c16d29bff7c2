/**
 * Compares what a read costs with what it cost at another commit, in one run: `npm run bench:against -- COMMIT` (default: the one that the
 * aims of speed were set by). That commit is taken out of the history into a temporary folder; both are measured in turns, each in a
 * process of its own, and the medians are printed with their ratio.
 */
import { fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { median, type Sample } from '@virtio/checks/measure';

const ROUNDS = 15;
const root = path.resolve(import.meta.dirname, '../../..');
const commit = process.argv[2] ?? '77d2369';

/** Takes a commit's packages out of the history, with the links between them that Node.js needs. */
function extract(folder: string): void {
  const archive = spawnSync('git', ['archive', commit, 'packages'], { cwd: root, maxBuffer: 2 ** 28 });
  if (archive.status !== 0) {
    throw new Error(
      `The history here has no commit ${commit}, of which the packages are to be measured; fetch it (git fetch --unshallow), or name ` +
        'another one.',
    );
  }
  const untar = spawnSync('tar', ['-x', '-C', folder], { input: archive.stdout });
  if (untar.status !== 0) throw new Error(`tar failed: ${String(untar.stderr)}`);
  const links = path.join(folder, 'node_modules/@virtio');
  fs.mkdirSync(links, { recursive: true });
  for (const name of fs.readdirSync(path.join(folder, 'packages'))) {
    fs.symlinkSync(path.join(folder, 'packages', name), path.join(links, name));
  }
}

/** A process that measures the packages of a tree; each call takes one sample of each row. */
async function start(tree: string): Promise<{ round: () => Promise<Map<string, Sample>>; stop: () => void }> {
  const child = fork(path.join(import.meta.dirname, 'against-worker.ts'), [tree], {
    execArgv: ['--expose-gc', '--min-semi-space-size=16', '--conditions=@virtio/source'],
  });
  const ended = new Promise<never>((_resolve, reject) => {
    child.once('exit', () => {
      reject(new Error(`the process that measures ${tree} has ended`));
    });
  });
  ended.catch(() => undefined);
  const answer = async (): Promise<unknown> => {
    const [message] = (await Promise.race([once(child, 'message'), ended])) as [unknown];
    return message;
  };
  await answer();
  return {
    round: async () => {
      const next = answer();
      child.send('round');
      return new Map(Object.entries((await next) as Record<string, Sample>));
    },
    stop: () => {
      child.disconnect();
    },
  };
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'virtio-against-'));
try {
  extract(folder);
  const sides = [await start(folder), await start(root)] as const;
  const found = [new Map<string, Sample[]>(), new Map<string, Sample[]>()] as const;
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [side, { round: measure }] of sides.entries()) {
      for (const [name, sample] of await measure()) {
        const samples = found[side as 0 | 1];
        samples.set(name, [...(samples.get(name) ?? []), sample]);
      }
    }
  }
  for (const { stop } of sides) stop();
  const width = Math.max(...[...found[1].keys()].map(({ length }) => length));
  const cell = (value: number, digits = 0): string => value.toFixed(digits).padStart(9);
  console.log(`medians of ${ROUNDS} rounds, in turns; before: ${commit}\n`);
  console.log(
    `${'a read of 4 KiB'.padEnd(width)}   before      now    ratio   before      now    ratio\n${''.padEnd(width)} ${'ns'.padStart(8)}${'ns'.padStart(9)}${''.padStart(9)}${'bytes'.padStart(9)}${'bytes'.padStart(9)}`,
  );
  for (const [name, now] of found[1]) {
    const before = found[0].get(name) ?? [];
    const [ns, bytes] = (['ns', 'bytes'] as const).map((what) =>
      [before, now].map((samples) => median(samples.map((sample) => sample[what]))),
    ) as [number[], number[]];
    const columns = [ns, bytes].flatMap(([old = NaN, present = NaN]) => [
      cell(Math.max(0, old)),
      cell(Math.max(0, present)),
      // Bytes of the loop itself are no ratio.
      old < 8 ? ''.padStart(9) : cell(present / old, 2),
    ]);
    console.log(`${name.padEnd(width)}${columns.join('')}`);
  }
} finally {
  fs.rmSync(folder, { recursive: true });
}
