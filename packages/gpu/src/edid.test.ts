import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { emptyEdid, qemuEdid, sealed } from '../test/edids.ts';
import { parseEdid, supportedResolutions } from './edid.ts';

const text = (tag: number, characters: string): number[] => {
  const bytes = [0, 0, 0, tag, 0, ...new TextEncoder().encode(characters)];
  return [...bytes, ...(bytes.length < 18 ? [0x0a] : []), ...Array<number>(18).fill(0x20)].slice(0, 18);
};

const withDescriptor = (place: number, descriptor: readonly number[]): Uint8Array => {
  const block = emptyEdid();
  block.set(descriptor, 54 + 18 * place);
  return sealed(block);
};

describe('the EDID of QEMU', () => {
  const edid = parseEdid(qemuEdid());

  it('tells who made it and what it is', () => {
    expect(edid).toMatchObject({
      ...{ checksumOk: true, version: '1.4', manufacturer: 'RHT', product: 0x1234, serialNumber: 0 },
      ...{ week: 42, year: 2014, digital: true, widthCm: 48, heightCm: 27, name: 'QEMU Monitor' },
      ...{ serial: undefined, texts: [], extensionCount: 1 },
    });
    expect(edid.ranges).toEqual({
      ...{ minVerticalHz: 50, maxVerticalHz: 125, minHorizontalKHz: 30, maxHorizontalKHz: 160 },
      maxPixelClockMHz: 0,
    });
  });

  it('has one detailed timing, to the last pixel', () => {
    expect(edid.detailed).toHaveLength(1);
    expect(edid.detailed[0]).toEqual({
      ...{ width: 1920, height: 1080, pixelClockKHz: 217_140, interlaced: false },
      refreshHz: expect.closeTo(74.99, 1) as number,
      ...{ horizontalBlanking: 672, horizontalFrontPorch: 480, horizontalSyncWidth: 57 },
      ...{ verticalBlanking: 37, verticalFrontPorch: 5, verticalSyncWidth: 5 },
      ...{ widthMm: 487, heightMm: 274 },
    });
  });

  it('has standard and established timings', () => {
    expect(edid.standard.map(({ width, height }) => [width, height])).toEqual([
      ...[
        [2048, 1152],
        [1920, 1080],
        [1920, 1200],
        [1600, 1200],
      ],
      ...[
        [1680, 1050],
        [1440, 900],
        [1280, 1024],
        [1280, 960],
      ],
    ]);
    expect(edid.standard.every(({ refreshHz }) => refreshHz === 60)).toBe(true);
    expect(edid.established).toEqual([
      ...[
        { width: 640, height: 480, refreshHz: 60 },
        { width: 800, height: 600, refreshHz: 60 },
      ],
      ...[
        { width: 1024, height: 768, refreshHz: 60 },
        { width: 1280, height: 768, refreshHz: 60 },
      ],
      ...[
        { width: 1360, height: 768, refreshHz: 60 },
        { width: 1400, height: 1050, refreshHz: 60 },
      ],
      ...[
        { width: 1792, height: 1344, refreshHz: 60 },
        { width: 1856, height: 1392, refreshHz: 60 },
      ],
      { width: 1920, height: 1440, refreshHz: 60 },
    ]);
  });

  it('has its extension passed through', () => {
    expect(edid.extensions).toHaveLength(1);
    expect(edid.extensions[0]).toMatchObject({ tag: 2, checksumOk: true });
    expect(edid.extensions[0]?.bytes).toEqual(qemuEdid().subarray(128, 256));
  });

  it('names resolutions once each, the largest first', () => {
    const sizes = supportedResolutions(edid).map(({ width, height }) => width * height);
    expect(sizes).toEqual(sizes.toSorted((a, b) => b - a));
    expect(supportedResolutions(edid)[0]).toEqual({ width: 1920, height: 1440 });
    expect(
      supportedResolutions(edid).filter(({ width, height }) => width === 1920 && height === 1080),
    ).toHaveLength(1);
  });
});

describe('an EDID', () => {
  it.each([0, 1, 127])('of %d bytes is refused', (length) => {
    expect(() => parseEdid(qemuEdid().subarray(0, length))).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE' }),
    );
  });

  it('of zeros is refused', () => {
    expect(() => parseEdid(new Uint8Array(1024))).toThrow(
      expect.objectContaining({ code: 'INVALID_DEVICE' }),
    );
  });

  it('with a wrong checksum is read, and says so', () => {
    const bytes = qemuEdid();
    bytes[127] = 0;
    bytes[255] = 0;
    const edid = parseEdid(bytes);
    expect(edid.checksumOk).toBe(false);
    expect(edid.extensions[0]?.checksumOk).toBe(false);
    expect(edid.detailed[0]?.width).toBe(1920);
  });

  it('without its extensions has none, and says how many there should be', () => {
    const bytes = qemuEdid().subarray(0, 128);
    expect(parseEdid(bytes)).toMatchObject({ extensions: [], extensionCount: 1 });
  });

  it('keeps its bytes apart from those that it was read from', () => {
    const bytes = qemuEdid();
    const edid = parseEdid(bytes);
    bytes.fill(0);
    expect(edid.bytes).toEqual(qemuEdid());
    expect(edid.extensions[0]?.bytes[0]).toBe(2);
  });

  it('with names in place of timings has names and no timings', () => {
    const block = emptyEdid();
    block.set(text(0xfc, 'Dell U2723QE'), 54);
    block.set(text(0xff, '0123456789ABC'), 72);
    block.set(text(0xfe, 'hello'), 90);
    block.set(text(0xfe, ''), 108);
    const edid = parseEdid(sealed(block));
    expect(edid).toMatchObject({
      ...{ name: 'Dell U2723QE', serial: '0123456789ABC', texts: ['hello', ''] },
      detailed: [],
    });
    expect(supportedResolutions(edid)).toEqual([]);
  });

  it('with a detailed timing behind a name has both', () => {
    const block = emptyEdid();
    block.set(text(0xfc, 'X'), 54);
    block.set(qemuEdid().subarray(54, 72), 90);
    expect(parseEdid(sealed(block))).toMatchObject({ name: 'X', detailed: [{ width: 1920, height: 1080 }] });
  });

  it.each([
    [0x00, 1920, 1200],
    [0x40, 1920, 1440],
    [0x80, 1920, 1536],
    [0xc0, 1920, 1080],
  ])('has the aspect bits %d of a standard timing right', (bits, width, height) => {
    const block = emptyEdid();
    block.set([width / 8 - 31, bits | 15], 38);
    expect(parseEdid(sealed(block)).standard).toEqual([{ width, height, refreshHz: 75 }]);
  });

  it('before 1.3 has squares where later ones are 16 to 10', () => {
    const block = emptyEdid();
    block.set([1, 2], 18);
    block.set([100, 0], 38);
    expect(parseEdid(sealed(block)).standard).toEqual([{ width: 1048, height: 1048, refreshHz: 60 }]);
  });

  it('has further standard timings in a descriptor', () => {
    const edid = parseEdid(
      withDescriptor(3, [0, 0, 0, 0xfa, 0, 0xd1, 0xc0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0x0a]),
    );
    expect(edid.standard).toEqual([{ width: 1920, height: 1080, refreshHz: 60 }]);
  });

  it('counts the lines of both fields of an interlaced timing', () => {
    const timing = [...qemuEdid().subarray(54, 72)];
    timing[17] = 0x98;
    const [mode] = parseEdid(withDescriptor(0, timing)).detailed;
    expect(mode).toMatchObject({ interlaced: true, width: 1920, height: 2160 });
    expect(mode?.refreshHz).toBeCloseTo(37.5, 1);
  });

  it('without a size of its screen says 0 for both sides', () => {
    const block = emptyEdid();
    block.set([79, 0], 21);
    expect(parseEdid(sealed(block))).toMatchObject({ widthCm: 0, heightCm: 0 });
  });

  it('has limits above 255', () => {
    const edid = parseEdid(
      withDescriptor(0, [0, 0, 0, 0xfd, 0x0a, 48, 45, 30, 10, 60, 1, 0x0a, 32, 32, 32, 32, 32, 32]),
    );
    expect(edid.ranges).toEqual({
      ...{ minVerticalHz: 48, maxVerticalHz: 300, minHorizontalKHz: 30, maxHorizontalKHz: 265 },
      maxPixelClockMHz: 600,
    });
  });

  it('is read from a Buffer of Node, whose slice() copies nothing', () => {
    const block = qemuEdid();
    const pooled = new Uint8Array(new ArrayBuffer(64 + block.length), 64);
    pooled.set(block);
    pooled.slice = pooled.subarray.bind(pooled);
    const edid = parseEdid(pooled);
    pooled.fill(0);
    expect(edid).toEqual(parseEdid(block));
  });

  it('of what is no array of bytes is refused', () => {
    for (const what of [undefined, [...qemuEdid()], qemuEdid().buffer]) {
      expect(() => parseEdid(what as unknown as Uint8Array)).toThrow(
        expect.objectContaining({ code: 'INVALID_PARAM' }),
      );
    }
  });

  it('of any bytes is read or refused, and nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 0, maxLength: 600 }), fc.boolean(), (bytes, begins) => {
        if (begins) bytes.set([0, 255, 255, 255, 255, 255, 255, 0].slice(0, bytes.length));
        if (bytes.length < 128 || !begins) {
          expect(() => parseEdid(bytes)).toThrow(expect.objectContaining({ code: 'INVALID_DEVICE' }));
          return;
        }
        const edid = parseEdid(bytes);
        expect(edid.detailed.length).toBeLessThanOrEqual(4);
        for (const { width, height } of supportedResolutions(edid)) {
          expect(width).toBeGreaterThan(0);
          expect(height).toBeGreaterThan(0);
        }
      }),
    );
  });
});
