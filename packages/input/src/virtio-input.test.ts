import { CommonFeatures, DeviceType, VirtioError } from '@virtio/core';
import { FakeDevice, FakeInterrupts, FakeTransport, ringVariants } from '@virtio/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  Abs,
  Bitmap,
  Bus,
  EventType,
  InputConfigSelect,
  type InputEvent,
  type InputOptions,
  Key,
  Property,
  Rel,
  Sync,
  VirtioInput,
} from './index.ts';

const EVENTS = 0;
const STATUS = 1;
const SPLIT = CommonFeatures.set('EVENT_IDX', 'INDIRECT_DESC').bits;
const QUEUE_SIZE = 16;

type Bytes = readonly number[];

const text = (string: string): Bytes => [...new TextEncoder().encode(string)];
const le16 = (value: number): Bytes => [value & 0xff, (value >> 8) & 0xff];
const le32 = (value: number): Bytes => [...le16(value), ...le16(value >> 16)];
const eventBytes = ([type, code, value]: readonly [number, number, number]): Bytes => [
  ...le16(type),
  ...le16(code),
  ...le32(value),
];

const { ID_NAME, ID_SERIAL, ID_DEVIDS, PROP_BITS, EV_BITS, ABS_INFO } = InputConfigSelect;

/** A device with the configuration of a small tablet: what it has by `select` and `subsel`. */
const TABLET: Readonly<Record<string, Bytes>> = {
  [`${ID_NAME}/0`]: text('Tablet für Tests'),
  [`${ID_SERIAL}/0`]: [...text('S-1'), 0],
  [`${ID_DEVIDS}/0`]: [Bus.BUS_VIRTUAL, 0x1234, 0x0067, 0x0002].flatMap(le16),
  [`${PROP_BITS}/0`]: [1 << Property.INPUT_PROP_DIRECT],
  [`${EV_BITS}/${EventType.EV_KEY}`]: [...new Array<number>(34).fill(0), 0b11],
  [`${EV_BITS}/${EventType.EV_ABS}`]: [0b11],
  [`${ABS_INFO}/${Abs.ABS_X}`]: [-100, 32767, 4, 2, 40].flatMap(le32),
};

interface SetUp {
  readonly device: FakeDevice;
  readonly transport: FakeTransport;
  readonly input: VirtioInput;
  /** The device sends events; returns how many it had buffers for. */
  send(...events: (readonly [number, number, number])[]): number;
}

function configure(device: FakeDevice, table: Readonly<Record<string, Bytes>>): void {
  device.onConfigWrite = (offset) => {
    if (offset > 1) return;
    const [select = 0, subsel = 0] = device.config;
    const data = table[`${select}/${subsel}`] ?? [];
    device.config.fill(0, 2);
    device.config[2] = data.length;
    device.config.set(data.slice(0, device.config.length - 8), 8);
    device.generation += 1;
  };
}

function setUp({
  features = SPLIT,
  options = {},
  table = TABLET,
  interrupts = new FakeInterrupts(),
}: {
  features?: bigint;
  options?: InputOptions;
  table?: Readonly<Record<string, Bytes>>;
  interrupts?: FakeInterrupts | false;
} = {}): SetUp {
  const device = new FakeDevice({
    type: DeviceType.Input,
    features,
    config: 136,
    queues: [QUEUE_SIZE, QUEUE_SIZE],
  });
  configure(device, table);
  device.handle(STATUS, () => undefined);
  const transport = new FakeTransport(device, { interrupts });
  const input = new VirtioInput(transport, device.hal, options);
  const send = (...events: (readonly [number, number, number])[]): number =>
    events.filter((event) => device.send(EVENTS, eventBytes(event))).length;
  return { device, transport, input, send };
}

const SYN: readonly [number, number, number] = [EventType.EV_SYN, Sync.SYN_REPORT, 0];
const press = (code: number): readonly [number, number, number] => [EventType.EV_KEY, code, 1];
const event = ([type, code, value]: readonly [number, number, number]): InputEvent => ({ type, code, value });
const DROPPED = event([EventType.EV_SYN, Sync.SYN_DROPPED, 0]);

function popAll(input: VirtioInput): InputEvent[] {
  const events: InputEvent[] = [];
  for (let next = input.popEvent(); next !== undefined; next = input.popEvent()) events.push(next);
  return events;
}

const failsWith = (code: string): Error => expect.objectContaining({ code }) as Error;
const turns = async (count = 20): Promise<void> => {
  for (let i = 0; i < count; i += 1) await Promise.resolve();
};

describe('configuration', () => {
  it('reads name, serial number, identifiers, properties, codes and axes [5.8.4]', () => {
    const { device, input } = setUp();
    expect(input.name()).toBe('Tablet für Tests');
    expect(input.serial()).toBe('S-1');
    expect(input.ids()).toEqual({ bustype: Bus.BUS_VIRTUAL, vendor: 0x1234, product: 0x67, version: 2 });
    expect([...input.properties()]).toEqual([Property.INPUT_PROP_DIRECT]);
    expect(input.eventTypes()).toEqual([EventType.EV_KEY, EventType.EV_ABS]);
    expect([...input.eventCodes(EventType.EV_KEY)]).toEqual([Key.BTN_LEFT, Key.BTN_RIGHT]);
    expect(input.eventCodes(EventType.EV_ABS).has(Abs.ABS_Y)).toBe(true);
    expect(input.eventCodes(EventType.EV_ABS).has(Abs.ABS_Z)).toBe(false);
    expect(input.absInfo(Abs.ABS_X)).toEqual({ min: -100, max: 32767, fuzz: 4, flat: 2, res: 40 });
    input[Symbol.dispose]();
    device.assertClean();
  });

  it('has nothing to say where the device reports a size of zero [5.8.5.1]', () => {
    const { input } = setUp({ table: {} });
    expect(input.name()).toBe('');
    expect(input.serial()).toBe('');
    expect(input.ids()).toBeUndefined();
    expect([...input.properties()]).toEqual([]);
    expect(input.eventTypes()).toEqual([]);
    expect(input.absInfo(Abs.ABS_X)).toBeUndefined();
    expect(input.query(0x77, 3)).toHaveLength(0);
  });

  it('is not asked for what does not fit its registers', () => {
    const { device, input } = setUp();
    const writes: number[] = [];
    device.onConfigWrite = (offset) => writes.push(offset);
    expect(() => input.query(0x101)).toThrow(failsWith('INVALID_PARAM'));
    expect(() => input.query(EV_BITS, -1)).toThrow(failsWith('INVALID_PARAM'));
    expect(() => input.absInfo(0x100)).toThrow(failsWith('INVALID_PARAM'));
    expect(() => input.eventCodes(0.5)).toThrow(failsWith('INVALID_PARAM'));
    expect(writes).toEqual([]);
  });

  it('writes both select and subsel before each query, and no other field [5.8.5.1]', () => {
    const { device, input } = setUp();
    const answer = device.onConfigWrite;
    const writes: (readonly [number, number, number])[] = [];
    device.onConfigWrite = (offset, width, value) => {
      writes.push([offset, width, value]);
      answer?.(offset, width, value);
    };
    input.name();
    input.eventCodes(EventType.EV_KEY);
    expect(writes).toEqual([
      [0, 1, ID_NAME],
      [1, 1, 0],
      [0, 1, EV_BITS],
      [1, 1, EventType.EV_KEY],
    ]);
  });

  it('reads the size first, and no more bytes than it says [5.8.5.1]', () => {
    const { device, input } = setUp();
    const reads: number[] = [];
    device.onConfigRead = (offset) => reads.push(offset);
    input.properties();
    expect(reads).toEqual([2, 8]);
  });

  it('reads again when the configuration changes under it [2.5.1]', () => {
    const { device, input } = setUp();
    let changes = 2;
    device.onConfigRead = (offset) => {
      if (offset !== 2 || changes === 0) return;
      changes -= 1;
      device.generation += 1;
      device.config.set(text('Tablet FOR Tests!!'.slice(0, 16)), 8);
      device.config[2] = 16;
    };
    expect(input.name()).toBe('Tablet FOR Tests');
    expect(changes).toBe(0);
  });

  it('works with a configuration space that ends behind the longest answer, as that of QEMU does', () => {
    const device = new FakeDevice({
      type: DeviceType.Input,
      features: SPLIT,
      config: 8 + 20,
      queues: [8, 8],
    });
    configure(device, TABLET);
    const input = new VirtioInput(new FakeTransport(device), device.hal);
    expect(input.absInfo(Abs.ABS_X)?.max).toBe(32767);
    expect(() => input.query(EV_BITS, EventType.EV_KEY)).toThrow(failsWith('INVALID_DEVICE'));
    device.assertObeyed();
  });

  it.each([
    [
      'a size beyond the space',
      { [`${ID_NAME}/0`]: new Array<number>(129).fill(65) },
      (i: VirtioInput) => i.name(),
    ],
    ['short identifiers', { [`${ID_DEVIDS}/0`]: [1, 2, 3] }, (i: VirtioInput) => i.ids()],
    [
      'short axis information',
      { [`${ABS_INFO}/0`]: new Array<number>(19).fill(0) },
      (i: VirtioInput) => i.absInfo(0),
    ],
  ])('refuses %s of a lying device', (_what, table, ask) => {
    const { device, input } = setUp({ table });
    expect(() => ask(input)).toThrow(failsWith('INVALID_DEVICE'));
    device.assertObeyed();
  });

  it('reads structures that are longer than it knows, as Linux does', () => {
    const { input } = setUp({
      table: {
        [`${ID_DEVIDS}/0`]: [...[1, 2, 3, 4].flatMap(le16), 9],
        [`${ABS_INFO}/0`]: [...[1, 2, 3, 4, 5].flatMap(le32), 9, 9],
      },
    });
    expect(input.ids()).toEqual({ bustype: 1, vendor: 2, product: 3, version: 4 });
    expect(input.absInfo(0)).toEqual({ min: 1, max: 2, fuzz: 3, flat: 4, res: 5 });
  });

  it('keeps its codes, whatever becomes of the bytes that it was made of', () => {
    const bytes = Buffer.from([1]);
    const codes = new Bitmap(bytes);
    bytes[0] = 0;
    expect(codes.has(0)).toBe(true);
  });

  it('has no codes but integers', () => {
    const { input } = setUp({ table: { [`${EV_BITS}/1`]: [0xff] } });
    const codes = input.eventCodes(1);
    expect([0, 7, 8, -1, 0.5, NaN].map((code) => codes.has(code))).toEqual([
      true,
      true,
      false,
      false,
      false,
      false,
    ]);
  });

  it('survives any bytes as a name', () => {
    const table: Record<string, Bytes> = {};
    const { input } = setUp({ table });
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 128 }), (bytes) => {
        table[`${ID_NAME}/0`] = [...bytes];
        const end = bytes.indexOf(0);
        const expected = new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
        // How many replacement characters stand for a broken sequence is not laid down; without them all must be equal.
        const plain = (string: string): string => string.replaceAll('\ufffd', '').replaceAll('\ufeff', '');
        expect(plain(input.name())).toBe(plain(expected));
      }),
    );
  });
});

describe.each(ringVariants)('events: $name', ({ features }) => {
  it('come in order and complete over many laps, in each of the three forms', async () => {
    const { device, input, send } = setUp({ features });
    const sent: InputEvent[] = [];
    const got: InputEvent[] = [];
    for (let n = 0; n < 90; n += 1) {
      const update = [
        [EventType.EV_REL, Rel.REL_X, n - 45],
        [EventType.EV_REL, Rel.REL_Y, 45 - n],
        SYN,
      ] as const;
      expect(send(...update)).toBe(3);
      sent.push(...update.map(event));
      if (n % 3 === 0) got.push(...popAll(input));
      else if (n % 3 === 1) for (let i = 0; i < 3; i += 1) got.push(input.nextEventSync());
      else for (let i = 0; i < 3; i += 1) got.push(await input.nextEvent());
    }
    expect(got).toEqual(sent);
    expect(input.lost).toBe(0);
    input[Symbol.dispose]();
    device.assertClean();
  });

  it('of status reach the device in each of the three forms', async () => {
    const { device, input } = setUp({ features });
    const seen: number[][] = [];
    device.handle(STATUS, (chain) => void seen.push([...chain.bytes()]));
    const token = input.submitSendStatus(EventType.EV_LED, 0, 1);
    expect(input.poll()).toBe(token);
    input.complete(token);
    input.setLedSync('LED_CAPSL', true);
    await input.setLed('LED_SCROLLL', false);
    await Promise.all(Array.from({ length: 40 }, (_, n) => input.sendStatus(EventType.EV_SND, 1, -n)));
    expect(seen.slice(0, 3)).toEqual([
      [0x11, 0, 0, 0, 1, 0, 0, 0],
      [0x11, 0, 1, 0, 1, 0, 0, 0],
      [0x11, 0, 2, 0, 0, 0, 0, 0],
    ]);
    expect(seen.slice(3)).toEqual(Array.from({ length: 40 }, (_, n) => [0x12, 0, 1, 0, ...le32(-n)]));
    input[Symbol.dispose]();
    device.assertClean();
  });
});

describe('events', () => {
  it('are received into buffers that the device may only write, of the size of an event [5.8.6.1]', () => {
    const { device, input } = setUp();
    const chains = Array.from({ length: QUEUE_SIZE }, () => device.queue(EVENTS).pop());
    expect(chains.map((chain) => [chain?.readable, chain?.writable])).toEqual(
      new Array(QUEUE_SIZE).fill([0, 8]),
    );
    expect(input.popEvent()).toBeUndefined();
  });

  it('are received again after the buffers were used: the queue stays populated [5.8.6.1]', () => {
    const { device, input, send } = setUp();
    send(press(Key.KEY_A), SYN);
    popAll(input);
    let available = 0;
    while (device.queue(EVENTS).pop()) available += 1;
    expect(available).toBe(QUEUE_SIZE);
  });

  it('of types and codes that nobody knows are passed on unchanged for the caller to ignore [5.8.6.1]', () => {
    const { input, send } = setUp();
    send([0x7abc, 0xffff, -2147483648], SYN);
    expect(popAll(input)).toEqual([event([0x7abc, 0xffff, -2147483648]), event(SYN)]);
  });

  it('go to a handler without objects, those that come meanwhile in the next round', () => {
    const { input, send } = setUp();
    send(press(Key.KEY_A), SYN);
    const seen: number[] = [];
    const handler = (_type: number, code: number): void => {
      seen.push(code);
      send(press(Key.KEY_B));
    };
    expect(input.takeEvents(handler)).toBe(2);
    expect(seen).toEqual([Key.KEY_A, 0]);
    expect(input.takeEvents(() => undefined)).toBe(2);
    expect(input.takeEvents(() => undefined)).toBe(0);
  });

  it('can be taken inside a handler', () => {
    const { input, send } = setUp();
    send(press(Key.KEY_A), press(Key.KEY_B), SYN);
    const seen: (number | undefined)[] = [];
    expect(input.takeEvents((_type, code) => seen.push(code, input.popEvent()?.code))).toBe(3);
    expect(seen).toEqual([Key.KEY_A, Key.KEY_B, 0, undefined]);
  });

  it('wake an async iteration, which ends when the loop is left', async () => {
    const { device, transport, input, send } = setUp();
    const seen: number[] = [];
    const loop = (async () => {
      for await (const { type, code } of input) {
        if (type === EventType.EV_KEY) seen.push(code);
        if (code === Key.KEY_Q) break;
      }
    })();
    await turns();
    expect(transport.interrupts?.holds).toBe(1);
    send(press(Key.KEY_A), SYN);
    await turns();
    send(press(Key.KEY_Q), SYN);
    await loop;
    expect(seen).toEqual([Key.KEY_A, Key.KEY_Q]);
    expect(transport.interrupts?.holds).toBe(0);
    expect(popAll(input)).toEqual([event(SYN)]);
    input[Symbol.dispose]();
    device.assertClean();
  });

  it('are not interrupted for while nobody waits', async () => {
    const { device, transport, send } = setUp();
    send(press(Key.KEY_A), SYN);
    await turns();
    expect(transport.interrupts?.delivered).toBe(0);
    expect(device.queue(EVENTS).interrupts).toBe(0);
  });

  it('can be waited for by several, each of whom gets another one', async () => {
    const { input, send } = setUp();
    const waiting = [input.nextEvent(), input.nextEvent(), input.nextEvent()];
    await turns();
    send(press(Key.KEY_A), press(Key.KEY_B), SYN);
    expect((await Promise.all(waiting)).map(({ code }) => code)).toEqual([Key.KEY_A, Key.KEY_B, 0]);
  });

  it('stay when a wait for them is cancelled', async () => {
    const { transport, input, send } = setUp();
    const controller = new AbortController();
    const waiting = input.nextEvent({ signal: controller.signal });
    const other = input.nextEvent();
    await turns();
    controller.abort(new Error('enough'));
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED', cause: { message: 'enough' } });
    expect(transport.interrupts?.holds).toBe(1);
    send(press(Key.KEY_A));
    expect((await other).code).toBe(Key.KEY_A);
    await expect(input.nextEvent({ signal: controller.signal })).rejects.toThrow(failsWith('ABORTED'));
    expect(transport.interrupts?.holds).toBe(0);
  });

  it('are not taken by a wait that is cancelled, though they came before or in the same turn', async () => {
    const { input, send } = setUp({ interrupts: new FakeInterrupts({ synchronous: true }) });
    const controller = new AbortController();
    const waiting = input.nextEvent({ signal: controller.signal });
    await turns();
    // The interrupt ends the wait; the caller learns of it after this turn.
    send(press(Key.KEY_B));
    controller.abort();
    await expect(waiting).rejects.toThrow(failsWith('ABORTED'));
    await expect(input.nextEvent({ signal: controller.signal })).rejects.toThrow(failsWith('ABORTED'));
    await expect(input.nextEvent({ signal: 5 as unknown as AbortSignal })).rejects.toThrow(
      failsWith('INVALID_PARAM'),
    );
    expect((await input.nextEvent()).code).toBe(Key.KEY_B);
  });

  it('are looked for once more after interrupts were asked for, as some may have come in between [2.7.14]', async () => {
    const { transport, input, send } = setUp();
    const interrupts = transport.interrupts as FakeInterrupts;
    interrupts.masked = true;
    const hold = interrupts.hold.bind(interrupts);
    interrupts.hold = () => {
      hold();
      // The driver has looked at the queue and asks for interrupts next: nobody announces this.
      send(press(Key.KEY_A));
    };
    expect((await input.nextEvent()).code).toBe(Key.KEY_A);
  });

  it('cannot be promised without interrupts, but polled', async () => {
    const { input, send } = setUp({ interrupts: false });
    await expect(input.nextEvent()).rejects.toThrow(failsWith('UNSUPPORTED'));
    send(press(Key.KEY_A));
    expect((await input.nextEvent()).code).toBe(Key.KEY_A);
    expect(() => input.nextEventSync({ timeoutMs: 1 })).toThrow(failsWith('NOT_READY'));
    expect(() => input.nextEventSync({ timeoutMs: 1 })).toThrow(/an event did not come within 1 ms/);
  });
});

describe('lost events', () => {
  it('show as SYN_DROPPED behind the last update when the device ran out of buffers [5.8.6.2]', () => {
    const { device, input, send } = setUp();
    const updates = Array.from({ length: 20 }, (_, n) => [press(100 + n), SYN] as const);
    const accepted = updates.filter((update) => {
      // A device drops whole updates: it sends one only if it has a buffer for each event.
      return device.queue(EVENTS).available() && send(...update) === 2;
    });
    expect(accepted).toHaveLength(QUEUE_SIZE / 2);
    expect(popAll(input)).toEqual([...accepted.flat().map(event), DROPPED, event(SYN)]);
    expect(input.lost).toBe(1);
    send(press(Key.KEY_A), SYN);
    expect(popAll(input)).toEqual([event(press(Key.KEY_A)), event(SYN)]);
    expect(input.lost).toBe(1);
  });

  it('are suspected when the device had fewer buffers left than the longest update so far took', () => {
    const { input, send } = setUp();
    const long = Array.from({ length: 6 }, (_, n) => press(n + 1));
    send(...long, SYN);
    expect(popAll(input)).toHaveLength(7);
    for (let n = 0; n < 5; n += 1) send(press(Key.KEY_A), SYN);
    expect(popAll(input).at(-1)).not.toEqual(DROPPED);
    expect(input.lost).toBe(1);
  });

  it('are not suspected in quiet times, and an endless update does not make them so', () => {
    const { input, send } = setUp();
    for (let n = 0; n < 500; n += 1) {
      send(press(n));
      expect(popAll(input)).toHaveLength(1);
    }
    expect(input.lost).toBe(0);
  });

  it('are kept from happening by a ring of the driver that holds more than the device can', async () => {
    const { input, send } = setUp();
    const first = input.nextEvent();
    for (let n = 0; n < 200; n += 1) {
      expect(send(press(n), SYN)).toBe(2);
      // Interrupts move events to the ring only while somebody waits; polling does so in any case.
      input.pollEvents();
      await turns(2);
    }
    expect((await first).code).toBe(0);
    expect(popAll(input)).toHaveLength(399);
    expect(input.lost).toBe(0);
  });

  it('happen at the device when nobody takes them, never beyond what was bargained for', () => {
    const { input, send } = setUp({ options: { bufferedEvents: 16 } });
    let accepted = 0;
    for (let n = 0; n < 100; n += 1) {
      accepted += send(press(n));
      input.pollEvents();
    }
    expect(accepted).toBeLessThanOrEqual(16 + QUEUE_SIZE);
    const events = popAll(input);
    expect(events.filter(({ type }) => type === EventType.EV_KEY)).toHaveLength(accepted);
    expect(events.map(({ code }) => code).filter((code) => code === Sync.SYN_DROPPED)).not.toHaveLength(0);
    expect(input.lost).toBeGreaterThan(0);
    expect(send(press(1))).toBe(1);
    expect(popAll(input)).toHaveLength(1);
  });

  it('never go unmarked, whatever the device sends and whenever the driver looks', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 8 }), fc.nat(3)), { maxLength: 80 }),
        fc.integer({ min: 16, max: 40 }),
        (steps, bufferedEvents) => {
          const { device, input, send } = setUp({ options: { bufferedEvents } });
          let number = 0;
          let marksNeeded = 0;
          const take = (count: number): void => {
            for (let i = 0; i < count; i += 1) {
              const next = input.popEvent();
              if (next === undefined) return;
              if (next.type === EventType.EV_KEY) order.push(next.code);
            }
          };
          const order: number[] = [];
          for (const [length, looks] of steps) {
            // What QEMU does: the whole update, or nothing of it.
            const chains = Array.from({ length }, () => device.queue(EVENTS).pop()).filter(
              (chain) => !!chain,
            );
            if (chains.length === length) {
              for (const chain of chains) {
                const last = chain === chains.at(-1);
                chain.write(eventBytes(last ? SYN : press(number++))).complete();
              }
            } else {
              // A mark that comes from now on tells of it.
              marksNeeded = input.lost + 1;
              // The fake has no way to put a chain back: the events are sent one by one as if they had been a shorter update.
              for (const chain of chains) {
                chain.write(eventBytes(chain === chains.at(-1) ? SYN : press(number++))).complete();
              }
            }
            take(looks * 8);
          }
          take(Infinity);
          expect(order).toEqual(Array.from({ length: number }, (_, n) => n));
          expect(input.lost).toBeGreaterThanOrEqual(marksNeeded);
          expect(send(press(1))).toBe(1);
          device.assertObeyed();
        },
      ),
    );
  });
});

describe('status', () => {
  it('goes in buffers that the device may only read, of the size of an event [5.8.6.1]', () => {
    const { device, input } = setUp();
    device.automatic = false;
    input.submitSendStatus(EventType.EV_LED, 0, 1);
    const chain = device.queue(STATUS).pop();
    expect([chain?.readable, chain?.writable]).toEqual([8, 0]);
  });

  it('is taken as sent from a device that reports the bytes it read, as QEMU does', () => {
    const { device, input } = setUp();
    device.handle(STATUS, (chain) => void chain.complete(8));
    input.setLedSync('LED_NUML', true);
    expect(input.failure).toBeUndefined();
    expect(input.quirks).toBe(1);
  });

  it('refuses what does not fit its fields, a full queue and a wrong token', async () => {
    const { device, input } = setUp();
    device.automatic = false;
    expect(() => input.submitSendStatus(0x10000, 0, 0)).toThrow(failsWith('INVALID_PARAM'));
    expect(() => input.submitSendStatus(1, -1, 0)).toThrow(failsWith('INVALID_PARAM'));
    expect(() => input.submitSendStatus(1, 1, 2 ** 32)).toThrow(failsWith('INVALID_PARAM'));
    expect(() => input.submitSendStatus(1, 1, 0.5)).toThrow(failsWith('INVALID_PARAM'));
    const wrong = 'LED_NOPE' as 'LED_NUML';
    expect(() => input.setLedSync(wrong, true)).toThrow(/no LED LED_NOPE; the names are LED_NUML, /);
    await expect(input.setLed(wrong, true)).rejects.toThrow(failsWith('INVALID_PARAM'));
    const tokens = Array.from({ length: QUEUE_SIZE }, () => input.submitSendStatus(1, 1, 0xffffffff));
    expect(() => input.submitSendStatus(1, 1, 0)).toThrow(failsWith('QUEUE_FULL'));
    expect(input.poll()).toBe(-1);
    expect(() => input.complete(tokens[0] ?? -1)).toThrow(failsWith('NOT_READY'));
    device.run(STATUS);
    for (const token of tokens) input.complete(token);
    expect(() => input.complete(tokens[0] ?? -1)).toThrow(failsWith('WRONG_TOKEN'));
  });

  it('can be told to wait no longer, for the device or for room, and loses no slot', async () => {
    const { device, input, transport } = setUp();
    device.automatic = false;
    const controller = new AbortController();
    const { signal } = controller;
    const cancelled = Array.from({ length: QUEUE_SIZE + 3 }, () =>
      input.setLed('LED_NUML', true, { signal }),
    );
    const ends = Promise.all(cancelled.map((one) => expect(one).rejects.toThrow(failsWith('ABORTED'))));
    const patient = input.sendStatus(EventType.EV_LED, 1, 1);
    await turns();
    controller.abort();
    await ends;
    await expect(input.sendStatus(1, 1, 1, { signal })).rejects.toThrow(failsWith('ABORTED'));
    const seen: number[] = [];
    device.handle(STATUS, (chain) => {
      seen.push(chain.bytes()[2] as number);
    });
    device.automatic = true;
    device.run(STATUS);
    await patient;
    // What waited for room was not sent.
    expect(seen).toEqual([...new Array<number>(QUEUE_SIZE).fill(0), 1]);
    await Promise.all(Array.from({ length: 3 * QUEUE_SIZE }, () => input.setLed('LED_CAPSL', true)));
    expect(transport.interrupts?.holds).toBe(0);
    input[Symbol.dispose]();
    device.assertClean();
  });

  it('rejects when the device goes away, and tells the poller', async () => {
    const { device, input } = setUp();
    device.automatic = false;
    const token = input.submitSendStatus(EventType.EV_LED, 0, 1);
    const waiting = input.setLed('LED_NUML', true);
    waiting.catch(() => undefined);
    await turns();
    device.remove();
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_REMOVED'));
    expect(() => input.poll()).toThrow(failsWith('DEVICE_REMOVED'));
    expect(() => input.complete(token)).toThrow(failsWith('DEVICE_REMOVED'));
  });

  it.each([true, false])(
    'is asked for nothing once it went away; interrupts tell of that: %j',
    async (told) => {
      const { device, input } = setUp(told ? {} : { interrupts: false });
      device.remove();
      await turns();
      expect(input.failure?.code).toBe(told ? 'DEVICE_REMOVED' : undefined);
      for (const ask of [
        () => input.name(),
        () => input.ids(),
        () => input.eventTypes(),
        () => input.absInfo(Abs.ABS_X),
      ]) {
        expect(ask).toThrow(failsWith('DEVICE_REMOVED'));
      }
    },
  );
});

describe('a device that lies or fails', () => {
  it.each([0, 4, 7])('is not trusted after an event of %i bytes', async (length) => {
    const { device, input, send } = setUp();
    send(press(Key.KEY_A));
    popAll(input);
    const waiting = input.nextEvent();
    waiting.catch(() => undefined);
    await turns();
    device.queue(EVENTS).pop()?.complete(length);
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_MISBEHAVED'));
    expect(() => input.popEvent()).toThrow(failsWith('DEVICE_MISBEHAVED'));
    expect(String(device.status)).toContain('FAILED');
    input[Symbol.dispose]();
    device.hal.assertClean();
  });

  it('is not trusted after it used a chain that does not exist', async () => {
    const { device, input } = setUp();
    const waiting = input.nextEvent();
    waiting.catch(() => undefined);
    await turns();
    device.queue(EVENTS).pop();
    device.queue(EVENTS).forceUsed(77, 8);
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_MISBEHAVED'));
    expect(input.failure?.code).toBe('DEVICE_MISBEHAVED');
    expect(() => input.submitSendStatus(1, 1, 1)).toThrow(failsWith('DEVICE_MISBEHAVED'));
    input.reset();
    expect(popAll(input)).toEqual([DROPPED, event(SYN)]);
    input[Symbol.dispose]();
    device.hal.assertClean();
  });

  it('reports its need of a reset, and works after one', async () => {
    const { device, input, send } = setUp();
    const waiting = input.nextEvent();
    waiting.catch(() => undefined);
    await turns();
    device.needsReset();
    await expect(waiting).rejects.toThrow(failsWith('DEVICE_NEEDS_RESET'));
    input.reset();
    send(press(Key.KEY_A), SYN);
    expect(popAll(input)).toEqual([DROPPED, event(SYN), event(press(Key.KEY_A)), event(SYN)]);
    input[Symbol.dispose]();
    device.assertClean();
  });

  it('keeps the events that came before it failed', () => {
    const { device, transport, input, send } = setUp();
    send(press(Key.KEY_A), SYN);
    input.pollEvents();
    input.fail(transport.removed());
    expect(popAll.bind(null, input)).toThrow(failsWith('DEVICE_REMOVED'));
    const again = setUp();
    again.send(press(Key.KEY_A), SYN);
    again.input.pollEvents();
    again.input.fail(transport.removed());
    expect(again.input.popEvent()).toEqual(event(press(Key.KEY_A)));
    input[Symbol.dispose]();
    device.assertClean();
  });

  it('has only its event queue reset where it can do that', async () => {
    const { device, input, send } = setUp({ features: CommonFeatures.set('RING_RESET').bits });
    const waiting = input.nextEvent();
    await turns();
    send(press(Key.KEY_A));
    input.resetQueue(EVENTS);
    expect(await waiting).toEqual(DROPPED);
    expect(send(press(Key.KEY_B), SYN)).toBe(2);
    expect(popAll(input)).toEqual([event(SYN), event(press(Key.KEY_B)), event(SYN)]);
    input[Symbol.dispose]();
    device.assertClean();
  });
});

describe('construction', () => {
  it('refuses another device, a ring that is too small and a device without its queues', () => {
    const block = new FakeDevice({ type: DeviceType.Block, queues: [8, 8] });
    expect(() => new VirtioInput(new FakeTransport(block), block.hal)).toThrow(failsWith('INVALID_PARAM'));
    expect(() => setUp({ options: { bufferedEvents: 15 } })).toThrow(failsWith('INVALID_PARAM'));
    const poor = new FakeDevice({ type: DeviceType.Input, queues: [8] });
    expect(() => new VirtioInput(new FakeTransport(poor), poor.hal)).toThrow(failsWith('UNSUPPORTED'));
    poor.assertClean();
  });

  it('gives everything back when memory runs out at any point', () => {
    let failed = 0;
    for (let after = 0; ; after += 1) {
      const device = new FakeDevice({ type: DeviceType.Input, features: SPLIT, config: 136, queues: [8, 8] });
      device.hal.failAlloc({ after });
      let input: VirtioInput;
      try {
        input = new VirtioInput(new FakeTransport(device), device.hal);
      } catch (error) {
        expect(VirtioError.is(error, 'DMA_ERROR')).toBe(true);
        device.assertClean();
        failed += 1;
        continue;
      }
      input[Symbol.dispose]();
      break;
    }
    expect(failed).toBeGreaterThan(3);
  });

  it('accepts no feature of the device type, as it has none [5.8.3]', () => {
    const { device } = setUp({ features: SPLIT | 0xffn });
    expect(device.accepted & 0xffffffn).toBe(0n);
  });
});
