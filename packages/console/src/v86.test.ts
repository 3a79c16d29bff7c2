/** The driver beside v86's console. */
import { DeviceType } from '@virtio/core';
import { V86Machine } from '@virtio/v86';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VirtioConsole } from './index.ts';

const bytes = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

describe("on v86's console", () => {
  let machine: V86Machine;
  let console: VirtioConsole;
  /** What came out of the device on the host. */
  let output: string;

  // Its control queue uses chains twice, which the driver takes for the lie that it is.
  const open = (): VirtioConsole =>
    new VirtioConsole(machine.open(DeviceType.Console), machine.hal, { multiport: false });

  beforeEach(async () => {
    machine = await V86Machine.create();
    output = '';
    machine.emulator.add_listener('virtio-console0-output-bytes', (part) => {
      output += new TextDecoder().decode(part);
    });
    console = open();
  });

  afterEach(async () => {
    console[Symbol.dispose]();
    expect(machine.hal.pagesInUse).toBe(0);
    await machine[Symbol.asyncDispose]();
  });

  it('writes to the host, with promises and spinning', async () => {
    const port = console.port();
    await port.write(bytes('hello '));
    port.writeSync(bytes('host'));
    expect(output).toBe('hello host');
  });

  it('writes more than its buffers hold', async () => {
    const long = 'abcdefghij'.repeat(30_000);
    await console.port().write(bytes(long));
    expect(output === long).toBe(true);
  });

  it('reads what the host sends', async () => {
    machine.send('virtio-console0-input-bytes', bytes('hello guest'));
    const buffer = new Uint8Array(64);
    const count = await console.port().read(buffer);
    expect(new TextDecoder().decode(buffer.subarray(0, count))).toBe('hello guest');
  });

  it('takes all that comes, however much it is', async () => {
    const port = console.port();
    let received = '';
    for (let i = 0; i < 200; i += 1) {
      machine.send('virtio-console0-input-bytes', bytes(`line ${i}\n`));
      const buffer = new Uint8Array(64);
      received += new TextDecoder().decode(buffer.subarray(0, await port.read(buffer)));
    }
    expect(received).toBe(Array.from({ length: 200 }, (_, i) => `line ${i}\n`).join(''));
  });

  it('tells the size of the console', () => {
    expect(console.port().size).toEqual({ columns: 80, rows: 25 });
    // The device tells of a new size on its control queue only; whoever opens it anew reads it.
    machine.send('virtio-console0-resize', [132, 43]);
    console[Symbol.dispose]();
    console = open();
    expect(console.port().size).toEqual({ columns: 132, rows: 43 });
  });
});
