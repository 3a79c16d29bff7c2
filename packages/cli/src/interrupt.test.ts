/** Ctrl-C while a command waits: for a device that never answers, or for input that never comes. */
import { DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { encode } from 'fast-png';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import wavefile from 'wavefile';
import { type Outcome, virtio } from '../test/fake-host.ts';
import { shell } from './commands/share-shell.ts';
import type { Share } from './commands/share.ts';
import { ExitStatus } from './errors.ts';
import type { Host } from './host.ts';
import { interruptible, orAborted } from './interrupt.ts';
import { Ending } from './main.ts';
import { Printer } from './output.ts';

const ADDRESS = 'pci:0000:00:03.0';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'virtio-cli-'));
  writeFileSync(join(folder, 'sectors'), new Uint8Array(512));
  writeFileSync(join(folder, 'png'), encode({ width: 1, height: 1, data: new Uint8Array(3), channels: 3 }));
  const wave = new wavefile.WaveFile();
  wave.fromScratch(1, 8000, '16', new Int16Array(8000));
  writeFileSync(join(folder, 'wav'), wave.toBuffer());
});

afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

/** A configuration with some bytes that are not zero. */
function config(size: number, bytes: Readonly<Record<number, number>> = {}): Uint8Array {
  return Object.assign(new Uint8Array(size), bytes);
}

/** Of each device type, a configuration with which its driver opens it. */
const CONFIGS = {
  blk: [DeviceType.Block, config(60, { 1: 16 })],
  rng: [DeviceType.EntropySource, config(0)],
  net: [DeviceType.Network, config(20)],
  input: [DeviceType.Input, config(136)],
  console: [DeviceType.Console, config(12)],
  socket: [DeviceType.Socket, config(8, { 0: 3 })],
  gpu: [DeviceType.Gpu, config(16, { 8: 1 })],
  sound: [DeviceType.Sound, config(12, { 4: 2 })],
  '9p': [DeviceType.P9, config(16)],
  fs: [DeviceType.FileSystem, config(44, { 0: 97, 36: 1 })],
  probe: [DeviceType.Block, config(60, { 1: 16 })],
} as const;

/** A device that takes requests and never answers. */
function silent(name: keyof typeof CONFIGS): FakeDevice {
  const [type, bytes] = CONFIGS[name];
  const queues = [64, 64, 64, 64];
  const device = new FakeDevice({ type, features: 1n << 32n, config: bytes, queues });
  queues.forEach((_, queue) => {
    device.handle(queue, (chain) => chain.defer());
  });
  return device;
}

/** Runs a command, and interrupts it once it waits. */
async function interrupted(line: string, device: FakeDevice, input?: Readable): Promise<Outcome> {
  const controller = new AbortController();
  const devices = { [ADDRESS]: () => ({ transport: new FakeTransport(device), hal: device.hal }) };
  const command = virtio(line, { devices, signal: controller.signal, ...(input && { input }) });
  // Until the device has a request; a command that waits for its input may have none.
  await vi.waitFor(
    () => {
      expect(device.queues.some(({ notifications }) => notifications > 0) || input !== undefined).toBe(true);
    },
    { timeout: 8_000 },
  );
  await new Promise((resolve) => setTimeout(resolve, 100));
  controller.abort(new Ending(ExitStatus.INTERRUPTED));
  return command;
}

describe('SIGINT ends a command whose device does not answer', () => {
  it.each([
    ['blk', 'read DEVICE --raw', 130],
    ['blk', 'bench DEVICE --seconds 60', 130],
    ['blk', 'bench DEVICE --seconds 60 --write --yes', 130],
    ['blk', 'write DEVICE FOLDER/sectors --yes', 130],
    ['blk', 'verify DEVICE FOLDER/sectors', 130],
    ['rng', 'DEVICE', 130],
    ['probe', 'DEVICE', 130],
    ['net', 'dump DEVICE', 0],
    ['net', 'dump DEVICE -w -', 0],
    ['input', 'watch DEVICE', 0],
    ['console', 'DEVICE --follow', 130],
    ['socket', 'connect DEVICE 5 --timeout 60', 130],
    ['socket', 'listen DEVICE 5', 0],
    ['gpu', 'show DEVICE FOLDER/png', 130],
    ['sound', 'record DEVICE FOLDER/out', 130],
    ['sound', 'play DEVICE FOLDER/wav', 130],
    ['9p', 'ls DEVICE', 130],
    ['fs', 'ls DEVICE', 130],
  ] as const)(
    '%s %s',
    async (name, rest, expected) => {
      const line = `${name} ${rest}`.replace('DEVICE', ADDRESS).replace('FOLDER', folder);
      const { status, err } = await interrupted(line, silent(name));
      expect({ status, err }).toEqual({
        status: expected,
        err: expect.not.stringMatching(/^virtio:/m) as string,
      });
    },
    20_000,
  );
});

describe('SIGINT ends a command whose input does not come', () => {
  it.each(['blk write DEVICE --yes', 'blk verify DEVICE'])(
    '%s',
    async (line) => {
      const device = silent('blk');
      device.handle(0, (chain) => {
        chain.write(new Uint8Array(chain.room));
      });
      const input = new Readable({ read: () => undefined });
      const { status } = await interrupted(line.replace('DEVICE', ADDRESS), device, input);
      expect(status).toBe(130);
      device.assertClean();
    },
    20_000,
  );
});

describe('blk bench', () => {
  it('resets the device before the memory of other requests is released, where one fails', async () => {
    const device = silent('blk');
    let first = true;
    device.handle(0, (chain) => {
      if (!first) {
        chain.defer();
        return;
      }
      first = false;
      chain.write(Uint8Array.from({ length: chain.room }, () => 1));
    });
    const transport = new FakeTransport(device);
    const { hal } = device;
    const free = hal.dmaDealloc.bind(hal);
    const statuses: number[] = [];
    vi.spyOn(hal, 'dmaDealloc').mockImplementation((region, platform) => {
      if (region.bytes.length === 4 * 4096) statuses.push(transport.getStatus().bits);
      free(region, platform);
    });
    const devices = { [ADDRESS]: () => ({ transport, hal }) };
    const { status, err } = await virtio(`blk bench ${ADDRESS} --depth 4 --seconds 60`, { devices });
    expect(err).toMatch(/more: virtio explain IO_ERROR/);
    expect(status).toBe(1);
    expect(statuses).toEqual([0]);
  });
});

describe('the shell of a share', () => {
  it('gives the prompt back at Ctrl-C while the server does not answer', async () => {
    const stat = vi.fn(() => new Promise<never>(() => undefined));
    const stdin = Object.assign(new PassThrough(), { isTTY: true, setRawMode: () => undefined });
    let out = '';
    const stdout = new PassThrough().on('data', (text) => (out += String(text)));
    const { signal } = new AbortController();
    const host = { stdin, stdout, stderr: stdout, env: {}, signal } as unknown as Host;
    const ended = shell({ stat } as unknown as Share, host, new Printer(host, {}), '9p');
    stdin.write('ls\r');
    await vi.waitFor(() => {
      expect(stat).toHaveBeenCalled();
    });
    stdin.write('\x03');
    await vi.waitFor(() => {
      expect(out).toContain('ls: interrupted\n');
    });
    stdin.write('pwd\rexit\r');
    await ended;
    expect(out).toMatch(/^\/$/m);
  });
});

describe('sound record', () => {
  it('refuses a file that cannot be written before it records', async () => {
    const device = silent('sound');
    const devices = { [ADDRESS]: () => ({ transport: new FakeTransport(device), hal: device.hal }) };
    const { status, err } = await virtio(`sound record ${ADDRESS} ${folder}/none/x`, { devices });
    expect(err).toMatch(/there is no directory .*none\nhint: check/);
    expect(status).toBe(2);
    expect(device.queues.map(({ notifications }) => notifications)[0]).toBe(0);
  }, 10_000);
});

describe('waits', () => {
  it('end with the reason of the signal, also of one that is aborted already', async () => {
    const never = new Promise<never>(() => undefined);
    const { signal } = new AbortController();
    await expect(orAborted(Promise.resolve(5), signal)).resolves.toBe(5);
    await expect(orAborted(Promise.reject(new Error('failed')), signal)).rejects.toThrow('failed');
    const reason = new Ending(130);
    await expect(orAborted(never, AbortSignal.abort(reason))).rejects.toBe(reason);
  });

  it('close a source whose reader ends early', async () => {
    let closed = 0;
    const source = async function* (): AsyncGenerator<number, undefined> {
      try {
        for (let n = 0; ; n += 1) yield await Promise.resolve(n);
      } finally {
        closed += 1;
      }
    };
    const { signal } = new AbortController();
    for await (const n of interruptible(source(), signal)) if (n === 2) break;
    await vi.waitFor(() => {
      expect(closed).toBe(1);
    });
  });
});
