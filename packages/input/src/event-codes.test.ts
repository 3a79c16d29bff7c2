import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { Abs, eventCodeName, eventTypeName, EventType, Key, Led, Property, Rel } from './index.ts';

const HEADER = '/usr/include/linux/input-event-codes.h';

describe('event codes', () => {
  it("have Linux's numbers", () => {
    expect(EventType).toMatchObject({ EV_SYN: 0, EV_KEY: 1, EV_REL: 2, EV_ABS: 3, EV_LED: 0x11 });
    expect(Key).toMatchObject({ KEY_ESC: 1, KEY_A: 30, KEY_ENTER: 28, BTN_LEFT: 0x110, BTN_TOUCH: 0x14a });
    expect(Rel).toMatchObject({ REL_X: 0, REL_Y: 1, REL_WHEEL: 8 });
    expect(Abs).toMatchObject({ ABS_X: 0, ABS_Y: 1, ABS_MT_SLOT: 0x2f, ABS_MT_TRACKING_ID: 0x39 });
    expect(Led).toMatchObject({ LED_NUML: 0, LED_CAPSL: 1, LED_SCROLLL: 2 });
    expect(Property).toMatchObject({ INPUT_PROP_POINTER: 0, INPUT_PROP_DIRECT: 1 });
  });

  it('have names, the particular one of several', () => {
    expect(eventTypeName(EventType.EV_KEY)).toBe('EV_KEY');
    expect(eventTypeName(0x1234)).toBe('0x1234');
    expect(eventCodeName(EventType.EV_KEY, 0x110)).toBe('BTN_LEFT');
    expect(eventCodeName(EventType.EV_KEY, 0x130)).toBe('BTN_SOUTH');
    expect(eventCodeName(EventType.EV_KEY, 122)).toBe('KEY_HANGEUL');
    expect(eventCodeName(EventType.EV_REL, 8)).toBe('REL_WHEEL');
    expect(eventCodeName(EventType.EV_SYN, 3)).toBe('SYN_DROPPED');
    expect(eventCodeName(EventType.EV_KEY, 0x2ff)).toBe('0x2ff');
    expect(eventCodeName(EventType.EV_FF, 1)).toBe('0x1');
  });

  // Needs the C headers of Linux, which not every machine has.
  it.skipIf(!fs.existsSync(HEADER))('agree with the C compiler on each name', () => {
    const tables = { ...EventType, ...Key, ...Rel, ...Abs, ...Led, ...Property };
    const defined = fs.readFileSync(HEADER, 'utf8');
    const known = Object.entries(tables).filter(([name]) => new RegExp(`\\b${name}\\b`).test(defined));
    expect(known.length).toBeGreaterThan(600);
    const source = `#include <linux/input-event-codes.h>\n${known.map(([name]) => `"${name}"=${name}`).join('\n')}\n`;
    const expanded = execFileSync('cpp', ['-P', '-'], { input: source, encoding: 'utf8' });
    const values = new Map(
      [...expanded.matchAll(/"(\w+)"=([0-9a-fx]+)/g)].map(([, name, value]) => [name, Number(value)]),
    );
    expect(Object.fromEntries(known)).toEqual(Object.fromEntries(values));
  });

  it.skipIf(!fs.existsSync(HEADER))('are generated: none was added by hand', () => {
    const file = path.join(import.meta.dirname, 'event-codes.ts');
    const names = [...fs.readFileSync(file, 'utf8').matchAll(/^ {2}(\w+): 0x/gm)].map(
      ([, name]) => name ?? '',
    );
    const headers = [HEADER, '/usr/include/linux/input.h']
      .map((header) => fs.readFileSync(header, 'utf8'))
      .join('\n');
    expect(names.filter((name) => !new RegExp(`#define\\s+${name}\\s`).test(headers))).toEqual([]);
  });
});
