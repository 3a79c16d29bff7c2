/**
 * A copy of the configuration space: core reads it synchronously, and it is requested from the back end again after a write or when
 * the back end reports a change. The protocol has no generation; each reported change increments it here.
 */
import { VirtioError } from '@virtio/core';
import type { Pending } from './channel.ts';
import { ConfigAccess } from './protocol.ts';
import type { Session } from './session.ts';

type Bytes = Uint8Array<ArrayBuffer>;

/** The configuration space of a device. */
export class DeviceConfig {
  readonly #who: string;
  readonly #onChange: () => void;
  #bytes: Bytes = new Uint8Array(0);
  #generation = 0;
  /** It was written: its contents are known only after it was read again. */
  #unknown = false;
  /** The request that reads it again after a change, and whether it has changed once more since. */
  #refresh: { readonly session: Session; readonly answer: Pending<Bytes> } | undefined;
  #again = false;
  /** There was a change that {@link DeviceConfig.takeChange} has not returned yet. */
  #untold = false;

  /**
   * @param who the device, for messages
   * @param onChange called when a change that the device reported has been read
   */
  constructor(who: string, onChange: () => void) {
    this.#who = who;
    this.#onChange = onChange;
  }

  /** The size in bytes; 0 if there is none. */
  get size(): number {
    return this.#bytes.length;
  }

  /** The generation: how often it has changed. */
  get generation(): number {
    return this.#generation;
  }

  /** Takes the configuration space of the back end that is connected now. Returns whether it differs from the copy. */
  take(bytes: Bytes): boolean {
    const before = this.#bytes;
    this.#bytes = bytes;
    this.#unknown = false;
    return before.length !== bytes.length || before.some((byte, i) => byte !== bytes[i]);
  }

  /** Reads `width` bytes; requests them from the back end if the copy is out of date. */
  read(session: Session | undefined, offset: number, width: 1 | 2 | 4): number {
    if (this.#unknown && session !== undefined) {
      this.#unknown = false;
      this.#keep(session.wait(session.askConfig(this.size)));
    }
    this.#check(offset, width);
    let value = 0;
    for (let i = 0; i < width; i += 1) value += (this.#bytes[offset + i] as number) * 2 ** (8 * i);
    return value;
  }

  /**
   * Writes `width` bytes, and waits for the back end. @throws {@link VirtioError} `NOT_READY` while it is not connected,
   * `UNSUPPORTED`
   */
  write(session: Session | undefined, offset: number, width: 1 | 2 | 4, value: number): void {
    this.#check(offset, width);
    if (session === undefined) {
      throw new VirtioError(
        'NOT_READY',
        `${this.#who}: the configuration space cannot be written while the back end is not connected; wait for whenConnected()`,
      );
    }
    if (!session.has('CONFIG')) {
      throw new VirtioError(
        'UNSUPPORTED',
        `${this.#who}: the back end does not provide the configuration space, so it cannot be written`,
      );
    }
    const payload = new Uint8Array(ConfigAccess.size + width);
    ConfigAccess.write(new DataView(payload.buffer), 0, { offset, size: width });
    for (let i = 0; i < width; i += 1) payload[ConfigAccess.size + i] = Math.floor(value / 2 ** (8 * i));
    session.tell('SET_CONFIG', payload, [], `SET_CONFIG of ${width} bytes at ${offset}`);
    session.finish();
    this.#unknown = true;
  }

  /** The back end reports that it has changed. */
  changeBy(session: Session): void {
    if (this.#refresh !== undefined) {
      this.#again = true;
      return;
    }
    if (!session.has('CONFIG') || this.size === 0) {
      this.changed();
      return;
    }
    const answer = session.askConfig(this.size);
    this.#refresh = { session, answer };
    answer.answer().then(
      () => {
        if (this.#refresh?.answer === answer) this.finishRefresh();
      },
      () => undefined,
    );
  }

  /** Waits synchronously for the read that follows a change. */
  finishRefresh(): void {
    const refresh = this.#refresh;
    if (refresh === undefined) return;
    const { session, answer } = refresh;
    try {
      const bytes = session.wait(answer);
      this.#refresh = undefined;
      this.#keep(bytes);
      this.changed();
      if (!this.#again) return;
      this.#again = false;
      this.changeBy(session);
    } catch (error) {
      if (session.lost === undefined) throw error;
    }
  }

  /** The back end is gone and will not answer a read that follows a change. */
  forgetRefresh(): void {
    this.#refresh = undefined;
    this.#again = false;
  }

  /** Records a change. */
  changed(): void {
    this.#generation = (this.#generation + 1) >>> 0;
    this.#untold = true;
    this.#onChange();
  }

  /** Whether there was a change since the last call. */
  takeChange(): boolean {
    const untold = this.#untold;
    this.#untold = false;
    return untold;
  }

  /** An answer of another size is ignored: the size was found out at the beginning. */
  #keep(bytes: Bytes): void {
    if (bytes.length === this.#bytes.length) this.#bytes = bytes;
  }

  #check(offset: number, width: number): void {
    if (offset >= 0 && offset + width <= this.size) return;
    throw new VirtioError(
      this.size === 0 ? 'CONFIG_SPACE_MISSING' : 'CONFIG_SPACE_TOO_SMALL',
      `${this.#who} has ${this.size} bytes of configuration space; an access to ${width} bytes at ${offset} was asked for`,
    );
  }
}
