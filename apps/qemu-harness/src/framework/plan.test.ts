import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { disk, guestTest, pattern, type Cell, type DeviceSpec, type GuestTest } from './define.ts';
import { planTest, portions, reasonAgainst, SlotAllocator, type PlannedTest } from './plan.ts';

const PCI: Cell = {
  arch: 'x86_64',
  machine: 'q35',
  transport: 'pci-vfio',
  ring: { name: 'packed', properties: { packed: true } },
};
const MMIO: Cell = {
  ...{ arch: 'x86_64', machine: 'microvm', transport: 'mmio-v2' },
  ring: { name: 'split', properties: {} },
};
const RISCV: Cell = { ...MMIO, arch: 'riscv64', machine: 'virt' };

const test = (devices: Record<string, DeviceSpec>): GuestTest =>
  guestTest({ device: 'x', name: 'y', devices, guest: () => undefined });

describe('planTest', () => {
  let directory = '';
  beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), 'plan-test-'))));
  afterEach(() => rmSync(directory, { recursive: true }));
  const plan = (cell: Cell, devices: Record<string, DeviceSpec>): Promise<PlannedTest> =>
    planTest(test(devices), 0, cell, new SlotAllocator(cell), directory);

  it('gives each PCI device a slot and the properties of the ring', async () => {
    const { args, devices } = await plan(PCI, {
      a: { model: 'virtio-rng', properties: { 'max-bytes': 8 } },
      b: { model: 'virtio-net' },
    });
    expect(args).toEqual([
      '-device',
      'virtio-rng-pci,id=t0-a,bus=pcie.0,addr=0x01,packed=on,max-bytes=8',
      '-device',
      'virtio-net-pci,id=t0-b,bus=pcie.0,addr=0x02,packed=on',
    ]);
    expect(devices.get('b')?.location).toEqual({ kind: 'pci', address: '0000:00:02.0' });
  });

  it('gives each MMIO device a window', async () => {
    const { args, devices } = await plan(MMIO, { a: { model: 'virtio-rng' }, b: { model: 'virtio-rng' } });
    expect(args[3]).toBe('virtio-rng-device,id=t0-b,bus=virtio-mmio-bus.1');
    expect(devices.get('b')?.location).toEqual({ kind: 'mmio', address: 0xfeb00200, size: 512 });
  });

  it('knows the windows and the devices of the boards of other architectures', async () => {
    const devices = { a: { model: 'virtio-rng' }, b: { model: 'virtio-rng' } };
    const location = async (cell: Cell): Promise<unknown> =>
      (await plan(cell, devices)).devices.get('b')?.location;
    expect(await location(RISCV)).toEqual({ kind: 'mmio', address: 0x10002000, size: 4096 });
    rmSync(join(directory, 't0'), { recursive: true });
    expect(await location({ ...RISCV, arch: 'aarch64' })).toEqual({
      ...{ kind: 'mmio', address: 0x0a000200, size: 512 },
    });
    rmSync(join(directory, 't0'), { recursive: true });
    const { args } = await plan({ ...PCI, arch: 'aarch64', machine: 'virt' }, devices);
    expect(args[1]).toBe('virtio-rng-pci,id=t0-a,bus=pcie.0,addr=0x01,packed=on');
  });

  it('puts a device that can be unplugged behind a port', async () => {
    const { args, devices } = await plan(PCI, { a: { model: 'virtio-rng', hotplug: true } });
    expect(args[1]).toMatch(/^pcie-root-port,id=t0-a-port,/);
    expect(args[3]).toContain('bus=t0-a-port');
    expect(devices.get('a')?.location).toEqual({ kind: 'pci-behind-port', port: '0000:00:01.0' });
  });

  it('fills in ids and folders', async () => {
    const spec = {
      model: 'virtio-serial',
      before: ['-chardev', 'file,id={id}-c,path={dir}/out'],
      after: ['-device', 'virtconsole,bus={id}.0,chardev={id}-c'],
    };
    const { args, directory } = await plan(PCI, { a: spec });
    expect(args).toContain(`file,id=t0-a-c,path=${directory}/out`);
    expect(args.at(-1)).toBe('virtconsole,bus=t0-a.0,chardev=t0-a-c');
  });

  it('names the program that is a device, and its socket in the test’s folder', async () => {
    const { devices, directory: folder } = await plan(MMIO, {
      a: {
        model: 'vhost-user-vsock',
        backend: {
          program: 'vhost-device-vsock',
          args: ['--socket', '{dir}/vhost', '--uds-path={dir}/a'],
          socket: '{dir}/vhost',
        },
      },
    });
    expect(devices.get('a')?.backend).toEqual({
      program: 'vhost-device-vsock',
      args: ['--socket', `${folder}/vhost`, `--uds-path=${folder}/a`],
      socket: `${folder}/vhost`,
    });
  });

  it('makes an image of the size and content that were asked for', async () => {
    const { args, devices } = await plan(PCI, { a: disk({ size: 1_500_672, seed: 7 }, { 'num-queues': 2 }) });
    const path = devices.get('a')?.disk?.path ?? '';
    expect(statSync(path).size).toBe(1_500_672);
    expect(readFileSync(path).subarray(1 << 20)).toEqual(
      Buffer.from(pattern(new Uint8Array(1_500_672 - (1 << 20)), 7, 1 << 20)),
    );
    expect(args.at(-1)).toContain('num-queues=2,drive=t0-a-node');
  });

  it('injects errors at the layer below the format', async () => {
    const { args } = await plan(PCI, {
      a: disk({ size: 512, errors: [{ request: 'read', sector: 3, errno: 5 }] }),
    });
    expect(JSON.parse(args[1] ?? '')).toMatchObject({
      driver: 'raw',
      file: {
        driver: 'blkdebug',
        image: { driver: 'file' },
        'inject-error': [{ event: 'none', iotype: 'read', sector: 3, errno: 5 }],
      },
    });
  });
});

describe('portions', () => {
  it('fills guests without tearing a test apart', () => {
    const of = (count: number): { test: GuestTest } => ({
      test: test(
        Object.fromEntries(Array.from({ length: count }, (_, index) => [`d${index}`, { model: 'm' }])),
      ),
    });
    const sizes = portions([of(20), of(11), of(19), of(0), of(1)], 30).map((tests) =>
      tests.map((item) => Object.keys(item.test.devices).length),
    );
    expect(sizes).toEqual([
      [20, 0, 1],
      [11, 19],
    ]);
    expect(() => portions([of(31)], 30)).toThrow(/room for 30/);
  });

  it('puts into a guest once what QEMU has once a machine, and all else as often as there is room', () => {
    const often = test({ a: { model: 'm' } });
    const names = test({ a: { model: 'm', onceAMachine: true } });
    const variable = test({ a: { model: 'm', environment: { NAME: '{dir}' } } });
    const sizes = (...tests: GuestTest[]): number[] =>
      portions(
        tests.map((one) => ({ test: one })),
        30,
      ).map((portion) => portion.length);
    expect(sizes(often, often, often)).toEqual([3]);
    expect(sizes(often, names, often, names)).toEqual([3, 1]);
    expect(sizes(variable, often, variable, often)).toEqual([3, 1]);
  });
});

describe('pattern', () => {
  it('depends on the position and the seed only', () => {
    const whole = pattern(new Uint8Array(64), 1);
    expect(pattern(new Uint8Array(32), 1, 32)).toEqual(whole.subarray(32));
    expect(pattern(new Uint8Array(64), 2)).not.toEqual(whole);
    expect(new Set(new Uint32Array(pattern(new Uint8Array(1 << 16), 0).buffer)).size).toBe(1 << 14);
  });
});

describe('reasonAgainst', () => {
  const many = (count: number): GuestTest =>
    test(Object.fromEntries(Array.from({ length: count }, (_, n) => [`d${n}`, { model: 'virtio-rng' }])));

  it('leaves a test out whose devices a machine has no room for; one window stays empty', () => {
    expect(reasonAgainst(many(7), RISCV)).toBeUndefined();
    expect(reasonAgainst(many(8), RISCV)).toMatch(/needs 8 devices; the machine has room for 7/);
    expect(reasonAgainst(many(30), PCI)).toBeUndefined();
  });

  it('gives the reason of the test itself first', () => {
    expect(reasonAgainst({ ...many(40), skip: () => 'no such thing' }, PCI)).toBe('no such thing');
  });
});
