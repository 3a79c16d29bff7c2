/**
 * A model of a GPU device, written from the specification and apart from the driver: resources, scanouts, cursors, fences, blobs
 * and contexts. It shows a viewer only what was flushed, so that a driver which forgets to flush is found out; and it keeps
 * every rule of the specification, so that what it answers with an error is the driver's mistake.
 */
import { DeviceType } from '@virtio/core';
import { type Chain, FakeDevice, type FakeDeviceOptions } from '@virtio/testing';

export const VIRGL = 1n;
export const EDID = 2n;
export const RESOURCE_UUID = 4n;
export const RESOURCE_BLOB = 8n;
export const CONTEXT_INIT = 16n;
export const BLOB_ALIGNMENT = 32n;
export const ALL_FEATURES = 63n;

export const OK = 0x1100;
export const ERR_UNSPEC = 0x1200;
export const ERR_OUT_OF_MEMORY = 0x1201;
export const ERR_SCANOUT = 0x1202;
export const ERR_RESOURCE = 0x1203;
export const ERR_CONTEXT = 0x1204;
export const ERR_PARAMETER = 0x1205;

const FENCE = 1;
const RING_IDX = 2;
const HEADER = 24;

/** Byte orders by format, from 5.7.6.8. */
export const FORMATS: Readonly<Record<number, string>> = {
  1: 'BGRA',
  2: 'BGRX',
  3: 'ARGB',
  4: 'XRGB',
  67: 'RGBA',
  68: 'XBGR',
  121: 'ABGR',
  134: 'RGBX',
};

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

interface Entry {
  readonly address: number;
  readonly length: number;
}

/** A resource on the host. */
export interface HostResource {
  readonly kind: '2d' | '3d' | 'blob';
  readonly width: number;
  readonly height: number;
  readonly format: number;
  /** The host's copy; of a blob in the guest's memory nothing. */
  readonly pixels: Uint8Array;
  readonly size: number;
  readonly blobMem: number;
  backing: readonly Entry[] | undefined;
  mappedAt: number | undefined;
  readonly contexts: Set<number>;
}

/** What a viewer sees on a display, as bytes R, G, B, A. */
export interface Screen {
  readonly resourceId: number;
  readonly rect: Rect;
  readonly format: number;
  readonly stride: number;
  readonly offset: number;
  readonly rgba: Uint8Array;
}

export interface Cursor {
  resourceId: number;
  x: number;
  y: number;
  hotX: number;
  hotY: number;
  /** The image as bytes B, G, R, A. */
  image: Uint8Array | undefined;
}

/** A command as it came. */
export interface Logged {
  readonly type: number;
  readonly flags: number;
  readonly fence: bigint;
  readonly context: number;
  readonly ring: number;
  readonly bytes: Uint8Array;
}

export interface GpuDeviceOptions extends Partial<Omit<FakeDeviceOptions, 'type' | 'config'>> {
  readonly scanouts?: number;
  readonly capsets?: readonly { readonly id: number; readonly version: number; readonly data: Uint8Array }[];
  readonly blobAlignment?: number;
  /** The limit of what all 2D resources take, in bytes. */
  readonly hostMemory?: number;
  /** Whether the cursor queue is answered, as the specification wants it and QEMU does not (default true). */
  readonly answersCursor?: boolean;
  /** The size of the region of shared memory, if there is one. */
  readonly hostVisible?: number;
}

/** Changes an answer, or gives none (`undefined`). */
export type Meddle = (answer: Uint8Array, command: Logged) => Uint8Array | undefined;

class Refusal extends Error {
  readonly type: number;

  constructor(type: number) {
    super(`0x${type.toString(16)}`);
    this.type = type;
  }
}

/** A GPU for tests. */
export class GpuDevice {
  readonly device: FakeDevice;
  readonly resources = new Map<number, HostResource>();
  readonly screens = new Map<number, Screen>();
  readonly cursors = new Map<number, Cursor>();
  readonly contexts = new Map<number, { readonly name: string; readonly init: number }>();
  /** The streams that were submitted, by context. */
  readonly streams: { readonly context: number; readonly bytes: Uint8Array }[] = [];
  readonly log: Logged[] = [];
  /** What the displays are told to be. */
  readonly displays: { x: number; y: number; width: number; height: number; enabled: boolean }[];
  /** EDIDs by scanout. */
  readonly edids = new Map<number, Uint8Array>();
  /** Changes answers of the control queue. */
  meddle: Meddle | undefined;
  /** The used length of answers of the control queue (default: what was written). */
  usedLength: number | undefined;
  /** Keeps commands of these types until {@link GpuDevice.release}. */
  readonly held = new Set<number>();

  readonly #options: GpuDeviceOptions;
  readonly #waiting: (() => void)[] = [];
  #used = 0;

  constructor(options: GpuDeviceOptions = {}) {
    const { scanouts = 1, capsets = [], blobAlignment = 0 } = options;
    this.#options = options;
    const config = new Uint8Array(20);
    const view = new DataView(config.buffer);
    view.setUint32(8, scanouts, true);
    view.setUint32(12, capsets.length, true);
    view.setUint32(16, blobAlignment, true);
    this.displays = Array.from({ length: scanouts }, (_, n) => ({
      ...{ x: 0, y: 0, width: n === 0 ? 1280 : 0, height: n === 0 ? 800 : 0 },
      enabled: n === 0,
    }));
    this.device = new FakeDevice({
      queues: [64, 16],
      features: EDID,
      ...options,
      ...(options.hostVisible === undefined
        ? {}
        : { sharedMemory: { 1: { address: 0x8_0000_0000, length: options.hostVisible } } }),
      type: DeviceType.Gpu,
      config,
    });
    this.device.handle(0, (chain) => this.#control(chain));
    this.device.handle(1, (chain) => this.#cursor(chain));
    this.device.onConfigWrite = (offset, width, value) => {
      if (offset !== 4 || width !== 4) {
        this.device.violated(`byte ${offset} of the configuration was written [5.7.4]`);
      }
      const events = new DataView(this.device.config.buffer);
      // Both registers keep nothing of what is written to events_clear.
      events.setUint32(0, events.getUint32(0, true) & ~value, true);
      events.setUint32(4, 0, true);
    };
    this.device.onReset = () => this.#forget();
  }

  /** Changes a display, as its viewer does, and tells the driver. */
  resize(scanout: number, width: number, height: number): void {
    this.displays[scanout] = { x: 0, y: 0, width, height, enabled: width > 0 && height > 0 };
    this.device.changeConfig((config) => config.setUint32(0, config.getUint32(0, true) | 1, true));
  }

  /** Carries out and answers what was held back, in the order given (default: as it came). */
  release(order: (waiting: (() => void)[]) => readonly (() => void)[] = (waiting) => waiting): void {
    this.held.clear();
    for (const go of order(this.#waiting.splice(0))) go();
  }

  /** A pixel of what the viewer sees: R, G, B. */
  pixel(scanout: number, x: number, y: number): readonly number[] {
    const screen = this.screens.get(scanout);
    if (screen === undefined) throw new Error(`scanout ${scanout} shows nothing`);
    const at = 4 * (y * screen.rect.width + x);
    return [...screen.rgba.subarray(at, at + 3)];
  }

  #forget(): void {
    this.resources.clear();
    this.screens.clear();
    this.cursors.clear();
    this.contexts.clear();
    this.#waiting.length = 0;
    this.#used = 0;
  }

  #control(chain: Chain): void {
    const command = readCommand(chain.bytes());
    this.log.push(command);
    const act = (): void => {
      if (!chain.pending) return;
      let answer: Uint8Array;
      try {
        answer = this.#carryOut(command, chain);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        answer = answerOf(error.type);
      }
      const view = new DataView(answer.buffer);
      if ((command.flags & FENCE) !== 0) {
        view.setUint32(4, FENCE | (command.flags & RING_IDX), true);
        view.setBigUint64(8, command.fence, true);
        view.setUint32(16, command.context, true);
        if ((command.flags & RING_IDX) !== 0) view.setUint8(20, command.ring);
      }
      const changed = this.meddle === undefined ? answer : this.meddle(answer, command);
      if (changed === undefined) return;
      chain.write(changed.subarray(0, chain.writable)).complete(this.usedLength);
    };
    chain.defer();
    if (this.held.has(command.type)) this.#waiting.push(act);
    else act();
  }

  #carryOut(command: Logged, chain: Chain): Uint8Array {
    const view = new DataView(command.bytes.buffer, command.bytes.byteOffset, command.bytes.length);
    const word = (at: number): number => {
      if (at + 4 > view.byteLength) throw new Refusal(ERR_UNSPEC);
      return view.getUint32(at, true);
    };
    const long = (at: number): number => word(at) + word(at + 4) * 2 ** 32;
    const rect = (at: number): Rect => ({
      ...{ x: word(at), y: word(at + 4) },
      ...{ width: word(at + 8), height: word(at + 12) },
    });
    if ((command.flags & RING_IDX) !== 0) {
      if (!this.#has(CONTEXT_INIT)) this.device.violated('ring_idx without CONTEXT_INIT [5.7.6.7]');
      if (command.ring > 63) this.device.violated(`ring_idx ${command.ring}; 63 is the highest [5.7.6.7]`);
    }
    switch (command.type) {
      case 0x0100:
        return this.#displayInfo();
      case 0x0101:
        this.#create2d(word(24), word(28), word(32), word(36));
        break;
      case 0x0102:
        this.#unref(word(24));
        break;
      case 0x0103:
        this.#setScanout(rect(24), word(40), word(44));
        break;
      case 0x0104:
        this.#flush(rect(24), word(40));
        break;
      case 0x0105:
        this.#transfer2d(rect(24), long(40), word(48));
        break;
      case 0x0106:
        this.#attach(word(24), word(28), command.bytes.subarray(32));
        break;
      case 0x0107: {
        const resource = this.#resource(word(24));
        if (resource.backing === undefined) throw new Refusal(ERR_UNSPEC);
        resource.backing = undefined;
        break;
      }
      case 0x0108: {
        const capset = this.#options.capsets?.[word(24)];
        if (capset === undefined) throw new Refusal(ERR_PARAMETER);
        return answerOf(0x1102, [capset.id, capset.version, capset.data.length, 0]);
      }
      case 0x0109: {
        const capset = this.#options.capsets?.find(({ id }) => id === word(24));
        if (capset === undefined || word(28) > capset.version) throw new Refusal(ERR_PARAMETER);
        return bytesAnswer(0x1103, capset.data);
      }
      case 0x010a: {
        this.#need(EDID);
        if (word(24) >= this.displays.length) throw new Refusal(ERR_PARAMETER);
        const edid = this.edids.get(word(24)) ?? new Uint8Array(0);
        const padded = new Uint8Array(8 + 1024);
        new DataView(padded.buffer).setUint32(0, edid.length, true);
        padded.set(edid, 8);
        return bytesAnswer(0x1104, padded);
      }
      case 0x010b:
        this.#need(RESOURCE_UUID);
        this.#resource(word(24));
        return bytesAnswer(
          0x1105,
          Uint8Array.from({ length: 16 }, (_, i) => (i === 0 ? word(24) : 0xa0 + i)),
        );
      case 0x010c:
        this.#createBlob(word(24), word(28), word(36), long(48), command);
        break;
      case 0x010d:
        this.#setScanoutBlob(rect(24), view);
        break;
      case 0x0200: {
        this.#need(VIRGL);
        if (command.context === 0 || this.contexts.has(command.context)) throw new Refusal(ERR_CONTEXT);
        if (word(28) !== 0 && !this.#has(CONTEXT_INIT)) {
          this.device.violated('context_init without CONTEXT_INIT [5.7.6.9]');
        }
        const name = new TextDecoder().decode(command.bytes.subarray(32, 32 + word(24)));
        this.contexts.set(command.context, { name, init: word(28) });
        break;
      }
      case 0x0201:
        this.#need(VIRGL);
        if (!this.contexts.delete(command.context)) throw new Refusal(ERR_CONTEXT);
        for (const { contexts } of this.resources.values()) contexts.delete(command.context);
        break;
      case 0x0202:
        this.#context(command);
        this.#resource(word(24)).contexts.add(command.context);
        break;
      case 0x0203:
        this.#context(command);
        if (!this.#resource(word(24)).contexts.delete(command.context)) throw new Refusal(ERR_RESOURCE);
        break;
      case 0x0204:
        this.#need(VIRGL);
        this.#add(word(24), {
          ...{ kind: '3d', width: word(40), height: word(44), format: word(32), size: 0, blobMem: 0 },
          pixels: new Uint8Array(word(40) * word(44) * word(48) * 4),
        });
        break;
      case 0x0205:
      case 0x0206:
        this.#transfer3d(command, view);
        break;
      case 0x0207:
        this.#context(command);
        if (word(24) !== command.bytes.length - 32) throw new Refusal(ERR_PARAMETER);
        this.streams.push({ context: command.context, bytes: command.bytes.slice(32) });
        break;
      case 0x0208: {
        const resource = this.#blobOfHost(word(24));
        if (resource.mappedAt !== undefined) this.device.violated('a blob was mapped twice [5.7.6.9]');
        this.#aligned(long(32), 'offset');
        if (long(32) + resource.size > (this.#options.hostVisible ?? 0)) throw new Refusal(ERR_PARAMETER);
        resource.mappedAt = long(32);
        return answerOf(0x1106, [1, 0]);
      }
      case 0x0209: {
        const resource = this.#blobOfHost(word(24));
        if (resource.mappedAt === undefined) throw new Refusal(ERR_PARAMETER);
        resource.mappedAt = undefined;
        break;
      }
      default:
        throw new Refusal(ERR_UNSPEC);
    }
    if (chain.writable < HEADER) this.device.violated('there is no room for an answer [5.7.6]');
    return answerOf(OK);
  }

  #displayInfo(): Uint8Array {
    const answer = new Uint8Array(HEADER + 16 * 24);
    const view = new DataView(answer.buffer);
    view.setUint32(0, 0x1101, true);
    this.displays.forEach(({ x, y, width, height, enabled }, n) => {
      [x, y, width, height, enabled ? 1 : 0, 0].forEach((value, i) =>
        view.setUint32(HEADER + 24 * n + 4 * i, value, true),
      );
    });
    return answer;
  }

  #create2d(id: number, format: number, width: number, height: number): void {
    if (!(format in FORMATS) || width === 0 || height === 0) throw new Refusal(ERR_PARAMETER);
    const size = width * height * 4;
    if (this.#used + size > (this.#options.hostMemory ?? 256 << 20)) throw new Refusal(ERR_OUT_OF_MEMORY);
    this.#add(id, { kind: '2d', width, height, format, pixels: new Uint8Array(size), size, blobMem: 0 });
    this.#used += size;
  }

  #createBlob(id: number, blobMem: number, entries: number, size: number, command: Logged): void {
    this.#need(RESOURCE_BLOB);
    if (blobMem < 1 || blobMem > 3 || size === 0) throw new Refusal(ERR_PARAMETER);
    if (blobMem !== 1) this.#need(VIRGL);
    if (blobMem !== 1) this.#context(command);
    this.#aligned(size, 'size');
    this.#add(id, {
      ...{ kind: 'blob', width: 0, height: 0, format: 0, size, blobMem },
      pixels: new Uint8Array(blobMem === 1 ? 0 : size),
    });
    if (entries > 0) {
      if (blobMem === 2) this.device.violated('a blob of the host with memory of the guest [5.7.6.8]');
      this.#attach(id, entries, command.bytes.subarray(56));
    }
  }

  #add(id: number, resource: Omit<HostResource, 'backing' | 'mappedAt' | 'contexts'>): void {
    if (id === 0 || this.resources.has(id)) throw new Refusal(ERR_RESOURCE);
    this.resources.set(id, { ...resource, backing: undefined, mappedAt: undefined, contexts: new Set() });
  }

  #unref(id: number): void {
    const resource = this.#resource(id);
    if (resource.kind === '2d') this.#used -= resource.size;
    this.resources.delete(id);
    for (const [scanout, screen] of this.screens) if (screen.resourceId === id) this.screens.delete(scanout);
  }

  #attach(id: number, count: number, bytes: Uint8Array): void {
    const resource = this.#resource(id);
    if (resource.backing !== undefined || count > 16384 || bytes.length < 16 * count) {
      throw new Refusal(ERR_UNSPEC);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    resource.backing = Array.from({ length: count }, (_, n): Entry => {
      const address = Number(view.getBigUint64(16 * n, true));
      const length = view.getUint32(16 * n + 8, true);
      // The whole piece must be the guest's.
      this.device.hal.view(address, length, 'read');
      return { address, length };
    });
  }

  #setScanout(rect: Rect, scanout: number, id: number): void {
    if (scanout >= this.displays.length) throw new Refusal(ERR_SCANOUT);
    if (id === 0) {
      this.screens.delete(scanout);
      return;
    }
    const { width, height, format } = this.#inside(rect, id);
    if (width === 0 || height === 0) throw new Refusal(ERR_PARAMETER);
    this.#show(scanout, id, rect, format, 4 * width, 0);
  }

  #setScanoutBlob(rect: Rect, view: DataView): void {
    this.#need(RESOURCE_BLOB);
    const word = (at: number): number => view.getUint32(at, true);
    const [scanout, id] = [word(40), word(44)];
    if (scanout >= this.displays.length) throw new Refusal(ERR_SCANOUT);
    const resource = this.#resource(id);
    const [width, height, stride, offset] = [word(48), word(52), word(64), word(80)];
    if (
      resource.kind !== 'blob' ||
      !(word(56) in FORMATS) ||
      rect.x + rect.width > width ||
      rect.y + rect.height > height ||
      offset + stride * (height - 1) + 4 * width > resource.size
    ) {
      throw new Refusal(ERR_PARAMETER);
    }
    this.#show(scanout, id, rect, word(56), stride, offset);
  }

  #show(scanout: number, id: number, rect: Rect, format: number, stride: number, offset: number): void {
    const rgba = new Uint8Array(4 * rect.width * rect.height);
    this.screens.set(scanout, { resourceId: id, rect, format, stride, offset, rgba });
  }

  #flush(rect: Rect, id: number): void {
    const resource = this.#resource(id);
    if (resource.kind === '2d') this.#inside(rect, id);
    for (const screen of this.screens.values()) {
      if (screen.resourceId !== id) continue;
      const source = resource.blobMem === 1 ? this.#gather(resource, 0, resource.size) : resource.pixels;
      const order = FORMATS[screen.format] as string;
      const [r, g, b] = [order.indexOf('R'), order.indexOf('G'), order.indexOf('B')];
      const right = Math.min(rect.x + rect.width, screen.rect.x + screen.rect.width);
      const bottom = Math.min(rect.y + rect.height, screen.rect.y + screen.rect.height);
      for (let y = Math.max(rect.y, screen.rect.y); y < bottom; y += 1) {
        for (let x = Math.max(rect.x, screen.rect.x); x < right; x += 1) {
          const from = screen.offset + y * screen.stride + 4 * x;
          const to = 4 * ((y - screen.rect.y) * screen.rect.width + (x - screen.rect.x));
          screen.rgba[to] = source[from + r] as number;
          screen.rgba[to + 1] = source[from + g] as number;
          screen.rgba[to + 2] = source[from + b] as number;
          screen.rgba[to + 3] = 255;
        }
      }
    }
  }

  #transfer2d(rect: Rect, offset: number, id: number): void {
    const resource = this.#inside(rect, id);
    if (resource.backing === undefined) throw new Refusal(ERR_UNSPEC);
    const stride = 4 * resource.width;
    for (let row = 0; row < rect.height; row += 1) {
      const bytes = this.#gather(resource, offset + row * stride, 4 * rect.width);
      resource.pixels.set(bytes, (rect.y + row) * stride + 4 * rect.x);
    }
  }

  #transfer3d(command: Logged, view: DataView): void {
    const word = (at: number): number => view.getUint32(at, true);
    this.#context(command);
    const resource = this.#resource(word(56));
    if (!resource.contexts.has(command.context)) throw new Refusal(ERR_RESOURCE);
    if (resource.backing === undefined) throw new Refusal(ERR_UNSPEC);
    const [x, y, width, height, offset] = [word(24), word(28), word(36), word(40), word(48)];
    const stride = word(64) === 0 ? 4 * width : word(64);
    for (let row = 0; row < height; row += 1) {
      const at = 4 * ((y + row) * resource.width + x);
      if (command.type === 0x0205) {
        resource.pixels.set(this.#gather(resource, offset + row * stride, 4 * width), at);
      } else {
        this.#scatter(resource, offset + row * stride, resource.pixels.subarray(at, at + 4 * width));
      }
    }
  }

  /** Bytes of a resource's backing, as the pieces follow one another. */
  #gather({ backing = [] }: HostResource, offset: number, length: number): Uint8Array {
    const result = new Uint8Array(length);
    this.#pieces(backing, offset, length, (address, at, size) => {
      result.set(this.device.hal.view(address, size, 'read'), at);
    });
    return result;
  }

  #scatter({ backing = [] }: HostResource, offset: number, bytes: Uint8Array): void {
    this.#pieces(backing, offset, bytes.length, (address, at, size) => {
      this.device.hal.view(address, size, 'write').set(bytes.subarray(at, at + size));
    });
  }

  #pieces(
    backing: readonly Entry[],
    offset: number,
    length: number,
    each: (address: number, at: number, size: number) => void,
  ): void {
    let start = 0;
    let done = 0;
    for (const { address, length: size } of backing) {
      const from = Math.max(offset, start);
      const to = Math.min(offset + length, start + size);
      if (from < to) {
        each(address + from - start, from - offset, to - from);
        done += to - from;
      }
      start += size;
    }
    if (done < length) throw new Refusal(ERR_UNSPEC);
  }

  #cursor(chain: Chain): void {
    const command = readCommand(chain.bytes());
    this.log.push(command);
    const view = new DataView(command.bytes.buffer);
    const word = (at: number): number => view.getUint32(at, true);
    const [scanout, id] = [word(24), word(40)];
    let answer = OK;
    const cursor = this.cursors.get(scanout) ?? {
      ...{ resourceId: 0, x: 0, y: 0, hotX: 0, hotY: 0 },
      image: undefined,
    };
    if (scanout >= this.displays.length) {
      answer = ERR_SCANOUT;
    } else if (command.type === 0x0300) {
      const resource = id === 0 ? undefined : this.resources.get(id);
      if (id !== 0 && (resource?.width !== 64 || resource.height !== 64)) {
        this.device.violated(`the cursor's resource ${id} is not there, or not 64 by 64 [5.7.6.6]`);
        answer = ERR_RESOURCE;
      } else {
        cursor.resourceId = id;
        cursor.image = resource?.pixels.slice();
        [cursor.hotX, cursor.hotY] = [word(44), word(48)];
      }
    } else if (command.type !== 0x0301) {
      answer = ERR_UNSPEC;
    }
    [cursor.x, cursor.y] = [word(28), word(32)];
    if (answer === OK) this.cursors.set(scanout, cursor);
    if (this.#options.answersCursor === false) chain.complete(0);
    else chain.write(answerOf(answer).subarray(0, chain.writable)).complete();
    chain.defer();
  }

  #inside({ x, y, width, height }: Rect, id: number): HostResource {
    const resource = this.#resource(id);
    if (x + width > resource.width || y + height > resource.height) throw new Refusal(ERR_PARAMETER);
    return resource;
  }

  #resource(id: number): HostResource {
    const resource = this.resources.get(id);
    if (resource === undefined) throw new Refusal(ERR_RESOURCE);
    return resource;
  }

  #blobOfHost(id: number): HostResource {
    this.#need(RESOURCE_BLOB);
    const resource = this.#resource(id);
    if (resource.kind !== 'blob' || resource.blobMem === 1) throw new Refusal(ERR_PARAMETER);
    return resource;
  }

  #context({ context }: Logged): void {
    this.#need(VIRGL);
    if (!this.contexts.has(context)) throw new Refusal(ERR_CONTEXT);
  }

  #aligned(value: number, what: string): void {
    const alignment = this.#has(BLOB_ALIGNMENT) ? (this.#options.blobAlignment ?? 1) : 1;
    if (value % alignment !== 0) {
      this.device.violated(`${what} ${value} is not aligned to ${alignment} [5.7.6.8]`);
    }
  }

  #has(feature: bigint): boolean {
    return (this.device.accepted & feature) !== 0n;
  }

  /** Notes a command whose feature was not negotiated. */
  #need(feature: bigint): void {
    if (this.#has(feature)) return;
    this.device.violated(
      `a command was sent whose feature 0x${feature.toString(16)} was not negotiated [5.7.6]`,
    );
    throw new Refusal(ERR_UNSPEC);
  }
}

function readCommand(bytes: Uint8Array<ArrayBuffer>): Logged {
  const view = new DataView(bytes.buffer);
  return {
    type: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    fence: view.getBigUint64(8, true),
    context: view.getUint32(16, true),
    ring: view.getUint8(20),
    bytes,
  };
}

function answerOf(type: number, words: readonly number[] = []): Uint8Array {
  const view = new DataView(new ArrayBuffer(HEADER + 4 * words.length));
  view.setUint32(0, type, true);
  words.forEach((word, i) => view.setUint32(HEADER + 4 * i, word, true));
  return new Uint8Array(view.buffer);
}

function bytesAnswer(type: number, bytes: Uint8Array): Uint8Array {
  const answer = new Uint8Array(HEADER + bytes.length);
  new DataView(answer.buffer).setUint32(0, type, true);
  answer.set(bytes, HEADER);
  return answer;
}
