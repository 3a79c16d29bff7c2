import {
  BufferDriver,
  type DriverOptions,
  Driver,
  FeatureTable,
  forThreads,
  type Hal,
  Layout,
  type LentQueues,
  openQueuePlan,
  type QueuePlan,
  type ReceiveQueue,
  type RequestQueue,
  type Transport,
  VirtioError,
} from '@virtio/core';
import { FakeDevice, FakePolling, FakeThread, FakeTransport } from '@virtio/testing';
import { describe, expect, it, vi } from 'vitest';
import { coded } from '../../test/helpers.ts';

const Table = new FeatureTable<never>('EchoFeatures', {});
const Config = new Layout('echo_config', { level: 'u32' });
const spec = { deviceType: 62, table: Table, supported: [] };

/** Has the device, and lends its first two queues. */
class Owner extends Driver<never> {
  readonly lent: LentQueues;
  resetting: (() => void) | undefined;

  constructor(transport: Transport, hal: Hal) {
    super(transport, hal, spec);
    this.lent = this.setUp(() =>
      this.lendQueues(
        forThreads(1),
        [
          { index: 0, size: 4 },
          { index: 1, size: 4 },
        ],
        [],
        Config,
      ),
    );
    this.start();
  }

  protected override onReset(): void {
    this.resetting?.();
  }
}

interface FarOptions extends DriverOptions {
  readonly queueSize?: number;
}

/** What the other thread has: a queue for requests, and one that it listens to. */
class Far extends BufferDriver<never> {
  readonly received: number[] = [];
  refusal: VirtioError | undefined;
  readonly #requests: RequestQueue<number>;
  readonly #messages: ReceiveQueue;

  constructor(transport: Transport, hal: Hal, { queueSize = 4, ...options }: FarOptions = {}) {
    super(transport, hal, spec, options);
    const queues = this.setUp(() => ({
      requests: this.createRequestQueue<number>({ index: 0, size: queueSize }),
      messages: this.createReceiveQueue({
        index: 1,
        size: queueSize,
        bufferSize: 8,
        receive: () => this.#messages.poll(([byte = 0]) => this.received.push(byte)) > 0,
      }),
    }));
    this.#requests = queues.requests;
    this.#messages = queues.messages;
    this.start();
  }

  ask(): number {
    const bytes = new Uint8Array(4);
    return this.#requests.requestSync({
      buffers: 1,
      fill: (slot) => {
        this.#requests.shareWritable(slot, bytes);
      },
      result: () => bytes[0] ?? 0,
    });
  }

  poll(): number {
    return this.#requests.poll();
  }

  protected override onReset(): void {
    const { refusal } = this;
    this.refusal = undefined;
    if (refusal !== undefined) throw refusal;
  }
}

function setUp(makeTransport = (device: FakeDevice) => new FakeTransport(device)) {
  const device = new FakeDevice({ type: 62, queues: [4, 4], config: 4 });
  device.handle(0, (chain) => {
    chain.write(Uint8Array.of(7, 0, 0, 0));
  });
  const transport = makeTransport(device);
  const owner = new Owner(transport, device.hal);
  const open = (plan: QueuePlan): Far => openQueuePlan(Far, plan, new FakeThread(transport, plan));
  /** The device sends, and the other thread gets it. */
  const sends = async (far: Far, byte: number): Promise<void> => {
    await vi.waitFor(() => expect(device.send(1, [byte])).toBe(true));
    await vi.waitFor(() => {
      far.pollEvents();
      expect(far.received.at(-1)).toBe(byte);
    });
  };
  return { device, transport, owner, open, sends };
}

const memory = 4096;

describe('a plan', () => {
  it('that the transport refuses is refused again in the same words', () => {
    class Refusing extends FakeTransport {
      override lendQueue(): never {
        throw new VirtioError('UNSUPPORTED', 'not over this transport');
      }
    }
    const { owner, device } = setUp((of) => new Refusing(of));
    for (let n = 0; n < 2; n += 1) {
      expect(() => owner.lent.plan({ memory })).toThrow('not over this transport');
    }
    owner[Symbol.dispose]();
    device.assertClean();
  });

  it.each([NaN, 0, -1, 4095, 4096.5, Infinity, '4096' as never, null as never])(
    'with %s bytes of memory is refused',
    (size) => {
      const { owner, device } = setUp();
      expect(() => owner.lent.plan({ memory: size })).toThrow(coded('INVALID_PARAM'));
      owner[Symbol.dispose]();
      device.assertClean();
    },
  );

  it('gives its driver interrupts that say whether they poll', () => {
    const interrupts = new FakePolling();
    const { owner, open } = setUp((device) => new FakeTransport(device, { interrupts }));
    const far = open(owner.lent.plan({ memory }));
    expect(far.transport.interrupts?.lookout).toBe(interrupts.lookout);
    far[Symbol.dispose]();
    owner[Symbol.dispose]();
  });

  it('leaves its descriptors to the thread that has opened it, if it cannot be opened a second time', () => {
    const { owner, open, transport } = setUp();
    const plan = owner.lent.plan({ memory });
    const far = open(plan);
    const second = new FakeThread(transport, plan);
    expect(() => openQueuePlan(Far, plan, second)).toThrow(coded('ALREADY_USED'));
    expect([second.closed, second.owned]).toEqual([1, false]);
    far[Symbol.dispose]();
    owner[Symbol.dispose]();
  });

  it('has the memory that is asked for, also after one with another size', () => {
    const { owner, device, open } = setUp();
    for (const pages of [2, 1, 1, 3]) {
      const plan = owner.lent.plan({ memory: pages * 4096 });
      expect(plan.memory.length).toBe(pages * 4096);
      open(plan)[Symbol.dispose]();
      owner.reset();
    }
    owner[Symbol.dispose]();
    device.assertClean();
  });

  it('that nobody has opened can be taken back and made anew, and the first is then good for nothing', async () => {
    const { owner, device, open, sends } = setUp();
    const first = owner.lent.plan({ memory });
    expect(() => owner.lent.plan({ memory })).toThrow(coded('ALREADY_USED'));
    owner.lent.abandon();
    expect(() => open(first)).toThrow(coded('ALREADY_USED'));
    const far = open(owner.lent.plan({ memory }));
    expect(far.ask()).toBe(7);
    await sends(far, 3);
    far[Symbol.dispose]();
    owner[Symbol.dispose]();
    device.assertClean();
  });

  it('that a thread has opened which is gone is free after a reset', () => {
    const { owner, device, open } = setUp();
    const gone = open(owner.lent.plan({ memory }));
    owner.lent.abandon();
    expect(() => owner.lent.plan({ memory })).toThrow(/reset the device/);
    owner.reset();
    const far = open(owner.lent.plan({ memory }));
    expect(far.ask()).toBe(7);
    far[Symbol.dispose]();
    owner[Symbol.dispose]();
    // The memory of a thread goes with it; here it is not gone.
    gone[Symbol.dispose]();
    device.assertClean();
  });
});

describe('a thread', () => {
  it('that opens its queues after the rings were emptied, before the device is live, works when it is', async () => {
    const { owner, device, open, sends } = setUp();
    const plan = owner.lent.plan({ memory });
    let far: Far | undefined;
    owner.resetting = () => (far ??= open(plan));
    owner.reset();
    expect(far?.ask()).toBe(7);
    expect(far?.failure).toBeUndefined();
    await sends(far as Far, 5);
    far?.[Symbol.dispose]();
    owner[Symbol.dispose]();
    device.assertClean();
  });

  it('that opens its queues during a reset, before the rings are emptied, loses nothing by that', async () => {
    const hook: { negotiating?: () => void } = {};
    class Watched extends FakeTransport {
      override readDeviceFeatures(): bigint {
        hook.negotiating?.();
        return super.readDeviceFeatures();
      }
    }
    const { owner, device, open, sends } = setUp((of) => new Watched(of));
    const plan = owner.lent.plan({ memory });
    let far: Far | undefined;
    hook.negotiating = () => (far ??= open(plan));
    owner.reset();
    for (let byte = 1; byte < 10; byte += 1) await sends(far as Far, byte);
    expect(far?.ask()).toBe(7);
    far?.[Symbol.dispose]();
    owner[Symbol.dispose]();
    device.assertClean();
  });

  it('whose driver cannot be reset says why, hears of the next reset, and works again', async () => {
    const { owner, device, open, sends } = setUp();
    const far = open(owner.lent.plan({ memory }));
    far.refusal = new VirtioError('INVALID_DEVICE', 'the configuration makes no sense');
    owner.reset();
    await vi.waitFor(() => expect(far.failure).toEqual(coded('INVALID_DEVICE')));
    expect(() => far.ask()).toThrow(coded('INVALID_DEVICE'));
    owner.reset();
    await vi.waitFor(() => expect(far.failure).toBeUndefined());
    expect(far.ask()).toBe(7);
    await sends(far, 9);
    far[Symbol.dispose]();
    owner[Symbol.dispose]();
    device.assertClean();
  });

  it('that found a lie before the device was reset does not fail the device of now', async () => {
    const { owner, device, open, sends } = setUp();
    const far = open(owner.lent.plan({ memory }));
    const ring = device.splitQueue(0);
    ring.forceUsed(0xfffe, 0);
    expect(() => far.poll()).toThrow(coded('DEVICE_MISBEHAVED'));
    owner.reset();
    owner.pollEvents();
    expect(owner.failure).toBeUndefined();
    await sends(far, 2);
    expect(owner.failure).toBeUndefined();
    far[Symbol.dispose]();
    owner[Symbol.dispose]();
    device.assertClean();
  });

  it('that waits after a reset which never ends hears that the device is gone', async () => {
    const { owner, open } = setUp();
    const far = open(owner.lent.plan({ memory }));
    const heard: string[] = [];
    far.on('failure', ({ code }) => heard.push(code));
    owner.resetting = () => {
      far.pollEvents();
      expect(() => far.ask()).toThrow(coded('DEVICE_RESET'));
      throw new VirtioError('DEVICE_REMOVED', 'it went away meanwhile');
    };
    expect(() => owner.reset()).toThrow('it went away meanwhile');
    await vi.waitFor(() => {
      far.pollEvents();
      expect(heard).toEqual(['DEVICE_RESET', 'DEVICE_REMOVED']);
    });
    expect(() => far.ask()).toThrow(coded('DEVICE_REMOVED'));
    far[Symbol.dispose]();
    owner[Symbol.dispose]();
  });

  it('may dispose its driver when it hears of a reset', async () => {
    const { owner, device, open } = setUp();
    const far = open(owner.lent.plan({ memory }));
    far.on('failure', () => far[Symbol.dispose]());
    owner.reset();
    await vi.waitFor(() => expect(far.failure).toEqual(coded('DISPOSED')));
    owner.reset();
    const next = open(owner.lent.plan({ memory }));
    expect(next.ask()).toBe(7);
    next[Symbol.dispose]();
    owner[Symbol.dispose]();
    device.assertClean();
  });
});
