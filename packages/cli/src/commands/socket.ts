/** `virtio socket`: connections with the host, like nc and socat. */
import { DeviceType } from '@virtio/core';
import type { VsockConnection } from '@virtio/socket';
import type { Command } from 'commander';
import { usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { converse } from '../interactive.ts';
import { Printer } from '../output.ts';
import { parseCount, parseSeconds } from '../quantities.ts';
import { addDeviceOptions, type DeviceOptions, openWith } from '../session.ts';
import { untilEnd } from './console.ts';
import { until } from './input.ts';

interface SocketOptions extends DeviceOptions {
  readonly seqpacket?: boolean;
}

interface ConnectOptions extends SocketOptions {
  readonly cid: number;
  readonly timeout: number;
}

interface ListenOptions extends SocketOptions {
  readonly keep?: boolean;
}

const HOST_CID = 2;

/** Adds the commands. */
export function addSocket(program: Command, host: Host): void {
  const socket = program.command('socket').description('connections with the host (vsock)');

  addDeviceOptions(
    socket
      .command('connect')
      .description('connect standard input and output to a port of the host')
      .argument('<device>', 'the address of the device')
      .argument('<port>', 'the port', parseCount)
      .option('--cid <n>', 'the CID of the peer', parseCount, HOST_CID)
      .option('--timeout <seconds>', 'how long the peer may take to accept', parseSeconds, 2)
      .option('--seqpacket', 'messages instead of a stream'),
  ).action(async (device: string, port: number, options: ConnectOptions) => {
    checkJson(options);
    const { VirtioSocket, VsockConnectionManager } = await import('@virtio/socket');
    using opened = await openWith(host, device, options, DeviceType.Socket, VirtioSocket);
    const connectTimeoutMs = Math.round(options.timeout * 1000);
    using sockets = new VsockConnectionManager(opened.driver, { timers: globalThis, connectTimeoutMs });
    const type = options.seqpacket === true ? 'seqpacket' : 'stream';
    const connection = await sockets.connect({ cid: options.cid, port }, { type, signal: host.signal });
    await talk(host, connection);
  });

  addDeviceOptions(
    socket
      .command('listen')
      .description('accept a connection from the host, and connect it to standard input and output')
      .argument('<device>', 'the address of the device')
      .argument('<port>', 'the port', parseCount)
      .option('--keep', 'accept connections one after the other until SIGINT; standard input is not sent')
      .option('--seqpacket', 'messages instead of a stream'),
  ).action(async (device: string, port: number, options: ListenOptions) => {
    checkJson(options);
    const printer = new Printer(host, options);
    const { VirtioSocket, VsockConnectionManager } = await import('@virtio/socket');
    using opened = await openWith(host, device, options, DeviceType.Socket, VirtioSocket);
    using sockets = new VsockConnectionManager(opened.driver, { timers: globalThis });
    const type = options.seqpacket === true ? 'seqpacket' : 'stream';
    const listener = sockets.listen({ port, type });
    printer.note(`listening at port ${port} of CID ${opened.driver.guestCid}`);
    do {
      const connection = await until(host.signal, () => listener.accept({ signal: host.signal }));
      if (connection === undefined) return;
      const { cid, port: from } = connection.peer;
      printer.note(`connected: port ${from} of CID ${cid}`);
      if (options.keep === true) await drain(host, printer, connection);
      else await talk(host, connection);
    } while (options.keep === true);
  });
}

function checkJson({ json }: DeviceOptions): void {
  if (json === true) throw usage('the data of a connection cannot be printed as JSON', 'leave --json out');
}

async function talk(host: Host, connection: VsockConnection): Promise<void> {
  const { signal } = host;
  try {
    await converse(host, { raw: false, signal, endsWithInput: false }, (over) => ({
      incoming: untilEnd(connection.chunks({ signal: over }), over),
      write: (bytes) => connection.write(bytes, { signal: over }),
      endWriting: () => connection.endWriting(),
    }));
    await connection.close({ signal });
  } finally {
    if (connection.end === undefined) connection.abort();
  }
}

async function drain({ signal }: Host, printer: Printer, connection: VsockConnection): Promise<void> {
  for await (const bytes of untilEnd(connection.chunks({ signal }), signal)) await printer.bytes(bytes);
  await until(signal, () => connection.close({ signal }));
}
