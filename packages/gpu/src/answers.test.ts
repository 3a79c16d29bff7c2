/** What devices may answer that lie, or are sloppy. */
import { FakeTransport } from '@virtio/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ALL_FEATURES, GpuDevice, type Logged } from '../test/gpu-device.ts';
import { failure, type Rig, setUp, settle } from '../test/set-up.ts';
import { Command, GpuError, VirtioGpu } from './index.ts';

const change =
  (edit: (view: DataView) => void) =>
  (answer: Uint8Array): Uint8Array => {
    edit(new DataView(answer.buffer, answer.byteOffset, answer.length));
    return answer;
  };

const fenced = Command.resourceUnref(1);

describe('a device that is not trusted any more', () => {
  it.each<[string, (answer: Uint8Array, command: Logged) => Uint8Array]>([
    ['answers with no byte', () => new Uint8Array(0)],
    ['answers with a type that is none', change((view) => view.setUint32(0, 0, true))],
    ['answers with a command', change((view) => view.setUint32(0, 0x102, true))],
    ['answers with a type beyond all', change((view) => view.setUint32(0, 0xffffffff, true))],
    ['answers with the fence of another command', change((view) => view.setUint32(8, 77, true))],
    ['answers with a fence that differs in its upper half', change((view) => view.setUint32(12, 1, true))],
    [
      'answers that it is done without the fence',
      change((view) => {
        view.setUint32(0, 0x1100, true);
        view.setUint32(4, 0, true);
      }),
    ],
  ])('%s', async (_what, meddle) => {
    using rig = setUp();
    const { host, gpu } = rig;
    host.meddle = meddle;
    const failures: string[] = [];
    gpu.on('failure', ({ code }) => failures.push(code));
    expect(await failure(() => gpu.request(fenced))).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    expect(failures).toEqual(['DEVICE_MISBEHAVED']);
    expect(host.device.status.has(0x80)).toBe(true);
    expect(await failure(() => gpu.displays())).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    host.meddle = undefined;
    gpu.reset();
    expect((await gpu.displays())[0]?.width).toBe(1280);
  });

  it('answers the flush of a framebuffer with the fence of its transfer', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    let last = 0n;
    rig.host.meddle = (answer, { fence }) => {
      if (last !== 0n) new DataView(answer.buffer).setBigUint64(8, last, true);
      last = fence;
      return answer;
    };
    expect(() => screen.flushSync()).toThrow(expect.objectContaining({ code: 'DEVICE_MISBEHAVED' }));
    expect(rig.gpu.failure?.code).toBe('DEVICE_MISBEHAVED');
  });
});

describe('a device that is sloppy', () => {
  it('may answer another command than was asked, which fails that command alone', async () => {
    using rig = setUp();
    // QEMU 10.0 answers commands whose body is too short like this.
    rig.host.meddle = change((view) => view.setUint32(0, 0x1100, true));
    expect(await failure(() => rig.gpu.displays())).toMatchObject({ code: 'DEVICE_MISBEHAVED' });
    rig.host.meddle = undefined;
    expect(rig.gpu.failure).toBeUndefined();
    expect((await rig.gpu.displays())[0]?.width).toBe(1280);
  });

  it('may leave out what is zero', async () => {
    using rig = setUp({ scanouts: 2 });
    rig.host.meddle = (answer) => answer.subarray(0, 24 + 24);
    expect((await rig.gpu.displays()).map(({ width }) => width)).toEqual([1280, 0]);
    expect(rig.gpu.quirks).toBe(0);
    rig.host.meddle = (answer) => answer.subarray(0, 24 + 12);
    expect((await rig.gpu.displays()).map(({ width, enabled }) => [width, enabled])).toEqual([
      [1280, false],
      [0, false],
    ]);
    expect(rig.gpu.quirks).toBe(1);
  });

  it.each([0, 4, 23])('may report a used length of %i for a whole answer', async (length) => {
    using rig = setUp();
    rig.host.edids.set(0, new Uint8Array(200).fill(7));
    rig.host.usedLength = length;
    expect((await rig.gpu.displays())[0]?.width).toBe(1280);
    expect(await rig.gpu.request(Command.getEdid(0))).toEqual(new Uint8Array(200).fill(7));
    expect(await failure(() => rig.gpu.request(fenced))).toMatchObject({
      response: 'ERR_INVALID_RESOURCE_ID',
    });
    expect(rig.gpu.quirks).toBe(3);
    expect(rig.gpu.failure).toBeUndefined();
  });

  it('may answer cursors with any length, and write nothing', async () => {
    using rig = setUp();
    rig.host.device.handle(1, (chain) => {
      chain.complete(10);
    });
    await rig.gpu.moveCursor({ x: 1, y: 1 });
    rig.host.device.handle(1, (chain) => {
      chain.complete(24);
    });
    await rig.gpu.moveCursor({ x: 2, y: 2 });
    expect(rig.gpu.failure).toBeUndefined();
  });

  it('does not show what an earlier answer left in memory', async () => {
    using rig = setUp({ scanouts: 2 });
    for (let n = 0; n < 70; n += 1) rig.gpu.displaysSync();
    rig.host.meddle = (answer) => answer.subarray(0, 24);
    expect(rig.gpu.displaysSync()[0]?.width).toBe(0);
  });

  it('may refuse without the fence, as nothing is to be finished', async () => {
    using rig = setUp();
    rig.host.meddle = change((view) => {
      view.setUint32(4, 0, true);
      view.setBigUint64(8, 0n, true);
    });
    expect(await failure(() => rig.gpu.request(fenced))).toMatchObject({
      response: 'ERR_INVALID_RESOURCE_ID',
    });
    expect(rig.gpu.failure).toBeUndefined();
  });

  it('may refuse for a reason that nobody knows', async () => {
    using rig = setUp();
    rig.host.meddle = change((view) => view.setUint32(0, 0x12ff, true));
    const error = await failure(() => rig.gpu.displays());
    expect(GpuError.isGpuError(error, 'UNKNOWN')).toBe(true);
    expect(error).toMatchObject({ code: 'IO_ERROR', command: 'GET_DISPLAY_INFO', responseType: 0x12ff });
  });

  it('may answer with any bytes: a result or an error, and no other command is touched', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 1100 }), { minLength: 1, maxLength: 8 }), (answers) => {
        const host = new GpuDevice({
          features: ALL_FEATURES,
          blobAlignment: 1,
          hostVisible: 4096,
          scanouts: 16,
        });
        using gpu = new VirtioGpu(new FakeTransport(host.device), host.device.hal);
        const commands = [
          Command.getDisplayInfo(),
          Command.getEdid(0),
          Command.getCapsetInfo(0),
          Command.getCapset({ capsetId: 1, maxSize: 4000 }, 1),
          Command.resourceAssignUuid(1),
          Command.resourceMapBlob(1, 0),
          Command.resourceUnref(1),
        ];
        let n = 0;
        host.meddle = () => {
          const answer = (answers[n % answers.length] ?? new Uint8Array(0)).slice();
          const types = [0x1100, 0x1101, 0x1102, 0x1103, 0x1104, 0x1105, 0x1106, 0x1200];
          if (answer.length >= 4) {
            new DataView(answer.buffer).setUint32(0, types[answer[0] ?? 0] ?? 0x1101, true);
          }
          n += 1;
          return answer;
        };
        for (const command of commands) {
          try {
            gpu.requestSync(command as ReturnType<typeof Command.getEdid>, { fence: false });
          } catch (error) {
            expect(error).toMatchObject({ name: 'VirtioError' });
          }
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe('answers out of order', () => {
  const three = (rig: Rig): Promise<unknown>[] => [
    rig.gpu.request(Command.getEdid(0)).then((edid) => edid.length),
    rig.gpu.displays().then(([display]) => display?.width),
    failure(() => rig.gpu.request(Command.resourceUnref(5))).then((error) => (error as GpuError).response),
  ];

  it('reach those who asked', async () => {
    using rig = setUp();
    rig.host.edids.set(0, new Uint8Array(33));
    for (const type of [0x100, 0x102, 0x10a]) rig.host.held.add(type);
    const answers = three(rig);
    await settle();
    rig.host.release((waiting) => waiting.toReversed());
    expect(await Promise.all(answers)).toEqual([33, 1280, 'ERR_INVALID_RESOURCE_ID']);
  });

  it('of commands that were given up reach nobody', async () => {
    using rig = setUp();
    rig.host.held.add(0x100);
    expect(() => rig.gpu.displaysSync({ timeoutMs: 0 })).toThrow(
      expect.objectContaining({ code: 'NOT_READY' }),
    );
    const controller = new AbortController();
    const aborted = failure(() => rig.gpu.displays({ signal: controller.signal }));
    const token = rig.gpu.submit(Command.getDisplayInfo());
    await settle();
    controller.abort();
    expect(await aborted).toMatchObject({ code: 'ABORTED' });
    rig.gpu.cancel(token);
    expect(() => rig.gpu.complete(token)).toThrow(expect.objectContaining({ code: 'WRONG_TOKEN' }));
    rig.host.displays[0] = { x: 0, y: 0, width: 5, height: 5, enabled: true };
    rig.host.release();
    rig.host.displays[0] = { x: 0, y: 0, width: 6, height: 6, enabled: true };
    expect(rig.gpu.displaysSync()[0]?.width).toBe(6);
    expect(rig.gpu.poll()).toBe(-1);
  });
});
