import { VirtioError } from '@virtio/core';
import { describe, expect, it } from 'vitest';
import { virtio } from '../test/fake-host.ts';
import { formatAddress, parseAddress } from './address.ts';
import { ExitStatus, reportOf } from './errors.ts';
import { splitWords } from './commands/share-shell.ts';
import { HexDump } from './hexdump.ts';
import { Ending } from './main.ts';
import { toJson, wantsColor } from './output.ts';
import { formatSize, parseCount, parseSize } from './quantities.ts';

describe('addresses', () => {
  it.each([
    ['pci:0000:00:03.0', 'pci:0000:00:03.0'],
    ['0000:00:03.0', 'pci:0000:00:03.0'],
    ['00:1F.7', 'pci:0000:00:1f.7'],
    ['mmio:0xfeb00e00', 'mmio:0xfeb00e00'],
    ['mmio:0xfeb00e00+0x1000', 'mmio:0xfeb00e00+0x1000'],
    ['vhost-user:/tmp/a socket:1', 'vhost-user:/tmp/a socket:1'],
  ])('takes %s', (text, formatted) => {
    expect(formatAddress(parseAddress(text))).toBe(formatted);
  });

  it.each([
    '',
    'pci:',
    'pci:0000:00:20.0',
    '00:03.8',
    'mmio:feb00e00',
    'mmio:0xfeb00e00+0',
    'mmio:0xffffffffffffffff',
    'mmio:00:03.0',
    'vhost-user:',
    'usb:1',
  ])('refuses "%s" with advice', (text) => {
    expect(() => parseAddress(text)).toThrow(/is not the address of a device/);
  });
});

describe('quantities', () => {
  it('reads sizes', () => {
    expect(['512', '4K', '1M', '2GiB', '0x200', '1.5k'].map(parseSize)).toEqual([
      512,
      4096,
      1048576,
      2 ** 31,
      512,
      1536,
    ]);
    for (const text of ['', 'K', '-1', '1X', '0.3', '9999999999T']) expect(() => parseSize(text)).toThrow();
    for (const text of ['1.5', '-1', 'x', '1K']) expect(() => parseCount(text)).toThrow();
  });

  it('writes sizes', () => {
    expect([0, 512, 1024, 1536, 64 * 2 ** 20].map(formatSize)).toEqual([
      '0 bytes',
      '512 bytes',
      '1 KiB',
      '1.5 KiB',
      '64 MiB',
    ]);
  });
});

describe('output', () => {
  it('has colours on terminals only, and as NO_COLOR and --color say', () => {
    const terminal = { isTTY: true } as never;
    const file = { isTTY: false } as never;
    expect(wantsColor(terminal, {})).toBe(true);
    expect(wantsColor(terminal, { NO_COLOR: '1' })).toBe(false);
    expect(wantsColor(terminal, { NO_COLOR: '1' }, true)).toBe(true);
    expect(wantsColor(terminal, { TERM: 'dumb' })).toBe(false);
    expect(wantsColor(file, {})).toBe(false);
    expect(wantsColor(file, { FORCE_COLOR: '1' })).toBe(true);
  });

  it('writes JSON of what drivers have', () => {
    expect(toJson({ a: 5n, b: 2n ** 60n, c: Uint8Array.of(1, 255), d: Infinity })).toBe(
      '{"a":5,"b":"0x1000000000000000","c":"01ff","d":null}',
    );
  });

  it('dumps bytes, and repeats nothing', () => {
    const bytes = new Uint8Array(80).fill(0x41, 0, 4);
    expect(new HexDump().lines(bytes, 0x200)).toEqual([
      '00000200  41 41 41 41 00 00 00 00 00 00 00 00 00 00 00 00  |AAAA............|',
      '00000210  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  |................|',
      '*',
    ]);
  });
});

describe('the command line', () => {
  it('splits the words of the shell', () => {
    expect(splitWords(`put "a b" 'c d' e`)).toEqual(['put', 'a b', 'c d', 'e']);
  });

  it('tells what there is', async () => {
    const { status, out } = await virtio('--help');
    expect(status).toBe(0);
    for (const name of [
      'list',
      'probe',
      'bind',
      'unbind',
      'trace',
      'blk',
      'net',
      'console',
      'rng',
      'input',
      'socket',
      '9p',
      'fs',
      'gpu',
      'sound',
      'explain',
    ]) {
      expect(out).toMatch(new RegExp(`^  ${name}`, 'm'));
    }
  });

  it.each([40, 60, 80])('fits help to %i columns', async (columns) => {
    for (const line of ['--help', 'list --help', 'trace --help', 'sound record --help']) {
      const { out } = await virtio(line, { isTTY: true, columns });
      const lines = out.split('\n').filter((text) => !text.startsWith('Usage: '));
      expect(lines.length).toBeGreaterThan(10);
      expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(columns);
    }
  });

  it.each([
    ['frobnicate', /unknown command/],
    ['blk read', /missing required argument 'device'/],
    ['blk read 0000:00:03.0 --length 5X', /Give a size in bytes/],
    ['blk read 0000:00:03.0 --sector 1 --offset 2', /cannot be used with/],
    ['trace 0000:00:03.0 -- nothing', /"nothing" is not a command\nhint: virtio trace/],
    ['trace 0000:00:03.0 -- blk', /"blk" is not a command/],
    ['trace 0000:00:03.0 -- blk nothing', /"blk nothing" is not a command/],
    [
      'blk verify 0000:00:03.0 /nowhere/x',
      /^virtio: \/nowhere\/x could not be opened: there is no directory \/nowhere\nhint: check/,
    ],
    ['net inject 0000:00:03.0 /nowhere', /\/nowhere could not be opened: there is no such file\nhint: check/],
    ['trace 0000:00:03.0 -o /nowhere/x', /there is no directory \/nowhere\nhint: check/],
    ['trace 0000:00:03.0 -o /', /^virtio: \/ could not be opened: it is a directory\nhint: give a file/],
    ['gpu show 0000:00:03.0 /', /^virtio: a file could not be read: it is a directory\nhint: give a file/],
    ['probe nonsense', /"nonsense" is not the address of a device\nhint: write pci:0000:00:03.0/],
    ['probe vhost-user:/tmp/x', /does not report its device type\nhint: add --type/],
    ['probe vhost-user:/tmp/x --type nothing', /"nothing" is not a type of device/],
  ])('ends with 2 and says why: %s', async (line, message) => {
    const { status, err } = await virtio(line);
    expect(err).toMatch(message);
    expect(status).toBe(2);
  });

  it.each([
    ['EACCES', 'open', '/tmp/x could not be opened: its rights do not permit it', 4],
    ['EROFS', 'open', '/tmp/x could not be opened: its file system is read-only', 4],
    ['ENOSPC', 'write', '/tmp/x could not be written: its file system is full', 1],
  ])('says what to do about a file with %s', (code, syscall, message, status) => {
    const error = Object.assign(new Error(`${code}: no`), { code, syscall, path: '/tmp/x' });
    expect(reportOf(error)).toMatchObject({ status, code, message, advice: expect.any(String) as string });
  });

  it('does not advise root where sysfs is read-only, which root cannot change', () => {
    const cause = Object.assign(new Error('EROFS'), { code: 'EROFS' });
    const error = new VirtioError('PERMISSION_DENIED', 'run it on the host', { cause });
    expect(reportOf(error)).toMatchObject({ status: 4, advice: undefined });
  });

  it('reports errors as JSON where JSON was asked for', async () => {
    const { status, err } = await virtio('probe 0000:00:03.0 --json');
    expect(status).toBe(3);
    expect(JSON.parse(err)).toEqual({
      error: {
        code: 'NO_DEVICE',
        message: 'there is no device at pci:0000:00:03.0',
        advice: 'virtio list shows the PCI and MMIO devices of this machine',
        help: 'virtio explain NO_DEVICE',
      },
    });
    const usage = await virtio('blk read --json');
    expect(usage.status).toBe(2);
    expect(JSON.parse(usage.err)).toMatchObject({
      error: { message: "missing required argument 'device'" },
    });
    expect(JSON.parse((await virtio('console 0000:00:03.0 --json')).err)).toMatchObject({
      error: { code: 'CLI', advice: 'leave --json out, or add --list' },
    });
    expect((await virtio('blk read --help --json')).err).toBe('');
  });

  it('says what went wrong, what to do, and where there is more', async () => {
    const { err } = await virtio('probe 0000:00:03.0');
    expect(err).toBe(
      'virtio: there is no device at pci:0000:00:03.0\n' +
        'hint: virtio list shows the PCI and MMIO devices of this machine\n' +
        'more: virtio explain NO_DEVICE\n',
    );
    const absent = new VirtioError('NO_DEVICE', 'there is no PCI device at x; listDevices() lists those');
    expect(reportOf(absent).message).toBe('there is no PCI device at x');
    const debug = await virtio('probe 0000:00:03.0', { env: { VIRTIO_DEBUG: '1' } });
    expect(debug.err).toMatch(/^VirtioError: there is no device/m);
  });

  it('explains codes', async () => {
    const one = await virtio('explain queue_full');
    expect(one.out).toMatch(/^QUEUE_FULL\nThe queue has too few free descriptors/);
    const all = JSON.parse((await virtio('explain --json')).out) as Record<string, string>;
    expect(Object.keys(all)).toContain('SOCKET_REFUSED');
    expect(all.QUEUE_FULL).not.toMatch(/###|NOT_READY/);
    const none = await virtio('explain EVERYTHING');
    expect(none).toMatchObject({
      status: 2,
      err: expect.stringContaining('virtio explain shows all') as string,
    });
  });

  it('fits explanations to a terminal, and loses nothing', async () => {
    const words = (text: string): string[] => text.split(/\s+/);
    const piped = (await virtio('explain')).out;
    const { out } = await virtio('explain --no-color', { isTTY: true, columns: 60 });
    expect(words(out)).toEqual(words(piped));
    const longest = Math.max(...words(out).map(({ length }) => length));
    expect(Math.max(...out.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(
      Math.max(60, longest),
    );
  });

  it('ends with 141 when nobody reads, also where SIGINT is a good end', async () => {
    const controller = new AbortController();
    controller.abort(new Ending(ExitStatus.BROKEN_PIPE));
    expect((await virtio('list', { signal: controller.signal })).status).toBe(141);
    const interrupted = new AbortController();
    interrupted.abort(new Ending(ExitStatus.INTERRUPTED));
    expect((await virtio('list', { signal: interrupted.signal })).status).toBe(0);
  });
});
