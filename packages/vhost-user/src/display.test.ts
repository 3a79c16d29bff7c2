import { EventPoller, UnixSocket } from '@virtio/linux';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { descriptors } from '../test/fake-backend.ts';
import { BackendDisplay } from './display.ts';
import { displayChannel, DisplayRequest } from './display-channel.ts';
import type { SideChannel } from './side-channel.ts';

let poller: EventPoller;
let display: BackendDisplay;
let side: SideChannel;
/** The back end's end. */
let card: UnixSocket;

beforeEach(() => {
  poller = new EventPoller();
  display = new BackendDisplay({ displays: [{ width: 4, height: 2 }] });
  side = displayChannel(poller, display);
  card = new UnixSocket(side.theirs);
});
afterEach(() => {
  side[Symbol.dispose]();
  poller[Symbol.dispose]();
});

/** Sends a message of words and bytes, and returns the payload of the answer, if there is one. */
function say(
  request: number,
  words: readonly number[],
  more = 0,
  fds: readonly number[] = [],
): DataView | undefined {
  const bytes = new Uint8Array(12 + words.length * 4 + more).fill(7);
  new Uint32Array(bytes.buffer, 0, 3 + words.length).set([request, 0, bytes.length - 12, ...words]);
  card.send(bytes, fds);
  side.pump();
  const answer = side.fd < 0 ? undefined : card.receive();
  if (answer === undefined) return undefined;
  const view = new DataView(answer.bytes.buffer);
  expect([view.getUint32(0, true), view.getUint32(4, true)]).toEqual([request, 4]);
  expect(view.getUint32(8, true)).toBe(answer.bytes.length - 12);
  return new DataView(answer.bytes.buffer, 12);
}

describe('the display of a graphics card in another process', () => {
  it('tells its size and its EDID', () => {
    expect(say(DisplayRequest.GET_PROTOCOL_FEATURES, [])?.getBigUint64(0, true)).toBe(1n);
    const info = say(DisplayRequest.GET_DISPLAY_INFO, []);
    expect(info?.byteLength).toBe(24 + 16 * 24);
    const word = (at: number): number | undefined => info?.getUint32(at, true);
    expect([word(0), word(32), word(36), word(40), word(64)]).toEqual([0x1101, 4, 2, 1, 0]);
    const edid = say(DisplayRequest.GET_EDID, [0]);
    expect([edid?.byteLength, edid?.getUint32(0, true), edid?.getUint32(24, true)]).toEqual([
      1056, 0x1104, 128,
    ]);
    // A scanout without a display has none.
    expect(say(DisplayRequest.GET_EDID, [1])?.getUint32(24, true)).toBe(0);
  });

  it('gives the EDID that it was given', () => {
    const own = new BackendDisplay({ edids: [Uint8Array.of(1, 2, 3)] });
    expect(own.edid(0)).toEqual(Uint8Array.of(1, 2, 3));
  });

  it('has what was updated, and nothing else', () => {
    expect(say(DisplayRequest.SCANOUT, [0, 4, 2])).toBeUndefined();
    say(DisplayRequest.UPDATE, [0, 1, 1, 2, 1], 8);
    const pixels = new Uint8Array(32);
    pixels.fill(7, 20, 28);
    expect(display.scanout(0)).toEqual({ width: 4, height: 2, pixels });
    say(DisplayRequest.SCANOUT, [0, 0, 0]);
    expect(display.scanout(0)).toBeUndefined();
  });

  it('calls nobody while it takes a message in, which may be in the middle of a reset', async () => {
    const events: unknown[] = [];
    display.on('scanout', (scanout) => events.push(scanout));
    display.on('update', ({ x }) => events.push({ x }));
    display.on('cursor', (scanout) => events.push({ cursor: scanout }));
    say(DisplayRequest.SCANOUT, [0, 4, 2]);
    say(DisplayRequest.UPDATE, [0, 1, 1, 2, 1], 8);
    say(DisplayRequest.CURSOR_POS, [0, 1, 1]);
    expect(events).toEqual([]);
    await Promise.resolve();
    expect(events).toEqual([0, { x: 1 }, { cursor: 0 }]);
  });

  it('answers for pictures in memory that it cannot see, and closes their descriptors', () => {
    const before = descriptors();
    say(DisplayRequest.DMABUF_SCANOUT, [0, 0, 0, 4, 2, 4, 2, 16, 0, 0], 0, [side.theirs]);
    expect(say(DisplayRequest.DMABUF_UPDATE, [0, 0, 0, 4, 2])?.byteLength).toBe(0);
    expect(display.scanout(0)?.pixels).toEqual(new Uint8Array(0));
    expect(descriptors()).toBe(before);
  });

  it.each([
    ['an update of what shows nothing', DisplayRequest.UPDATE, [0, 0, 0, 0, 0], 0],
    ['an update beyond the edge', DisplayRequest.UPDATE, [1, 3, 0, 2, 1], 8],
    ['an update that overflows', DisplayRequest.UPDATE, [1, 0xffffffff, 0, 2, 1], 8],
    ['an update with too few bytes', DisplayRequest.UPDATE, [1, 0, 0, 2, 2], 8],
    ['an update that is larger than any picture', DisplayRequest.UPDATE, [1, 0, 0, 4, 2], 36],
    ['a picture that is too large', DisplayRequest.SCANOUT, [0, 16_384, 16_384], 0],
    ['a scanout that cannot be', DisplayRequest.SCANOUT, [16, 4, 2], 0],
    ['a cursor that cannot be', DisplayRequest.CURSOR_POS, [16, 4, 2], 0],
    ['half a cursor', DisplayRequest.CURSOR_UPDATE, [0, 1, 2, 3, 4], 8192],
    ['a message that is too short', DisplayRequest.SCANOUT, [0, 4], 0],
  ])('hears no more of a back end that says %s', (_what, request, words, more) => {
    say(DisplayRequest.SCANOUT, [1, 4, 2]);
    expect(side.fd).toBeGreaterThan(0);
    say(request, words, more);
    expect(side.fd).toBe(-1);
    expect(display.scanout(1)?.pixels).toEqual(new Uint8Array(32));
  });

  it('survives whatever comes', () => {
    const before = descriptors();
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 14 }), fc.array(fc.nat(20)), fc.nat(100))),
        (all) => {
          const other = new EventPoller();
          const mine = displayChannel(other, display);
          const theirs = new UnixSocket(mine.theirs);
          for (const [request, words, more] of all) {
            const bytes = new Uint8Array(12 + words.length * 4 + more);
            new Uint32Array(bytes.buffer, 0, 3 + words.length).set([request, 0, bytes.length - 12, ...words]);
            if (mine.fd >= 0) theirs.send(bytes);
            mine.pump();
          }
          mine[Symbol.dispose]();
          other[Symbol.dispose]();
        },
      ),
      { numRuns: 300 },
    );
    expect(descriptors()).toBe(before);
  });

  it('refuses options that make no sense', () => {
    for (const options of [
      { displays: [] },
      { displays: [{ width: 0, height: 1 }] },
      { displays: [{ width: 1, height: NaN }] },
      { displays: Array.from({ length: 17 }, () => ({ width: 1, height: 1 })) },
      { edids: [new Uint8Array(1025)] },
      { edids: [[256] as never] },
    ]) {
      expect(() => new BackendDisplay(options)).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    }
  });
});

it('keeps EDIDs that were given as Buffers, whatever becomes of them', () => {
  const edid = Buffer.from([1, 2, 3]);
  const shown = new BackendDisplay({ edids: [edid] });
  edid.fill(0);
  expect([...shown.edid(0)]).toEqual([1, 2, 3]);
});
