/**
 * What programs of the playground can import besides the packages: the devices of an emulated PC (v86), with a trace, and the
 * host's side of each.
 */
import {
  type DeviceType,
  formatTraceEvent,
  type TraceEvent,
  type TracedDevice,
  traceTransport,
} from '@virtio/core';
import { V86Machine } from '@virtio/v86';

/** A device of the emulated PC: the way to it and the machine's memory, for the constructor of a driver. */
export type Device = Pick<TracedDevice, 'transport' | 'hal'>;

const BYTES_SHOWN = 16;

let machine: V86Machine | undefined;
let listener: (line: string, kind: TraceEvent['kind']) => void = () => undefined;

function running(): V86Machine {
  if (machine === undefined) throw new Error('The emulated PC is not running.');
  return machine;
}

/** Starts a PC for a program; `trace` is called with each line of what happens on its devices. */
export async function start(trace: typeof listener): Promise<V86Machine> {
  machine = await V86Machine.create();
  listener = trace;
  return machine;
}

/** Opens a device. Every register and every chain stands in the trace from then on. */
export function open(type: DeviceType): Device {
  const { hal } = running();
  const trace = (event: TraceEvent): void => listener(formatTraceEvent(event), event.kind);
  return traceTransport(running().open(type), hal, trace, { bytes: BYTES_SHOWN, names: 'pci' });
}

/** The host's side of the devices. */
export const host = {
  /** The console: what its user sees and types. */
  console: {
    /** Calls back with what the guest wrote. */
    onOutput(callback: (text: string) => void): void {
      const decoder = new TextDecoder();
      running().emulator.add_listener('virtio-console0-output-bytes', (bytes: Uint8Array) =>
        callback(decoder.decode(bytes, { stream: true })),
      );
    },
    /** Types text. */
    type(text: string): void {
      running().send('virtio-console0-input-bytes', new TextEncoder().encode(text));
    },
  },
  /** The folder that is shared by 9P. */
  folder: {
    /** Writes a file of the folder. */
    async write(path: string, text: string): Promise<void> {
      await running().emulator.create_file(path, new TextEncoder().encode(text));
    },
    /** Reads one. */
    async read(path: string): Promise<string> {
      return new TextDecoder().decode(await running().emulator.read_file(path));
    },
  },
  /** The balloon. */
  balloon: {
    /** Asks for so many pages of 4096 bytes more; fewer, if it is negative. */
    ask(pages: number): void {
      running().askForPages(pages);
    },
  },
};
