/** The properties of input devices, and what they accept. */
import { Abs, Bus, EventType, Key, Led, Property, Rel } from '@virtio/input';
import { deepEqual, equal, ok } from 'node:assert/strict';
import { guestTest, type HostEnv } from '../../framework/define.ts';
import { connectVnc, type VncClient } from './_vnc.ts';
import { device, openInput } from './_input.ts';

const vnc = new Map<string, VncClient>();

const leds = {
  connect: async (_args: null, env: HostEnv): Promise<void> => {
    vnc.set(env.directory, await connectVnc(`${env.directory}/vnc`));
  },
  /** The LEDs as a viewer of the guest's screen sees them: those that the keyboard shows next. */
  next: (_args: null, env: HostEnv): Promise<readonly string[]> => {
    const client = vnc.get(env.directory);
    if (client === undefined) throw new Error('connect first');
    return client.nextLeds();
  },
  close: (_args: null, env: HostEnv): void => {
    vnc.get(env.directory)?.close();
    vnc.delete(env.directory);
  },
};

export default [
  guestTest({
    device: 'input',
    name: 'tells what each device is and has',
    devices: {
      keyboard: device('keyboard', { serial: 'K-0001' }),
      mouse: device('mouse'),
      tablet: device('tablet'),
      multitouch: device('multitouch'),
    },
    guest(context) {
      {
        using input = openInput(context, 'keyboard');
        equal(input.name(), 'QEMU Virtio Keyboard');
        equal(input.serial(), 'K-0001');
        deepEqual(input.ids(), { bustype: Bus.BUS_VIRTUAL, vendor: 0x0627, product: 1, version: 1 });
        deepEqual(input.eventTypes(), [EventType.EV_KEY, EventType.EV_LED, EventType.EV_REP]);
        const keys = input.eventCodes(EventType.EV_KEY);
        for (const key of [Key.KEY_A, Key.KEY_ENTER, Key.KEY_F12, Key.KEY_RIGHTMETA]) ok(keys.has(key));
        ok(!keys.has(Key.BTN_LEFT));
        deepEqual([...input.eventCodes(EventType.EV_LED)], [Led.LED_NUML, Led.LED_CAPSL, Led.LED_SCROLLL]);
        equal(input.absInfo(Abs.ABS_X), undefined);
        context.note(`${[...keys].length} keys`);
      }
      {
        using input = openInput(context, 'mouse');
        equal(input.name(), 'QEMU Virtio Mouse');
        equal(input.serial(), '');
        equal(input.ids()?.product, 2);
        deepEqual([...input.eventCodes(EventType.EV_REL)], [Rel.REL_X, Rel.REL_Y, Rel.REL_WHEEL]);
        ok(input.eventCodes(EventType.EV_KEY).has(Key.BTN_MIDDLE));
        deepEqual([...input.properties()], []);
      }
      {
        using input = openInput(context, 'tablet');
        equal(input.name(), 'QEMU Virtio Tablet');
        for (const axis of [Abs.ABS_X, Abs.ABS_Y]) {
          deepEqual(input.absInfo(axis), { min: 0, max: 32767, fuzz: 0, flat: 0, res: 0 });
        }
        equal(input.absInfo(Abs.ABS_Z), undefined);
      }
      {
        using input = openInput(context, 'multitouch');
        equal(input.name(), 'QEMU Virtio MultiTouch');
        ok(input.properties().has(Property.INPUT_PROP_DIRECT));
        ok(input.eventCodes(EventType.EV_ABS).has(Abs.ABS_MT_TRACKING_ID));
        equal(input.absInfo(Abs.ABS_MT_SLOT)?.min, 0);
        ok((input.absInfo(Abs.ABS_MT_SLOT)?.max ?? 0) > 1);
        equal(input.absInfo(Abs.ABS_MT_POSITION_X)?.max, 32767);
      }
    },
  }),

  guestTest({
    device: 'input',
    name: 'switches LEDs, which a viewer of the screen sees',
    long: true,
    devices: { input: { ...device('keyboard'), after: ['-vnc', 'unix:{dir}/vnc'] } },
    host: leds,
    async guest(context) {
      using input = openInput(context);
      await context.host('connect', null);
      const shows = async (expected: readonly string[], body: () => unknown): Promise<void> => {
        const next = context.host('next', null);
        await body();
        deepEqual(await next, expected);
      };
      await shows(['caps'], () => input.setLed('LED_CAPSL', true));
      await shows(['num', 'caps'], () => input.setLedSync('LED_NUML', true));
      await shows(['scroll', 'num', 'caps'], () => {
        const token = input.submitSendStatus(EventType.EV_LED, Led.LED_SCROLLL, 1);
        while (input.poll() !== token);
        input.complete(token);
      });
      await shows(['scroll', 'num'], () => input.setLed('LED_CAPSL', false));
      for (let n = 0; n < 300; n++) await input.setLed('LED_SCROLLL', n % 2 === 0);
      equal(input.failure, undefined);
      await context.host('close', null);
    },
  }),
];
