import { FakeInterrupts } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { failure, picture, setUp, settle } from '../test/set-up.ts';
import { Command, type VirtioGpu } from './index.ts';

const CODES = (codes: string): Error => expect.objectContaining({ code: codes }) as Error;

describe('a reset', () => {
  it('loses commands in flight and all resources, and the driver works on', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 32, height: 32 });
    rig.host.held.add(0x105);
    const lost = failure(() => screen.flush());
    await settle();
    rig.gpu.reset();
    rig.host.held.clear();
    expect(await lost).toMatchObject({ code: 'DEVICE_RESET' });
    expect(screen.live).toBe(false);
    for (const attempt of [
      () => screen.flush(),
      () => screen.flushSync(),
      () => screen.submitTransfer(),
      () => screen.show(),
    ]) {
      expect(await failure(attempt)).toEqual(CODES('DEVICE_RESET'));
    }
    // Its memory can still be drawn to, until it is given back.
    screen.drawImage({ width: 32, height: 32, data: picture(32, 32) });
    const next = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    next.pixels.fill(0x010203);
    next.flushSync();
    expect(rig.host.pixel(0, 0, 0)).toEqual([1, 2, 3]);
    const sent = rig.host.log.length;
    const { length } = rig.host.device.hal.regions;
    await screen.destroy();
    expect(rig.host.log).toHaveLength(sent);
    expect(rig.host.device.hal.regions).toHaveLength(length - 1);
    expect(next.live).toBe(true);
  });

  it('in the midst of a set-up gives its memory back', async () => {
    for (const type of [0x100, 0x101, 0x106, 0x105, 0x103, 0x104]) {
      using rig = setUp();
      const { regions } = rig.host.device.hal;
      rig.host.held.add(type);
      const making = failure(() => rig.gpu.setUpFramebuffer());
      await settle();
      rig.gpu.reset();
      rig.host.held.clear();
      expect(await making, `0x${type.toString(16)}`).toMatchObject({ code: 'DEVICE_RESET' });
      await settle();
      expect(rig.host.device.hal.regions.length, `0x${type.toString(16)}`).toBe(regions.length);
      await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
      expect(rig.host.resources.size).toBe(1);
    }
  });

  it('reads the configuration anew', () => {
    using rig = setUp();
    expect(rig.gpu.scanouts).toBe(1);
    new DataView(rig.host.device.config.buffer).setUint32(8, 2, true);
    rig.gpu.reset();
    expect(rig.gpu.scanouts).toBe(2);
  });
});

describe('a device that is gone', () => {
  it('fails what is in flight and all that follows', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 32, height: 32 });
    const cursor = await rig.gpu.createCursor({ image: { width: 1, height: 1, data: new Uint8Array(4) } });
    rig.host.held.add(0x104);
    const flushes = [failure(() => screen.flush()), failure(() => screen.flush())];
    await settle();
    rig.host.device.remove();
    for (const error of await Promise.all(flushes)) expect(error).toMatchObject({ code: 'DEVICE_REMOVED' });
    for (const attempt of [
      () => screen.flush(),
      () => screen.flushSync(),
      () => screen.submitTransfer(),
      () => screen.destroy(),
      () => cursor.show({ x: 1, y: 1 }),
      () => rig.gpu.displays(),
      () => rig.gpu.setUpFramebuffer(),
      () => rig.gpu.createFramebufferSync({ width: 8, height: 8 }),
      () => rig.gpu.createCursor({ image: { width: 1, height: 1, data: new Uint8Array(4) } }),
      () => rig.gpu.hideCursorSync(),
      () => rig.gpu.poll(),
    ]) {
      expect(await failure(attempt)).toMatchObject({ code: 'DEVICE_REMOVED' });
    }
    screen[Symbol.dispose]();
    await cursor[Symbol.asyncDispose]();
  });

  it('while a flush spins ends it', () => {
    using rig = setUp();
    const screen = rig.gpu.setUpFramebufferSync({ width: 32, height: 32 });
    rig.host.meddle = () => {
      rig.host.device.remove();
      return undefined;
    };
    expect(() => screen.flushSync()).toThrow(CODES('DEVICE_REMOVED'));
  });
});

describe('a device that answers inside the notification', () => {
  it('leaves a flush that spins to its caller, whatever a listener polls for and takes', () => {
    using rig = setUp({ interrupts: new FakeInterrupts({ synchronous: true }) });
    const screen = rig.gpu.setUpFramebufferSync({ width: 32, height: 32 });
    const taken: number[] = [];
    rig.gpu.on('used', () => {
      for (let token = rig.gpu.poll(); token >= 0; token = rig.gpu.poll()) {
        taken.push(token);
        rig.gpu.complete(token);
      }
    });
    screen.pixels.fill(0x00ff_0000);
    screen.flushSync();
    screen.flushSync([{ x: 1, y: 2, width: 3, height: 4 }], { timeoutMs: 100 });
    expect(taken).toEqual([]);
    expect(rig.host.pixel(0, 5, 5)).toEqual([255, 0, 0]);
    const token = screen.submitTransfer();
    expect(taken).toEqual([token]);
    expect(() => rig.gpu.cancel(token)).toThrow(CODES('WRONG_TOKEN'));
  });

  it('which refuses the transfer of a flush that spins has the rest given up', () => {
    using rig = setUp();
    const screen = rig.gpu.setUpFramebufferSync({ width: 32, height: 32 });
    let refuse = true;
    rig.host.meddle = (answer, { type }) => {
      if (type === 0x105 && refuse) new DataView(answer.buffer, answer.byteOffset).setUint32(0, 0x1201, true);
      return answer;
    };
    expect(() => screen.flushSync()).toThrow(CODES('IO_ERROR'));
    expect(rig.gpu.poll()).toBe(-1);
    refuse = false;
    screen.flushSync();
  });
});

describe('a framebuffer', () => {
  it('whose show() was given up is switched off before it is destroyed, as it may be shown', async () => {
    using rig = setUp();
    const screen = await rig.gpu.createFramebuffer({ width: 32, height: 32 });
    rig.host.held.add(0x103);
    const controller = new AbortController();
    const showing = failure(() => screen.show(0, undefined, { signal: controller.signal }));
    await settle();
    controller.abort();
    expect(await showing).toMatchObject({ code: 'ABORTED' });
    rig.host.release();
    await settle();
    expect(rig.host.screens.has(0)).toBe(true);
    const from = rig.host.log.length;
    await screen.destroy();
    expect(rig.host.log.slice(from).map(({ type }) => type)).toEqual([0x103, 0x107, 0x102]);
  });

  it('that the device refused to show leaves what was shown', async () => {
    using rig = setUp();
    const shown = await rig.gpu.setUpFramebuffer({ width: 32, height: 32 });
    const other = await rig.gpu.createFramebuffer({ width: 32, height: 32 });
    rig.host.meddle = (answer, { type }) => {
      if (type === 0x103) new DataView(answer.buffer, answer.byteOffset).setUint32(0, 0x1205, true);
      return answer;
    };
    await expect(other.show()).rejects.toMatchObject({ code: 'IO_ERROR' });
    rig.host.meddle = undefined;
    const from = rig.host.log.length;
    await other.destroy();
    await shown.destroy();
    expect(rig.host.log.slice(from).map(({ type }) => type)).toEqual([0x107, 0x102, 0x103, 0x107, 0x102]);
  });
});

describe('a device that needs a reset', () => {
  it('works again after it', async () => {
    using rig = setUp();
    rig.host.held.add(0x100);
    const lost = failure(() => rig.gpu.displays());
    await settle();
    rig.host.device.needsReset();
    expect(await lost).toMatchObject({ code: 'DEVICE_NEEDS_RESET' });
    rig.host.held.clear();
    rig.gpu.reset();
    expect((await rig.gpu.displays())[0]?.width).toBe(1280);
  });
});

describe('disposal', () => {
  it('ends what is in flight, and all that follows', async () => {
    const rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer();
    rig.host.held.add(0x105);
    const lost = failure(() => screen.flush());
    rig[Symbol.dispose]();
    expect(await lost).toMatchObject({ code: 'DISPOSED' });
    expect(screen.bytes).toHaveLength(0);
    expect(await failure(() => screen.flush())).toMatchObject({ code: 'DISPOSED' });
    expect(await failure(() => rig.gpu.setUpFramebuffer())).toMatchObject({ code: 'DISPOSED' });
    expect(await failure(() => rig.gpu.request(Command.getDisplayInfo()))).toMatchObject({
      code: 'DISPOSED',
    });
    rig[Symbol.dispose]();
  });

  it('by a listener inside a spinning flush is survived', () => {
    using rig = setUp();
    const screen = rig.gpu.setUpFramebufferSync({ width: 8, height: 8 });
    rig.gpu.on('failure', () => rig.gpu[Symbol.dispose]());
    rig.host.meddle = (answer) => answer.subarray(0, 3);
    expect(() => screen.flushSync()).toThrow(CODES('DEVICE_MISBEHAVED'));
  });

  it('by a listener, and a reset by one, inside a promise is survived', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    rig.gpu.on('failure', () => {
      rig.host.meddle = undefined;
      rig.gpu.reset();
    });
    rig.host.meddle = (answer) => answer.subarray(0, 3);
    expect(await failure(() => screen.flush())).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    expect(rig.gpu.failure).toBeUndefined();
    expect((await rig.gpu.displays())[0]?.width).toBe(1280);
  });
});

describe('time-outs and aborts', () => {
  it('of a flush leave the framebuffer usable', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    for (const type of [0x105, 0x104]) {
      rig.host.held.add(type);
      expect(() => screen.flushSync(undefined, { timeoutMs: 0 })).toThrow(CODES('NOT_READY'));
      const controller = new AbortController();
      const aborted = failure(() => screen.flush(undefined, { signal: controller.signal }));
      await settle();
      controller.abort();
      expect(await aborted).toMatchObject({ code: 'ABORTED' });
      rig.host.release();
      screen.pixels.fill(type);
      await screen.flush();
      expect(rig.host.pixel(0, 7, 7)).toEqual([0, 1, type & 255]);
      expect(rig.gpu.poll()).toBe(-1);
    }
    await screen.destroy();
  });

  it('of a set-up leave nothing behind', async () => {
    for (const type of [0x101, 0x106, 0x105, 0x103]) {
      using rig = setUp();
      const { regions } = rig.host.device.hal;
      rig.host.held.add(type);
      const controller = new AbortController();
      const aborted = failure(() =>
        rig.gpu.setUpFramebuffer({ width: 8, height: 8 }, { signal: controller.signal }),
      );
      await settle();
      controller.abort();
      expect(await aborted).toMatchObject({ code: 'ABORTED' });
      // The device still has the command, and with it the memory.
      expect(rig.host.device.hal.regions.length).toBeGreaterThan(regions.length);
      rig.host.release();
      await settle();
      expect(rig.host.resources.size).toBe(0);
      expect(rig.host.device.hal.regions.length).toBe(regions.length);
    }
  });

  it('are refused before anything is sent if they make no sense', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    const sent = rig.host.log.length;
    expect(() => screen.flushSync(undefined, { timeoutMs: NaN })).toThrow(CODES('INVALID_PARAM'));
    expect(() => rig.gpu.displaysSync({ timeoutMs: -1 })).toThrow(CODES('INVALID_PARAM'));
    const signal = AbortSignal.abort();
    expect(await failure(() => screen.flush(undefined, { signal }))).toMatchObject({ code: 'ABORTED' });
    expect(await failure(() => rig.gpu.setUpFramebuffer({}, { signal }))).toMatchObject({ code: 'ABORTED' });
    expect(rig.host.log).toHaveLength(sent);
  });
});

describe('without interrupts', () => {
  it('promises are refused before anything is sent, and the other forms work', async () => {
    using rig = setUp({ interrupts: false });
    for (const attempt of [
      () => rig.gpu.displays(),
      () => rig.gpu.setUpFramebuffer(),
      () => rig.gpu.moveCursor({ x: 1, y: 1 }),
    ]) {
      expect(await failure(attempt)).toMatchObject({ code: 'UNSUPPORTED' });
    }
    expect(rig.host.log).toHaveLength(0);
    const screen = rig.gpu.setUpFramebufferSync({ width: 8, height: 8 });
    screen.pixels.fill(0xff);
    expect(await failure(() => screen.flush())).toMatchObject({ code: 'UNSUPPORTED' });
    screen.flushSync();
    expect(rig.host.pixel(0, 0, 0)).toEqual([0, 0, 255]);
    const cursor = rig.gpu.createCursorSync({ image: { width: 1, height: 1, data: new Uint8Array(4) } });
    cursor.showSync({ x: 3, y: 3 });
    cursor.destroySync();
    screen.destroySync();
    expect(rig.host.resources.size).toBe(0);
  });

  it('what was refused can still be destroyed', async () => {
    using rig = setUp({ interrupts: false });
    const screen = rig.gpu.setUpFramebufferSync({ width: 8, height: 8 });
    const cursor = rig.gpu.createCursorSync({ image: { width: 1, height: 1, data: new Uint8Array(4) } });
    const sent = rig.host.log.length;
    for (const each of [screen, cursor]) {
      expect(await failure(() => each.destroy())).toMatchObject({ code: 'UNSUPPORTED' });
      expect(() => each.destroySync({ timeoutMs: -1 })).toThrow(CODES('INVALID_PARAM'));
      expect(each.live).toBe(true);
    }
    expect(await failure(() => screen.show())).toMatchObject({ code: 'UNSUPPORTED' });
    expect(rig.host.log).toHaveLength(sent);
    for (const each of [screen, cursor]) {
      each.destroySync();
      each.destroySync();
      await each.destroy();
    }
    expect(rig.host.resources.size).toBe(0);
    expect(rig.host.screens.size).toBe(0);
  });

  it('a set-up that fails leaves nothing behind', () => {
    using rig = setUp({ interrupts: false, hostMemory: 1000 });
    const { regions } = rig.host.device.hal;
    expect(() => rig.gpu.setUpFramebufferSync({ width: 80, height: 80 })).toThrow(CODES('IO_ERROR'));
    expect(rig.host.device.hal.regions.length).toBe(regions.length);
  });
});

describe('a caller that cancels', () => {
  it('does not keep a framebuffer from being destroyed', async () => {
    for (const type of [0x103, 0x107, 0x102]) {
      using rig = setUp();
      const { hal } = rig.host.device;
      const regions = hal.regions.length;
      const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
      rig.host.held.add(type);
      const controller = new AbortController();
      const cancelled = failure(() => screen.destroy({ signal: controller.signal }));
      await settle();
      controller.abort();
      expect(await cancelled, `0x${type.toString(16)}`).toMatchObject({ code: 'ABORTED' });
      rig.host.release();
      await settle();
      expect([rig.host.resources.size, rig.host.screens.size, hal.regions.length]).toEqual([0, 0, regions]);
      await screen.destroy();
    }
  });

  it.each([0x100, 0x101, 0x106, 0x105, 0x103, 0x104])(
    'is not kept alive by a device that does not answer command 0x%s of a set-up, which is undone when it does',
    async (type) => {
      using rig = setUp();
      const { hal } = rig.host.device;
      const regions = hal.regions.length;
      const { interrupts } = rig.transport;
      rig.host.held.add(type).add(0x107).add(0x102);
      const controller = new AbortController();
      const cancelled = failure(() => rig.gpu.setUpFramebuffer({}, { signal: controller.signal }));
      await settle();
      expect(interrupts?.holds).toBe(1);
      controller.abort();
      expect(await cancelled).toMatchObject({ code: 'ABORTED' });
      expect(interrupts?.holds).toBe(0);
      rig.host.release();
      // The commands that undo it are not waited for either.
      rig.host.held.add(0x107).add(0x102);
      await settle();
      expect(interrupts?.holds).toBe(0);
      rig.host.release();
      await settle();
      expect([rig.host.resources.size, hal.regions.length]).toEqual([0, regions]);
    },
  );

  it('is not kept alive for a signal of the caller’s own that aborts while its listener is added', async () => {
    using rig = setUp();
    rig.host.held.add(0x100);
    const signal = {
      aborted: false,
      addEventListener(_type: 'abort', listener: () => void): void {
        signal.aborted = true;
        listener();
      },
      removeEventListener: () => undefined,
    };
    expect(await failure(() => rig.gpu.setUpFramebuffer({}, { signal }))).toMatchObject({ code: 'ABORTED' });
    await settle();
    expect([rig.host.held.size, rig.transport.interrupts?.holds]).toEqual([1, 0]);
    rig.host.release();
    await settle();
    expect(rig.host.resources.size).toBe(0);
  });

  it('whose set-up was refused is not kept alive by a device that does not answer any more', async () => {
    using rig = setUp({ hostMemory: 1000 });
    rig.host.held.add(0x107).add(0x102);
    expect(await failure(() => rig.gpu.setUpFramebuffer())).toMatchObject({ code: 'IO_ERROR' });
    await settle();
    expect(rig.transport.interrupts?.holds).toBe(0);
  });

  it('may destroy a cursor later, if it was still shown', async () => {
    using rig = setUp();
    const cursor = await rig.gpu.createCursor({ image: { width: 1, height: 1, data: picture(1, 1) } });
    await cursor.show({ x: 1, y: 2 });
    const waiting: (() => void)[] = [];
    rig.host.device.handle(1, (chain) => {
      chain.defer();
      waiting.push(() => void chain.complete());
    });
    const hiding = new AbortController();
    const cancelled = failure(() => cursor.destroy({ signal: hiding.signal }));
    await settle();
    hiding.abort();
    expect(await cancelled).toMatchObject({ code: 'ABORTED' });
    expect(cursor.live).toBe(true);
    for (const answer of waiting) answer();
    rig.host.held.add(0x102);
    const destroying = new AbortController();
    const again = failure(() => cursor.destroy({ signal: destroying.signal }));
    await settle();
    destroying.abort();
    expect(await again).toMatchObject({ code: 'ABORTED' });
    rig.host.release();
    await settle();
    expect(rig.host.resources.size).toBe(0);
    await cursor.destroy();
  });
});

describe('without room in the queue', () => {
  /** Takes all room of the control queue; returns what gives it back. */
  function fill({ gpu, host }: ReturnType<typeof setUp>): () => void {
    host.held.add(0x0100);
    const tokens = Array.from({ length: 4 }, () => gpu.submit(Command.getDisplayInfo(), { kick: false }));
    gpu.kick();
    return () => {
      host.release();
      for (const token of tokens) gpu.complete(token);
    };
  }
  const full = { interrupts: false, queues: [8, 4], features: 0n } as const;

  it.each([
    ['a framebuffer', (gpu: VirtioGpu) => gpu.createFramebufferSync({ width: 64, height: 64 })],
    [
      'a cursor',
      (gpu: VirtioGpu) => gpu.createCursorSync({ image: { width: 1, height: 1, data: picture(1, 1) } }),
    ],
  ])('%s that cannot be made costs no memory', (_name, make) => {
    using rig = setUp(full);
    const { hal } = rig.host.device;
    const regions = hal.regions.length;
    for (let n = 0; n < 3; n += 1) {
      const empty = fill(rig);
      for (let tries = 0; tries < 3; tries += 1) expect(() => make(rig.gpu)).toThrow(CODES('QUEUE_FULL'));
      empty();
    }
    make(rig.gpu).destroySync();
    expect(hal.regions.length).toBe(regions);
    expect(rig.host.resources.size).toBe(0);
  });

  it('a framebuffer that is shown is destroyed by the next call', () => {
    using rig = setUp(full);
    const { hal } = rig.host.device;
    const regions = hal.regions.length;
    const screen = rig.gpu.setUpFramebufferSync();
    const empty = fill(rig);
    expect(() => screen.destroySync()).toThrow(CODES('QUEUE_FULL'));
    expect(screen.live).toBe(true);
    empty();
    screen.destroySync();
    expect([screen.live, rig.host.screens.size, rig.host.resources.size]).toEqual([false, 0, 0]);
    expect(hal.regions.length).toBe(regions);
  });

  it('a cursor is destroyed by the next call', () => {
    using rig = setUp(full);
    const cursor = rig.gpu.createCursorSync({ image: { width: 1, height: 1, data: picture(1, 1) } });
    const empty = fill(rig);
    expect(() => cursor.destroySync()).toThrow(CODES('QUEUE_FULL'));
    empty();
    cursor.destroySync();
    expect(rig.host.resources.size).toBe(0);
  });
});

describe('the queue', () => {
  it('that is full is told, and nothing is half sent', async () => {
    using rig = setUp({ queues: [6, 4], features: 0n });
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    rig.host.held.add(0x105).add(0x104);
    const tokens = [screen.submitTransfer(), screen.submitResourceFlush()];
    expect(() => screen.flushSync()).toThrow(CODES('QUEUE_FULL'));
    tokens.push(-1);
    expect(() => screen.submitTransfer()).toThrow(CODES('QUEUE_FULL'));
    rig.host.release();
    rig.gpu.complete(tokens[0] ?? -1);
    rig.gpu.complete(tokens[1] ?? -1);
    screen.flushSync();
    expect(rig.gpu.poll()).toBe(-1);
  });
});
