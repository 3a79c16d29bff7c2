import { describe, expect, it } from 'vitest';
import { isAllowed, nextState, type PcmCommand, type PcmState, wayTo } from './pcm-state.ts';

const COMMANDS: readonly PcmCommand[] = ['SET_PARAMS', 'PREPARE', 'START', 'STOP', 'RELEASE'];
const follow = (...commands: PcmCommand[]): PcmState =>
  commands.reduce<PcmState>((state, command) => nextState('sound', 0, state, command), 'initial');

describe('the command lifecycle of a PCM stream [5.14.6.6.1]', () => {
  it.each<[PcmState, PcmCommand[]]>([
    ['initial', ['SET_PARAMS']],
    ['set', ['SET_PARAMS', 'PREPARE']],
    ['prepared', ['SET_PARAMS', 'PREPARE', 'START', 'RELEASE']],
    ['running', ['STOP']],
    ['stopped', ['START', 'RELEASE']],
    ['released', ['SET_PARAMS', 'PREPARE']],
  ])('a stream that is %s takes these commands and no others', (state, allowed) => {
    for (const command of COMMANDS) {
      if (allowed.includes(command)) expect(() => nextState('sound', 1, state, command)).not.toThrow();
      else {
        expect(() => nextState('sound', 1, state, command)).toThrow(
          expect.objectContaining({ code: 'INVALID_PARAM' }),
        );
      }
    }
  });

  it('lets parameters be set and prepared again before the start', () => {
    expect(follow('SET_PARAMS', 'PREPARE', 'SET_PARAMS', 'PREPARE', 'START')).toBe('running');
    expect(follow('SET_PARAMS', 'PREPARE', 'START', 'STOP', 'START', 'STOP', 'RELEASE', 'PREPARE')).toBe(
      'prepared',
    );
  });

  it('says the state and the way out', () => {
    expect(() => nextState('the card', 3, 'running', 'SET_PARAMS')).toThrow(
      'the card: SET_PARAMS was asked for, but stream 3 is running; first STOP, then RELEASE',
    );
    expect(wayTo('initial', 'START')).toEqual(['SET_PARAMS', 'PREPARE']);
  });

  it('finds a way from every state to every command', () => {
    for (const state of [
      'initial',
      'set',
      'prepared',
      'running',
      'stopped',
      'released',
      'unknown',
    ] as const) {
      for (const command of COMMANDS) {
        let now: PcmState = state;
        for (const step of wayTo(state, command)) now = nextState('sound', 0, now, step);
        expect(isAllowed(now, command)).toBe(true);
      }
    }
  });
});
