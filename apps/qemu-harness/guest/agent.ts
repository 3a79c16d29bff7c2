/**
 * The agent: the first Node.js process of the guest. It starts programs for the host and passes their output, messages
 * and ends on, over the serial port that init gave it as its standard input. Each program is a process of its own, so
 * that a crash in one is that one's failure.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { openSync, readFileSync, writeSync } from 'node:fs';
import { fromChunk, toChunk, type FromGuest, type ToGuest } from '../src/boot/protocol.ts';

const channel = openSync(process.env.guest_channel ?? '/dev/ttyS1', 'w');
let parts = '';
const children = new Map<number, ChildProcess>();

function send(message: FromGuest): void {
  const line = Buffer.from(`${JSON.stringify(message)}\n`, 'utf8');
  for (let sent = 0; sent < line.length;) {
    try {
      sent += writeSync(channel, line, sent);
    } catch (error) {
      // The port shares its flags with standard input, which does not block.
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

function start(id: number, args: readonly string[], ipc: boolean): void {
  const child = spawn(process.execPath, args, {
    stdio: ['pipe', 'pipe', 'pipe', ...(ipc ? (['ipc'] as const) : [])],
  });
  children.set(id, child);
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream]?.on('data', (bytes: Uint8Array) => {
      for (let offset = 0; offset < bytes.length; offset += 65536) {
        send({ type: 'output', id, stream, ...toChunk(bytes.subarray(offset, offset + 65536)) });
      }
    });
  }
  // A program that ends without reading its input is no failure of ours.
  child.stdin?.on('error', () => undefined);
  child.on('message', (body) => send({ type: 'message', id, body }));
  child.on('error', (error) => send({ type: 'output', id, stream: 'stderr', text: `${error.message}\n` }));
  child.on('close', (code, signal) => {
    children.delete(id);
    send({ type: 'exit', id, code, signal });
  });
}

function handle(message: ToGuest): void {
  switch (message.type) {
    case 'run':
      start(message.id, message.args, message.ipc);
      break;
    case 'stdin':
      children.get(message.id)?.stdin?.write(fromChunk(message));
      break;
    case 'stdin-end':
      children.get(message.id)?.stdin?.end();
      break;
    case 'message': {
      const child = children.get(message.id);
      if (child?.connected === true) child.send(message.body as object);
      break;
    }
    case 'part':
      parts += message.text;
      if (message.last) {
        const whole = parts;
        parts = '';
        handle(JSON.parse(whole) as ToGuest);
      }
      break;
    case 'kill':
      children.get(message.id)?.kill('SIGKILL');
      break;
    case 'power-off':
      process.exit(0);
  }
}

let rest = '';
process.stdin.setEncoding('utf8').on('data', (text: string) => {
  const lines = (rest + text).split('\n');
  rest = lines.pop() ?? '';
  for (const line of lines) {
    send({ type: 'taken' });
    handle(JSON.parse(line) as ToGuest);
  }
});
send({ type: 'stage', stage: 'ready', uptime: Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) });
