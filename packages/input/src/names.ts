/** Linux's names of event types and codes, for display. */
import { Abs, EventType, Key, Led, Misc, Rel, Repeat, Sound, Switch, Sync } from './event-codes.ts';

type Names = ReadonlyMap<number, string>;

/** The last of several names for a code wins: the tables are in that order. */
const invert = (table: Readonly<Record<string, number>>): Names =>
  new Map(Object.entries(table).map(([name, code]) => [code, name]));

const hex = (value: number): string => `0x${value.toString(16)}`;

let cache: { readonly types: Names; readonly codes: ReadonlyMap<number, Names> } | undefined;

/** Made when first asked for: a program that prints no names needs none of this. */
function names(): NonNullable<typeof cache> {
  return (cache ??= {
    types: invert(EventType),
    codes: new Map([
      [EventType.EV_SYN, invert(Sync)],
      [EventType.EV_KEY, invert(Key)],
      [EventType.EV_REL, invert(Rel)],
      [EventType.EV_ABS, invert(Abs)],
      [EventType.EV_MSC, invert(Misc)],
      [EventType.EV_SW, invert(Switch)],
      [EventType.EV_LED, invert(Led)],
      [EventType.EV_SND, invert(Sound)],
      [EventType.EV_REP, invert(Repeat)],
    ]),
  });
}

/** Linux's name of an event type: `EV_KEY`; in hexadecimal if it has none. */
export function eventTypeName(type: number): string {
  return names().types.get(type) ?? hex(type);
}

/**
 * Linux's name of an event code: `KEY_A`, `REL_X`, `BTN_LEFT`; in hexadecimal if it has none.
 *
 * @example
 * ```ts
 * import { eventCodeName, EventType } from '@virtio/input';
 *
 * eventCodeName(EventType.EV_KEY, 30); // 'KEY_A'
 * ```
 */
export function eventCodeName(type: number, code: number): string {
  return names().codes.get(type)?.get(code) ?? hex(code);
}
