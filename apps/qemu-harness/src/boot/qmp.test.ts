import { createServer, connect, type Server, type Socket } from 'node:net';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { QmpClient } from './qmp.ts';

interface Command {
  execute: string;
  arguments?: unknown;
  id: number;
}

/** Plays QEMU: greets, and answers as `reply` says. */
class FakeQemu {
  readonly commands: Command[] = [];
  readonly #socket: Socket;

  constructor(socket: Socket, reply: (command: Command) => object | undefined) {
    this.#socket = socket;
    this.say({ QMP: { version: {}, capabilities: [] } });
    socket.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.trim().split('\n')) {
        const command = JSON.parse(line) as Command;
        this.commands.push(command);
        const answer = reply(command);
        if (answer !== undefined) this.say({ ...answer, id: command.id });
      }
    });
  }

  say(message: object): void {
    this.#socket.write(`${JSON.stringify(message)}\r\n`);
  }

  end(): void {
    this.#socket.destroy();
  }
}

describe('QmpClient', () => {
  let directory = '';
  let server: Server;
  let qemu: FakeQemu;
  beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), 'qmp-test-'))));
  afterEach(() => {
    qemu.end();
    server.close();
    rmSync(directory, { recursive: true });
  });

  async function open(reply: (command: Command) => object | undefined): Promise<QmpClient> {
    const path = join(directory, 'qmp');
    const { promise, resolve } = Promise.withResolvers<undefined>();
    server = createServer((socket) => (qemu = new FakeQemu(socket, reply))).listen(path, () =>
      resolve(undefined),
    );
    await promise;
    return QmpClient.connect(connect(path));
  }

  it('negotiates, and matches answers that come in another order', async () => {
    const held: Command[] = [];
    const client = await open((command) => {
      if (command.execute === 'qmp_capabilities') return { return: {} };
      held.push(command);
      if (held.length === 2) for (const one of held.reverse()) qemu.say({ return: one.execute, id: one.id });
      return undefined;
    });
    await expect(Promise.all([client.execute('first'), client.execute('second', { a: 1 })])).resolves.toEqual(
      ['first', 'second'],
    );
    expect(qemu.commands.map(({ execute }) => execute)).toEqual(['qmp_capabilities', 'first', 'second']);
    expect(qemu.commands[2]).toMatchObject({ arguments: { a: 1 } });
  });

  it('reports QEMU’s own words for a command that failed', async () => {
    const client = await open(({ execute }) =>
      execute === 'qmp_capabilities'
        ? { return: {} }
        : { error: { class: 'DeviceNotFound', desc: "Device 'x' not found" } },
    );
    await expect(client.execute('device_del', { id: 'x' })).rejects.toThrow(
      "QMP device_del: Device 'x' not found (DeviceNotFound)",
    );
  });

  it('waits for the event that matches, and no longer than told', async () => {
    const client = await open(() => ({ return: {} }));
    const wait = client.waitFor('DEVICE_DELETED', ({ device }) => device === 'b');
    qemu.say({ event: 'DEVICE_DELETED', data: { device: 'a' } });
    qemu.say({ event: 'OTHER' });
    qemu.say({ event: 'DEVICE_DELETED', data: { device: 'b' } });
    await expect(wait).resolves.toMatchObject({ data: { device: 'b' } });
    await expect(client.waitFor('NEVER', undefined, 20)).rejects.toThrow(/no NEVER within/);
  });

  it('fails what is in flight, and what comes later, when QEMU ends', async () => {
    const client = await open(({ execute }) => (execute === 'qmp_capabilities' ? { return: {} } : undefined));
    const pending = client.execute('stop');
    qemu.end();
    await expect(pending).rejects.toThrow(/QEMU has ended/);
    await expect(client.execute('cont')).rejects.toThrow(/QEMU has ended/);
  });
});
