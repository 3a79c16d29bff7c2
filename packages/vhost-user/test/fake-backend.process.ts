/**
 * A block device's vhost-user back end, in a process of its own, as a front end waits for answers in place. It is scripted by
 * messages: what it offers, what it answers wrongly, and when it dies.
 */
import { closeSync, openSync, rmSync } from 'node:fs';
import { EventPoller, Mapping, SharedFile, signalEventfd, UnixListener, UnixSocket } from '@virtio/linux';
import { type DeviceQueue, PackedDeviceQueue } from '@virtio/testing';
import type { BackendCommand, BackendScript, BackendState, Lie } from './fake-backend.ts';
import { recordSize, SplitRing } from './split-ring.ts';

let path = '';
let script: BackendScript;
let connect = false;
let disk: Mapping | undefined;
let sectors: Uint8Array = new Uint8Array(0);
let writeCounts: Int32Array = new Int32Array(0);
const NEED_REPLY = 8;
const IN_ORDER = 1n << 35n;
const PACKED = 1n << 34n;

interface Region {
  readonly guest: number;
  readonly user: number;
  readonly size: number;
  readonly mapping: Mapping;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

interface Vring {
  size: number;
  base: number;
  desc: number;
  avail: number;
  used: number;
  kick: number;
  call: number;
  error: number;
  enabled: boolean;
  ring: SplitRing | undefined;
  packed: DeviceQueue | undefined;
  held: { complete: (dieBefore?: boolean) => void }[];
}

const newState = (): BackendState => ({
  log: [],
  features: 0n,
  protocol: 0n,
  status: 0,
  connections: 0,
  replies: [],
  taken: 0,
  bases: [],
});
let state = newState();
/** One for each back end: while there is none, nothing can happen here when the process ends. */
let poller: EventPoller;

let current: Connection | undefined;

class Connection {
  readonly socket: UnixSocket;
  readonly regions: Region[] = [];
  readonly vrings: (Vring | undefined)[] = [];
  backend: UnixSocket | undefined;
  record:
    | { file: SharedFile | undefined; mapping: Mapping; bytes: Uint8Array<ArrayBuffer>; size: number }
    | undefined;
  #bytes = new Uint8Array(0);
  #descriptors: number[] = [];
  closed = false;

  constructor(socket: UnixSocket) {
    this.socket = socket;
    poller.watch(socket.fd, () => this.pump(), true);
    state.connections += 1;
  }

  pump(): void {
    for (;;) {
      if (this.closed || script.hang) return;
      const got = this.socket.receive(12 + 4096);
      if (got === undefined) return;
      if (got.bytes.length === 0) {
        this.close();
        return;
      }
      // Descriptors are never merged with the bytes of the message behind.
      this.#bytes = Uint8Array.from([...this.#bytes, ...got.bytes]);
      this.#descriptors.push(...got.descriptors);
      for (;;) {
        const view = new DataView(this.#bytes.buffer);
        if (this.#bytes.length < 12) break;
        const size = view.getUint32(8, true);
        if (this.#bytes.length < 12 + size) break;
        const message = this.#bytes.slice(0, 12 + size);
        this.#bytes = this.#bytes.slice(12 + size);
        // The kernel stops a read behind a message with descriptors: they belong to the last one of it.
        const fds = this.#bytes.length < 12 ? this.#descriptors.splice(0) : [];
        this.handle(new DataView(message.buffer), fds);
        if (this.#isClosed()) return;
      }
    }
  }

  #isClosed(): boolean {
    return this.closed;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    poller.unwatch(this.socket.fd);
    this.socket[Symbol.dispose]();
    this.backend?.[Symbol.dispose]();
    for (const fd of this.#descriptors) closeSync(fd);
    for (const vring of this.vrings) if (vring) this.stop(vring);
    for (const { mapping } of this.regions) mapping[Symbol.dispose]();
    this.dropRecord();
    if (current === this) current = undefined;
    listen();
  }

  dropRecord(): void {
    this.record?.mapping[Symbol.dispose]();
    this.record?.file?.[Symbol.dispose]();
    this.record = undefined;
  }

  stop(vring: Vring): void {
    if (vring.kick >= 0) {
      poller.unwatch(vring.kick);
      closeSync(vring.kick);
    }
    if (vring.call >= 0) closeSync(vring.call);
    if (vring.error >= 0) closeSync(vring.error);
    vring.kick = vring.call = vring.error = -1;
    vring.ring = undefined;
    vring.packed = undefined;
    vring.enabled = false;
  }

  view(address: number, length: number, key: 'guest' | 'user'): Uint8Array {
    const region = this.regions.find((r) => address >= r[key] && address + length <= r[key] + r.size);
    if (!region) throw new Error(`no memory of ${length} bytes at ${address.toString(16)}`);
    return region.bytes.subarray(address - region[key], address - region[key] + length);
  }

  addRegion(view: DataView, at: number, fd: number): void {
    const size = Number(view.getBigUint64(at + 8, true));
    const offset = Number(view.getBigUint64(at + 24, true));
    const mapping = Mapping.map({ size, fd, offset });
    this.regions.push({
      guest: Number(view.getBigUint64(at, true)),
      user: Number(view.getBigUint64(at + 16, true)),
      size,
      mapping,
      bytes: new Uint8Array(mapping.view()),
    });
    closeSync(fd);
  }

  reply(request: number, payload: Uint8Array, descriptors: readonly number[] = []): void {
    const lie: Lie | undefined = script.lies[request];
    const bytes = new Uint8Array(12 + payload.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, request, true);
    view.setUint32(4, 5, true);
    view.setUint32(8, payload.length, true);
    bytes.set(payload, 12);
    switch (lie) {
      case 'wrong request':
        view.setUint32(0, request + 1, true);
        break;
      case 'no reply flag':
        view.setUint32(4, 1, true);
        break;
      case 'version 2':
        view.setUint32(4, 6, true);
        break;
      case 'huge size':
        view.setUint32(8, 0xffffff00, true);
        break;
      case 'short payload':
        view.setUint32(8, payload.length - 1, true);
        this.socket.send(bytes.subarray(0, bytes.length - 1), descriptors);
        return;
      case 'long payload':
        view.setUint32(8, payload.length + 4, true);
        this.socket.send(Uint8Array.from([...bytes, 1, 2, 3, 4]), descriptors);
        return;
      case 'silent':
        return;
      case 'close':
        this.close();
        return;
      case 'answer and close':
        this.socket.send(bytes, descriptors);
        this.close();
        return;
      case 'half a message':
        this.socket.send(bytes.subarray(0, 15), descriptors);
        this.close();
        return;
      case 'descriptors':
        this.socket.send(bytes, [this.socket.fd, this.socket.fd, ...descriptors]);
        return;
      case 'twice':
        this.socket.send(bytes, descriptors);
        break;
      case 'bytewise':
        for (const byte of bytes) this.socket.send(Uint8Array.of(byte));
        return;
      case 'raw':
        this.socket.send(script.raw ?? new Uint8Array(0));
        return;
      case undefined:
        break;
    }
    this.socket.send(bytes, descriptors);
  }

  u64(request: number, value: bigint): void {
    const payload = new Uint8Array(8);
    new DataView(payload.buffer).setBigUint64(0, value, true);
    this.reply(request, payload);
  }

  vring(index: number): Vring {
    return (this.vrings[index] ??= {
      size: 0,
      base: 0,
      desc: 0,
      avail: 0,
      used: 0,
      kick: -1,
      call: -1,
      error: -1,
      enabled: false,
      ring: undefined,
      packed: undefined,
      held: [],
    });
  }

  handle(view: DataView<ArrayBuffer>, fds: number[]): void {
    const request = view.getUint32(0, true);
    const flags = view.getUint32(4, true);
    const payload = new DataView(view.buffer, 12);
    state.log.push(request);
    const number = payload.byteLength >= 8 ? payload.getBigUint64(0, true) : 0n;
    const index = payload.byteLength >= 4 ? payload.getUint32(0, true) & 0xff : 0;
    let answered = false;
    const answer = (value: bigint): void => {
      answered = true;
      this.u64(request, value);
    };
    switch (request) {
      case 1:
        answer(script.features);
        break;
      case 2:
        state.features = number;
        break;
      case 5:
        for (const { mapping } of this.regions.splice(0)) mapping[Symbol.dispose]();
        fds.splice(0).forEach((fd, i) => this.addRegion(payload, 8 + 32 * i, fd));
        for (const vring of this.vrings) {
          if (vring?.ring === undefined) continue;
          vring.base = vring.ring.base;
          vring.ring = undefined;
        }
        break;
      case 8:
        this.vring(index).size = payload.getUint32(4, true);
        break;
      case 9: {
        const vring = this.vring(index);
        vring.desc = Number(payload.getBigUint64(8, true));
        vring.used = Number(payload.getBigUint64(16, true));
        vring.avail = Number(payload.getBigUint64(24, true));
        break;
      }
      case 10:
        this.vring(index).base = payload.getUint32(4, true);
        state.bases.push(payload.getUint32(4, true));
        break;
      case 11: {
        const vring = this.vring(index);
        const reply = new Uint8Array(8);
        new DataView(reply.buffer).setUint32(0, index, true);
        // What is held is given up, unless it is to be finished later.
        const givenUp = script.drainMs === undefined ? vring.held.splice(0).length : 0;
        new DataView(reply.buffer).setUint32(4, ((vring.ring?.base ?? 0) - givenUp) & 0xffff, true);
        if (script.drainMs === undefined) this.stop(vring);
        else {
          // Says at once that it has stopped, and finishes later, as qemu-storage-daemon does.
          setTimeout(() => {
            for (const { complete } of vring.held.splice(0)) complete();
            this.stop(vring);
          }, script.drainMs).unref();
        }
        answered = true;
        this.reply(request, reply);
        break;
      }
      case 12: {
        const vring = this.vring(index);
        [vring.kick = -1] = fds.splice(0, 1);
        poller.watch(vring.kick, () => {
          if (script.deaf > 0) script.deaf -= 1;
          else this.tryServe(index);
        });
        break;
      }
      case 13:
        [this.vring(index).call = -1] = fds.splice(0, 1);
        break;
      case 14:
        [this.vring(index).error = -1] = fds.splice(0, 1);
        break;
      case 15:
        answer(script.protocol);
        break;
      case 16:
        state.protocol = number;
        break;
      case 17:
        answer(BigInt(script.queues));
        break;
      case 18:
        this.vring(index).enabled = payload.getUint32(4, true) === 1;
        this.tryServe(index);
        break;
      case 21: {
        const [fd = -1] = fds.splice(0, 1);
        this.backend = new UnixSocket(fd);
        break;
      }
      case 24: {
        const size = payload.getUint32(4, true);
        answered = true;
        const reply = new Uint8Array(12 + size);
        new DataView(reply.buffer).setUint32(4, size, true);
        reply.set(script.config.subarray(0, size), 12);
        this.reply(request, size > script.config.length ? new Uint8Array(0) : reply);
        break;
      }
      case 25: {
        const offset = payload.getUint32(0, true);
        script.config.set(new Uint8Array(view.buffer, 12 + 12), offset);
        break;
      }
      case 31: {
        const queues = payload.getUint16(16, true);
        const size = recordSize(payload.getUint16(18, true));
        this.useRecord(SharedFile.create('record', 2 << 20, false), size);
        const reply = new Uint8Array(20);
        const out = new DataView(reply.buffer);
        out.setBigUint64(0, BigInt(size * queues), true);
        out.setUint16(16, queues, true);
        answered = true;
        this.reply(request, reply, this.record?.file === undefined ? [] : [this.record.file.fd]);
        break;
      }
      case 32: {
        const queues = payload.getUint16(16, true);
        const [fd = -1] = fds.splice(0, 1);
        const size = Number(payload.getBigUint64(0, true)) / queues;
        const mapping = Mapping.map({ size: 2 << 20, fd });
        closeSync(fd);
        this.dropRecord();
        this.record = {
          file: undefined,
          mapping,
          bytes: new Uint8Array(mapping.view()),
          size,
        };
        break;
      }
      case 36:
        answer(BigInt(script.slots));
        break;
      case 37:
        this.addRegion(payload, 8, fds.shift() ?? -1);
        break;
      case 38: {
        const at = this.regions.findIndex((r) => BigInt(r.guest) === payload.getBigUint64(8, true));
        for (const { mapping } of this.regions.splice(at, 1)) mapping[Symbol.dispose]();
        break;
      }
      case 39:
        state.status = Number(number);
        if (state.status === 0) script.showStatus = 0;
        break;
      case 40:
        answer(BigInt((state.status & ~script.clearStatus) | script.showStatus));
        break;
    }
    for (const fd of fds) closeSync(fd);
    if (!answered && !this.closed && (flags & NEED_REPLY) !== 0) {
      this.u64(request, script.refuse === request ? 1n : 0n);
    }
  }

  useRecord(file: SharedFile, size: number): void {
    this.dropRecord();
    const mapping = file.map(0, file.size);
    this.record = { file, mapping, bytes: new Uint8Array(mapping.view()), size };
  }

  /** A ring that makes no sense ends the connection. */
  tryServe(index: number): void {
    try {
      this.serve(index);
    } catch {
      this.close();
    }
  }

  serve(index: number): void {
    const vring = this.vrings[index];
    if (!vring || vring.kick < 0 || (!vring.enabled && (script.features & (1n << 30n)) !== 0n)) return;
    const call = (): void => {
      if (vring.call >= 0) signalEventfd(vring.call);
    };
    if ((state.features & PACKED) !== 0n) {
      vring.packed ??= new PackedDeviceQueue({
        memory: { view: (address, length) => this.view(address, length, 'guest') },
        size: vring.size,
        descriptors: vring.desc,
        driverArea: vring.avail,
        deviceArea: vring.used,
        eventIdx: (state.features & (1n << 29n)) !== 0n,
        inOrder: (state.features & IN_ORDER) !== 0n,
        interrupt: call,
      });
      for (let chain = vring.packed.pop(); chain; chain = vring.packed.pop()) {
        const taken = chain;
        state.taken += 1;
        const complete = (): void => {
          const header = taken.readAt(0, 16);
          const body = taken.readAt(16, taken.readable - 16);
          const out = new Uint8Array(taken.writable);
          out[out.length - 1] = this.perform(header, body, out.subarray(0, -1));
          taken.write(out);
          taken.complete();
        };
        if (script.hold) vring.held.push({ complete });
        else complete();
      }
      return;
    }
    const part = this.record && vring.size > 0 ? index * this.record.size : undefined;
    vring.ring ??= new SplitRing(
      (address, length) => {
        const bytes = this.view(address, length, 'guest');
        return new DataView(bytes.buffer, bytes.byteOffset, length);
      },
      vring,
      vring.base,
      part === undefined || this.record === undefined
        ? undefined
        : new DataView(this.record.bytes.buffer, part, this.record.size),
    );
    const { ring } = vring;
    for (let head = ring.take(); head !== undefined; head = ring.take()) {
      const taken = head;
      state.taken += 1;
      const complete = (dieBefore = false): void => {
        this.request(ring, taken, dieBefore);
        call();
      };
      if (script.hold) vring.held.push({ complete });
      else complete();
    }
  }

  request(ring: SplitRing, head: number, dieBefore: boolean): void {
    const buffers = ring.buffers(head);
    const bytes = (writable: boolean): Uint8Array[] =>
      buffers
        .filter((buffer) => buffer.writable === writable)
        .map(({ address, length }) => this.view(address, length, 'guest'));
    const readable = Uint8Array.from(bytes(false).flatMap((part) => [...part]));
    const parts = bytes(true);
    const room = parts.reduce((sum, part) => sum + part.length, 0);
    const out = new Uint8Array(room);
    out[room - 1] = this.perform(readable.subarray(0, 16), readable.subarray(16), out.subarray(0, -1));
    let at = 0;
    for (const part of parts) {
      part.set(out.subarray(at, at + part.length));
      at += part.length;
    }
    ring.use(head, room, dieBefore);
  }

  perform(header: Uint8Array, body: Uint8Array, out: Uint8Array): number {
    const view = new DataView(header.buffer, header.byteOffset, 16);
    const at = Number(view.getBigUint64(8, true)) * 512;
    switch (view.getUint32(0, true)) {
      case 0:
        out.set(sectors.subarray(at, at + out.length));
        return 0;
      case 1:
        sectors.set(body, at);
        for (let sector = at / 512; sector < (at + body.length) / 512; sector += 1) {
          Atomics.add(writeCounts, sector, 1);
        }
        return 0;
      case 4:
        return 0;
      default:
        return 2;
    }
  }
}

let listener: UnixListener | undefined;
let dead = true;

/** A back end comes to life in this process, which served others before. */
function start(begin: BackendCommand & { do: 'start' }): void {
  ({ path, script, connect } = begin);
  const fd = openSync(begin.disk, 'r+');
  disk?.[Symbol.dispose]();
  disk = Mapping.map({ size: begin.size, fd });
  closeSync(fd);
  sectors = new Uint8Array(disk.view(0, begin.sectorBytes));
  writeCounts = new Int32Array(disk.view(begin.sectorBytes));
  state = newState();
  poller = new EventPoller();
  dead = false;
  if (!connect) {
    rmSync(path, { force: true });
    listener = new UnixListener(path);
    poller.watch(listener.fd, listen);
  }
  listen();
}

function listen(): void {
  if (current !== undefined || dead) return;
  if (connect) {
    if (state.connections > 0) return;
    const socket = UnixSocket.connect(path);
    if (!socket) return;
    current = new Connection(socket);
    current.pump();
    return;
  }
  const socket = listener?.accept();
  if (!socket) return;
  current = new Connection(socket);
  current.pump();
}
function die(): void {
  dead = true;
  if (listener) {
    poller.unwatch(listener.fd);
    listener[Symbol.dispose]();
    listener = undefined;
  }
  current?.close();
}

process.on('disconnect', () => process.exit());
process.on('message', (command: BackendCommand) => {
  switch (command.do) {
    case 'start':
      start(command);
      break;
    case 'change':
      Object.assign(script, command.script);
      break;
    case 'close':
      current?.close();
      break;
    case 'die':
      die();
      break;
    case 'release':
      if (command.afterMs !== undefined) {
        setTimeout(() => {
          script.hold = false;
          for (const vring of current?.vrings ?? []) {
            for (const { complete } of vring?.held.splice(0) ?? []) complete();
          }
        }, command.afterMs);
        break;
      }
      for (const vring of current?.vrings ?? []) {
        const held = vring?.held.splice(0, command.count ?? Infinity) ?? [];
        held.forEach(({ complete }, i) => complete(command.dieBefore === true && i === held.length - 1));
      }
      if (command.dieBefore === true) die();
      break;
    case 'config change':
      for (let n = 0; n < (command.times ?? 1); n += 1) {
        const bytes = new Uint8Array(12);
        const view = new DataView(bytes.buffer);
        view.setUint32(0, command.request ?? 2, true);
        view.setUint32(4, 1 | NEED_REPLY, true);
        current?.backend?.send(bytes, command.descriptors ? [current.socket.fd] : []);
      }
      break;
    case 'backend raw':
      current?.backend?.send(command.bytes);
      break;
    case 'backend close':
      current?.backend?.[Symbol.dispose]();
      break;
    case 'error':
      for (const vring of current?.vrings ?? []) if (vring && vring.error >= 0) signalEventfd(vring.error);
      break;
    case 'state': {
      for (
        let got = current?.backend?.receive();
        got && got.bytes.length > 0;
        got = current?.backend?.receive()
      ) {
        state.replies.push(...got.bytes);
      }
      break;
    }
    case 'stop':
      die();
      poller[Symbol.dispose]();
      break;
  }
  process.send?.({ ...state });
});
