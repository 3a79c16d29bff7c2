/** What every guest gets in addition to the image: the agent. */
import { join } from 'node:path';
import type { CpioEntry } from '../image/cpio.ts';
import { HARNESS_DIR } from '../paths.ts';
import { bundle } from '../script/bundle.ts';

/** The agent, bundled, as files of the archive that is made for each run. */
export async function agentFiles(): Promise<CpioEntry[]> {
  return [
    { type: 'file', path: 'guest/agent.mjs', data: await bundle(join(HARNESS_DIR, 'guest', 'agent.ts')) },
  ];
}
