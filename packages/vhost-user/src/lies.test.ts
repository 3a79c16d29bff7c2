import { VirtioBlk } from '@virtio/blk';
import { VirtioError } from '@virtio/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  descriptors,
  FakeBackend,
  INFLIGHT,
  type Lie,
  PROTOCOL,
  STATUS,
  temporarySocket,
} from '../test/fake-backend.ts';
import { openDisk } from '../test/open.ts';
import { FrontendRequest as Request } from './protocol.ts';

const ANSWERED = [
  'GET_FEATURES',
  'GET_PROTOCOL_FEATURES',
  'GET_QUEUE_NUM',
  'GET_MAX_MEM_SLOTS',
  'SET_BACKEND_REQ_FD',
  'GET_CONFIG',
  'SET_FEATURES',
  'GET_STATUS',
  'ADD_MEM_REG',
  'SET_VRING_ADDR',
  'SET_VRING_ENABLE',
  'GET_VRING_BASE',
] as const;

/** What a front end must not survive with, and what it may take or leave. */
const FATAL: readonly Lie[] = [
  'wrong request',
  'no reply flag',
  'version 2',
  'huge size',
  'short payload',
  'silent',
  'close',
  'half a message',
];
const CODES = ['DEVICE_MISBEHAVED', 'DEVICE_REMOVED', 'NOT_READY', 'FEATURES_REFUSED'];

/** Opens, drives and closes a disk; returns the code of the error with which that ended. */
async function life(path: string, timeoutMs = 150): Promise<string | undefined> {
  try {
    using device = await openDisk(path, { timeoutMs, reconnect: false });
    using blk = new VirtioBlk(device.transport, device.hal);
    await blk.read(0, new Uint8Array(512));
    blk.reset();
    await blk.read(0, new Uint8Array(512));
    return undefined;
  } catch (error) {
    if (!VirtioError.is(error)) throw error;
    return error.code;
  }
}

describe('a back end that lies', () => {
  it.each(ANSWERED)('in its answer to %s ends in a typed error, and leaks nothing', async (name) => {
    using socket = temporarySocket();
    const protocol = PROTOCOL | STATUS | INFLIGHT;
    await using backend = await FakeBackend.start(socket.path, { protocol });
    expect(await life(socket.path, 20_000)).toBeUndefined();
    await backend.tell({ do: 'close' });
    const before = descriptors();
    for (const lie of [...FATAL, 'long payload', 'descriptors', 'twice', 'bytewise'] as const) {
      await backend.tell({ do: 'change', script: { lies: { [Request[name]]: lie } } });
      const code = await life(socket.path);
      if (FATAL.includes(lie) && !(name === 'GET_CONFIG' && lie === 'short payload')) {
        expect(code, lie).toBeDefined();
      }
      if (code !== undefined) expect(CODES, lie).toContain(code);
      await backend.tell({ do: 'close' });
    }
    expect(descriptors()).toBe(before);
  });

  it.each([...FATAL, 'descriptors'] as const)(
    'about the record of requests in flight (%s) is left for its successor',
    async (lie) => {
      using socket = temporarySocket();
      const protocol = PROTOCOL | INFLIGHT;
      await using backend = await FakeBackend.start(socket.path, {
        protocol,
        lies: { [Request.GET_INFLIGHT_FD]: lie },
      });
      const before = descriptors();
      {
        using device = await openDisk(socket.path, { timeoutMs: 150, reconnect: true });
        using blk = new VirtioBlk(device.transport, device.hal);
        const reading = blk.read(0, new Uint8Array(512));
        await backend.tell({ do: 'change', script: { lies: {} } });
        await reading;
      }
      await backend.tell({ do: 'close' });
      expect(descriptors()).toBe(before);
    },
  );

  it('in anything that it says, at any length, ends in a typed error', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path);
    await life(socket.path);
    await backend.tell({ do: 'close' });
    const before = descriptors();
    const header = (request: number, flags: number, size: number) => [
      ...new Uint8Array(Uint32Array.of(request, flags, size).buffer),
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...ANSWERED),
        fc.constantFrom(0, 1, 2, 4, 8, 12, 40, 268, 4096, 4097),
        fc.uint8Array({ maxLength: 300 }),
        async (name, size, bytes) => {
          const raw = Uint8Array.from([...header(Request[name], 5, size), ...bytes]);
          await backend.tell({ do: 'change', script: { raw, lies: { [Request[name]]: 'raw' } } });
          const code = await life(socket.path);
          if (code !== undefined) {
            expect([
              ...CODES,
              'IO_ERROR',
              'CONFIG_SPACE_TOO_SMALL',
              'CONFIG_SPACE_MISSING',
              'UNSUPPORTED',
            ]).toContain(code);
          }
          await backend.tell({ do: 'close' });
        },
      ),
      { numRuns: 30 },
    );
    expect(descriptors()).toBe(before);
  });

  it('of sizes: no queues, no slots, a disk without end', async () => {
    using socket = temporarySocket();
    await using backend = await FakeBackend.start(socket.path, { queues: 0 });
    expect(await life(socket.path, 20_000)).toBe('UNSUPPORTED');
    await backend.tell({ do: 'change', script: { queues: 2 ** 40, slots: 0 } });
    expect(await life(socket.path, 20_000)).toBeUndefined();
    await backend.tell({ do: 'change', script: { config: new Uint8Array(96).fill(0xff) } });
    const code = await life(socket.path);
    if (code !== undefined) expect([...CODES, 'INVALID_DEVICE', 'UNSUPPORTED']).toContain(code);
  });
});
