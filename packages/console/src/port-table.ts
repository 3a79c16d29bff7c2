/**
 * The ports of a device, and what the device's messages make of them.
 *
 * What the device says about ports is taken as true where that does no harm. A message that makes no sense (about a port that does
 * not exist) is ignored and reported as a warning: QEMU, for example, announces a port twice if it is plugged while the driver
 * starts.
 */
import { decodeUtf8, VirtioError } from '@virtio/core';
import { ConsolePort, type ConsoleSize, type PortHost, type PortState } from './console-port.ts';
import type { ControlLink, ControlMessage } from './control.ts';
import type { PortSlot } from './port-slot.ts';
import { Receiver } from './receiver.ts';
import { ConsoleResize, ControlEvent } from './protocol.ts';

/** A port, while the device has it. */
export interface PortEntry {
  readonly port: ConsolePort;
  readonly state: PortState;
  readonly receiver: Receiver;
}

type Slot = PortSlot<PortEntry>;

/** Something that happened to a port. */
export interface PortEvent {
  readonly name: 'portAdded' | 'portRemoved' | 'portChanged' | 'resized';
  readonly port: ConsolePort;
}

/** How many warnings, and how many events that repeat others, are kept until listeners have heard of them. */
const MOST_UNHEARD = 64;

/** What a {@link PortTable} needs from its driver. */
export interface PortTableOptions {
  readonly host: PortHost;
  /** How many bytes each port keeps until they are read. */
  readonly readAhead: number;
  /** The control queues of the device, if it has any. */
  readonly control: () => ControlLink | undefined;
  /** The size of the console of port 0 by the configuration, if that has one. */
  readonly sizeOfConfig: () => ConsoleSize | undefined;
}

/** The ports by number, and what is to be reported about them. */
export class PortTable {
  readonly slots: readonly Slot[];
  /** What happened and was not reported yet. */
  readonly events: PortEvent[] = [];
  /** What the device said that makes no sense, not reported yet. */
  readonly warnings: VirtioError[] = [];
  /** The size of the console of port 0, if it is known. */
  size: ConsoleSize | undefined;

  readonly #options: PortTableOptions;

  /** @param slots all places for ports, at least one */
  constructor(slots: readonly Slot[], options: PortTableOptions) {
    this.slots = slots;
    this.#options = options;
    this.size = options.sizeOfConfig();
  }

  /** The place of port 0, which every device has. */
  get first(): Slot {
    return this.slots[0] as Slot;
  }

  /** Adds the port of a device that has no others and no messages about it. */
  addOnly(): void {
    this.#add(this.first, true);
  }

  /** Handles one message from the device. */
  handle({ id, event, value, rest }: ControlMessage): void {
    const slot = this.slots[id];
    if (slot === undefined) {
      const { length } = this.slots;
      this.#warn(
        `sent message ${event} about port ${id}, which it cannot have; its ports are below ${length}`,
      );
    } else if (event === ControlEvent.DEVICE_ADD) {
      this.#added(slot);
    } else if (slot.entry === undefined) {
      this.#warn(`sent message ${event} about port ${id}, which it has not added`);
    } else if (event === ControlEvent.DEVICE_REMOVE) {
      this.#remove(slot);
    } else if (event === ControlEvent.RESIZE) {
      this.#resized(slot.entry, rest);
    } else if (this.#change(slot.entry, event, value, rest)) {
      this.#happened('portChanged', slot.entry.port);
      slot.wake();
    }
  }

  /** The size of port 0 is this, by the configuration. */
  setSize(size: ConsoleSize): void {
    if (this.size?.columns === size.columns && this.size.rows === size.rows) return;
    this.size = size;
    const { entry } = this.first;
    if (entry === undefined) return;
    entry.state.size = size;
    this.#happened('resized', entry.port);
  }

  /** A port is opened or closed on this side. */
  setOpen(port: ConsolePort, open: boolean): void {
    const entry = this.slots[port.id]?.entry;
    if (entry?.port !== port) return;
    entry.state.open = open;
    this.#send(port.id, ControlEvent.PORT_OPEN, open ? 1 : 0);
  }

  /** The device no longer works. What was received stays. */
  fail(): void {
    for (const { entry } of this.slots) entry?.receiver.suspend();
  }

  /** The device was reset. */
  reset(): void {
    for (const slot of this.slots) {
      // The device announces its ports anew; whether they are the same ones nobody knows.
      if (this.#options.control()) this.#remove(slot);
      else slot.entry?.receiver.resume(slot.receive);
    }
  }

  /** 5.3.5: the port is made ready, and the device told so. */
  #added(slot: Slot): void {
    const { id } = slot;
    if (slot.entry !== undefined) {
      this.#warn(`added port ${id} again`);
      this.#send(id, ControlEvent.PORT_READY, 1);
      return;
    }
    try {
      this.events.push({ name: 'portAdded', port: this.#add(slot, false) });
    } catch (error) {
      if (!VirtioError.is(error, 'DMA_ERROR')) throw error;
      this.warnings.push(error);
      this.#send(id, ControlEvent.PORT_READY, 0);
      return;
    }
    this.#send(id, ControlEvent.PORT_READY, 1);
  }

  /** @param only whether there are no messages: the port is a console, and open on both sides as far as anybody knows */
  #add(slot: Slot, only: boolean): ConsolePort {
    const { host, readAhead } = this.#options;
    slot.receive.open();
    slot.transmit.open();
    const state: PortState = {
      name: undefined,
      isConsole: only,
      hostOpen: only,
      open: only,
      size: slot.id === 0 ? this.size : undefined,
      removed: false,
    };
    const receiver = new Receiver(`${host.transport.who()}: port ${slot.id}`, slot.receive, readAhead);
    const port = new ConsolePort(host, slot, state, receiver);
    slot.entry = { port, state, receiver };
    return port;
  }

  #remove(slot: Slot): void {
    const { entry, id } = slot;
    if (entry === undefined) return;
    entry.state.removed = true;
    entry.state.hostOpen = false;
    entry.receiver.detach();
    slot.entry = undefined;
    // What a message said was the size of this port, not of the next one.
    if (id === 0) this.size = this.#options.sizeOfConfig();
    this.#options.control()?.forget(id);
    this.#gone(entry.port);
    slot.wake();
  }

  /** Something happened to a port. If many events wait, as nobody polls or a device floods, one of a kind is enough for a port. */
  #happened(name: PortEvent['name'], port: ConsolePort): void {
    const { events } = this;
    if (events.length >= MOST_UNHEARD && events.some((event) => event.name === name && event.port === port)) {
      return;
    }
    events.push({ name, port });
  }

  /** A port was removed. What was to be reported of it no longer holds; if that it was added, nobody has heard of it. */
  #gone(port: ConsolePort): void {
    const unheard = this.events.some((event) => event.name === 'portAdded' && event.port === port);
    const others = this.events.filter((event) => event.port !== port);
    this.events.splice(0, Infinity, ...others);
    if (!unheard) this.events.push({ name: 'portRemoved', port });
  }

  /** Changes what is known of a port; returns whether that is something new. */
  #change({ port, state, receiver }: PortEntry, event: number, value: number, rest: Uint8Array): boolean {
    switch (event) {
      case ControlEvent.CONSOLE_PORT:
        state.isConsole = true;
        state.open = true;
        // 5.3.6.2.2: this is the answer that it must get, each time.
        this.#send(port.id, ControlEvent.PORT_OPEN, 1);
        return true;
      case ControlEvent.PORT_OPEN:
        if ((value !== 0) === state.hostOpen) return false;
        state.hostOpen = value !== 0;
        if (!state.hostOpen && !state.isConsole) receiver.end();
        return true;
      case ControlEvent.PORT_NAME:
        state.name = textOf(rest);
        return true;
      default:
        this.#warn(`sent a message of the unknown kind ${event} about port ${port.id}`);
        return false;
    }
  }

  #resized({ port, state }: PortEntry, bytes: Uint8Array): void {
    if (bytes.length < ConsoleResize.size) {
      this.#warn(`sent the size of port ${port.id} in ${bytes.length} bytes; it takes ${ConsoleResize.size}`);
      return;
    }
    const { cols, rows } = ConsoleResize.read(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
    state.size = { columns: cols, rows };
    if (port.id === 0) this.size = state.size;
    this.#happened('resized', port);
  }

  #send(id: number, event: number, value: number): void {
    this.#options.control()?.send(id, event, value);
  }

  #warn(what: string): void {
    if (this.warnings.length >= MOST_UNHEARD) return;
    this.warnings.push(
      new VirtioError(
        'DEVICE_MISBEHAVED',
        `${this.#options.host.transport.who()} ${what}. The message was ignored`,
      ),
    );
  }
}

/** 5.3.6.2: a name has no NUL at the end; QEMU's have one. */
function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return decodeUtf8(end < 0 ? bytes : bytes.subarray(0, end));
}
