/**
 * The state machine of a PCM stream: which command may follow which. Devices differ in what they do with a command out of order (some
 * answer with an error, some obey, some do neither), so the driver refuses it, and names the state and the commands that lead out of it.
 */
import { VirtioError } from '@virtio/core';

/**
 * The commands of a PCM stream.
 *
 * @see VIRTIO 1.4, 5.14.6.6.1
 */
export type PcmCommand = 'SET_PARAMS' | 'PREPARE' | 'START' | 'STOP' | 'RELEASE';

/**
 * The states of a PCM stream, named after the last command that was carried out. `initial`: none since the device was reset. `unknown`:
 * the answer to the last command was not waited for; the next command, whichever it is, is sent to the device.
 */
export type PcmState = 'initial' | 'set' | 'prepared' | 'running' | 'stopped' | 'released' | 'unknown';

const AFTER: Readonly<Record<PcmCommand, PcmState>> = {
  SET_PARAMS: 'set',
  PREPARE: 'prepared',
  START: 'running',
  STOP: 'stopped',
  RELEASE: 'released',
};

const ALLOWED: Readonly<Record<PcmState, readonly PcmCommand[]>> = {
  initial: ['SET_PARAMS'],
  set: ['SET_PARAMS', 'PREPARE'],
  prepared: ['SET_PARAMS', 'PREPARE', 'START', 'RELEASE'],
  running: ['STOP'],
  stopped: ['START', 'RELEASE'],
  released: ['SET_PARAMS', 'PREPARE'],
  unknown: ['SET_PARAMS', 'PREPARE', 'START', 'STOP', 'RELEASE'],
};

/** Whether the specification allows a command in a state. */
export function isAllowed(state: PcmState, command: PcmCommand): boolean {
  return ALLOWED[state].includes(command);
}

/** The shortest sequence of commands that leads from a state to one in which `wanted` is allowed. */
export function wayTo(state: PcmState, wanted: PcmCommand): readonly PcmCommand[] {
  const seen = new Set<PcmState>([state]);
  let ways: { readonly state: PcmState; readonly way: readonly PcmCommand[] }[] = [{ state, way: [] }];
  for (;;) {
    const next: typeof ways = [];
    for (const { state: here, way } of ways) {
      if (isAllowed(here, wanted)) return way;
      for (const command of ALLOWED[here]) {
        const there = AFTER[command];
        if (!seen.has(there)) next.push({ state: there, way: [...way, command] });
        seen.add(there);
      }
    }
    if (next.length === 0) return [];
    ways = next;
  }
}

/**
 * The state after a command.
 *
 * @throws {@link VirtioError} `INVALID_PARAM` if the specification does not allow the command; nothing was sent
 */
export function nextState(who: string, stream: number, state: PcmState, command: PcmCommand): PcmState {
  if (isAllowed(state, command)) return AFTER[command];
  throw new VirtioError(
    'INVALID_PARAM',
    `${who}: ${command} was asked for, but stream ${stream} is ${DESCRIPTIONS[state]}; first ${wayTo(state, command).join(', then ')}`,
  );
}

const DESCRIPTIONS: Readonly<Record<PcmState, string>> = {
  initial: 'without parameters',
  set: 'not prepared',
  prepared: 'prepared',
  running: 'running',
  stopped: 'stopped',
  released: 'released',
  unknown: 'in an unknown state',
};
