import { describe, expect, it, vi } from 'vitest';
import { F, frame, NetModel, type ModelOptions, QEMU } from '../test/net-model.ts';
import {
  NetControl,
  type NetCommand,
  type NetOptions,
  NetStats,
  type StatsRequest,
  VirtioNet,
} from './index.ts';

const code = (name: string): Error => expect.objectContaining({ code: name }) as Error;

const ALL =
  QEMU |
  F.MQ |
  F.RSS |
  F.HASH_REPORT |
  F.HASH_TUNNEL |
  F.NOTF_COAL |
  F.VQ_NOTF_COAL |
  F.DEVICE_STATS |
  F.GUEST_CSUM;

const KEY = Uint8Array.from({ length: 40 }, (_, i) => i);

function setUp(options: ModelOptions = {}, netOptions: NetOptions = { queuePairs: 4 }) {
  const model = new NetModel({ features: ALL, maxPairs: 4, ...options });
  const net = new VirtioNet(model.transport, model.device.hal, netOptions);
  return { model, net };
}

function clean({ model, net }: ReturnType<typeof setUp>): void {
  net[Symbol.dispose]();
  model.device.assertClean();
}

const turns = async (count = 20): Promise<void> => {
  for (let i = 0; i < count; i += 1) await Promise.resolve();
};

describe('control commands [5.1.9.5]', () => {
  const commands: readonly (readonly [string, NetCommand<unknown>, readonly number[]])[] = [
    ['RX_PROMISC', NetControl.setPromiscuous(true), [0, 0, 1]],
    ['RX_ALLMULTI', NetControl.setAllMulticast(true), [0, 1, 1]],
    ['RX_ALLUNI', NetControl.setAllUnicast(false), [0, 2, 0]],
    ['RX_NOMULTI', NetControl.setNoMulticast(true), [0, 3, 1]],
    ['RX_NOUNI', NetControl.setNoUnicast(true), [0, 4, 1]],
    ['RX_NOBCAST', NetControl.setNoBroadcast(true), [0, 5, 1]],
    [
      'MAC_TABLE_SET',
      NetControl.setMacTable({
        unicast: ['02:00:00:00:00:01'],
        multicast: [Uint8Array.of(1, 0, 0x5e, 0, 0, 9)],
      }),
      [1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 9],
    ],
    ['an empty MAC_TABLE_SET', NetControl.setMacTable({}), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]],
    ['MAC_ADDR_SET', NetControl.setMacAddress('02-00-00-00-00-0A'), [1, 1, 2, 0, 0, 0, 0, 10]],
    ['VLAN_ADD', NetControl.addVlan(0x123), [2, 0, 0x23, 1]],
    ['VLAN_DEL', NetControl.deleteVlan(0x123), [2, 1, 0x23, 1]],
    ['MQ_VQ_PAIRS_SET', NetControl.setQueuePairs(3), [4, 0, 3, 0]],
    [
      'MQ_RSS_CONFIG',
      NetControl.setRss({
        types: ['TCPv4', 'UDPv6'],
        key: Uint8Array.of(7, 8),
        indirectionTable: [0, 3],
        unclassifiedPair: 2,
        transmitPairs: 3,
      }),
      [4, 1, 0x22, 0, 0, 0, 1, 0, 2, 0, 0, 0, 3, 0, 3, 0, 2, 7, 8],
    ],
    [
      'MQ_HASH_CONFIG',
      NetControl.setHash({ types: ['IPv4'], key: Uint8Array.of(9) }),
      [4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9],
    ],
    ['GUEST_OFFLOADS_SET', NetControl.setReceiveOffloads(['GUEST_CSUM']), [5, 0, 2, 0, 0, 0, 0, 0, 0, 0]],
    [
      'NOTF_COAL_TX_SET',
      NetControl.setTransmitCoalescing({ maxPackets: 0x0102, maxUsecs: 3 }),
      [6, 0, 2, 1, 0, 0, 3, 0, 0, 0],
    ],
    [
      'NOTF_COAL_RX_SET',
      NetControl.setReceiveCoalescing({ maxPackets: 1, maxUsecs: 2 }),
      [6, 1, 1, 0, 0, 0, 2, 0, 0, 0],
    ],
    [
      'NOTF_COAL_VQ_SET',
      NetControl.setQueueCoalescing({ pair: 0, direction: 'transmit' }, { maxPackets: 1, maxUsecs: 2 }),
      [6, 2, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
    ],
    [
      'NOTF_COAL_VQ_GET',
      NetControl.getQueueCoalescing({ pair: 0, direction: 'receive' }),
      [6, 3, 0, 0, 0, 0],
    ],
    ['HASH_TUNNEL_SET', NetControl.setHashTunnels(['VXLAN', 'IPIP']), [7, 0, 0x90, 0, 0, 0]],
    ['STATS_QUERY', NetStats.query(), [8, 0]],
  ];

  it.each(commands)('sends %s in all three forms', async (_name, command, bytes) => {
    const made = setUp({}, { queuePairs: 4, receiveOffloads: ['GUEST_CSUM'] });
    const { model, net } = made;
    const value = await net.control(command);
    expect(net.controlSync(command)).toEqual(value);
    const token = net.submitControl(command, { kick: false });
    expect(net.pollControl()).toBe(-1);
    net.kickControl();
    expect(net.pollControl()).toBe(token);
    expect(net.completeControl(token)).toEqual(value);
    expect(() => net.completeControl(token)).toThrow(code('WRONG_TOKEN'));
    for (const sent of model.commands) expect([sent.class, sent.command, ...sent.data]).toEqual(bytes);
    expect(model.commands).toHaveLength(3);
    clean(made);
  });

  it.each(commands)('refuses %s without its features, before anything is sent', async (_name, command) => {
    const made = setUp(
      { features: QEMU & ~(F.CTRL_RX | F.CTRL_RX_EXTRA | F.CTRL_VLAN), maxPairs: 1 },
      {
        without: ['CTRL_GUEST_OFFLOADS'],
      },
    );
    await expect(made.net.control(command)).rejects.toThrow(code('UNSUPPORTED'));
    expect(() => made.net.controlSync(command)).toThrow(code('UNSUPPORTED'));
    expect(() => made.net.submitControl(command)).toThrow(code('UNSUPPORTED'));
    expect(made.model.commands).toEqual([]);
    clean(made);
  });

  it('refuses all commands of a device without a control queue', () => {
    const made = setUp({ features: F.MAC, maxPairs: 1 }, {});
    expect(() => made.net.controlSync(NetControl.setPromiscuous(true))).toThrow(code('UNSUPPORTED'));
    expect(() => made.net.completeControl(0)).toThrow(code('WRONG_TOKEN'));
    expect(() => {
      made.net.cancelControl(0);
    }).toThrow(code('WRONG_TOKEN'));
    expect(made.net.pollControl()).toBe(-1);
    clean(made);
  });

  it.each<readonly [string, NetCommand<unknown>]>([
    ['a mode that is no boolean', NetControl.setPromiscuous(1 as unknown as boolean)],
    [
      'a multicast address among unicast ones [5.1.9.5.2.2]',
      NetControl.setMacTable({ unicast: ['01:00:00:00:00:00'] }),
    ],
    ['a unicast address among multicast ones', NetControl.setMacTable({ multicast: ['02:00:00:00:00:00'] })],
    ['an address of zeros', NetControl.setMacAddress('00:00:00:00:00:00')],
    ['a multicast address of its own', NetControl.setMacAddress('33:33:00:00:00:01')],
    ['five bytes for an address', NetControl.setMacAddress(Uint8Array.of(2, 0, 0, 0, 0))],
    ['a VLAN id of 4096', NetControl.addVlan(4096)],
    ['no pairs [5.1.9.5.6.1]', NetControl.setQueuePairs(0)],
    ['more pairs than are set up [5.1.9.5.6.1]', NetControl.setQueuePairs(5)],
    [
      'a table of three [5.1.9.5.7.2]',
      NetControl.setRss({ types: [], key: KEY, indirectionTable: [0, 1, 2] }),
    ],
    [
      'a pair in the table that is not set up',
      NetControl.setRss({ types: [], key: KEY, indirectionTable: [4] }),
    ],
    [
      'a table that is too long [5.1.9.5.7.2]',
      NetControl.setRss({ types: [], key: KEY, indirectionTable: Array.from({ length: 256 }, () => 0) }),
    ],
    ['a key that is too long', NetControl.setHash({ types: [], key: new Uint8Array(41) })],
    ['coalescing below 0', NetControl.setTransmitCoalescing({ maxPackets: -1, maxUsecs: 0 })],
    [
      'coalescing of a queue that is not in use [5.1.9.5.10.5]',
      NetControl.setQueueCoalescing({ pair: 1, direction: 'receive' }, { maxPackets: 1, maxUsecs: 1 }),
    ],
    ['statistics of no queue', NetStats.get([])],
    ['statistics that a queue cannot have', NetStats.get([{ queue: 'control', types: ['rxBasic'] }])],
  ])('refuses %s, before anything is sent', (_name, command) => {
    const made = setUp();
    expect(() => made.net.controlSync(command)).toThrow(code('INVALID_PARAM'));
    expect(made.model.commands).toEqual([]);
    clean(made);
  });

  it.each<readonly [string, () => NetCommand<unknown>]>([
    ['no MAC table', () => NetControl.setMacTable(undefined as never)],
    ['a MAC table of a text', () => NetControl.setMacTable({ unicast: '02:00:00:00:00:01' as never })],
    ['no RSS configuration', () => NetControl.setRss(undefined as never)],
    ['no indirection table', () => NetControl.setRss({ types: [], key: KEY } as never)],
    [
      'an indirection table of a text',
      () => NetControl.setRss({ types: [], key: KEY, indirectionTable: '0' as never }),
    ],
    ['no types to hash', () => NetControl.setRss({ key: KEY, indirectionTable: [0] } as never)],
    ['no hash configuration', () => NetControl.setHash(null as never)],
    ['a number of hash types', () => NetControl.setHash({ types: 1 as never, key: KEY })],
    ['no tunnels', () => NetControl.setHashTunnels(undefined as never)],
    ['no coalescing', () => NetControl.setReceiveCoalescing(undefined as never)],
    ['no queue', () => NetControl.getQueueCoalescing(undefined as never)],
    ['no requests for statistics', () => NetStats.get(undefined as never)],
    ['a request for statistics that is none', () => NetStats.get([undefined as never])],
    [
      'statistics of a queue that is none',
      () => NetStats.get([{ queue: undefined as never, types: ['rxBasic'] }]),
    ],
    ['statistics of no types', () => NetStats.get([{ queue: 'control' } as never])],
  ])('refuses %s by a VirtioError', (_name, make) => {
    const made = setUp();
    expect(() => made.net.controlSync(make())).toThrow(code('INVALID_PARAM'));
    expect(made.model.commands).toEqual([]);
    clean(made);
  });

  it('refuses offloads that are no array', () => {
    const command = NetControl.setReceiveOffloads(undefined as never);
    expect(() => command.data({} as never)).toThrow(code('INVALID_PARAM'));
  });

  it('does not ask for what the device does not support [5.1.9.5.7.2, 5.1.9.4.4.5]', () => {
    const made = setUp({ hashTypes: 1, tunnelTypes: 0x10 });
    const refused = [
      NetControl.setHash({ types: ['TCPv4'], key: KEY }),
      NetControl.setHashTunnels(['IPIP']),
      NetStats.get([{ queue: 'control', types: ['cvq'] }]),
    ] as readonly NetCommand<unknown>[];
    for (const command of refused) expect(() => made.net.controlSync(command)).toThrow(code('UNSUPPORTED'));
    made.net.controlSync(NetStats.query());
    expect(() =>
      made.net.controlSync(NetStats.get([{ queue: { pair: 0, direction: 'receive' }, types: ['rxGso'] }])),
    ).toThrow(code('UNSUPPORTED'));
    clean(made);
  });

  it('gives the statistics that it asked for [5.1.9.5.11]', async () => {
    const made = setUp();
    expect(await made.net.control(NetStats.query())).toEqual(['rxBasic', 'txBasic', 'cvq']);
    const stats = await made.net.control(
      NetStats.get([
        { queue: { pair: 0, direction: 'receive' }, types: ['rxBasic'] },
        { queue: { pair: 0, direction: 'transmit' }, types: ['txBasic'] },
        { queue: 'control', types: ['cvq'] },
      ]),
    );
    expect(stats[0]?.stats.rxBasic).toMatchObject({ notifications: 0n, packets: 1n, dropOverruns: 5n });
    expect(stats[1]?.stats.txBasic).toMatchObject({ notifications: 100n, dropMalformed: 105n });
    expect(stats[2]?.stats.cvq).toEqual({ commandNum: 800n, okNum: 801n });
    clean(made);
  });

  it('gives the statistics that it asked for, also when the caller changes its arrays, or uses fewer queues', async () => {
    const made = setUp();
    const { model, net } = made;
    await net.control(NetControl.setQueuePairs(2));
    await net.control(NetStats.query());
    const requests: StatsRequest[] = [
      { queue: { pair: 1, direction: 'receive' }, types: ['rxBasic'] },
      { queue: 'control', types: ['cvq'] },
    ];
    const token = net.submitControl(NetStats.get(requests));
    requests.pop();
    model.answer = () => null;
    expect(net.pollControl()).toBe(token);
    // Once it is in the ring, no packet goes to the second pair any more [5.1.9.5.6.1].
    const fewer = net.submitControl(NetControl.setQueuePairs(1));
    expect(net.completeControl(token)).toMatchObject([
      {
        queue: { pair: 1, direction: 'receive' },
        stats: { rxBasic: { drops: expect.any(BigInt) as bigint } },
      },
      { queue: 'control', stats: { cvq: { commandNum: expect.any(BigInt) as bigint } } },
    ]);
    net.cancelControl(fewer);
    clean(made);
  });

  it('tells a refusal, and an answer that is none, from success', async () => {
    const made = setUp();
    made.model.answer = () => 1;
    await expect(made.net.control(NetControl.setPromiscuous(true))).rejects.toThrow(code('IO_ERROR'));
    made.model.answer = () => 77;
    expect(() => made.net.controlSync(NetControl.setPromiscuous(true))).toThrow(code('DEVICE_MISBEHAVED'));
    made.model.answer = () => 1;
    await expect(made.net.control(NetControl.setMacAddress('02:00:00:00:00:01'))).rejects.toThrow(
      code('IO_ERROR'),
    );
    expect(Array.from(made.net.macAddress)).toEqual([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    expect(made.net.failure).toBeUndefined();
    clean(made);
  });

  it('does not believe an answer that is too short', async () => {
    const made = setUp();
    made.model.answer = () => 0;
    await expect(made.net.control(NetStats.query())).rejects.toThrow(code('DEVICE_MISBEHAVED'));
    await expect(
      made.net.control(NetControl.getQueueCoalescing({ pair: 0, direction: 'receive' })),
    ).rejects.toThrow(code('DEVICE_MISBEHAVED'));
    clean(made);
  });

  it.each([
    [
      // cloud-hypervisor reads the second as the data and writes the answer to the third [2.7.4.1 forbids it to].
      ...(['for each part of a command', 64] as const),
      [
        [2, 2, 1],
        [2, 4, 4, 1],
        [2, 9],
      ],
    ],
    [
      ...(['in a ring that has room for two', 2] as const),
      [
        [4, 1],
        [10, 1],
        [2, 9],
      ],
    ],
  ])('has a descriptor %s [2.7.4]', (_name, controlSize, framing) => {
    const made = setUp({ controlSize });
    made.net.controlSync(NetControl.addVlan(1));
    made.net.controlSync(NetControl.setMacTable({}));
    made.net.controlSync(NetStats.query());
    expect(made.model.framing).toEqual(framing);
    clean(made);
  });

  it('has one command with the device at a time, and lets promises wait in line', async () => {
    const made = setUp();
    const { model, net } = made;
    model.answer = () => null;
    const first = net.control(NetControl.addVlan(1));
    const second = net.control(NetControl.addVlan(2));
    await turns();
    expect(model.commands).toHaveLength(1);
    expect(() => net.controlSync(NetControl.addVlan(3))).toThrow(code('QUEUE_FULL'));
    expect(() => net.submitControl(NetControl.addVlan(3))).toThrow(code('QUEUE_FULL'));
    model.answer = undefined;
    model.answerLate(0);
    await Promise.all([first, second]);
    expect(model.commands.map(({ data }) => data[0])).toEqual([1, 2]);
    clean(made);
  });

  it('never takes a late answer for that to the next command', async () => {
    const made = setUp();
    const { model, net } = made;
    model.answer = ({ command }) => (command === 0 ? null : undefined);
    expect(() => net.controlSync(NetControl.addVlan(1), { timeoutMs: 1 })).toThrow(code('NOT_READY'));
    // The device still has it: another has to wait, and gets its own answer.
    expect(() => net.controlSync(NetControl.deleteVlan(1))).toThrow(code('QUEUE_FULL'));
    const waiting = net.control(NetControl.deleteVlan(1));
    await turns();
    model.answerLate(1);
    await waiting;
    const controller = new AbortController();
    const given = net.control(NetControl.addVlan(2), { signal: controller.signal });
    await turns();
    controller.abort();
    await expect(given).rejects.toThrow(code('ABORTED'));
    const token = net.submitControl.bind(net, NetControl.deleteVlan(2));
    expect(token).toThrow(code('QUEUE_FULL'));
    model.answerLate(1);
    net.completeControl(token());
    const cancelled = net.submitControl(NetControl.addVlan(3));
    net.cancelControl(cancelled);
    model.answerLate(1);
    expect(net.pollControl()).toBe(-1);
    net.controlSync(NetControl.deleteVlan(3));
    clean(made);
  });

  it('takes devices that report no used length for an answer', () => {
    const made = setUp();
    made.model.device.handle(made.model.controlIndex, (chain) => {
      chain.write([0]).complete(0);
    });
    made.net.controlSync(NetControl.setPromiscuous(false));
    clean(made);
  });

  it('ends commands at a reset, after which the device has forgotten all of them', async () => {
    const made = setUp();
    const { model, net } = made;
    await net.control(NetControl.setQueuePairs(4));
    await net.control(NetControl.setMacAddress('02:00:00:00:00:01'));
    expect(Array.from(net.macAddress)).toEqual([2, 0, 0, 0, 0, 1]);
    model.answer = () => null;
    const lost = expect(net.control(NetControl.addVlan(1))).rejects.toThrow(code('DEVICE_RESET'));
    const queued = expect(net.control(NetControl.addVlan(2))).rejects.toThrow(code('DEVICE_RESET'));
    await turns();
    net.reset();
    await Promise.all([lost, queued]);
    expect(net.activePairs).toBe(1);
    model.answer = undefined;
    await net.control(NetControl.addVlan(3));
    expect([...model.vlans]).toEqual([3]);
    clean(made);
  });
});

describe('several pairs of queues', () => {
  it('uses one until the device was told of more, and none beyond [5.1.9.5.6.1]', async () => {
    const made = setUp();
    const { model, net } = made;
    expect([net.maxQueuePairs, net.queuePairs, net.activePairs]).toEqual([4, 4, 1]);
    expect(() => net.trySend(frame(60), { pair: 1 })).toThrow(code('INVALID_PARAM'));
    await net.control(NetControl.setQueuePairs(4));
    expect(net.activePairs).toBe(4);
    for (let pair = 0; pair < 4; pair += 1) await net.send(frame(60 + pair), { pair });
    await net.flush();
    expect(model.sent.map(({ pair }) => pair)).toEqual([0, 1, 2, 3]);
    const token = net.submitControl(NetControl.setQueuePairs(2), { kick: false });
    // From when the device may see it, nothing goes beyond.
    expect(() => net.trySend(frame(60), { pair: 2 })).toThrow(code('INVALID_PARAM'));
    net.kickControl();
    net.completeControl(token);
    expect(() => net.trySend(frame(60), { pair: 2 })).toThrow(code('INVALID_PARAM'));
    clean(made);
  });

  it.each([
    ['setQueuePairs', NetControl.setQueuePairs(1)],
    ['setRss', NetControl.setRss({ types: [], key: KEY, indirectionTable: [0], transmitPairs: 1 })],
  ])('makes packets available on pairs before %s ends these [5.1.9.5.6.1]', async (_name, command) => {
    const made = setUp();
    const { model, net } = made;
    await net.control(NetControl.setQueuePairs(4));
    expect(net.trySend(frame(60), { pair: 3, kick: false })).toBe(true);
    const sent = net.send(frame(61), { pair: 2 });
    net.controlSync(command);
    await sent;
    net.kick(3);
    await net.flush();
    expect(model.sent.map(({ pair }) => pair)).toEqual([2, 3]);
    expect(() => net.trySend(frame(60), { pair: 3 })).toThrow(code('INVALID_PARAM'));
    clean(made);
  });

  it('sends nothing that waited for room, or was built, on pairs that have ended [5.1.9.5.6.1]', async () => {
    const made = setUp({ queueSize: 4 });
    const { model, net } = made;
    await net.control(NetControl.setQueuePairs(4));
    model.throttled = true;
    const built = net.takeBuffer(2);
    const sends = Array.from({ length: 6 }, (_, n) => net.send(frame(60 + n), { pair: 3 }));
    for (const sent of sends) sent.catch(() => undefined);
    await turns();
    net.controlSync(NetControl.setQueuePairs(1));
    expect(() => built?.send(60)).toThrow(code('INVALID_PARAM'));
    built?.[Symbol.dispose]();
    model.unthrottle();
    for (const sent of sends.slice(4)) await expect(sent).rejects.toThrow(code('INVALID_PARAM'));
    expect(model.sent.map(({ pair }) => pair)).toEqual([3, 3, 3, 3]);
    await net.control(NetControl.setQueuePairs(4));
    await net.send(frame(60), { pair: 3 });
    clean(made);
  });

  it('goes by the last command, in whatever order the answers are taken', () => {
    const made = setUp();
    const { net } = made;
    const token = net.submitControl(NetControl.setQueuePairs(4));
    net.controlSync(NetControl.setQueuePairs(1));
    net.completeControl(token);
    expect(net.activePairs).toBe(1);
    expect(() => net.trySend(frame(60), { pair: 3 })).toThrow(code('INVALID_PARAM'));
    clean(made);
  });

  it('sets up all pairs that there are where several are in use, as crosvm and cloud-hypervisor expect it', async () => {
    const made = setUp({}, { queuePairs: 2 });
    const { model, net } = made;
    const isEnabled = (): boolean[] => model.device.queues.map(({ ring }) => ring !== undefined);
    expect([net.queuePairs, net.maxQueuePairs]).toEqual([2, 4]);
    expect(isEnabled()).toEqual(Array.from({ length: 9 }, () => true));
    await net.control(NetControl.setQueuePairs(2));
    await net.send(frame(60), { pair: 1 });
    expect(() => net.trySend(frame(60), { pair: 2 })).toThrow(code('INVALID_PARAM'));
    await expect(net.control(NetControl.setQueuePairs(3))).rejects.toThrow(code('INVALID_PARAM'));
    // No buffers are there for what must not come.
    expect(model.deliver(frame(60), { pair: 2 })).toBe(false);
    net.reset();
    expect(isEnabled()).toEqual(Array.from({ length: 9 }, () => true));
    await net.control(NetControl.setQueuePairs(2));
    clean(made);
  });

  it('declines several pairs where one is used, and tells how many there are', async () => {
    const made = setUp({}, {});
    const { model, net } = made;
    expect(['MQ', 'RSS'].map((name) => net.features.has(name as 'MQ'))).toEqual([false, false]);
    expect([net.queuePairs, net.maxQueuePairs, net.activePairs]).toEqual([1, 4, 1]);
    expect(model.device.queues.filter(({ ring }) => ring !== undefined)).toHaveLength(3);
    await net.control(NetControl.addVlan(1));
    await expect(net.control(NetControl.setQueuePairs(1))).rejects.toThrow(code('UNSUPPORTED'));
    expect(await net.control(NetStats.query())).toContain('cvq');
    const [stats] = await net.control(NetStats.get([{ queue: 'control', types: ['cvq'] }]));
    expect(stats?.stats.cvq?.okNum).toBeDefined();
    clean(made);
  });

  it('stays at one pair when the device refuses more', async () => {
    const made = setUp();
    made.model.answer = () => 1;
    await expect(made.net.control(NetControl.setQueuePairs(4))).rejects.toThrow(code('IO_ERROR'));
    expect(made.net.activePairs).toBe(1);
    clean(made);
  });

  it('receives on all pairs, whichever the device chooses, none left out', async () => {
    const made = setUp({ queueSize: 8 });
    const { model, net } = made;
    const waiting = net.receive();
    await turns();
    model.deliver(frame(60, 1), { pair: 3 });
    using first = await waiting;
    expect([first.pair, first.copy()]).toEqual([3, frame(60, 1)]);
    for (let pair = 0; pair < 4; pair += 1) {
      for (let n = 0; n < 3; n += 1) model.deliver(frame(60, pair), { pair });
    }
    const order: number[] = [];
    for (let n = 0; n < 12; n += 1) {
      using packet = net.tryReceive();
      if (packet !== undefined) order.push(packet.pair);
    }
    expect(order.slice(0, 4).sort()).toEqual([0, 1, 2, 3]);
    expect(order).toHaveLength(12);
    model.deliver(frame(60, 7), { pair: 2 });
    expect(net.tryReceive(1)).toBeUndefined();
    using chosen = await net.receive({ pair: 2 });
    expect(chosen.copy()).toEqual(frame(60, 7));
    const controller = new AbortController();
    const given = net.receive({ signal: controller.signal });
    await turns();
    controller.abort();
    await expect(given).rejects.toThrow(code('ABORTED'));
    expect(model.transport.interrupts?.holds).toBe(0);
    clean(made);
  });

  it('finds the control queue behind all pairs that there could be, or third [5.1.2]', async () => {
    for (const features of [QEMU | F.MQ, QEMU | F.RSS, QEMU]) {
      const made = setUp({ features, maxPairs: 4 }, { queuePairs: 2 });
      expect(made.net.queuePairs).toBe(features === QEMU ? 1 : 2);
      if (features === QEMU) continue;
      await made.net.control(NetControl.setPromiscuous(false));
      expect(made.model.promiscuous).toBe(false);
      clean(made);
    }
  });

  it('tells RSS where packets are received, and how many pairs send [5.1.9.5.7]', async () => {
    const made = setUp();
    await made.net.control(NetControl.setRss({ types: ['TCPv4'], key: KEY, indirectionTable: [0, 1, 2, 3] }));
    expect(made.model.rss).toEqual({ types: 2, table: [0, 1, 2, 3], unclassified: 0, transmit: 4, key: KEY });
    expect(made.net.activePairs).toBe(4);
    clean(made);
  });

  it('coalesces, and counts, on all queues that RSS uses, however few send [5.1.9.5.10.5]', async () => {
    const made = setUp();
    const { net, model } = made;
    const last = { pair: 3, direction: 'receive' } as const;
    const coalescing = { maxPackets: 4, maxUsecs: 50 };
    await net.control(NetControl.setRss({ types: [], key: KEY, indirectionTable: [0, 3], transmitPairs: 1 }));
    expect(net.activePairs).toBe(1);
    await net.control(NetControl.setQueueCoalescing(last, coalescing));
    expect(model.coalescing.get(6)).toEqual([4, 50]);
    expect(await net.control(NetControl.getQueueCoalescing(last))).toEqual(coalescing);
    await net.control(NetStats.query());
    expect(await net.control(NetStats.get([{ queue: last, types: ['rxBasic'] }]))).toMatchObject([
      { queue: last },
    ]);
    const sending = NetControl.setQueueCoalescing({ pair: 3, direction: 'transmit' }, coalescing);
    await expect(net.control(sending)).rejects.toThrow(code('INVALID_PARAM'));
    net.reset();
    await expect(net.control(NetControl.getQueueCoalescing(last))).rejects.toThrow(code('INVALID_PARAM'));
    clean(made);
  });
});

describe('announcements [5.1.9.5.4]', () => {
  it('tells the listener, then the device', async () => {
    const made = setUp();
    const { model, net } = made;
    const listener = vi.fn(() => {
      expect(model.acknowledged).toBe(0);
    });
    net.on('announce', listener);
    model.announce();
    await turns();
    expect(listener).toHaveBeenCalledOnce();
    expect(model.acknowledged).toBe(1);
    clean(made);
  });

  it('sees one that was there from the start', async () => {
    const model = new NetModel();
    model.announce();
    using net = new VirtioNet(model.transport, model.device.hal);
    const listener = vi.fn();
    net.on('announce', listener);
    await turns();
    expect(listener).toHaveBeenCalledOnce();
    expect(model.acknowledged).toBe(1);
  });

  it('waits for its turn behind another command, with interrupts and without', async () => {
    for (const interrupts of [undefined, false] as const) {
      const made = setUp({ ...(interrupts === false && { interrupts }) });
      const { model, net } = made;
      model.answer = ({ class: group }) => (group === 3 ? undefined : null);
      const token = net.submitControl(NetControl.addVlan(1));
      model.announce();
      await turns();
      net.pollEvents();
      expect(model.acknowledged).toBe(0);
      model.answerLate(0);
      net.pollEvents();
      await turns();
      net.pollEvents();
      expect(model.acknowledged).toBe(1);
      net.completeControl(token);
      clean(made);
    }
  });

  it('waits in vain, without an error of pollEvents, when the device fails meanwhile', () => {
    const made = setUp({ interrupts: false });
    const { model, net } = made;
    model.answer = () => null;
    net.submitControl(NetControl.addVlan(1));
    model.announce();
    net.pollEvents();
    model.device.needsReset();
    net.pollEvents();
    net.pollEvents();
    expect(net.failure?.code).toBe('DEVICE_NEEDS_RESET');
    clean(made);
  });

  it('is asked for once in each life of the device, also when the acknowledgement of the last one is lost', async () => {
    const made = setUp();
    const { model, net } = made;
    const listener = vi.fn();
    net.on('announce', listener);
    model.answer = () => null;
    model.announce();
    await turns();
    net.reset();
    await turns();
    model.announce();
    await turns();
    expect(listener).toHaveBeenCalledTimes(2);
    expect(model.commands).toHaveLength(2);
    clean(made);
  });

  it('is heard when the device asks again before the answer to the acknowledgement was taken', async () => {
    const made = setUp();
    const { model, net } = made;
    const listener = vi.fn();
    net.on('announce', listener);
    // Accepted, and not marked as used yet.
    model.answer = () => {
      model.device.config[6] = 1;
      return null;
    };
    model.announce();
    await turns();
    model.announce();
    await turns();
    expect(listener).toHaveBeenCalledOnce();
    model.answerLate(0);
    await turns();
    expect(listener).toHaveBeenCalledTimes(2);
    expect(model.commands).toHaveLength(2);
    model.answerLate(0);
    await turns();
    // A device that does not take its question back is not answered for ever.
    expect(model.commands).toHaveLength(2);
    clean(made);
  });

  it('is not disturbed by a device that refuses the acknowledgement', async () => {
    const made = setUp();
    made.model.answer = () => 1;
    made.model.announce();
    await turns();
    expect(made.model.commands).toHaveLength(1);
    expect(made.net.failure).toBeUndefined();
    clean(made);
  });
});

describe('an address that is not the device’s own [5.1.9.5.2.2]', () => {
  const WITHOUT = ALL & ~F.MAC;

  it.each([undefined, false] as const)('is told to the device (interrupts: %s)', async (interrupts) => {
    const made = setUp({ features: WITHOUT, ...(interrupts === false && { interrupts }) });
    const { model, net } = made;
    const told = (): number[][] => model.commands.map(({ data }) => [...data]);
    await turns();
    expect(told()).toEqual([[...net.macAddress]]);
    expect(model.wants(frame(60, 1, [...net.macAddress]))).toBe(true);
    net.pollEvents();
    net.controlSync(NetControl.setMacAddress('02:00:00:00:00:07'));
    model.commands.length = 0;
    net.reset();
    await turns();
    // What it was told before, it has forgotten.
    expect(told()).toEqual([[2, 0, 0, 0, 0, 7]]);
    clean(made);
  });

  it('is told also if that of the device is none, and disturbs nothing if it is refused', async () => {
    const model = new NetModel({ features: ALL, mac: [1, 0, 0, 0, 0, 1] });
    model.answer = () => 1;
    using net = new VirtioNet(model.transport, model.device.hal, { macAddress: '02:00:00:00:00:09' });
    await turns();
    expect(model.commands.map(({ data }) => [...data])).toEqual([[2, 0, 0, 0, 0, 9]]);
    expect(net.failure).toBeUndefined();
  });

  it('is not told without the features for it, nor that of the device', async () => {
    for (const features of [WITHOUT & ~F.CTRL_MAC_ADDR, WITHOUT & ~F.CTRL_RX, ALL]) {
      const made = setUp({ features });
      await turns();
      expect(made.model.commands).toEqual([]);
      clean(made);
    }
  });
});
