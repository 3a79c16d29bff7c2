import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { Tap } from './tap.ts';

const code = (value: string): Error => expect.objectContaining({ code: value }) as Error;

/** In a network namespace of their own, interfaces are nobody else's matter. */
const unshare = (...args: string[]): ReturnType<typeof spawnSync> =>
  spawnSync('unshare', ['--map-root-user', '--net', ...args], { encoding: 'utf8', timeout: 60_000 });
const canMake = existsSync('/dev/net/tun') && unshare('sh', '-c', 'exec 3<>/dev/net/tun').status === 0;

describe('Tap', () => {
  it('refuses names, addresses and MTUs that cannot be, before it opens anything', () => {
    for (const name of ['', 'a b', 'a/b', '.', '..', 'sixteen-letters-x', 'x\0y', 'ä'.repeat(8), 5, null]) {
      expect(() => new Tap({ name: name as string })).toThrow(code('INVALID_PARAM'));
    }
    expect(() => new Tap({ macAddress: new Uint8Array(5) })).toThrow(code('INVALID_PARAM'));
    expect(() => new Tap({ macAddress: 'x' as unknown as Uint8Array })).toThrow(code('INVALID_PARAM'));
    for (const mtu of [67, 65_522, 1500.5]) expect(() => new Tap({ mtu })).toThrow(code('INVALID_PARAM'));
  });

  // Where the machine lets nobody make interfaces, the guests show it.
  it.skipIf(!canMake)('makes an interface of the kernel’s, and carries frames both ways', () => {
    const fixture = fileURLToPath(new URL('tap.fixture.ts', import.meta.url));
    const { status, stdout, stderr } = unshare(process.execPath, '--conditions=@virtio/source', fixture);
    expect([status, stderr]).toEqual([0, '']);
    expect(JSON.parse(String(stdout))).toEqual({
      ...{ name: 'one0', mtu: 1400, busy: 'DEVICE_BUSY', downRead: -1, downWrite: false },
      ...{ address: true, mac: '02:00:00:00:00:09', written: [true, true, false, false], read: true },
      ...{ cancelled: 'ABORTED', kept: true, noSignal: 'INVALID_PARAM' },
      refused: new Array<string>(18).fill('INVALID_PARAM'),
      ...{ aborted: 'ABORTED', disposed: ['DISPOSED', 'DISPOSED', 'DISPOSED'], gone: true },
      'carried with 4 buffers': [true, true, 150, 1, 'none'],
      'carried with 0 buffers': [true, true, 150, 1, 'none'],
      ...{ failed: 'DEVICE_REMOVED', disposedUnder: 'DISPOSED' },
    });
  });
});
