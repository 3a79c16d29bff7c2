/**
 * The base of devices with registers: a {@link RegisterWindow} that records each access, so that a test sees the order and width of
 * a transport's accesses.
 */
import { checkRegister, type RegisterWindow } from '@virtio/core';

/** The bytes of one register access. */
export type Width = 1 | 2 | 4;

/** One access to a register. */
export interface RegisterAccess {
  readonly kind: 'read' | 'write';
  /** Bytes from the start of the window. */
  readonly offset: number;
  readonly width: Width;
  readonly value: number;
}

/** A window of registers whose accesses a model handles. */
export abstract class RegisterModel implements RegisterWindow {
  abstract readonly size: number;
  /** All accesses, while {@link RegisterModel.recording} is set. */
  readonly accesses: RegisterAccess[] = [];
  /** Whether accesses are recorded (default true). */
  recording = true;

  read8(offset: number): number {
    return this.#read(offset, 1);
  }

  read16(offset: number): number {
    return this.#read(offset, 2);
  }

  read32(offset: number): number {
    return this.#read(offset, 4);
  }

  write8(offset: number, value: number): void {
    this.#write(offset, 1, value & 0xff);
  }

  write16(offset: number, value: number): void {
    this.#write(offset, 2, value & 0xffff);
  }

  write32(offset: number, value: number): void {
    this.#write(offset, 4, value >>> 0);
  }

  /**
   * The accesses so far as text, such as `write32 QueueSel = 0x1`.
   *
   * @param clear whether to clear them afterwards (default true)
   */
  trace(clear = true): string[] {
    const lines = this.accesses.map(
      ({ kind, offset, width, value }) =>
        `${kind}${8 * width} ${this.registerName(offset)} = 0x${value.toString(16)}`,
    );
    if (clear) this.accesses.length = 0;
    return lines;
  }

  /** The name of the register at an offset, for {@link RegisterModel.trace}. */
  registerName(offset: number): string {
    return `0x${offset.toString(16)}`;
  }

  protected abstract load(offset: number, width: Width): number;
  protected abstract store(offset: number, width: Width, value: number): void;

  #read(offset: number, width: Width): number {
    checkRegister(offset, width, this.size);
    const value = this.load(offset, width) >>> 0;
    if (this.recording) this.accesses.push({ kind: 'read', offset, width, value });
    return value;
  }

  #write(offset: number, width: Width, value: number): void {
    checkRegister(offset, width, this.size);
    if (this.recording) this.accesses.push({ kind: 'write', offset, width, value });
    this.store(offset, width, value);
  }
}
