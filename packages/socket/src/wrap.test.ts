/** More than 2^32 bytes each way on one connection: all counters go round, and the peer's account is in plain numbers. */
import { DeviceType } from '@virtio/core';
import { FakeDevice, FakeTransport } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { HEADER_SIZE, VirtioSocket, VsockConnectionManager, VsockOp } from './index.ts';

const GUEST = 9;
const HOST = 2;
const DATA = 65_536;
const PACKETS = 2 ** 32 / DATA + 20;
const WINDOW = 16 * DATA;
const [RX, TX] = [0, 1];

/** A peer that looks at headers only, as all these bytes are too many for more. */
class Counting {
  readonly device: FakeDevice;
  readonly transport: FakeTransport;
  readonly #views = new Map<number, DataView>();
  /** Bytes, in numbers that never wrap: sent by the guest and taken here, sent from here and taken by the guest. */
  came = 0;
  taken = 0;
  sent = 0;
  guestTaken = 0;
  guestRoom = 0;
  readonly ops = new Array<number>(8).fill(0);

  constructor() {
    const config = Uint8Array.of(GUEST, 0, 0, 0, 0, 0, 0, 0);
    this.device = new FakeDevice({ type: DeviceType.Socket, config, queues: [16, 16, 4] });
    this.device.recordNotifications = false;
    this.device.onNotify = (queue) => {
      if (queue === TX) this.look();
    };
    this.transport = new FakeTransport(this.device);
  }

  look(): void {
    const queue = this.device.queue(TX);
    for (let chain = queue.pop(); chain !== undefined; chain = queue.pop()) {
      const [element] = chain.elements;
      const view = this.#view(element?.address ?? 0, 'read');
      const length = view.getUint32(24, true);
      const op = view.getUint16(30, true);
      this.ops[op] = (this.ops[op] ?? 0) + 1;
      this.came += length;
      if (this.came - this.taken > WINDOW) throw this.device.violated('RW without credit [5.10.6.3.1]');
      const step = (view.getUint32(40, true) - (this.guestTaken % 2 ** 32) + 2 ** 32) % 2 ** 32;
      this.guestTaken += step;
      if (this.guestTaken > this.sent) throw this.device.violated('fwd_cnt is more than was sent');
      this.guestRoom = view.getUint32(36, true) - (this.sent - this.guestTaken);
      chain.complete(0);
    }
  }

  /** Sends a packet whose data begin with a number. */
  send(op: number, port: number, length = 0, number = 0): void {
    const chain = this.device.queue(RX).pop();
    if (chain === undefined) throw new Error('the driver has no buffer');
    const view = this.#view(chain.elements[0]?.address ?? 0, 'write');
    view.setUint32(0, HOST, true);
    view.setUint32(8, GUEST, true);
    view.setUint32(16, 1, true);
    view.setUint32(20, port, true);
    view.setUint32(24, length, true);
    view.setUint16(28, 1, true);
    view.setUint16(30, op, true);
    view.setUint32(36, WINDOW, true);
    view.setUint32(40, this.taken % 2 ** 32, true);
    view.setUint32(HEADER_SIZE, number, true);
    this.sent += length;
    chain.complete(HEADER_SIZE + length);
  }

  #view(address: number, access: 'read' | 'write'): DataView {
    let view = this.#views.get(address);
    if (view === undefined) {
      const bytes = this.device.hal.view(address, HEADER_SIZE + (access === 'write' ? 4 : 0), access);
      view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      this.#views.set(address, view);
    }
    return view;
  }
}

describe('a connection', () => {
  it('carries more than 2^32 bytes each way [5.10.6.3]', () => {
    const peer = new Counting();
    const { device, transport } = peer;
    const driver = new VirtioSocket(transport, device.hal, { bufferSize: HEADER_SIZE + DATA, buffers: 16 });
    const sockets = new VsockConnectionManager(driver);
    const connection = sockets.submitConnect({ cid: HOST, port: 1 }, { localPort: 7, bufferSize: WINDOW });
    peer.send(VsockOp.RESPONSE, 7);
    driver.pollEvents();
    expect(connection.isEstablished).toBe(true);
    const data = new Uint8Array(DATA);
    const into = new Uint8Array(DATA);
    const head = new DataView(into.buffer);
    let stalls = 0;
    for (let number = 0; number < PACKETS; number += 1) {
      const written = connection.tryWrite(data);
      if (written !== DATA) {
        stalls += 1;
        peer.taken = peer.came;
        peer.send(VsockOp.CREDIT_UPDATE, 7);
        expect(connection.tryWrite(written === 0 ? data : data.subarray(written))).toBe(DATA - written);
      }
      if (peer.guestRoom < DATA) throw new Error(`the guest has room for ${peer.guestRoom} bytes only`);
      peer.send(VsockOp.RW, 7, DATA, number);
      if (connection.tryRead(into) !== DATA || head.getUint32(0, true) !== number) {
        throw new Error(`packet ${number} did not come`);
      }
    }
    expect([peer.came, peer.sent]).toEqual([PACKETS * DATA, PACKETS * DATA]);
    expect(peer.came).toBeGreaterThan(2 ** 32);
    expect(stalls).toBeGreaterThan(PACKETS / 32);
    expect(peer.ops[VsockOp.RST]).toBe(0);
    expect(connection.isEstablished).toBe(true);
    peer.taken = peer.came;
    peer.send(VsockOp.CREDIT_UPDATE, 7);
    expect([connection.sendCredit, connection.receiveCredit, driver.quirks]).toEqual([WINDOW, WINDOW, 0]);
    sockets[Symbol.dispose]();
    driver[Symbol.dispose]();
    device.assertClean();
  }, 60_000);
});
