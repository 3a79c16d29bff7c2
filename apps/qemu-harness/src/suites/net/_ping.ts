/** Datagrams that the host sends back, one at a time: what a thread of the tests does on its pair of queues. */
import { VirtioError } from '@virtio/core';
import type { VirtioNet } from '@virtio/net';
import { PORTS, udpFrame, udpPayload } from './_ip.ts';

/** What came of it. */
export interface Pings {
  /** Datagrams that came back as they were sent. */
  done: number;
  /** Datagrams that were sent again, as nothing had come back. */
  lost: number;
  /** How often a call ended with each code. */
  readonly errors: Record<string, number>;
}

const PATIENCE_MS = 500;

/** Sends numbered datagrams from a port of the guest until it is told to stop, each as soon as the one before came back. */
export async function ping(
  net: VirtioNet,
  hostMac: Uint8Array,
  port: number,
  pings: Pings,
  stop: () => boolean,
  pair = 0,
): Promise<void> {
  for (let number = 0; !stop();) {
    const payload = new Uint8Array(4 + (number % 1400));
    new DataView(payload.buffer).setUint32(0, number);
    payload.fill(number & 0xff, 4);
    try {
      await net.send(udpFrame(hostMac, [port, PORTS.echo], payload), { pair });
      await answer(net, port, payload);
      pings.done += 1;
      number += 1;
    } catch (error) {
      const code = VirtioError.is(error) ? error.code : String(error);
      if (code === 'ABORTED') pings.lost += 1;
      else pings.errors[code] = (pings.errors[code] ?? 0) + 1;
      // The device may take a while to be live again.
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

/** Waits for the datagram to come back, from whichever pair of this driver's. Frames of anybody else are passed over. */
async function answer(net: VirtioNet, port: number, sent: Uint8Array): Promise<void> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  for (;;) {
    using packet = await net.receive({ signal });
    const came = udpPayload(packet.data, [PORTS.echo, port]);
    if (came !== undefined && Buffer.compare(came, sent) === 0) return;
  }
}
