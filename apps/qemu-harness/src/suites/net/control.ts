/** What the control queue and the configuration do, judged by QEMU's own account of them and by what comes through. */
import { linkStaysUp } from './_packed.ts';
import { formatMac, NetControl, parseMac, type VirtioNet } from '@virtio/net';
import { deepEqual, equal, ok, rejects, throws } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { guestTest, type GuestContext } from '../../framework/define.ts';
import { isLegacy } from '../_open.ts';
import { GUEST_MAC, HOST_MAC, makeFrame, numberOf } from './_frames.ts';
import { openNet } from './_net.ts';
import { host, prepare, switched, untag } from './_switch.ts';

/** QEMU's account of a device's filters: `query-rx-filter`. */
interface Filters {
  readonly promiscuous: boolean;
  readonly multicast: 'normal' | 'none' | 'all';
  readonly unicast: 'normal' | 'none' | 'all';
  readonly vlan: 'normal' | 'none' | 'all';
  readonly 'main-mac': string;
  readonly 'unicast-table': readonly string[];
  readonly 'multicast-table': readonly string[];
  readonly 'vlan-table': readonly number[];
}

type Context = GuestContext<typeof host>;

const FOREIGN = [0x52, 0x54, 0, 0xab, 0xcd, 99];
const GROUP = [1, 0, 0x5e, 1, 2, 3];
const EVERYBODY = [255, 255, 255, 255, 255, 255];

async function filters(context: Context): Promise<Filters> {
  const [first] = (await context.host('filters', null)) as readonly Filters[];
  if (first === undefined) throw new Error('QEMU knows of no filters');
  return first;
}

let number = 1000;

/** Whether frames to an address come through: one to the guest itself, which always does, is sent behind. */
async function comes(
  context: Context,
  net: VirtioNet,
  to: readonly number[],
  vlan?: number,
): Promise<boolean> {
  const sent = (number += 2);
  await context.host('sendOne', { number: sent, to, ...(vlan !== undefined && { vlan }) });
  await context.host('sendOne', { number: sent + 1 });
  let came = false;
  for (;;) {
    using packet = await net.receive();
    const got =
      vlan === undefined ? numberOf(packet.data) : Math.max(numberOf(packet.data), untag(packet.data).number);
    if (got === sent + 1) return came;
    equal(got, sent, 'a frame that was not sent');
    came = true;
  }
}

export default [
  guestTest({
    device: 'net',
    name: 'filters what it receives as it is told, and QEMU says so, too',
    long: true,
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      // QEMU leaves a device promiscuous, so all comes.
      ok(await comes(context, net, FOREIGN));
      await net.control(NetControl.setPromiscuous(false));
      equal((await filters(context)).promiscuous, false);
      ok(!(await comes(context, net, FOREIGN)));
      ok(!(await comes(context, net, GROUP)));
      ok(await comes(context, net, EVERYBODY));

      const table = { unicast: [formatMac(FOREIGN)], multicast: [Uint8Array.from(GROUP)] };
      net.controlSync(NetControl.setMacTable(table));
      const set = await filters(context);
      deepEqual([set['unicast-table'], set['multicast-table']], [[formatMac(FOREIGN)], [formatMac(GROUP)]]);
      ok(await comes(context, net, FOREIGN));
      ok(await comes(context, net, GROUP));
      await net.control(NetControl.setMacTable({}));
      ok(!(await comes(context, net, FOREIGN)));

      await net.control(NetControl.setAllMulticast(true));
      equal((await filters(context)).multicast, 'all');
      ok(await comes(context, net, GROUP));
      await net.control(NetControl.setNoMulticast(true));
      equal((await filters(context)).multicast, 'none');
      ok(!(await comes(context, net, GROUP)));
      await net.control(NetControl.setNoMulticast(false));
      await net.control(NetControl.setAllUnicast(true));
      equal((await filters(context)).unicast, 'all');
      ok(await comes(context, net, FOREIGN));
      await net.control(NetControl.setAllUnicast(false));
      await net.control(NetControl.setNoUnicast(true));
      equal((await filters(context)).unicast, 'none');
      await net.control(NetControl.setNoUnicast(false));
      await net.control(NetControl.setNoBroadcast(true));
      ok(!(await comes(context, net, EVERYBODY)));
      equal(net.quirks, 0);
    },
  }),

  guestTest({
    device: 'net',
    name: 'filters VLANs once it is no longer promiscuous',
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      ok(await comes(context, net, GUEST_MAC, 5));
      await net.control(NetControl.setPromiscuous(false));
      // The table shall be empty at first; that of QEMU 8.1 to 10.0 is full.
      await net.control(NetControl.deleteVlan(5));
      await net.control(NetControl.deleteVlan(6));
      ok(!(await comes(context, net, GUEST_MAC, 5)));
      await net.control(NetControl.addVlan(5));
      const table = (await filters(context))['vlan-table'];
      deepEqual([table.includes(5), table.includes(6)], [true, false]);
      ok(await comes(context, net, GUEST_MAC, 5));
      ok(!(await comes(context, net, GUEST_MAC, 6)));
      await net.control(NetControl.deleteVlan(5));
      ok(!(await comes(context, net, GUEST_MAC, 5)));
    },
  }),

  guestTest({
    device: 'net',
    name: 'without CTRL_VLAN all tagged frames come, even if it is not promiscuous',
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context, { without: ['CTRL_VLAN'] });
      const { net } = open;
      await context.host('plug', null);
      await net.control(NetControl.setPromiscuous(false));
      ok(await comes(context, net, GUEST_MAC, 77));
      await rejects(net.control(NetControl.addVlan(77)), { code: 'UNSUPPORTED' });
    },
  }),

  guestTest({
    device: 'net',
    name: 'takes another address, by a token, until it is reset',
    long: true,
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      const other = '02:00:00:00:00:0a';
      const token = net.submitControl(NetControl.setMacAddress(other));
      while (net.pollControl() !== token) await delay(1);
      net.completeControl(token);
      equal(formatMac(net.macAddress), other);
      await net.control(NetControl.setPromiscuous(false));
      equal((await filters(context))['main-mac'], other);
      await context.host('sendOne', { number: 1, to: GUEST_MAC });
      await context.host('sendOne', { number: 2, to: Array.from(parseMac(other)) });
      {
        using packet = await net.receive();
        equal(numberOf(packet.data), 2);
      }
      net.reset();
      deepEqual(Array.from(net.macAddress), [...GUEST_MAC]);
      equal((await filters(context)).promiscuous, true);
    },
  }),

  guestTest({
    device: 'net',
    name: 'refuses commands for what QEMU did not offer',
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context, { queuePairs: 4 });
      const { net } = open;
      deepEqual([net.maxQueuePairs, net.queuePairs], [1, 1]);
      await rejects(net.control(NetControl.setQueuePairs(1)), { code: 'UNSUPPORTED' });
      throws(() => net.controlSync(NetControl.setTransmitCoalescing({ maxPackets: 1, maxUsecs: 1 })), {
        code: 'UNSUPPORTED',
      });
      equal(await filters(context).then(({ promiscuous }) => promiscuous), true);
    },
  }),

  guestTest({
    device: 'net',
    name: 'hears that the link goes down and up; what is sent meanwhile is lost',
    essential: 'checks',
    skip: linkStaysUp,
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      equal(net.link.up, true);
      const changes: boolean[] = [];
      let heard: (() => void) | undefined;
      net.on('link', ({ up }) => {
        changes.push(up);
        heard?.();
      });
      const change = async (up: boolean): Promise<void> => {
        const { promise, resolve } = Promise.withResolvers<undefined>();
        heard = () => resolve(undefined);
        // Where there are no interrupts somebody has to look.
        const looking = setInterval(() => net.pollEvents(), 20);
        await context.host('setLink', { up });
        await promise;
        clearInterval(looking);
        equal(net.link.up, up);
      };
      await change(false);
      // Less than fills the ring: on packed rings QEMU takes the first, and no others until the link is up.
      for (let n = 0; n < 100; n += 1) await net.send(makeFrame(5000, GUEST_MAC, HOST_MAC));
      await delay(100);
      await change(true);
      await net.flush();
      await delay(200);
      const { frames } = await context.host('seen', { frames: 0 });
      if (context.cell.ring.properties.packed !== true) equal(frames, 0);
      await context.host('restart', null);
      for (let n = 0; n < 1000; n += 1) await net.send(makeFrame(n, GUEST_MAC, HOST_MAC));
      await net.flush();
      const seen = await context.host('seen', { frames: 1000 });
      deepEqual([seen.frames, seen.good, seen.firstWrong], [1000, 1000, '']);
      deepEqual(changes, [false, true]);
    },
  }),

  guestTest({
    device: 'net',
    name: 'announces itself when QEMU asks for that, and QEMU learns of it',
    devices: { net: switched() },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      for (let round = 0; round < 3; round += 1) {
        const { promise, resolve } = Promise.withResolvers<undefined>();
        const stop = net.on('announce', () => resolve(undefined));
        // Where there are no interrupts somebody has to look.
        const looking = setInterval(() => net.pollEvents(), 20);
        await context.host('announce', null);
        await promise;
        clearInterval(looking);
        stop();
        // QEMU asks again only if it was told that the last wish was seen.
        await net.control(NetControl.setPromiscuous(true));
        equal(net.quirks, 0);
      }
    },
  }),

  guestTest({
    device: 'net',
    name: 'reads MTU, speed and duplex as QEMU was given them',
    devices: { net: switched({ host_mtu: 9000, speed: 25_000, duplex: 'full' }) },
    prepare,
    host,
    async guest(context) {
      using open = openNet(context);
      const { net } = open;
      await context.host('plug', null);
      // The bit of speed and duplex is beyond those of a legacy device.
      const speed = isLegacy(context.cell) ? undefined : 25_000;
      deepEqual(net.link, { up: true, speed, duplex: speed && 'full' });
      equal(net.mtu, 9000);
      await net.send(makeFrame(0, GUEST_MAC, HOST_MAC, 9014));
      await rejects(net.send(makeFrame(1, GUEST_MAC, HOST_MAC, 9015)), { code: 'INVALID_PARAM' });
      const seen = await context.host('seen', { frames: 1 });
      deepEqual([seen.good, seen.bytes], [1, 9014]);
    },
  }),
];
