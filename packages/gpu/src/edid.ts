/**
 * The description of a display: EDID 1.4 (VESA E-EDID, release A, revision 2), a block of 128 bytes with up to 255 extension
 * blocks after it. npm has no maintained parser in plain ECMAScript.
 *
 * An EDID only affects which sizes are proposed, so a block with a wrong checksum is parsed all the same, and `checksumOk` is false.
 */
import { requireBytes, VirtioError } from '@virtio/core';

/** A size in pixels and a refresh rate. */
export interface DisplayMode {
  readonly width: number;
  readonly height: number;
  /** The refresh rate in Hz. */
  readonly refreshHz: number;
}

/** A detailed timing: a mode with all its timings. */
export interface DetailedTiming extends DisplayMode {
  /** The pixel clock in kHz. */
  readonly pixelClockKHz: number;
  /** Pixels from the end of a line to the start of the next. */
  readonly horizontalBlanking: number;
  /** Pixels from the end of a line to the sync pulse. */
  readonly horizontalFrontPorch: number;
  /** Pixels. */
  readonly horizontalSyncWidth: number;
  /** Lines from the end of a picture (a field, if interlaced) to the start of the next. */
  readonly verticalBlanking: number;
  /** Lines from the end of a picture to the sync pulse. */
  readonly verticalFrontPorch: number;
  /** Lines. */
  readonly verticalSyncWidth: number;
  /** The size of the picture in millimetres; 0 if not specified. */
  readonly widthMm: number;
  readonly heightMm: number;
  readonly interlaced: boolean;
}

/** The limits of a display. */
export interface RangeLimits {
  readonly minVerticalHz: number;
  readonly maxVerticalHz: number;
  readonly minHorizontalKHz: number;
  readonly maxHorizontalKHz: number;
  /** 0 if not specified. */
  readonly maxPixelClockMHz: number;
}

/** An extension block, not parsed. */
export interface EdidExtension {
  /** Its kind: 2 for CTA-861, 0x70 for DisplayID. */
  readonly tag: number;
  /** All 128 bytes. */
  readonly bytes: Uint8Array;
  readonly checksumOk: boolean;
}

/** The description of a display. */
export interface Edid {
  /** All bytes that the device gave: the first block and its extensions. */
  readonly bytes: Uint8Array;
  /** Whether the checksum of the first block is right. */
  readonly checksumOk: boolean;
  /** The version and revision of the structure: `1.4`. */
  readonly version: string;
  /** The manufacturer: three letters. */
  readonly manufacturer: string;
  /** The manufacturer's number for the product. */
  readonly product: number;
  /** The serial number of this display; 0 if it has none. */
  readonly serialNumber: number;
  /** The week of manufacture, 1 to 54; `undefined` if not specified. */
  readonly week: number | undefined;
  /** The year of manufacture, or of the model. */
  readonly year: number;
  /** Whether the signal is digital. */
  readonly digital: boolean;
  /** The size of the screen in centimetres; 0 if not specified. */
  readonly widthCm: number;
  readonly heightCm: number;
  /** The product's name, from its descriptor. */
  readonly name: string | undefined;
  /** The serial number as text, from its descriptor. */
  readonly serial: string | undefined;
  /** Other texts. */
  readonly texts: readonly string[];
  readonly ranges: RangeLimits | undefined;
  /** Detailed timings of the first block in their order: the first is the preferred one. */
  readonly detailed: readonly DetailedTiming[];
  /** Standard timings of the first block: the eight of the table, then those in descriptors. */
  readonly standard: readonly DisplayMode[];
  /** Established timings: those of the table, then those in a descriptor. */
  readonly established: readonly DisplayMode[];
  /** How many extension blocks there should be. */
  readonly extensionCount: number;
  /** The extension blocks that the device gave. */
  readonly extensions: readonly EdidExtension[];
}

/** The size of a block in bytes. */
const BLOCK = 128;
const MAGIC = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];

const AT = {
  manufacturer: 8,
  product: 10,
  serialNumber: 12,
  week: 16,
  year: 17,
  version: 18,
  revision: 19,
  input: 20,
  widthCm: 21,
  heightCm: 22,
  established: 35,
  standard: 38,
  descriptors: 54,
  extensionCount: 126,
} as const;

const STANDARD_COUNT = 8;
const DESCRIPTOR_COUNT = 4;
const DESCRIPTOR_SIZE = 18;

/** Display descriptors by tag. */
const TAG = {
  SERIAL: 0xff,
  TEXT: 0xfe,
  RANGES: 0xfd,
  NAME: 0xfc,
  STANDARD: 0xfa,
  ESTABLISHED_III: 0xf7,
} as const;

type ModeTuple = readonly [width: number, height: number, refreshHz: number];

/** Bytes 35 and 36 and the highest bit of 37, from the highest bit on. */
const ESTABLISHED: readonly ModeTuple[] = [
  [720, 400, 70],
  [720, 400, 88],
  [640, 480, 60],
  [640, 480, 67],
  [640, 480, 72],
  [640, 480, 75],
  [800, 600, 56],
  [800, 600, 60],
  [800, 600, 72],
  [800, 600, 75],
  [832, 624, 75],
  [1024, 768, 87],
  [1024, 768, 60],
  [1024, 768, 70],
  [1024, 768, 75],
  [1280, 1024, 75],
  [1152, 870, 75],
];

/** Bytes 6 to 11 of the descriptor, from the highest bit on; the last four bits have no meaning. */
const ESTABLISHED_III: readonly ModeTuple[] = [
  [640, 350, 85],
  [640, 400, 85],
  [720, 400, 85],
  [640, 480, 85],
  [848, 480, 60],
  [800, 600, 85],
  [1024, 768, 85],
  [1152, 864, 75],
  [1280, 768, 60],
  [1280, 768, 60],
  [1280, 768, 75],
  [1280, 768, 85],
  [1280, 960, 60],
  [1280, 960, 85],
  [1280, 1024, 60],
  [1280, 1024, 85],
  [1360, 768, 60],
  [1440, 900, 60],
  [1440, 900, 60],
  [1440, 900, 75],
  [1440, 900, 85],
  [1400, 1050, 60],
  [1400, 1050, 60],
  [1400, 1050, 75],
  [1400, 1050, 85],
  [1680, 1050, 60],
  [1680, 1050, 60],
  [1680, 1050, 75],
  [1680, 1050, 85],
  [1600, 1200, 60],
  [1600, 1200, 65],
  [1600, 1200, 70],
  [1600, 1200, 75],
  [1600, 1200, 85],
  [1792, 1344, 60],
  [1792, 1344, 75],
  [1856, 1392, 60],
  [1856, 1392, 75],
  [1920, 1200, 60],
  [1920, 1200, 60],
  [1920, 1200, 75],
  [1920, 1200, 85],
  [1920, 1440, 60],
  [1920, 1440, 75],
];

/**
 * Parses an EDID.
 *
 * @param bytes the first block, and any extension blocks
 * @throws {@link VirtioError} `INVALID_DEVICE` if there is no whole block, or it does not begin like an EDID; `INVALID_PARAM` if it is
 * not a `Uint8Array`
 *
 * @example
 * ```ts
 * import { parseEdid, supportedResolutions } from '@virtio/gpu';
 *
 * export function describe(bytes: Uint8Array): void {
 *   const edid = parseEdid(bytes);
 *   console.log(edid.name, edid.detailed[0], supportedResolutions(edid));
 * }
 * ```
 */
export function parseEdid(bytes: Uint8Array): Edid {
  requireBytes('parseEdid', bytes);
  if (bytes.length < BLOCK) {
    throw new VirtioError('INVALID_DEVICE', `an EDID has at least ${BLOCK} bytes, not ${bytes.length}`);
  }
  if (MAGIC.some((byte, i) => bytes[i] !== byte)) {
    throw new VirtioError(
      'INVALID_DEVICE',
      'the bytes are not an EDID, which begins with 0, six times 255, and 0; the display may have none',
    );
  }
  // Not `slice`: that of Node's `Buffer` copies nothing.
  const own = Uint8Array.from(bytes);
  const view = new DataView(own.buffer);
  const version = own[AT.version] as number;
  const revision = own[AT.revision] as number;
  const week = own[AT.week] as number;
  const extensionCount = own[AT.extensionCount] as number;
  const descriptors = readDescriptors(own, version, revision);
  return {
    bytes: own,
    checksumOk: addsUp(own.subarray(0, BLOCK)),
    version: `${version}.${revision}`,
    manufacturer: letters(view.getUint16(AT.manufacturer, false)),
    product: view.getUint16(AT.product, true),
    serialNumber: view.getUint32(AT.serialNumber, true),
    week: week >= 1 && week <= 54 ? week : undefined,
    year: 1990 + (own[AT.year] as number),
    digital: ((own[AT.input] as number) & 0x80) !== 0,
    // One of them 0 makes the other an aspect ratio, or a projector's.
    widthCm: (own[AT.heightCm] as number) === 0 ? 0 : (own[AT.widthCm] as number),
    heightCm: (own[AT.widthCm] as number) === 0 ? 0 : (own[AT.heightCm] as number),
    ...descriptors,
    standard: [
      ...standardTimings(own, AT.standard, STANDARD_COUNT, version, revision),
      ...descriptors.standard,
    ],
    established: [...bitmap(own, AT.established, ESTABLISHED), ...descriptors.established],
    extensionCount,
    extensions: extensions(own, extensionCount),
  };
}

/**
 * All resolutions in an EDID's first block, each once, the largest first.
 *
 * @returns pairs of width and height
 */
export function supportedResolutions(
  edid: Edid,
): readonly { readonly width: number; readonly height: number }[] {
  const found = new Map<string, { width: number; height: number }>();
  for (const { width, height } of [...edid.detailed, ...edid.standard, ...edid.established]) {
    found.set(`${width}x${height}`, { width, height });
  }
  return [...found.values()].sort((a, b) => b.width * b.height - a.width * a.height || b.width - a.width);
}

interface Descriptors extends Pick<
  Edid,
  'name' | 'serial' | 'texts' | 'ranges' | 'detailed' | 'standard' | 'established'
> {
  readonly texts: string[];
}

function readDescriptors(block: Uint8Array, version: number, revision: number): Descriptors {
  let name: string | undefined;
  let serial: string | undefined;
  let ranges: RangeLimits | undefined;
  const texts: string[] = [];
  const detailed: DetailedTiming[] = [];
  const standard: DisplayMode[] = [];
  const established: DisplayMode[] = [];
  for (let n = 0; n < DESCRIPTOR_COUNT; n += 1) {
    const from = AT.descriptors + n * DESCRIPTOR_SIZE;
    const bytes = block.subarray(from, from + DESCRIPTOR_SIZE);
    // A pixel clock of 0 marks what is no timing.
    if (bytes[0] !== 0 || bytes[1] !== 0) {
      const timing = detailedTiming(bytes);
      if (timing !== undefined) detailed.push(timing);
      continue;
    }
    switch (bytes[3]) {
      case TAG.NAME:
        name ??= text(bytes);
        break;
      case TAG.SERIAL:
        serial ??= text(bytes);
        break;
      case TAG.TEXT:
        texts.push(text(bytes));
        break;
      case TAG.RANGES:
        ranges ??= rangeLimits(bytes);
        break;
      case TAG.STANDARD:
        standard.push(...standardTimings(bytes, 5, 6, version, revision));
        break;
      case TAG.ESTABLISHED_III:
        established.push(...bitmap(bytes, 6, ESTABLISHED_III));
        break;
      default:
        break;
    }
  }
  return { name, serial, texts, ranges, detailed, standard, established };
}

function detailedTiming(bytes: Uint8Array): DetailedTiming | undefined {
  const at = (index: number): number => bytes[index] as number;
  const clock = at(0) | (at(1) << 8);
  const width = at(2) | ((at(4) & 0xf0) << 4);
  const horizontalBlanking = at(3) | ((at(4) & 0x0f) << 8);
  const lines = at(5) | ((at(7) & 0xf0) << 4);
  const verticalBlanking = at(6) | ((at(7) & 0x0f) << 8);
  if (width === 0 || lines === 0) return undefined;
  const interlaced = (at(17) & 0x80) !== 0;
  const total = (width + horizontalBlanking) * (lines + verticalBlanking);
  return {
    width,
    height: interlaced ? 2 * lines : lines,
    refreshHz: (clock * 10_000) / total / (interlaced ? 2 : 1),
    pixelClockKHz: clock * 10,
    horizontalBlanking,
    horizontalFrontPorch: at(8) | ((at(11) & 0xc0) << 2),
    horizontalSyncWidth: at(9) | ((at(11) & 0x30) << 4),
    verticalBlanking,
    verticalFrontPorch: (at(10) >> 4) | ((at(11) & 0x0c) << 2),
    verticalSyncWidth: (at(10) & 0x0f) | ((at(11) & 0x03) << 4),
    widthMm: at(12) | ((at(14) & 0xf0) << 4),
    heightMm: at(13) | ((at(14) & 0x0f) << 8),
    interlaced,
  };
}

function standardTimings(
  bytes: Uint8Array,
  from: number,
  count: number,
  version: number,
  revision: number,
): DisplayMode[] {
  const modes: DisplayMode[] = [];
  for (let n = 0; n < count; n += 1) {
    const first = bytes[from + 2 * n] as number;
    const second = bytes[from + 2 * n + 1] as number;
    // 01 01 is the mark of a place that is not used; 00 is reserved, and what a zeroed one has.
    if ((first === 1 && second === 1) || first === 0) continue;
    const width = (first + 31) * 8;
    modes.push({
      width,
      height: heightOf(width, second >> 6, version, revision),
      refreshHz: (second & 0x3f) + 60,
    });
  }
  return modes;
}

function heightOf(width: number, aspect: number, version: number, revision: number): number {
  switch (aspect) {
    case 1:
      return Math.floor((width * 3) / 4);
    case 2:
      return Math.floor((width * 4) / 5);
    case 3:
      return Math.floor((width * 9) / 16);
    default:
      // Before 1.3 this was a square.
      return version === 1 && revision < 3 ? width : Math.floor((width * 10) / 16);
  }
}

function bitmap(bytes: Uint8Array, from: number, modes: readonly ModeTuple[]): DisplayMode[] {
  return modes
    .filter((_mode, bit) => ((bytes[from + (bit >> 3)] as number) & (0x80 >> (bit & 7))) !== 0)
    .map(([width, height, refreshHz]) => ({ width, height, refreshHz }));
}

function rangeLimits(bytes: Uint8Array): RangeLimits {
  const at = (index: number): number => bytes[index] as number;
  // 1.4: these bits add 255 to a limit.
  const offset = (bit: number): number => ((at(4) & bit) === 0 ? 0 : 255);
  return {
    minVerticalHz: at(5) + ((at(4) & 3) === 3 ? 255 : 0),
    maxVerticalHz: at(6) + offset(2),
    minHorizontalKHz: at(7) + ((at(4) & 0xc) === 0xc ? 255 : 0),
    maxHorizontalKHz: at(8) + offset(8),
    maxPixelClockMHz: at(9) === 0xff ? 0 : at(9) * 10,
  };
}

/** Text of up to 13 characters, ended by a line feed and padded with spaces. */
function text(bytes: Uint8Array): string {
  let result = '';
  for (let i = 5; i < DESCRIPTOR_SIZE; i += 1) {
    const code = bytes[i] as number;
    if (code === 0x0a || code === 0) break;
    result += String.fromCharCode(code);
  }
  return result.trimEnd();
}

/** Three letters in five bits each, A being 1. */
function letters(packed: number): string {
  return String.fromCharCode(...[10, 5, 0].map((shift) => 64 + ((packed >> shift) & 31)));
}

function extensions(bytes: Uint8Array, count: number): EdidExtension[] {
  const found: EdidExtension[] = [];
  for (let n = 1; n <= count && (n + 1) * BLOCK <= bytes.length; n += 1) {
    const block = bytes.subarray(n * BLOCK, (n + 1) * BLOCK);
    found.push({ tag: block[0] as number, bytes: block, checksumOk: addsUp(block) });
  }
  return found;
}

function addsUp(block: Uint8Array): boolean {
  return (block.reduce((sum, byte) => sum + byte, 0) & 0xff) === 0;
}
