import { describe, expect, it } from 'vitest';
import {
  ALL_FEATURES,
  BLOB_ALIGNMENT,
  CONTEXT_INIT,
  type GpuDeviceOptions,
  RESOURCE_BLOB,
  RESOURCE_UUID,
  VIRGL,
} from '../test/gpu-device.ts';
import { failure, type Rig, setUp, settle } from '../test/set-up.ts';
import {
  BlobFlag,
  BlobMemory,
  Capset,
  Command,
  type GpuCommand,
  GpuCommandType,
  type MemoryEntry,
  PixelFormat,
  RESOURCE_FLAG_Y_0_TOP,
} from './index.ts';

const RECT = { x: 0, y: 0, width: 16, height: 16 };

/** A device with everything. */
const full = (options: GpuDeviceOptions = {}): Rig =>
  setUp({
    ...{ features: ALL_FEATURES, blobAlignment: 4096, hostVisible: 1 << 20 },
    capsets: [
      { id: Capset.VIRGL, version: 1, data: Uint8Array.of(1, 2, 3, 4) },
      { id: Capset.VENUS, version: 7, data: new Uint8Array(5000).fill(9) },
    ],
    ...options,
  });

/** Memory of the driver's side that the device may use. */
function memory(rig: Rig, pages: number): { bytes: Uint8Array; entries: MemoryEntry[] } & Disposable {
  const { hal } = rig.host.device;
  const region = hal.dmaAlloc(pages, 'both', false);
  return {
    bytes: region.bytes,
    entries: [{ address: region.address, length: region.bytes.length }],
    [Symbol.dispose]: () => hal.dmaDealloc(region, false),
  };
}

/** Each of the three forms. */
const forms = [
  ['request', <T>({ gpu }: Rig, command: GpuCommand<T>): Promise<T> => gpu.request(command)],
  ['requestSync', <T>({ gpu }: Rig, command: GpuCommand<T>): T => gpu.requestSync(command)],
  [
    'submit',
    <T>({ gpu }: Rig, command: GpuCommand<T>): T => {
      const token = gpu.submit(command);
      expect(gpu.poll()).toBe(token);
      return gpu.complete(token);
    },
  ],
] as const;

describe.each(forms)('commands by %s', (_name, send) => {
  it('make a 2D resource, show it, and destroy it', async () => {
    using rig = setUp();
    using pages = memory(rig, 1);
    const id = rig.gpu.nextResourceId();
    await send(
      rig,
      Command.resourceCreate2d({ resourceId: id, format: PixelFormat.R8G8B8A8_UNORM, width: 16, height: 16 }),
    );
    await send(rig, Command.resourceAttachBacking(id, pages.entries));
    pages.bytes.set([1, 2, 3, 4], 4 * 17);
    await send(rig, Command.transferToHost2d(id, { x: 1, y: 1, width: 1, height: 1 }, 4 * 17));
    await send(rig, Command.setScanout(0, id, RECT));
    await send(rig, Command.resourceFlush(id, RECT));
    expect(rig.host.pixel(0, 1, 1)).toEqual([1, 2, 3]);
    expect(rig.host.pixel(0, 0, 0)).toEqual([0, 0, 0]);
    await send(rig, Command.setScanout(0, 0, { x: 0, y: 0, width: 0, height: 0 }));
    await send(rig, Command.resourceDetachBacking(id));
    await send(rig, Command.resourceUnref(id));
    rig.gpu.freeResourceId(id);
    expect([rig.host.resources.size, rig.host.screens.size]).toEqual([0, 0]);
    expect((await send(rig, Command.getDisplayInfo()))[0]?.width).toBe(1280);
  });

  it('ask for capability sets, of any size', async () => {
    using rig = full();
    const info = await send(rig, Command.getCapsetInfo(1));
    expect(info).toEqual({ capsetId: Capset.VENUS, maxVersion: 7, maxSize: 5000 });
    expect(await send(rig, Command.getCapset(info, 7))).toEqual(new Uint8Array(5000).fill(9));
    expect(await send(rig, Command.getCapset({ capsetId: Capset.VIRGL, maxSize: 100 }, 1))).toEqual(
      Uint8Array.of(1, 2, 3, 4),
    );
    expect(
      await failure(() => send(rig, Command.getCapset({ capsetId: 99, maxSize: 5000 }, 1))),
    ).toMatchObject({
      response: 'ERR_INVALID_PARAMETER',
    });
  });

  it('give a resource a UUID', async () => {
    using rig = full();
    await send(rig, Command.resourceCreate2d({ resourceId: 7, format: 1, width: 4, height: 4 }));
    const uuid = await send(rig, Command.resourceAssignUuid(7));
    expect([...uuid]).toEqual([7, ...Array.from({ length: 15 }, (_, i) => 0xa1 + i)]);
  });

  it('show a blob in memory of the guest', async () => {
    using rig = full();
    using pages = memory(rig, 2);
    const { entries, bytes } = pages;
    await send(
      rig,
      Command.resourceCreateBlob({
        resourceId: 3,
        memory: BlobMemory.GUEST,
        flags: BlobFlag.USE_SHAREABLE,
        size: 8192,
        entries,
      }),
    );
    await send(
      rig,
      Command.setScanoutBlob({
        ...{
          scanout: 0,
          resourceId: 3,
          rect: RECT,
          width: 20,
          height: 30,
          format: PixelFormat.B8G8R8X8_UNORM,
        },
        ...{ strides: [128], offsets: [256] },
      }),
    );
    bytes.set([1, 2, 3, 0], 256 + 128 * 5 + 4 * 6);
    await send(rig, Command.resourceFlush(3, RECT));
    expect(rig.host.pixel(0, 6, 5)).toEqual([3, 2, 1]);
    await send(rig, Command.resourceUnref(3));
  });

  it('map a blob of the host, and unmap it', async () => {
    using rig = full();
    await send(rig, Command.ctxCreate({ contextId: 1, capsetId: Capset.VENUS }));
    await send(
      rig,
      Command.resourceCreateBlob({
        ...{ resourceId: 3, memory: BlobMemory.HOST3D, flags: BlobFlag.USE_MAPPABLE, size: 65_536 },
        ...{ blobId: 2 ** 40, contextId: 1 },
      }),
    );
    expect(new DataView(rig.host.log.at(-1)?.bytes.buffer as ArrayBuffer).getBigUint64(40, true)).toBe(
      1n << 40n,
    );
    expect(await send(rig, Command.resourceMapBlob(3, 8192))).toBe(1);
    expect(rig.host.resources.get(3)?.mappedAt).toBe(8192);
    await send(rig, Command.resourceUnmapBlob(3));
    expect(rig.host.resources.get(3)?.mappedAt).toBeUndefined();
  });

  it('use contexts and 3D resources', async () => {
    using rig = full();
    using pages = memory(rig, 1);
    await send(rig, Command.ctxCreate({ contextId: 5, debugName: 'Körper' }));
    expect(rig.host.contexts.get(5)).toEqual({ name: 'Körper', init: 0 });
    await send(
      rig,
      Command.resourceCreate3d({
        ...{
          resourceId: 9,
          target: 2,
          format: 1,
          bind: 2,
          width: 8,
          height: 8,
          flags: RESOURCE_FLAG_Y_0_TOP,
        },
      }),
    );
    await send(rig, Command.resourceAttachBacking(9, pages.entries));
    await send(rig, Command.ctxAttachResource(5, 9));
    pages.bytes.set([1, 2, 3, 4, 5, 6, 7, 8], 100);
    const box = { contextId: 5, resourceId: 9, x: 2, y: 3, width: 2, height: 1 };
    await send(rig, Command.transferToHost3d({ ...box, offset: 100 }));
    await send(rig, Command.transferFromHost3d({ ...box, offset: 2000, stride: 64 }));
    expect([...pages.bytes.subarray(2000, 2008)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    const stream = Uint8Array.from({ length: 3000 }, (_, i) => i);
    await send(rig, Command.submit3d(5, stream));
    expect(rig.host.streams).toEqual([{ context: 5, bytes: stream }]);
    await send(rig, Command.ctxDetachResource(5, 9));
    expect(await failure(() => send(rig, Command.transferToHost3d(box)))).toMatchObject({
      response: 'ERR_INVALID_RESOURCE_ID',
    });
    await send(rig, Command.ctxDestroy(5));
    expect(await failure(() => send(rig, Command.submit3d(5, stream)))).toMatchObject({
      response: 'ERR_INVALID_CONTEXT_ID',
      command: 'SUBMIT_3D',
    });
    await send(rig, Command.resourceUnref(9));
  });

  it.each([
    [0n, Command.getEdid(0)],
    [0n, Command.resourceAssignUuid(1)],
    [ALL_FEATURES & ~RESOURCE_UUID, Command.resourceAssignUuid(1)],
    [0n, Command.resourceCreateBlob({ resourceId: 1, memory: BlobMemory.GUEST, size: 1 })],
    [VIRGL, Command.resourceMapBlob(1, 0)],
    [RESOURCE_BLOB, Command.ctxCreate({ contextId: 1 })],
    [VIRGL, Command.ctxCreate({ contextId: 1, capsetId: 1 })],
    [0n, Command.submit3d(1, new Uint8Array(4))],
    [0n, Command.ctxDestroy(1)],
    [
      0n,
      Command.setScanoutBlob({
        scanout: 0,
        resourceId: 1,
        rect: RECT,
        width: 1,
        height: 1,
        format: 1,
        strides: [4],
      }),
    ],
  ])('with features %d are refused if they need others [5.7.6]', async (features, command) => {
    using rig = setUp({ features });
    expect(await failure(() => send(rig, command as GpuCommand<unknown>))).toMatchObject({
      code: 'UNSUPPORTED',
    });
    expect(rig.host.log).toHaveLength(0);
  });

  it('align blobs as the device wants it [5.7.6.8] [5.7.6.9]', async () => {
    using rig = full();
    for (const command of [
      Command.resourceCreateBlob({ resourceId: 1, memory: BlobMemory.GUEST, size: 4097 }),
      Command.resourceMapBlob(1, 100),
    ]) {
      expect(await failure(() => send(rig, command as GpuCommand<unknown>))).toMatchObject({
        code: 'INVALID_PARAM',
      });
    }
    expect(rig.host.log).toHaveLength(0);
    using loose = full({ features: ALL_FEATURES & ~BLOB_ALIGNMENT });
    await send(loose, Command.resourceCreateBlob({ resourceId: 1, memory: BlobMemory.GUEST, size: 4097 }));
  });

  it('map no blob where there is no region for it, or outside it', async () => {
    using rig = full();
    expect(await failure(() => send(rig, Command.resourceMapBlob(1, 1 << 20)))).toMatchObject({
      code: 'INVALID_PARAM',
    });
    using without = setUp({ features: ALL_FEATURES, blobAlignment: 1 });
    for (const command of [Command.resourceMapBlob(1, 0), Command.resourceUnmapBlob(1)]) {
      expect(await failure(() => send(without, command as GpuCommand<unknown>))).toMatchObject({
        code: 'UNSUPPORTED',
      });
    }
  });
});

describe('a blob of the host', () => {
  const blob = async (): Promise<Rig> => {
    const rig = full();
    await rig.gpu.request(Command.ctxCreate({ contextId: 1 }));
    const options = { memory: BlobMemory.HOST3D, size: 4096, contextId: 1, blobId: 5 };
    await rig.gpu.request(Command.resourceCreateBlob({ resourceId: 3, ...options }));
    return rig;
  };

  it.each([BlobMemory.HOST3D, BlobMemory.HOST3D_GUEST])(
    'is refused without VIRGL, and nothing is sent (memory %i) [5.7.6.8]',
    async (memory) => {
      using rig = setUp({ features: RESOURCE_BLOB });
      const command = Command.resourceCreateBlob({ resourceId: 3, memory, size: 4096 });
      expect(await failure(() => rig.gpu.request(command))).toMatchObject({ code: 'UNSUPPORTED' });
      expect(rig.host.log).toHaveLength(0);
    },
  );

  it('is not mapped twice [5.7.6.9]', async () => {
    using rig = await blob();
    const first = rig.gpu.request(Command.resourceMapBlob(3, 0));
    expect(await failure(() => rig.gpu.request(Command.resourceMapBlob(3, 4096)))).toMatchObject({
      code: 'ALREADY_USED',
    });
    await first;
    expect(() => rig.gpu.requestSync(Command.resourceMapBlob(3, 0))).toThrow(
      expect.objectContaining({ code: 'ALREADY_USED' }),
    );
  });

  it('is mapped where no other is, and inside the region', async () => {
    using rig = await blob();
    const { gpu } = rig;
    const options = { memory: BlobMemory.HOST3D, contextId: 1, blobId: 6 };
    // The size counts from the moment in which the command is sent.
    const made = gpu.request(Command.resourceCreateBlob({ resourceId: 4, size: 65_536, ...options }));
    const mapped = gpu.request(Command.resourceMapBlob(4, 8192));
    await Promise.all([made, mapped]);
    for (const offset of [8192, 69_632]) {
      const refusal = await failure(() => gpu.request(Command.resourceMapBlob(3, offset)));
      expect(refusal).toMatchObject({
        code: 'ALREADY_USED',
        message: expect.stringContaining('resource 4 is mapped at 8192, with 65536 bytes') as string,
      });
    }
    await gpu.request(Command.resourceMapBlob(3, 8192 + 65_536));
    await gpu.request(Command.resourceUnmapBlob(4));
    expect(await failure(() => gpu.request(Command.resourceMapBlob(4, 12_288)))).toMatchObject({
      code: 'ALREADY_USED',
    });
    expect(await failure(() => gpu.request(Command.resourceMapBlob(4, (1 << 20) - 4096)))).toMatchObject({
      code: 'INVALID_PARAM',
    });
    await gpu.request(Command.resourceMapBlob(4, (1 << 20) - 65_536));
  });

  it('is not forgotten when an earlier one with its number is destroyed', async () => {
    using rig = await blob();
    const { gpu } = rig;
    const options = { memory: BlobMemory.HOST3D, contextId: 1, blobId: 7 };
    await gpu.request(Command.resourceCreateBlob({ resourceId: 4, size: 4096, ...options }));
    // The next one is sent before the answer.
    const gone = gpu.request(Command.resourceUnref(3));
    const made = gpu.request(Command.resourceCreateBlob({ resourceId: 3, size: 16_384, ...options }));
    const mapped = gpu.request(Command.resourceMapBlob(3, 0));
    await Promise.all([gone, made, mapped]);
    for (const offset of [0, 4096, 12_288]) {
      expect(await failure(() => gpu.request(Command.resourceMapBlob(4, offset)))).toMatchObject({
        code: 'ALREADY_USED',
      });
    }
    await gpu.request(Command.resourceMapBlob(4, 16_384));
  });

  it('counts as large as it may be while it is created once more after a refusal', async () => {
    using rig = await blob();
    const { gpu } = rig;
    const create = (contextId: number, size: number): Promise<void> =>
      gpu.request(
        Command.resourceCreateBlob({ resourceId: 9, memory: BlobMemory.HOST3D, contextId, blobId: 8, size }),
      );
    expect(await failure(() => create(99, 4096))).toMatchObject({ response: 'ERR_INVALID_CONTEXT_ID' });
    await Promise.all([create(1, 8192), gpu.request(Command.resourceMapBlob(9, 0))]);
    expect(await failure(() => gpu.request(Command.resourceMapBlob(3, 4096)))).toMatchObject({
      code: 'ALREADY_USED',
    });
    await gpu.request(Command.resourceMapBlob(3, 8192));
  });

  it('can be mapped again once it was unmapped, destroyed, refused, or lost to a reset', async () => {
    using rig = await blob();
    const { gpu } = rig;
    await gpu.request(Command.resourceMapBlob(3, 0));
    await gpu.request(Command.resourceUnmapBlob(3));
    await gpu.request(Command.resourceMapBlob(3, 4096));
    await gpu.request(Command.resourceUnref(3));
    for (let n = 0; n < 2; n += 1) {
      expect(await failure(() => gpu.request(Command.resourceMapBlob(3, 0)))).toMatchObject({
        response: 'ERR_INVALID_RESOURCE_ID',
      });
    }
    using other = await blob();
    await other.gpu.request(Command.resourceMapBlob(3, 0));
    other.gpu.reset();
    expect(await failure(() => other.gpu.request(Command.resourceMapBlob(3, 0)))).toMatchObject({
      response: 'ERR_INVALID_RESOURCE_ID',
    });
  });
});

describe('fences', () => {
  it('are set where it matters, or as the caller says [5.7.6.5]', async () => {
    using rig = setUp();
    await rig.gpu.request(Command.getDisplayInfo());
    await rig.gpu.request(Command.getDisplayInfo(), { fence: true });
    await failure(() => rig.gpu.request(Command.resourceUnref(1)));
    await failure(() => rig.gpu.request(Command.resourceUnref(1), { fence: false }));
    rig.gpu.requestSync(Command.getDisplayInfo(), { fence: true });
    rig.gpu.complete(rig.gpu.submit(Command.getDisplayInfo(), { fence: true }));
    expect(rig.host.log.map(({ flags }) => flags)).toEqual([0, 1, 1, 0, 1, 1]);
    const fences = rig.host.log.filter(({ flags }) => flags === 1).map(({ fence }) => fence);
    expect(fences).toEqual(fences.toSorted());
    expect(new Set(fences).size).toBe(4);
    expect(rig.host.log.filter(({ flags }) => flags === 0).every(({ fence }) => fence === 0n)).toBe(true);
  });

  it('are on the timeline that the caller names [5.7.6.7]', async () => {
    using rig = full();
    await rig.gpu.request(Command.ctxCreate({ contextId: 3 }));
    await rig.gpu.request(Command.submit3d(3, new Uint8Array(4)), { ring: 63 });
    expect(rig.host.log.at(-1)).toMatchObject({ context: 3, ring: 63, flags: 3 });
    await rig.gpu.request(Command.submit3d(3, new Uint8Array(4)));
    expect(rig.host.log.at(-1)).toMatchObject({ context: 3, ring: 0, flags: 1 });
    for (const ring of [-1, 64, 0.5]) {
      expect(
        await failure(() => rig.gpu.request(Command.submit3d(3, new Uint8Array(4)), { ring })),
      ).toMatchObject({
        code: 'INVALID_PARAM',
      });
    }
    using plain = setUp({ features: ALL_FEATURES & ~CONTEXT_INIT, blobAlignment: 1 });
    expect(await failure(() => plain.gpu.request(Command.getDisplayInfo(), { ring: 0 }))).toMatchObject({
      code: 'UNSUPPORTED',
    });
  });

  it('go on where 32 bits end', async () => {
    using rig = setUp();
    for (let n = 0; n < 200; n += 1) rig.gpu.requestSync(Command.getDisplayInfo(), { fence: true });
    expect(rig.host.log.at(-1)?.fence).toBe(200n);
  });
});

describe('ids of resources', () => {
  it('are never those of the driver, nor those in use', async () => {
    using rig = setUp();
    const screen = await rig.gpu.setUpFramebuffer({ width: 8, height: 8 });
    const ids = Array.from({ length: 100 }, () => rig.gpu.nextResourceId());
    const cursor = await rig.gpu.createCursor({ image: { width: 1, height: 1, data: new Uint8Array(4) } });
    expect(new Set([screen.resourceId, cursor.resourceId, ...ids]).size).toBe(102);
    expect(ids.every((id) => id > 0)).toBe(true);
  });

  it('that no resource can have are refused, not freed', () => {
    using rig = setUp();
    for (const id of [0, -1, 0.5, NaN, 2 ** 32, '1' as unknown as number]) {
      expect(() => rig.gpu.freeResourceId(id)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    }
  });
});

describe('a command that a caller made', () => {
  it('is sent as it was, even if its array grows while it waits for room', async () => {
    using rig = setUp({}, { queueSize: 2 });
    rig.host.held.add(GpuCommandType.GET_EDID);
    const before = [0, 0].map(() => rig.gpu.request(Command.getEdid(0)));
    const command = Command.getDisplayInfo();
    const request = new Uint8Array(new ArrayBuffer(24, { maxByteLength: 1000 }));
    request.set(command.request);
    const waiting = rig.gpu.request({ ...command, request });
    request.buffer.resize(1000);
    await settle();
    rig.host.release();
    await Promise.all([...before, waiting]);
    expect(rig.host.log.at(-1)?.bytes).toHaveLength(24);
  });

  it('is read once, so that what was checked is sent', async () => {
    using rig = setUp();
    const command = Command.getDisplayInfo();
    let reads = 0;
    const strange = {
      ...command,
      get request() {
        reads += 1;
        return reads === 1 ? command.request : new Uint8Array(2000);
      },
    };
    expect(await rig.gpu.request(strange)).toHaveLength(16);
    expect(reads).toBe(1);
  });

  it('is refused if it has no room, as behind it are those of others', async () => {
    using rig = setUp();
    const command = { ...Command.getDisplayInfo(), request: new Uint8Array(129) };
    expect(await failure(() => rig.gpu.request(command))).toMatchObject({ code: 'INVALID_PARAM' });
    expect(rig.host.log).toHaveLength(0);
  });
});

describe('numbers', () => {
  const refused = expect.objectContaining({ code: 'INVALID_PARAM' }) as Error;

  it.each([
    ['a resource 0', () => Command.resourceUnref(0)],
    ['a resource beyond 32 bits', () => Command.resourceUnref(2 ** 32)],
    ['no integer', () => Command.resourceFlush(1, { ...RECT, x: 0.5 })],
    ['a negative one', () => Command.setScanout(-1, 1, RECT)],
    ['text', () => Command.getEdid('0' as unknown as number)],
    ['an offset beyond what is safe', () => Command.transferToHost2d(1, RECT, 2 ** 53)],
    ['no format', () => Command.resourceCreate2d({ resourceId: 1, format: 3.5 as 3, width: 1, height: 1 })],
    ['a width 0', () => Command.resourceCreate2d({ resourceId: 1, format: 1, width: 0, height: 1 })],
    ['no memory', () => Command.resourceAttachBacking(1, [])],
    ['a piece of no bytes', () => Command.resourceAttachBacking(1, [{ address: 4096, length: 0 }])],
    ['a blob of no kind', () => Command.resourceCreateBlob({ resourceId: 1, memory: 4, size: 1 })],
    ['a blob of no size', () => Command.resourceCreateBlob({ resourceId: 1, memory: 1, size: 0 })],
    ['unknown flags', () => Command.resourceCreateBlob({ resourceId: 1, memory: 1, size: 1, flags: 8 })],
    [
      "memory of the guest for the host's",
      () =>
        Command.resourceCreateBlob({
          resourceId: 1,
          memory: 2,
          size: 1,
          entries: [{ address: 0, length: 1 }],
        }),
    ],
    ['a context 0', () => Command.ctxCreate({ contextId: 0 })],
    ['a capability set beyond 8 bits', () => Command.ctxCreate({ contextId: 1, capsetId: 256 })],
    ['a long name', () => Command.ctxCreate({ contextId: 1, debugName: 'é'.repeat(33) })],
    ['an empty stream', () => Command.submit3d(1, new Uint8Array(0))],
    ['a stream of another kind', () => Command.submit3d(1, [1, 2, 3, 4] as unknown as Uint8Array)],
    [
      'five planes',
      () =>
        Command.setScanoutBlob({
          ...{ scanout: 0, resourceId: 1, rect: RECT, width: 1, height: 1, format: 1 as const },
          strides: [1, 2, 3, 4, 5],
        }),
    ],
    ['room for too large a capability set', () => Command.getCapset({ capsetId: 1, maxSize: 2 ** 31 }, 1)],
  ])('that cannot be are refused: %s', (_what, build) => {
    expect(build).toThrow(refused);
  });

  it('of 64 bits are sent whole', async () => {
    using rig = full();
    await failure(() => rig.gpu.request(Command.transferToHost2d(1, RECT, 2 ** 33 + 8)));
    expect(new DataView(rig.host.log.at(-1)?.bytes.buffer as ArrayBuffer).getBigUint64(40, true)).toBe(
      (1n << 33n) + 8n,
    );
  });
});
