/**
 * Programs of the host that are the devices of tests (vhost-user): each runs for one device, from before QEMU starts until the guest
 * has ended, or until its test kills it.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { ensureUnpacked } from '../setup/unpacked-program.ts';
import { UNPACKED } from '../setup/unpacked-programs.ts';
import type { BackendProgram, GuestTest, JudgeProgram } from './define.ts';
import type { PlannedBackend, PlannedTest } from './plan.ts';

type Program = BackendProgram | JudgeProgram;

/** The commands of the programs that the tests need. */
export type Programs = ReadonlyMap<Program, readonly string[]>;

const START_MS = 10_000;
const STEP_MS = 20;

/** Downloads the programs that tests need. */
export async function ensurePrograms(
  tests: readonly GuestTest[],
  report: (line: string) => void,
): Promise<Programs> {
  const needed = new Set(
    tests.flatMap(({ devices, programs = [] }): readonly Program[] => [
      ...programs,
      ...Object.values(devices).flatMap(({ backend }) => backend?.program ?? []),
    ]),
  );
  const programs = new Map<Program, readonly string[]>();
  for (const program of needed) programs.set(program, await ensureUnpacked(UNPACKED[program], report));
  return programs;
}

/** The programs of the tests of one guest. */
export class Backends {
  readonly #programs: Programs;
  readonly #running = new Map<PlannedBackend, ChildProcess>();

  constructor(programs: Programs) {
    this.#programs = programs;
  }

  /** The command that runs a program. */
  command(program: Program): readonly string[] {
    const command = this.#programs.get(program);
    if (command === undefined) throw new Error(`${program} was not set up`);
    return command;
  }

  /** Starts the programs of a test, and waits until they listen. */
  async open({ devices }: PlannedTest): Promise<void> {
    for (const { backend } of devices.values()) if (backend !== undefined) await this.start(backend);
  }

  /** Starts a program, and waits until it listens. */
  async start(backend: PlannedBackend): Promise<void> {
    const command = this.command(backend.program);
    rmSync(backend.socket, { force: true });
    // setpriv has the kernel kill the program when this process is gone, even if it was killed itself.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command, ...backend.args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-2000)));
    child.on('error', (error) => (said += error.message));
    this.#running.set(backend, child);
    for (const deadline = Date.now() + START_MS; !existsSync(backend.socket);) {
      await delay(STEP_MS);
      if (child.exitCode !== null || Date.now() > deadline) {
        throw new Error(`${backend.program} does not listen on ${backend.socket}:\n${said}`);
      }
    }
  }

  /** Kills a program, and waits until it is gone. */
  async kill(backend: PlannedBackend): Promise<void> {
    const child = this.#running.get(backend);
    this.#running.delete(backend);
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    child.once('exit', () => resolve(undefined));
    child.kill('SIGKILL');
    await promise;
  }

  /** Kills all that run. */
  async close(): Promise<void> {
    await Promise.all([...this.#running.keys()].map((backend) => this.kill(backend)));
  }
}
