/**
 * The driver of GPU devices, described for the contract. A mark is the number of a scanout, the length of a stream, or a place on
 * the display.
 */
import { DeviceType, VirtioError } from '@virtio/core';
import { type Call, type Chain, FakeDevice, type Requests, type Subject } from '@virtio/testing';
import { Command, type Framebuffer, GpuCommandType, VirtioGpu } from '../src/index.ts';
import { EDID, VIRGL } from './gpu-device.ts';

const CONTROL = 0;
const CURSOR = 1;
const HEADER = 24;
const OK_NODATA = 0x1100;
const FENCE = 1;

const typeOf = (chain: Chain): number => new DataView(chain.readAt(0, 4).buffer).getUint32(0, true);
const wordOf = (chain: Chain, at: number): number =>
  new DataView(chain.readAt(at, 4).buffer).getUint32(0, true);

/** Writes an answer of a type, with the fence of the command if it has one. */
function write(chain: Chain, type: number, payload: Uint8Array = new Uint8Array(0)): void {
  const header = new DataView(chain.readAt(0, HEADER).buffer);
  header.setUint32(0, type, true);
  header.setUint32(4, header.getUint32(4, true) & FENCE, true);
  chain.write(new Uint8Array(header.buffer)).write(payload);
}

/** The bytes that the device gives to the request with a mark. */
const bytesOf = (mark: number): Uint8Array =>
  Uint8Array.from({ length: mark }, (_, at) => (mark * 7 + at) & 0xff);

function verifyBytes(mark: number, result: unknown): void {
  const expected = bytesOf(mark);
  if (
    result instanceof Uint8Array &&
    result.length === mark &&
    expected.every((byte, at) => byte === result[at])
  ) {
    return;
  }
  throw new Error(
    `request ${mark} got ${result instanceof Uint8Array ? `${result.length} bytes` : String(result)}`,
  );
}

const polling: NonNullable<Requests<VirtioGpu>['polling']> = {
  poll: (gpu) => gpu.poll(),
  complete: (gpu, token) => gpu.complete(token),
  cancel: (gpu, token) => gpu.cancel(token),
};

/** A framebuffer for each driver: made after each reset. */
const screens = new WeakMap<VirtioGpu, Framebuffer>();

export const gpuSubject: Subject<VirtioGpu> = {
  name: 'gpu',
  device({ ring, queueSize }) {
    const config = new Uint8Array(20);
    config[8] = 1;
    return new FakeDevice({
      ...{ type: DeviceType.Gpu, features: ring | EDID | VIRGL, config },
      queues: [queueSize, queueSize],
    });
  },
  open: (transport, hal) => new VirtioGpu(transport, hal),
  ready(gpu) {
    const old = screens.get(gpu);
    screens.delete(gpu);
    try {
      old?.destroySync({ timeoutMs: 100 });
      screens.set(gpu, gpu.createFramebufferSync({ width: 1000, height: 1 }, { timeoutMs: 100 }));
    } catch (error) {
      // A device that lies may do so here, too.
      if (!VirtioError.is(error)) throw error;
    }
  },
  other: (chain) => {
    write(chain, OK_NODATA);
  },
  own: [
    {
      name: 'changed displays',
      queue: CONTROL,
      provoke(device) {
        device.changeConfig((view) => view.setUint32(0, 1, true));
      },
      matches: (chain) => typeOf(chain) === GpuCommandType.GET_DISPLAY_INFO,
      answer: (chain) => write(chain, 0x1101, new Uint8Array(16 * 24)),
    },
  ],
  requests: [
    {
      name: 'EDID',
      queue: CONTROL,
      descriptors: 2,
      polling,
      call: (mark) => ({
        promise: (gpu, options) => gpu.request(Command.getEdid(mark), options),
        sync: (gpu, options) => gpu.requestSync(Command.getEdid(mark), options),
        submit: (gpu) => gpu.submit(Command.getEdid(mark)),
        verify: (result) => verifyBytes(mark, result),
      }),
      markOf: (chain) => (typeOf(chain) === GpuCommandType.GET_EDID ? wordOf(chain, HEADER) : -1),
      answer(chain: Chain, mark: number): void {
        const payload = new Uint8Array(8 + 1024);
        new DataView(payload.buffer).setUint32(0, mark, true);
        payload.set(bytesOf(mark), 8);
        write(chain, 0x1104, payload);
      },
    },
    {
      // Whose answer is in memory of the request's own.
      name: 'capability set',
      queue: CONTROL,
      descriptors: 3,
      polling,
      call: (mark: number): Call<VirtioGpu> => {
        const command = Command.getCapset({ capsetId: mark, maxSize: 4000 }, 1);
        return {
          promise: (gpu, options) => gpu.request(command, options),
          sync: (gpu, options) => gpu.requestSync(command, options),
          submit: (gpu) => gpu.submit(command),
          verify: (result) => verifyBytes(mark, result),
        };
      },
      markOf: (chain) => (typeOf(chain) === GpuCommandType.GET_CAPSET ? wordOf(chain, HEADER) : -1),
      answer: (chain: Chain, mark: number): void => write(chain, 0x1103, bytesOf(mark)),
    },
    {
      // With a fence, and a buffer of the caller's.
      name: 'stream',
      queue: CONTROL,
      descriptors: 3,
      polling,
      call: (mark: number): Call<VirtioGpu> => {
        const stream = bytesOf(mark);
        return {
          promise: (gpu, options) => gpu.request(Command.submit3d(1, stream), options),
          sync: (gpu, options) => gpu.requestSync(Command.submit3d(1, stream), options),
          submit: (gpu) => gpu.submit(Command.submit3d(1, stream)),
          verify: () => undefined,
        };
      },
      markOf: (chain) => (typeOf(chain) === GpuCommandType.SUBMIT_3D ? wordOf(chain, HEADER) : -1),
      answer: (chain) => write(chain, OK_NODATA),
    },
    {
      name: 'transfer',
      queue: CONTROL,
      descriptors: 2,
      polling,
      call: (mark) => ({
        submit(gpu) {
          const rect = { x: mark - 1, y: 0, width: 1, height: 1 };
          const screen = screens.get(gpu);
          // The fuzzer may have reset the driver since.
          if (screen?.live !== true) return gpu.submit(Command.transferToHost2d(1, rect, 0));
          return screen.submitTransfer(rect);
        },
        verify: () => undefined,
      }),
      markOf: (chain) =>
        typeOf(chain) === GpuCommandType.TRANSFER_TO_HOST_2D ? wordOf(chain, HEADER) + 1 : -1,
      answer: (chain) => write(chain, OK_NODATA),
    },
    {
      name: 'cursor',
      queue: CURSOR,
      descriptors: 2,
      polling,
      call: (mark) => ({
        promise: (gpu, options) => gpu.moveCursor({ x: mark, y: 0 }, options),
        sync: (gpu, options) => gpu.moveCursorSync({ x: mark, y: 0 }, options),
        submit: (gpu) => gpu.submitMoveCursor({ x: mark, y: 0 }),
        verify: () => undefined,
      }),
      markOf: (chain) => (typeOf(chain) === GpuCommandType.MOVE_CURSOR ? wordOf(chain, HEADER + 4) : -1),
      answer: (chain) => write(chain, OK_NODATA),
    },
  ],
};
