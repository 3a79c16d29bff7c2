/** Commands beside devices that nobody here wrote: v86's console, 9P server and network card. */
import { DeviceType } from '@virtio/core';
import { PcapWriter, readPcap } from '@virtio/net';
import { V86Machine } from '@virtio/v86';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Outcome, virtio, type World } from '../test/fake-host.ts';
import { ExitStatus } from './errors.ts';
import { Ending } from './main.ts';

const ADDRESS = 'pci:0000:00:05.0';

/** Standard input from somebody's keyboard. */
class Terminal extends PassThrough {
  readonly isTTY = true;
  /** The modes that it was put into; raw is `true`. */
  readonly modes: boolean[] = [];

  setRawMode(raw: boolean): void {
    // As a terminal that was closed does.
    if (!this.destroyed) this.modes.push(raw);
  }
}

// Only for what hangs: a busy machine takes its time to load v86 and the drivers.
describe("on v86's devices", { timeout: 120_000 }, () => {
  let machine: V86Machine;
  let folder: string;

  beforeEach(async () => {
    machine = await V86Machine.create();
    folder = mkdtempSync(join(tmpdir(), 'virtio-cli-'));
  }, 120_000);

  afterEach(async () => {
    expect(machine.hal.pagesInUse).toBe(0);
    await machine[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const run = (type: DeviceType, line: string, more: World = {}): Promise<Outcome> =>
    virtio(line, {
      devices: { [ADDRESS]: () => ({ transport: machine.open(type), hal: machine.hal }) },
      ...more,
    });

  it('lists, gets and puts files', async () => {
    await machine.emulator.create_file('greeting', new TextEncoder().encode('hello from the host'));
    const listed = await run(DeviceType.P9, `9p ls ${ADDRESS} / --json`);
    expect(listed.err).toBe('');
    expect(JSON.parse(listed.out)).toMatchObject([{ name: 'greeting', size: 19 }]);
    expect((await run(DeviceType.P9, `9p get ${ADDRESS} /greeting`)).out).toBe('hello from the host');
    const put = await run(DeviceType.P9, `9p put ${ADDRESS} - /answer`, { input: Buffer.from('hello host') });
    expect(put.status).toBe(0);
    expect(Buffer.from(await machine.emulator.read_file('answer')).toString()).toBe('hello host');
    const again = await run(DeviceType.P9, `9p put ${ADDRESS} - /answer`, { input: Buffer.from('x') });
    expect(again.status).toBe(4);
    expect(again.err).toMatch(/exists already, with 10 bytes\nhint: add --force/);
  });

  it('ends at SIGINT while the input to put does not come', async () => {
    const controller = new AbortController();
    const input = new Readable({
      read: () => {
        setTimeout(() => {
          controller.abort(new Ending(ExitStatus.INTERRUPTED));
        }, 50);
      },
    });
    const { signal } = controller;
    const { status, err } = await run(DeviceType.P9, `9p put ${ADDRESS} - /never`, { input, signal });
    expect({ status, err }).toEqual({ status: 130, err: '' });
  }, 10_000);

  it('has a shell', async () => {
    const script = 'mkdir "a folder"\ncd "a folder"\npwd\ncd /\nmv "a folder" other\nls\n';
    const { out, err, status } = await run(DeviceType.P9, `9p shell ${ADDRESS}`, {
      input: Buffer.from(script),
    });
    expect(err).toBe('');
    expect(status).toBe(0);
    expect(out).toMatch(/^\/a folder\ndrwx.* other\/\n$/);
  });

  it('has a shell on a terminal, where a failed command is told and Ctrl-C empties the line', async () => {
    const terminal = new Terminal();
    const ended = run(DeviceType.P9, `9p shell ${ADDRESS} --no-color`, { input: terminal, isTTY: true });
    terminal.write('frobnicate\rmkdir wrong\x03mkdir right\rls\rexit\r');
    const { out, err, status } = await ended;
    expect(err).toBe('');
    expect(status).toBe(0);
    expect(out).toContain('frobnicate: there is no such command; see help\n');
    expect(out).toMatch(/drwx.* right\/\n/);
    expect(out).not.toMatch(/drwx.* wrong\/\n/);
    expect(terminal.modes.at(-1)).toBe(false);
  });

  it('gives a terminal its mode back at the end of a conversation', async () => {
    const escape = new Terminal();
    const left = run(DeviceType.Console, `console ${ADDRESS} --no-multiport`, { input: escape });
    escape.write('\x1d');
    expect((await left).status).toBe(0);
    expect(escape.modes).toEqual([true, false]);

    const killed = new Terminal();
    const controller = new AbortController();
    const ended = run(DeviceType.Console, `console ${ADDRESS} --no-multiport`, {
      input: killed,
      signal: controller.signal,
    });
    await vi.waitFor(() => expect(killed.modes).toEqual([true]), { timeout: 60_000 });
    controller.abort(new Ending(143));
    expect((await ended).status).toBe(143);
    expect(killed.modes).toEqual([true, false]);
  });

  it('carries a conversation through the console', async () => {
    let host = '';
    machine.emulator.add_listener('virtio-console0-output-bytes', (part) => {
      host += new TextDecoder().decode(part);
      if (host.endsWith('ping\n')) {
        machine.send('virtio-console0-input-bytes', new TextEncoder().encode('pong\n'));
      }
    });
    const input = new PassThrough();
    input.write('ping\n');
    const controller = new AbortController();
    const ended = run(DeviceType.Console, `console ${ADDRESS} --no-multiport`, {
      input,
      signal: controller.signal,
      onOutput: (all) => {
        if (all === 'pong\n') input.end('bye\n');
      },
    });
    const { out, err, status } = await ended;
    expect(err).toBe('');
    expect(status).toBe(0);
    expect(out).toBe('pong\n');
    expect(host).toBe('ping\nbye\n');
  });

  it('injects the frames of a capture, and captures what comes', async () => {
    const frame = (n: number): Uint8Array<ArrayBuffer> => {
      const bytes = new Uint8Array(60 + n).fill(n);
      bytes.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, n, 0x88, 0xb5]);
      return bytes;
    };
    const file = join(folder, 'in.pcap');
    const pieces: Uint8Array[] = [];
    const writer = new PcapWriter((bytes) => void pieces.push(bytes));
    for (let n = 1; n <= 3; n += 1) writer.write(frame(n), BigInt(n) * 1_000_000n);
    writeFileSync(file, Buffer.concat(pieces));
    const sent: Uint8Array[] = [];
    machine.emulator.add_listener('net0-send', (bytes: Uint8Array) => void sent.push(bytes.slice()));
    const injected = await run(DeviceType.Network, `net inject ${ADDRESS} ${file} --json`);
    expect(injected.err).toBe('');
    expect(JSON.parse(injected.out)).toEqual({ frames: 3, bytes: 186 });
    expect(sent.map((bytes) => [...bytes])).toEqual([1, 2, 3].map((n) => [...frame(n)]));

    const out = join(folder, 'out.pcap');
    const timer = setInterval(() => machine.send('net0-receive', frame(9)), 20);
    const dumped = await run(DeviceType.Network, `net dump ${ADDRESS} --count 2 -w ${out}`);
    clearInterval(timer);
    expect(dumped.status).toBe(0);
    expect(dumped.err).toMatch(/2 frames, 138 bytes/);
    const frames = [...readPcap(new Uint8Array(readFileSync(out)))];
    expect(frames.map(({ frame: bytes }) => [...bytes])).toEqual([[...frame(9)], [...frame(9)]]);
  });
});
