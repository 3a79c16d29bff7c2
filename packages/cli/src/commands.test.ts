import { CommonFeatures, DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Outcome, virtio, type World } from '../test/fake-host.ts';

const ADDRESS = 'pci:0000:00:03.0';
const SECTORS = 4096;

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'virtio-cli-'));
});

afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

/** A disk of 2 MiB, by the specification. */
class MemoryDisk {
  readonly bytes = new Uint8Array(SECTORS * 512);
  readonly device: FakeDevice;

  constructor(features = 0n) {
    const config = new Uint8Array(60);
    new DataView(config.buffer).setBigUint64(0, BigInt(SECTORS), true);
    this.device = new FakeDevice({
      type: DeviceType.Block,
      features: features | (1n << 9n),
      config,
      queues: [64],
    });
    this.device.handle(0, (chain) => {
      const header = new DataView(chain.read(16).buffer);
      const at = Number(header.getBigUint64(8, true)) * 512;
      const type = header.getUint32(0, true);
      if (type === 1) this.bytes.set(chain.read(), at);
      if (type === 0) chain.write(this.bytes.subarray(at, at + chain.room - 1));
      if (type === 8) chain.write(new TextEncoder().encode('fake-serial'.padEnd(20, '\0')));
      chain.write([0]);
    });
  }

  run(line: string | readonly string[], more: World = {}): Promise<Outcome> {
    const devices = {
      [ADDRESS]: () => ({ transport: new FakeTransport(this.device), hal: this.device.hal }),
    };
    return virtio(line, { devices, ...more });
  }
}

describe('list', () => {
  const listed = [
    {
      kind: 'pci',
      address: '0000:00:03.0',
      deviceType: DeviceType.Block,
      transitional: false,
      deviceId: 0x1042,
      driver: undefined,
      iommuGroup: 4,
    },
    {
      kind: 'mmio',
      address: 0xfeb00000,
      size: 512,
      source: 'acpi',
      interrupt: undefined,
      driver: undefined,
      deviceType: 0,
    },
  ] as const;

  it('shows devices, and leaves empty windows out', async () => {
    const { out, status } = await virtio('list', { listed });
    expect(status).toBe(0);
    expect(out.split('\n').filter((line) => line !== '').length).toBe(2);
    expect(out).toMatch(/^pci:0000:00:03\.0 +Block +pci +- +4/m);
    expect((await virtio('list --all', { listed })).out).toMatch(/^mmio:0xfeb00000 +empty +mmio \(acpi\)/m);
  });

  it("names the features that the kernel's driver uses, and those of a free device on request", async () => {
    const features = CommonFeatures.set('VERSION_1').bits | (1n << 9n) | (1n << 50n);
    const kernel = JSON.parse((await virtio('list --json', { listed, features })).out) as object[];
    expect(kernel).toMatchObject([{ features: ['FLUSH', 'VERSION_1', 'bit 50'], featuresOf: 'kernel' }]);
    const disk = new MemoryDisk();
    const asked = JSON.parse((await disk.run('list --json --features', { listed })).out) as object[];
    expect(asked).toMatchObject([{ features: ['FLUSH', 'VERSION_1'], featuresOf: 'device' }]);
    disk.device.assertClean();
  });

  it('names the features of device types that have no driver here', async () => {
    const [disk] = listed;
    const balloon = { ...disk, deviceType: DeviceType.MemoryBallooning, deviceId: 0x1045 } as const;
    const features = CommonFeatures.set('VERSION_1').bits | 0b1010_0110n;
    const { out } = await virtio('list', { listed: [balloon], features });
    expect(out).toMatch(/ STATS_VQ DEFLATE_ON_OOM PAGE_REPORTING VERSION_1 bit 7$/m);
  });

  it.each([40, 60, 80, 100])('fits a terminal of %i columns, and loses nothing', async (columns) => {
    const features =
      CommonFeatures.set('VERSION_1', 'EVENT_IDX', 'RING_PACKED', 'ACCESS_PLATFORM').bits | (1n << 9n);
    const wide = await virtio('list --all', { listed, features });
    const { out } = await virtio('list --all --no-color', { listed, features, isTTY: true, columns });
    const lines = out.split('\n');
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(columns);
    const words = (text: string): string[] => [...new Set(text.match(/[^\s-]\S*/g))].sort();
    // The titles of all columns but the first stand in each record; the first is not needed.
    expect(words(`ADDRESS ${out}`)).toEqual(words(wide.out));
    expect(lines.some((line) => line.startsWith('pci:0000:00:03.0'))).toBe(true);
  });

  it('says so when there is nothing', async () => {
    expect((await virtio('list')).err).toMatch(/no virtio devices/);
    expect((await virtio('list --json')).out).toBe('[]\n');
  });
});

describe('probe', () => {
  it('tells what was negotiated, the configuration and the queues', async () => {
    const disk = new MemoryDisk(1n << 50n);
    const { out, status, opened } = await disk.run(
      `probe ${ADDRESS} --json --take-over --interrupts msix --without EVENT_IDX`,
    );
    expect(status).toBe(0);
    expect(opened).toMatchObject([{ takeOver: true, interrupts: 'msix' }]);
    expect(JSON.parse(out)).toMatchObject({
      address: ADDRESS,
      type: 'Block',
      features: { negotiated: ['FLUSH', 'VERSION_1'], declined: ['bit 50'] },
      config: { serial: 'fake-serial', capacity: SECTORS },
      queues: [{ index: 0, max: 64, size: 64 }],
      remarks: [{ level: 'info', text: 'bits 50 have no name in VIRTIO 1.4' }],
    });
    disk.device.assertClean();
  });

  it('refuses features that do not exist, which is no fault of the device', async () => {
    const { status, out, err } = await new MemoryDisk().run(`probe ${ADDRESS} --without NOSUCH --json`);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(JSON.parse(err)).toMatchObject({ error: { code: 'INVALID_PARAM' } });
  });

  it('shows a device that never answers, with what was negotiated', async () => {
    vi.spyOn(AbortSignal, 'timeout').mockImplementation(() => AbortSignal.abort());
    const disk = new MemoryDisk();
    disk.device.handle(0, (chain) => chain.defer());
    const { status, out } = await disk.run(`probe ${ADDRESS} --json`);
    expect(status).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      features: { negotiated: ['FLUSH', 'VERSION_1'] },
      queues: [{ index: 0, size: 64 }],
      remarks: [{ level: 'error', text: 'the device did not answer a first request within 10 s' }],
    });
  });

  it('finds what a device has wrong', async () => {
    const table = CommonFeatures.set('VERSION_1').bits;
    // MRG_RXBUF is fine; HOST_TSO4 needs CSUM, CTRL_RX needs CTRL_VQ.
    const device = new FakeDevice({
      type: DeviceType.Network,
      features: table | (1n << 11n) | (1n << 18n) | (1n << 27n),
      queues: [48, 64],
      config: new Uint8Array(8),
    });
    const devices = { [ADDRESS]: () => ({ transport: new FakeTransport(device), hal: device.hal }) };
    const { out } = await virtio(`probe ${ADDRESS}`, { devices });
    expect(out).toMatch(/error: it offers HOST_TSO4, but not CSUM, which HOST_TSO4 needs \[2\.2\.2\]/);
    expect(out).toMatch(/error: it offers CTRL_RX, but not CTRL_VQ/);
    expect(out).toMatch(/error: queue 0 has 48 descriptors, which is not a power of two \[2\.7\]/);
    expect(out).toMatch(/warning: ANY_LAYOUT \(bit 27\) belongs to the legacy interface only/);
  });
});

describe('blk', () => {
  it('reads any bytes to a pipe, and dumps them on a terminal', async () => {
    const disk = new MemoryDisk();
    for (let n = 0; n < disk.bytes.length; n += 1) disk.bytes[n] = (n * 7) & 0xff;
    const piped = await disk.run(`blk read ${ADDRESS} --offset 1001 --length 700K`);
    expect(piped.status).toBe(0);
    expect(Buffer.compare(piped.bytes, disk.bytes.subarray(1001, 1001 + 700 * 1024))).toBe(0);
    const shown = await disk.run(`blk read ${ADDRESS} --sector 1 --no-color`, { isTTY: true });
    expect(shown.out.split('\n')[0]).toMatch(/^00000200 {2}00 07 0e/);
    const file = join(folder, 'part');
    const saved = await disk.run(`blk read ${ADDRESS} --count 2 -o ${file} --json`);
    expect(JSON.parse(saved.out)).toMatchObject({ bytes: 1024, offset: 0 });
    expect(Buffer.compare(readFileSync(file), disk.bytes.subarray(0, 1024))).toBe(0);
    disk.device.assertClean();
  });

  it('writes nothing without --yes, and says what would be lost', async () => {
    const disk = new MemoryDisk();
    disk.bytes.set([0x53, 0xef], 1080);
    const { status, err } = await disk.run(`blk write ${ADDRESS}`, { input: new Uint8Array(512).fill(1) });
    expect(status).toBe(4);
    expect(err).toMatch(
      /nothing was written: up to 2 MiB from byte 0 on of .*"fake-serial" \(2 MiB, an ext2, ext3 or ext4/,
    );
    expect(err).toMatch(/hint: add --yes/);
    expect(disk.bytes.filter((byte) => byte !== 0).length).toBe(2);
  });

  it('writes what comes, and leaves the rest of a sector', async () => {
    const disk = new MemoryDisk();
    disk.bytes.fill(0xee);
    const input = new Uint8Array(600_001).map((_, n) => n & 0x7f);
    const { status, err } = await disk.run(`blk write ${ADDRESS} --offset 777 --yes`, { input });
    expect(err).toMatch(/written and flushed/);
    expect(status).toBe(0);
    const expected = new Uint8Array(disk.bytes.length).fill(0xee);
    expected.set(input, 777);
    expect(Buffer.compare(disk.bytes, expected)).toBe(0);
    const verified = await disk.run(`blk verify ${ADDRESS} --offset 777 --json`, { input });
    expect(JSON.parse(verified.out)).toMatchObject({ equal: true, bytes: 600_001 });
    disk.bytes[777 + 500_000] = 0xff;
    const differs = await disk.run(`blk verify ${ADDRESS} --offset 777`, { input });
    expect(differs.status).toBe(1);
    expect(differs.err).toMatch(/differ at byte 500777: the disk has 0xff/);
    disk.device.assertClean();
  });

  it('refuses a file that does not fit, before anything is written', async () => {
    const disk = new MemoryDisk();
    const file = join(folder, 'large');
    writeFileSync(file, new Uint8Array(SECTORS * 512));
    const { status } = await disk.run(`blk write ${ADDRESS} ${file} --sector 1 --yes`);
    expect(status).toBe(2);
    expect(disk.bytes.every((byte) => byte === 0)).toBe(true);
  });

  it('never touches a disk that the kernel uses', async () => {
    const disk = new MemoryDisk();
    const disks = [{ name: 'vda', uses: ['vda1 is mounted at /'] }];
    const { status, err, opened } = await disk.run(`blk read ${ADDRESS} --take-over`, { disks });
    expect(status).toBe(4);
    expect(err).toMatch(/the kernel uses the disk at pci:0000:00:03\.0: vda1 is mounted at \//);
    expect(opened).toEqual([]);
    expect((await disk.run(`bind ${ADDRESS} --take-over`, { disks })).bound).toEqual([]);
  });

  it('measures', async () => {
    const disk = new MemoryDisk();
    const { out } = await disk.run(`blk bench ${ADDRESS} --seconds 0.05 --depth 3 --json`);
    const { requests, latencyMicroseconds } = JSON.parse(out) as {
      requests: number;
      latencyMicroseconds: { p50: number };
    };
    expect(requests).toBeGreaterThan(3);
    expect(latencyMicroseconds.p50).toBeGreaterThanOrEqual(0);
    disk.device.assertClean();
  });
});

describe('rng', () => {
  it('gives bytes in the form that is wanted', async () => {
    const device = new FakeDevice({ type: DeviceType.EntropySource, queues: [8] });
    device.handle(0, (chain) => {
      chain.write(new Uint8Array(Math.min(5, chain.writable)).fill(0xab));
    });
    const devices = { [ADDRESS]: () => ({ transport: new FakeTransport(device), hal: device.hal }) };
    const hex = await virtio(`rng ${ADDRESS} -n 8 --format hex`, { devices });
    expect(hex.out).toBe('abababababababab\n');
    const raw = await virtio(`rng ${ADDRESS} -n 100`, { devices });
    expect(raw.bytes.equals(Buffer.alloc(100, 0xab))).toBe(true);
    const wrong = await virtio(`blk read ${ADDRESS}`, { devices });
    expect(wrong.err).toMatch(/is not a Block device/);
    expect(wrong.status).toBe(2);
    device.assertClean();
  });

  it('says so if a back end gives nothing, as one of another type does', async () => {
    const device = new FakeDevice({ type: DeviceType.EntropySource, queues: [8] });
    const devices = {
      'vhost-user:/tmp/fs.sock': () => ({ transport: new FakeTransport(device), hal: device.hal }),
    };
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const json = virtio('rng vhost-user:/tmp/fs.sock --json', { devices });
      await vi.waitFor(() => expect(device.queues[0]?.notifications).toBe(1), 60_000);
      await vi.advanceTimersByTimeAsync(70_000);
      // Nothing but the error.
      expect(JSON.parse((await json).err)).toMatchObject({ error: { code: 'CLI' } });
      device.queues.forEach((queue) => (queue.notifications = 0));
      const command = virtio('rng vhost-user:/tmp/fs.sock', { devices });
      await vi.waitFor(() => expect(device.queues[0]?.notifications).toBe(1), 60_000);
      await vi.advanceTimersByTimeAsync(70_000);
      const { err, status } = await command;
      expect(status).toBe(1);
      expect(err).toMatch(/^virtio: no random bytes yet\nhint: .* is an entropy device\n/);
      expect(err).toMatch(
        /virtio: the device gave no random byte within 70 seconds\nhint: .* is an entropy device\n/,
      );
    } finally {
      vi.useRealTimers();
    }
  });
});

describe('trace', () => {
  it('tells registers and chains of a command', async () => {
    const disk = new MemoryDisk();
    const { bytes, err, status } = await disk.run(
      `trace ${ADDRESS} --bytes 4 -- blk read --count 1`.split(' '),
    );
    expect(status).toBe(0);
    expect(bytes.length).toBe(512);
    expect(err).toMatch(/write device_status = 0xb \(ACKNOWLEDGE \| DRIVER \| FEATURES_OK\)/);
    expect(err).toMatch(/write driver_feature = .*\(FLUSH \| VERSION_1\)/);
    expect(err).toMatch(/queue 0: published \d+: 16 bytes > 00 00 00 00 …, 512 bytes <, 1 bytes </);
    expect(err).toMatch(/queue 0: used \d+, 513 bytes written/);
    disk.device.assertClean();
  });

  it('prints JSON lines of a probe', async () => {
    const disk = new MemoryDisk();
    const { out } = await disk.run(`trace ${ADDRESS} --json --no-registers`);
    const events = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { kind: string });
    expect(new Set(events.map(({ kind }) => kind))).toEqual(
      new Set(['notify', 'published', 'used', 'interrupt']),
    );
  });
});

describe('bind and unbind', () => {
  it('changes the driver of the kernel', async () => {
    expect((await virtio(`bind ${ADDRESS}`)).bound).toEqual(['0000:00:03.0 vfio-pci false']);
    expect((await virtio(`bind 00:03.0 --driver uio_pci_generic --take-over`)).bound).toEqual([
      '0000:00:03.0 uio_pci_generic true',
    ]);
    expect((await virtio(`unbind ${ADDRESS} --json`)).out).toContain('"driver": null');
    expect((await virtio(`bind mmio:0xfeb00000`)).status).toBe(2);
  });
});

describe('completion', () => {
  it.each(['bash', 'zsh', 'fish', 'powershell'])('writes a script for %s', async (shell) => {
    const { log } = console;
    expect((await virtio(`complete ${shell}`)).out).toContain('virtio');
    expect(console.log).toBe(log);
  });

  it('in bash: loads twice, and replies what is behind the last colon that was typed', async () => {
    const { out } = await virtio('complete bash');
    // What the package bash-completion has, and the program.
    const around = `
      _get_comp_words_by_ref() { cur=pci:00; words=(virtio probe pci:00); }
      __ltrim_colon_completions() { COMPREPLY=("\${COMPREPLY[@]#"\${1%"\${1##*:}"}"}"); }
      compopt() { :; }
      virtio() { printf 'pci:0000:00:03.0\tBlock\npci:0000:00:04.0\tNetwork\n:4\n'; }`;
    const script = [around, out, out, '__virtio_complete', 'echo "${COMPREPLY[*]}"'].join('\n');
    const { stdout, stderr } = spawnSync('bash', ['--norc', '-c', script], { encoding: 'utf8' });
    expect([stdout, stderr]).toEqual(['0000:00:03.0 0000:00:04.0\n', '']);
  });

  it('in zsh: escapes the colons of addresses, as a description begins behind a colon', async () => {
    const { out } = await virtio('complete zsh');
    expect(out).toContain('comp=$' + String.raw`{comp//:/\\:}`);
  });

  it("proposes commands, options, and this machine's devices", async () => {
    const listed = [
      {
        kind: 'pci',
        address: '0000:00:03.0',
        deviceType: DeviceType.Block,
        transitional: false,
        deviceId: 0x1042,
        driver: undefined,
        iommuGroup: 4,
      },
    ] as const;
    const ask = async (...words: string[]): Promise<string> =>
      (await virtio(['complete', '--', ...words], { listed })).out;
    expect(await ask('blk', '')).toMatch(/^read\t.*\nwrite\t/);
    expect(await ask('blk', 'read', '')).toMatch(/^pci:0000:00:03\.0\tBlock$/m);
    expect(await ask('probe', 'pci')).toMatch(/^pci:0000:00:03\.0\tBlock$/m);
    expect(await ask('blk', 'read', 'pci:0000:00:03.0', '--se')).toMatch(/^--sector\t/);
  });
});
