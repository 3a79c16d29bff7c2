/** The address of a PCI function: segment, bus, device, function. */
import { VirtioError } from '@virtio/core';

const FORM = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/i;

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');

/**
 * The address of a PCI function. Immutable; prints as `0000:00:03.0`.
 *
 * @example
 * ```ts
 * import { DeviceFunction } from '@virtio/pci';
 *
 * const at = DeviceFunction.parse('0000:00:03.0');
 * console.log(at.device, String(at), String(new DeviceFunction(0, 4, 1)));
 * ```
 */
export class DeviceFunction {
  /** The PCI segment, which Linux calls the domain. */
  readonly segment: number;
  /** 0 to 255. */
  readonly bus: number;
  /** 0 to 31. */
  readonly device: number;
  /** 0 to 7. */
  readonly function: number;

  /** @throws {@link VirtioError} `INVALID_PARAM` for a number that is out of range */
  constructor(bus: number, device: number, fn: number, segment = 0) {
    if (!inRange(bus, 256) || !inRange(device, 32) || !inRange(fn, 8) || !inRange(segment, 2 ** 32)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${segment}:${bus}:${device}.${fn} is not the address of a PCI function; buses are 0 to 255, devices 0 to 31, functions 0 to 7`,
      );
    }
    this.segment = segment;
    this.bus = bus;
    this.device = device;
    this.function = fn;
  }

  /**
   * Reads `0000:00:03.0`, or `00:03.0` in segment 0. Digits are hexadecimal.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  static parse(text: string): DeviceFunction {
    const [, segment = '0', bus = '', device = '', fn = ''] = FORM.exec(text) ?? [];
    if (fn === '') {
      throw new VirtioError(
        'INVALID_PARAM',
        `"${text}" is not the address of a PCI function; it looks like 0000:00:03.0`,
      );
    }
    return new DeviceFunction(
      Number.parseInt(bus, 16),
      Number.parseInt(device, 16),
      Number(fn),
      Number.parseInt(segment, 16),
    );
  }

  /** The requester id: bus, device and function in 16 bits. */
  get id(): number {
    return (this.bus << 8) | (this.device << 3) | this.function;
  }

  /** Prints as `0000:00:03.0`. */
  toString(): string {
    return `${hex(this.segment, 4)}:${hex(this.bus, 2)}:${hex(this.device, 2)}.${this.function}`;
  }

  /** The same as {@link DeviceFunction.toString}, for Node.js's `console.log`. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }
}

function inRange(value: number, limit: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < limit;
}
