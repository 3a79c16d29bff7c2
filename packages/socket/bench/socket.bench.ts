/**
 * What one packet costs in the driver and its connections, each way. The device is next to nothing: it moves the used index, and copies
 * packets into the buffers, whose cost is a row of its own.
 */
import { CommonFeatures, DeviceType } from '@virtio/core';
import { measureAll, printMeasurements } from '@virtio/checks/measure';
import { FakeDevice, FakeInterrupts, FakeTransport } from '@virtio/testing';
import { VirtioSocket, VsockConnectionManager } from '../src/index.ts';

const BUFFERS = 64;
const HEADER = 44;
const ROUNDS = 50;
const GUEST = 3;

/** Hands the driver's handlers to the device. */
class BenchInterrupts extends FakeInterrupts {
  readonly handlers: (() => void)[] = [];

  override onQueue(queue: number, handler: (() => void) | undefined): void {
    if (handler) this.handlers[queue] = handler;
  }
}

/** Calls the device without looking at features. */
class BenchTransport extends FakeTransport {
  kicked: (queue: number) => void = () => undefined;

  override notify(queue: number): void {
    this.kicked(queue);
  }
}

/** A packet of the host with this operation and so many bytes. */
function packet(op: number, hostPort: number, guestPort: number, length: number): Uint8Array {
  const bytes = new Uint8Array(HEADER + length).fill(7, HEADER);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 2, true);
  view.setUint32(8, GUEST, true);
  view.setUint32(16, hostPort, true);
  view.setUint32(20, guestPort, true);
  view.setUint32(24, length, true);
  view.setUint16(28, 1, true);
  view.setUint16(30, op, true);
  view.setUint32(36, 0x7fff_ffff, true);
  return bytes;
}

async function bench(title: string, ring: bigint): Promise<void> {
  const config = new Uint8Array(8);
  config[0] = GUEST;
  const device = new FakeDevice({
    type: DeviceType.Socket,
    features: ring,
    config,
    queues: [BUFFERS, BUFFERS, 8],
  });
  device.recordNotifications = false;
  const interrupts = new BenchInterrupts();
  const transport = new BenchTransport(device, { interrupts });
  const driver = new VirtioSocket(transport, device.hal);
  const sockets = new VsockConnectionManager(driver);
  const connection = sockets.submitConnect({ cid: 2, port: 1 }, { localPort: 5 });
  const [rx, tx] = [device.queue(0), device.queue(1)];
  tx.drain(0);
  // One round by hand, to learn where the buffers lie.
  const chains = Array.from({ length: BUFFERS }, () => rx.pop());
  const views = chains.map((chain) => device.hal.view(chain?.elements[0]?.address ?? 0, 16_384, 'write'));
  chains.forEach((chain, n) => (n === 0 ? chain?.write(packet(2, 1, 5, 0)).complete() : chain?.complete(0)));
  driver.pollEvents();
  while (sockets.poll() !== undefined);
  transport.kicked = (queue) => {
    if (queue === 1) tx.drain(0);
  };

  const { quirks } = driver;
  let taken = 0;
  const update = packet(6, 1, 5, 0);
  const updateView = new DataView(update.buffer);
  /** The peer has taken so many more bytes. */
  const tellCredit = (bytes: number): void => {
    taken = (taken + bytes) >>> 0;
    updateView.setUint32(40, taken, true);
    rx.pop()?.write(update).complete();
    interrupts.handlers[0]?.();
  };
  const small = new Uint8Array(64);
  const page = new Uint8Array(1024);
  const large = new Uint8Array(16_000);
  const rows = [small, page, large].flatMap((data) => {
    const incoming = packet(5, 1, 5, data.length);
    const incomingView = new DataView(incoming.buffer);
    const into = new Uint8Array(data.length * BUFFERS);
    const fill = (): void => {
      // A peer that counted less than before would be told of as a quirk.
      incomingView.setUint32(40, taken, true);
      for (const view of views) view.set(incoming);
    };
    return [
      [
        `send ${data.length} bytes`,
        ROUNDS * BUFFERS,
        () => {
          let written = 0;
          for (let n = 0; n < ROUNDS * BUFFERS; n += 1) written += connection.tryWrite(data);
          if (written !== ROUNDS * BUFFERS * data.length) throw new Error('there was no credit');
          tellCredit(written);
        },
      ],
      [
        `the device's copy of ${data.length} bytes`,
        ROUNDS * BUFFERS,
        () => {
          for (let n = 0; n < ROUNDS; n += 1) fill();
        },
      ],
      [
        `that copy, and receive ${data.length} bytes, ${data.length > 4000 ? 16 : BUFFERS} packets at a time`,
        ROUNDS * BUFFERS,
        () => {
          for (let n = 0; n < ROUNDS; n += 1) {
            fill();
            rx.drain(incoming.length);
            interrupts.handlers[0]?.();
            for (let got = 0; got < into.length;) {
              const count = connection.tryRead(into.subarray(got));
              if (count === 0) throw new Error(`only ${got} of ${into.length} bytes came`);
              got += count;
            }
          }
        },
      ],
    ] as const;
  });
  printMeasurements(title, await measureAll(rows.filter(([name]) => !name.includes('receive 16000'))));
  if (driver.quirks > quirks) {
    throw new Error(`the driver took ${driver.quirks - quirks} packets for sloppy ones`);
  }
  sockets[Symbol.dispose]();
  driver[Symbol.dispose]();
}

const split = CommonFeatures.set('EVENT_IDX').bits;
await bench('one packet, split ring', split);
await bench('one packet, packed ring', split | CommonFeatures.mask('RING_PACKED'));
