import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { checksum, generateTables, HEADERS_FOLDER, headersIn } from '../scripts/generate-event-codes.ts';
import { Abs, eventCodeName, eventTypeName, EventType, Key, Led, Property, Rel } from './index.ts';

const FILE = fs.readFileSync(path.join(import.meta.dirname, 'event-codes.ts'), 'utf8');

/** A checksum that the head of the file names. */
const said = (of: string): string | undefined => new RegExp(`of the ${of}: +(\\w+)`).exec(FILE)?.[1];

const valuesOf = (tables: string): Map<string, number> =>
  new Map(
    [...tables.matchAll(/^ {2}(\w+): (0x\w+),$/gm)].map(([, name = '', value]) => [name, Number(value)]),
  );

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

  it('were not edited since they were generated', () => {
    expect(said('tables')).toBe(checksum(FILE));
  });

  // Needs the C headers of Linux (linux-libc-dev), which not every machine has.
  describe.skipIf(headersIn(HEADERS_FOLDER) === undefined)('beside the headers of this machine', () => {
    it('are what the script makes of them, or of others that number no code otherwise', () => {
      const tables = generateTables(HEADERS_FOLDER);
      if (said('headers') === headersIn(HEADERS_FOLDER)) {
        expect(FILE.endsWith(tables)).toBe(true);
        return;
      }
      const here = valuesOf(tables);
      const common = [...valuesOf(FILE)].filter(([name]) => here.has(name));
      expect(common.length).toBeGreaterThan(600);
      expect(common.filter(([name, value]) => here.get(name) !== value)).toEqual([]);
    });

    it('agree with the C compiler on each name', () => {
      const values = valuesOf(generateTables(HEADERS_FOLDER));
      const source = `#include <linux/input.h>\n${[...values.keys()].map((name) => `"${name}"=${name}`).join('\n')}\n`;
      const expanded = execFileSync('cpp', ['-P', '-'], { input: source, encoding: 'utf8' });
      const compiled = new Map(
        [...expanded.matchAll(/"(\w+)"=(\w+)/g)].map(([, name = '', value]) => [name, Number(value)]),
      );
      expect(compiled).toEqual(values);
    });
  });
});
