/**
 * The displays of a GPU device in another process. QEMU draws them in a window; here they are kept as pixels, for tests of drivers
 * and back ends.
 */
import { Events, requireBytes, requireInteger, VirtioError } from '@virtio/core';
import { edidOf } from './edid.ts';

/** The most scanouts of a device. @see VIRTIO 1.4, 5.7.4 */
export const MAX_SCANOUTS = 16;

/** The longest side of a picture, in pixels. */
const LONGEST_SIDE = 16_384;
/** The most pixels of a picture: the back end is not trusted, and pictures take memory. */
const MOST_PIXELS = 2 ** 26;
const PIXEL_SIZE = 4;
/** The width and height of a cursor's picture, in pixels. */
export const CURSOR_SIDE = 64;

/** Options of {@link BackendDisplay}. */
export interface BackendDisplayOptions {
  /** The sizes of the displays that are connected, one for each scanout from 0 (default: one of 1024 × 768). */
  readonly displays?: readonly { readonly width: number; readonly height: number }[];
  /** Their EDIDs, up to 1024 bytes each (default: made from the size). */
  readonly edids?: readonly Uint8Array[];
}

/** What a scanout shows. */
export interface BackendScanout {
  readonly width: number;
  readonly height: number;
  /**
   * The picture, without padding between lines: each pixel is four bytes, blue, green, red and an unused one. Empty if the back end
   * keeps it in the memory of a graphics card (DMABUF), which is not mapped here.
   */
  readonly pixels: Uint8Array;
}

/** The cursor of a scanout. */
export interface BackendCursor {
  readonly visible: boolean;
  readonly x: number;
  readonly y: number;
  readonly hotX: number;
  readonly hotY: number;
  /** 64 × 64 pixels: blue, green, red, alpha; `undefined` before the first picture. */
  readonly pixels: Uint8Array | undefined;
}

/** A part of a scanout whose picture has changed. */
export interface ScanoutUpdate {
  readonly scanout: number;
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Events of a {@link BackendDisplay}. */
export interface BackendDisplayEvents {
  /** A scanout has another size, or is disabled: its number. */
  scanout: number;
  /** The device has flushed a part of a picture. */
  update: ScanoutUpdate;
  /** A cursor has moved, or has another picture: the number of its scanout. */
  cursor: number;
}

const NO_CURSOR: BackendCursor = { visible: false, x: 0, y: 0, hotX: 0, hotY: 0, pixels: undefined };

function lied(what: string): VirtioError {
  return new VirtioError('DEVICE_MISBEHAVED', `the back end of a GPU device ${what}`);
}

/**
 * The displays of a GPU device in another process, for the option `display` of `openVhostUser`.
 *
 * @see QEMU, docs/interop/vhost-user-gpu.rst
 *
 * @example
 * ```ts
 * import { VirtioGpu } from '@virtio/gpu';
 * import { BackendDisplay, openDriver } from '@virtio/vhost-user';
 *
 * const display = new BackendDisplay({ displays: [{ width: 640, height: 480 }] });
 * using gpu = await openDriver(VirtioGpu, 'vhost-user:/tmp/gpu.sock', { display });
 * const screen = await gpu.setUpFramebuffer();
 * screen.pixels.fill(0x00336699);
 * const updated = new Promise((resolve) => display.on('update', resolve));
 * await screen.flush();
 * await updated;
 * console.log(display.scanout(0)?.pixels.subarray(0, 4)); // blue, green, red
 * ```
 */
export class BackendDisplay {
  /** The sizes of the displays, by scanout. */
  readonly displays: readonly { readonly width: number; readonly height: number }[];

  readonly #edids: readonly Uint8Array[];
  readonly #events = new Events<BackendDisplayEvents>();
  readonly #scanouts = new Map<number, BackendScanout>();
  readonly #cursors = new Map<number, BackendCursor>();

  /** @throws {@link VirtioError} `INVALID_PARAM` */
  constructor({ displays = [{ width: 1024, height: 768 }], edids = [] }: BackendDisplayOptions = {}) {
    requireInteger('BackendDisplay', 'the number of displays', displays.length, 1, MAX_SCANOUTS);
    this.displays = displays.map(({ width, height }) => ({
      width: requireInteger('BackendDisplay', 'width', width, 1, LONGEST_SIDE),
      height: requireInteger('BackendDisplay', 'height', height, 1, LONGEST_SIDE),
    }));
    for (const edid of edids) {
      requireBytes('BackendDisplay', edid);
      requireInteger('BackendDisplay', "an EDID's length", edid.length, 1, 1024);
    }
    // The slice of a Node.js Buffer would be no copy.
    this.#edids = edids.map((bytes) => Uint8Array.from(bytes));
  }

  /** Adds a listener for an event. Returns a function that removes it. */
  on<Name extends keyof BackendDisplayEvents>(
    name: Name,
    listener: (value: BackendDisplayEvents[Name]) => void,
  ): () => void {
    return this.#events.on(name, listener);
  }

  /** What a scanout shows, or `undefined` if it shows nothing. The picture is not a copy: it changes when the device updates it. */
  scanout(number: number): BackendScanout | undefined {
    return this.#scanouts.get(number);
  }

  /** The cursor of a scanout. */
  cursor(scanout: number): BackendCursor {
    return this.#cursors.get(scanout) ?? NO_CURSOR;
  }

  /** The EDID of a scanout's display, empty if it has none. */
  edid(scanout: number): Uint8Array {
    const given = this.#edids[scanout];
    if (given !== undefined) return given;
    const size = this.displays[scanout];
    return size === undefined ? new Uint8Array(0) : edidOf(size.width, size.height);
  }

  /** @internal The size of the largest picture that is shown, in bytes. */
  get largest(): number {
    return Math.max(0, ...Array.from(this.#scanouts.values(), ({ pixels }) => pixels.length));
  }

  /** @internal The device sets a scanout to a size; 0 by 0: it shows nothing. */
  resize(scanout: number, width: number, height: number, mapped = true): void {
    this.#checkScanout(scanout);
    if (width > LONGEST_SIDE || height > LONGEST_SIDE || width * height > MOST_PIXELS) {
      throw lied(`has set scanout ${scanout} to ${width} × ${height} pixels`);
    }
    if (width === 0 || height === 0) this.#scanouts.delete(scanout);
    else {
      const pixels = new Uint8Array(mapped ? width * height * PIXEL_SIZE : 0);
      this.#scanouts.set(scanout, { width, height, pixels });
    }
    this.#tell('scanout', scanout);
  }

  /** @internal The device has flushed a rectangle. */
  update(change: ScanoutUpdate, data: Uint8Array): void {
    const { scanout, x, y, width, height } = change;
    const shown = this.#scanouts.get(scanout);
    if (shown === undefined || x + width > shown.width || y + height > shown.height) {
      throw lied(
        `has updated ${width} × ${height} pixels at ${x}, ${y} of scanout ${scanout}, which ` +
          (shown === undefined ? 'shows nothing' : `has ${shown.width} × ${shown.height}`),
      );
    }
    if (shown.pixels.length > 0) {
      const line = width * PIXEL_SIZE;
      if (data.length !== line * height) {
        throw lied(`has sent ${data.length} bytes for ${width} × ${height} pixels`);
      }
      for (let row = 0; row < height; row += 1) {
        const to = ((y + row) * shown.width + x) * PIXEL_SIZE;
        shown.pixels.set(data.subarray(row * line, (row + 1) * line), to);
      }
    }
    this.#tell('update', change);
  }

  /** @internal The device has moved, hidden or replaced a cursor. */
  moveCursor(scanout: number, change: Partial<BackendCursor>): void {
    this.#checkScanout(scanout);
    this.#cursors.set(scanout, { ...this.cursor(scanout), ...change });
    this.#tell('cursor', scanout);
  }

  /** Messages also come in while a driver resets its device: a listener must not be called in the middle of that. */
  #tell<Name extends keyof BackendDisplayEvents>(name: Name, value: BackendDisplayEvents[Name]): void {
    if (this.#events.count(name) > 0) queueMicrotask(() => this.#events.emit(name, value));
  }

  #checkScanout(scanout: number): void {
    if (scanout >= MAX_SCANOUTS) {
      throw lied(`has named scanout ${scanout}; a device has at most ${MAX_SCANOUTS} scanouts`);
    }
  }
}
