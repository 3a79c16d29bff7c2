/**
 * The channel on which the back end of a GPU device sends its pictures (GPU_SET_SOCKET).
 *
 * @see QEMU, docs/interop/vhost-user-gpu.rst
 */
import { type FieldTable, Layout, type Values, VirtioError } from '@virtio/core';
import type { EventPoller } from '@virtio/linux';
import { type BackendDisplay, CURSOR_SIDE, MAX_SCANOUTS } from './display.ts';
import { type Message, MessageReader } from './message.ts';
import { encode, Header, HeaderFlag, U64 } from './protocol.ts';
import { SideChannel } from './side-channel.ts';

/** Messages of the back end: updates and requests. */
export const DisplayRequest = {
  GET_PROTOCOL_FEATURES: 1,
  SET_PROTOCOL_FEATURES: 2,
  GET_DISPLAY_INFO: 3,
  CURSOR_POS: 4,
  CURSOR_POS_HIDE: 5,
  CURSOR_UPDATE: 6,
  SCANOUT: 7,
  UPDATE: 8,
  DMABUF_SCANOUT: 9,
  DMABUF_UPDATE: 10,
  GET_EDID: 11,
  DMABUF_SCANOUT2: 12,
} as const;

/** The back end may ask for EDIDs. DMABUF2, the next bit, is not offered, as such buffers are not mapped here. */
const EDID = 1n;

const CursorPosition = new Layout('cursor_pos', { scanout: 'u32', x: 'u32', y: 'u32' });
const CursorUpdate = new Layout('cursor_update', {
  scanout: 'u32',
  x: 'u32',
  y: 'u32',
  hotX: 'u32',
  hotY: 'u32',
});
const Scanout = new Layout('scanout', { scanout: 'u32', width: 'u32', height: 'u32' });
const Update = new Layout('update', { scanout: 'u32', x: 'u32', y: 'u32', width: 'u32', height: 'u32' });
const EdidRequest = new Layout('edid_request', { scanout: 'u32' });

/** The answers are the device's own structures: a header of 24 bytes that begins with its kind. @see VIRTIO 1.4, 5.7.6.8 */
const CTRL_HEADER = 24;
const OK_DISPLAY_INFO = 0x1101;
const OK_EDID = 0x1104;
const DISPLAY_ONE = 24;
const EDID_SIZE = 1024;

const CURSOR_BYTES = CURSOR_SIDE * CURSOR_SIDE * 4;
/** The longest message that carries no picture. */
const LONGEST = CursorUpdate.size + CURSOR_BYTES;

/** Makes the channel of a session. */
export function displayChannel(poller: EventPoller, display: BackendDisplay): SideChannel {
  const longest = (request: number): number =>
    request === DisplayRequest.UPDATE ? Update.size + display.largest : LONGEST;
  return new SideChannel(poller, new MessageReader({ longest, versioned: false }), (message, answer) => {
    const reply = handle(display, message);
    if (reply !== undefined) answer(encodeReply(message.request, reply));
  });
}

/** Handles a message and returns the payload of the answer, if there is one. */
function handle(display: BackendDisplay, message: Message): Uint8Array | undefined {
  switch (message.request) {
    case DisplayRequest.GET_PROTOCOL_FEATURES:
      return encode(U64, { value: EDID });
    case DisplayRequest.GET_DISPLAY_INFO:
      return displayInfo(display);
    case DisplayRequest.GET_EDID:
      return edidAnswer(display.edid(read(EdidRequest, message).scanout));
    case DisplayRequest.CURSOR_POS:
    case DisplayRequest.CURSOR_POS_HIDE: {
      const { scanout, x, y } = read(CursorPosition, message);
      display.moveCursor(scanout, { x, y, visible: message.request === DisplayRequest.CURSOR_POS });
      return undefined;
    }
    case DisplayRequest.CURSOR_UPDATE: {
      const { scanout, x, y, hotX, hotY } = read(CursorUpdate, message, CURSOR_BYTES);
      display.moveCursor(scanout, { x, y, hotX, hotY, visible: true, pixels: rest(CursorUpdate, message) });
      return undefined;
    }
    case DisplayRequest.SCANOUT: {
      const { scanout, width, height } = read(Scanout, message);
      display.resize(scanout, width, height);
      return undefined;
    }
    case DisplayRequest.UPDATE:
      display.update(read(Update, message, Infinity), rest(Update, message));
      return undefined;
    case DisplayRequest.DMABUF_SCANOUT:
    case DisplayRequest.DMABUF_SCANOUT2: {
      // The same fields at its start; the rest describes the buffer, whose descriptor is closed without use.
      const { scanout, width, height } = read(Update, message, Infinity);
      display.resize(scanout, width, height, false);
      return undefined;
    }
    case DisplayRequest.DMABUF_UPDATE:
      display.update(read(Update, message), new Uint8Array(0));
      return new Uint8Array(0);
    default:
      // SET_PROTOCOL_FEATURES, and messages that are newer than this: nothing to do, and the back end expects no answer.
      return undefined;
  }
}

/** The structure at the start of a payload, with up to `behind` bytes after it. */
function read<T extends FieldTable>(layout: Layout<T>, { request, payload }: Message, behind = 0): Values<T> {
  const more = payload.byteLength - layout.size;
  if (more < 0 || (behind === Infinity ? false : more !== behind)) {
    throw new VirtioError(
      'DEVICE_MISBEHAVED',
      `message ${request} of a GPU device has ${payload.byteLength} bytes of payload`,
    );
  }
  return layout.read(payload);
}

function rest({ size }: { readonly size: number }, { payload }: Message): Uint8Array {
  return new Uint8Array(payload.buffer, payload.byteOffset + size);
}

function displayInfo({ displays }: BackendDisplay): Uint8Array {
  const bytes = new Uint8Array(CTRL_HEADER + MAX_SCANOUTS * DISPLAY_ONE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, OK_DISPLAY_INFO, true);
  displays.forEach(({ width, height }, i) => {
    const at = CTRL_HEADER + i * DISPLAY_ONE;
    view.setUint32(at + 8, width, true);
    view.setUint32(at + 12, height, true);
    view.setUint32(at + 16, 1, true);
  });
  return bytes;
}

function edidAnswer(edid: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(CTRL_HEADER + 8 + EDID_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, OK_EDID, true);
  view.setUint32(CTRL_HEADER, edid.length, true);
  bytes.set(edid, CTRL_HEADER + 8);
  return bytes;
}

function encodeReply(request: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(Header.size + payload.length);
  Header.write(new DataView(bytes.buffer), 0, { request, flags: HeaderFlag.REPLY, size: payload.length });
  bytes.set(payload, Header.size);
  return bytes;
}
