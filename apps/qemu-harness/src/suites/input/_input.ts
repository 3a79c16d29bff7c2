/** What the tests of input devices share: opening one, and events as QEMU takes them and as the guest gets them. */
import { Abs, EventType, type InputEvent, Key, Rel, Sync, VirtioInput } from '@virtio/input';
import type { LinuxHal, OpenDriver } from '@virtio/linux';
import { deepEqual } from 'node:assert/strict';
import { type DeviceSpec, type GuestContext, type HostEnv, type Properties } from '../../framework/define.ts';
import { openWith } from '../_open.ts';

/** An event in the form of QEMU's `input-send-event`. */
export type QemuEvent =
  | { type: 'key'; data: { down: boolean; key: { type: 'qcode'; data: string } } }
  | { type: 'btn'; data: { down: boolean; button: string } }
  | { type: 'rel' | 'abs'; data: { axis: 'x' | 'y'; value: number } }
  | {
      type: 'mtt';
      data: {
        type: 'begin' | 'update' | 'end' | 'data';
        slot: number;
        'tracking-id': number;
        axis: 'x' | 'y';
        value: number;
      };
    };

/** An update: what the host sends with one command, and what shall arrive. */
export interface Update {
  readonly sent: readonly QemuEvent[];
  /** Without the `SYN_REPORT` at its end. */
  readonly arrives: readonly InputEvent[];
}

export const SYN: InputEvent = { type: EventType.EV_SYN, code: Sync.SYN_REPORT, value: 0 };
export const DROPPED: InputEvent = { type: EventType.EV_SYN, code: Sync.SYN_DROPPED, value: 0 };

/** Opens the input device of the test. */
export function openInput(
  context: Pick<GuestContext, 'cell' | 'device'>,
  name = 'input',
): OpenDriver<VirtioInput, LinuxHal> {
  return openWith(context, name, VirtioInput);
}

export const device = (model: string, properties: Properties = {}): DeviceSpec => ({
  model: `virtio-${model}`,
  properties,
});

/** QEMU's names of keys, and Linux's. */
const KEYS: readonly (readonly [string, number])[] = [
  ...Array.from('abcdefghijklmnopqrstuvwxyz').map(
    (letter) => [letter, Key[`KEY_${letter.toUpperCase()}` as 'KEY_A']] as const,
  ),
  ...Array.from('1234567890').map((digit) => [digit, Key[`KEY_${digit}` as 'KEY_1']] as const),
  ['ret', Key.KEY_ENTER],
  ['spc', Key.KEY_SPACE],
  ['esc', Key.KEY_ESC],
  ['backspace', Key.KEY_BACKSPACE],
  ['shift', Key.KEY_LEFTSHIFT],
  ['ctrl_r', Key.KEY_RIGHTCTRL],
  ['up', Key.KEY_UP],
  ['pgdn', Key.KEY_PAGEDOWN],
  ['f12', Key.KEY_F12],
  ['kp_add', Key.KEY_KPPLUS],
];

/** A key goes down (even `n`) or up (odd `n`). */
export function keyUpdate(n: number): Update {
  const [name, code] = KEYS[(n >> 1) % KEYS.length] ?? ['a', Key.KEY_A];
  const down = n % 2 === 0;
  return {
    sent: [{ type: 'key', data: { down, key: { type: 'qcode', data: name } } }],
    arrives: [{ type: EventType.EV_KEY, code, value: down ? 1 : 0 }],
  };
}

const BUTTONS = [
  ['left', Key.BTN_LEFT],
  ['middle', Key.BTN_MIDDLE],
  ['right', Key.BTN_RIGHT],
  ['side', Key.BTN_SIDE],
] as const;

function button(n: number): { sent: QemuEvent; arrives: InputEvent } {
  const [name, code] = BUTTONS[(n >> 1) % BUTTONS.length] ?? BUTTONS[0];
  const down = n % 2 === 0;
  return {
    sent: { type: 'btn', data: { down, button: name } },
    arrives: { type: EventType.EV_KEY, code, value: down ? 1 : 0 },
  };
}

const merge = (parts: readonly { sent: QemuEvent; arrives: InputEvent }[]): Update => ({
  sent: parts.map(({ sent }) => sent),
  arrives: parts.map(({ arrives }) => arrives),
});

/** Movement, a button or the wheel. */
export function mouseUpdate(n: number): Update {
  const x = ((n * 7) % 201) - 100 || 1;
  const y = 100 - ((n * 13) % 201) || -1;
  const move = [
    {
      sent: { type: 'rel', data: { axis: 'x', value: x } },
      arrives: { type: EventType.EV_REL, code: Rel.REL_X, value: x },
    },
    {
      sent: { type: 'rel', data: { axis: 'y', value: y } },
      arrives: { type: EventType.EV_REL, code: Rel.REL_Y, value: y },
    },
  ] as const;
  switch (n % 4) {
    case 0:
      return merge([...move, button(n / 4)]);
    case 1:
      return merge([move[0]]);
    case 2: {
      const up = n % 8 === 2;
      return merge([
        {
          sent: { type: 'btn', data: { down: true, button: up ? 'wheel-up' : 'wheel-down' } },
          arrives: { type: EventType.EV_REL, code: Rel.REL_WHEEL, value: up ? 1 : -1 },
        },
      ]);
    }
    default:
      return merge(move);
  }
}

/** A place on the tablet, sometimes with a button. */
export function tabletUpdate(n: number): Update {
  const x = (n * 977) % 32768;
  const y = 32767 - ((n * 463) % 32768);
  const place = [
    {
      sent: { type: 'abs', data: { axis: 'x', value: x } },
      arrives: { type: EventType.EV_ABS, code: Abs.ABS_X, value: x },
    },
    {
      sent: { type: 'abs', data: { axis: 'y', value: y } },
      arrives: { type: EventType.EV_ABS, code: Abs.ABS_Y, value: y },
    },
  ] as const;
  return merge(n % 3 === 0 ? [...place, button(n / 3)] : place);
}

/** A finger in one of ten slots comes, moves and goes. */
export function touchUpdate(n: number): Update {
  const slot = (n >> 2) % 10;
  const id = 100 + (n >> 2);
  const x = (n * 311) % 32768;
  const y = (n * 173) % 32768;
  const contact = (type: 'begin' | 'update' | 'end', tracking: number): Update => ({
    sent: [{ type: 'mtt', data: { type, slot, 'tracking-id': tracking, axis: 'x', value: 0 } }],
    arrives: [
      { type: EventType.EV_ABS, code: Abs.ABS_MT_SLOT, value: slot },
      { type: EventType.EV_ABS, code: Abs.ABS_MT_TRACKING_ID, value: tracking },
    ],
  });
  const axis = (name: 'x' | 'y', value: number): { sent: QemuEvent; arrives: InputEvent } => ({
    sent: { type: 'mtt', data: { type: 'data', slot, 'tracking-id': id, axis: name, value } },
    arrives: {
      type: EventType.EV_ABS,
      code: name === 'x' ? Abs.ABS_MT_POSITION_X : Abs.ABS_MT_POSITION_Y,
      value,
    },
  });
  if (n % 4 === 3) return contact('end', -1);
  const place = merge([axis('x', x), axis('y', y)]);
  if (n % 4 !== 0) return place;
  const begin = contact('begin', id);
  return { sent: [...begin.sent, ...place.sent], arrives: [...begin.arrives, ...place.arrives] };
}

/** A place on the tablet that is the number of the update. */
export function countUpdate(n: number): Update {
  return {
    sent: [{ type: 'abs', data: { axis: 'x', value: n } }],
    arrives: [{ type: EventType.EV_ABS, code: Abs.ABS_X, value: n }],
  };
}

export const UPDATES = {
  keyboard: keyUpdate,
  mouse: mouseUpdate,
  tablet: tabletUpdate,
  multitouch: touchUpdate,
  count: countUpdate,
} as const;

export type Kind = keyof typeof UPDATES;

/** The host's half: sends updates, a command each. */
export const host = {
  send: async ({ kind, from, to }: { kind: Kind; from: number; to: number }, env: HostEnv): Promise<void> => {
    for (let n = from; n < to; n++) await env.qmp('input-send-event', { events: UPDATES[kind](n).sent });
  },
};

/** Waits for an update and fails unless it is the right one. */
export async function expectUpdate(input: VirtioInput, kind: Kind, n: number): Promise<void> {
  const expected = [...UPDATES[kind](n).arrives, SYN];
  const got: InputEvent[] = [];
  while (got.length < expected.length) got.push(await input.nextEvent());
  deepEqual(got, expected, `update ${n}`);
}
