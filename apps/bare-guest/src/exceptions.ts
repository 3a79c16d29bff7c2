/** What engines cannot do of the unit tests of the portable packages, by name, and why. */
import type { Engine } from './engines.ts';

/**
 * Names of tests, `path > describe > title`, and reasons. A name that ends earlier, at a file or a subject, stands for all tests below it.
 * Each of them must fail or be skipped in that engine, and be there: {@link judge} says so where one does not.
 */
export type Exceptions = Readonly<Record<string, string>>;

const WEBASSEMBLY = 'there is no WebAssembly, which v86 is made of';
const TRANSFER = 'there is no ArrayBuffer.prototype.transfer, which ECMAScript 2024 has';
const DETACHED = `what is given back is not detached: ${TRANSFER}`;
const RESIZE = 'array buffers cannot be resized, which ECMAScript 2024 has';
const GROW = 'shared array buffers cannot grow, which ECMAScript 2024 has';
const CLONE = 'there is no structuredClone, which is no part of ECMAScript';
const INSPECT = "there is no inspect of Node.js's";
const REJECTIONS = 'it does not tell of rejections that nobody handles';
const WAIT_ASYNC = 'there is no Atomics.waitAsync: a thread hears of changes when it polls';

/** Exceptions below a file or a subject that have one reason. */
const below = (place: string, titles: readonly string[], why: string): Exceptions =>
  Object.fromEntries(titles.map((title) => [`${place} > ${title}`, why]));

const IN_A_BUNDLE: Exceptions = {
  'packages/input/src/event-codes.test.ts > (loading the file)':
    'it reads the source beside it, and a bundle is somewhere else',
};

/** The exceptions of each engine. */
export const EXCEPTIONS: Readonly<Record<Engine, Exceptions>> = {
  quickjs: {
    'packages/9p/src/v86.test.ts': WEBASSEMBLY,
    'packages/9p/src/file-handle.test.ts > FileHandle > refuses buffers that were transferred before': CLONE,
    ...below(
      'packages/9p/src/waiting.test.ts > a buffer that its caller transfers while the server has the request',
      [100, 40_000, 6_000_000].map((size) => `ends the read or write of ${size} bytes, and no other`),
      TRANSFER,
    ),
    'packages/blk/src/input.test.ts > what VirtioBlk refuses > refuses a buffer whose memory was given away':
      TRANSFER,
    ...below(
      'packages/blk/src/life-cycle.test.ts > a full queue',
      ['resized', 'transferred'].map(
        (how) => `sends nothing of a request whose buffers are ${how} while it waits in line`,
      ),
      `${TRANSFER}; ${RESIZE}`,
    ),
    ...below(
      'packages/blk/src/queue-for.test.ts',
      [
        ...[
          'split',
          'split, indirect',
          'packed',
          'packed, indirect, in order',
          'with data in notifications',
        ].map((how) => `a queue for another thread, ${how}`),
        ...[
          'fails with the device, and works again after a reset',
          'that is opened while the device is being reset begins on no rings of the device, and works afterwards',
          'fails with DEVICE_REMOVED when the device is unplugged',
          'fails the driver of the device when it finds the device lying',
          'tells of a changed configuration',
          'is refused where it makes no sense',
          'can be handed over again when it was given back and the device was reset',
          'ends with DISPOSED when the device is closed, and leaves its memory alone',
        ].map((title) => `a queue for another thread > ${title}`),
      ],
      CLONE,
    ),
    'packages/console/src/v86.test.ts': WEBASSEMBLY,
    'packages/console/src/single-port.test.ts > writing > ends a write whose bytes are transferred meanwhile, and goes on behind it':
      TRANSFER,
    ...below(
      'packages/console/src/worst-moment.test.ts > an array that changes while data is waited for',
      ['transferred', 'resized to nothing'].map((how) => `${how}: the read does not end as a session does`),
      `${TRANSFER}; ${RESIZE}`,
    ),
    'packages/console/src/worst-moment.test.ts > an array that a listener changes while a call spins > does not end a read as the end of a session does':
      TRANSFER,
    'packages/console/src/worst-moment.test.ts > an array that a listener changes while a call spins > transferred: the write is not taken for done':
      TRANSFER,
    'packages/console/src/worst-moment.test.ts > an array that a listener changes while a call spins > resized to what was sent: the write is not taken for done':
      RESIZE,
    'packages/core/src/check.test.ts > bytes > are not those of a buffer that was transferred': TRANSFER,
    'packages/core/src/device/device-status.test.ts > DeviceStatus > prints by name and keeps unknown bits visible [2.1]':
      INSPECT,
    'packages/core/src/device/driver.test.ts > events and failures > is not disturbed by a listener that throws, whose error becomes an unhandled rejection':
      REJECTIONS,
    'packages/core/src/errors.test.ts > ends with the place where its code is explained':
      'the stack of an error does not begin with its message',
    ...below(
      'packages/core/src/in-the-middle.test.ts > what a listener throws',
      ['an object without a prototype', 'an object whose text throws'].map(
        (what) => `may be ${what}: other listeners and the driver do not notice`,
      ),
      REJECTIONS,
    ),
    'packages/core/src/in-the-middle.test.ts > a buffer that another thread enlarges while it is shared > is given to the device as it was shared':
      GROW,
    ...below(
      'packages/core/src/threads/lent-queues.test.ts > a thread',
      [
        'that opens its queues during a reset, before the rings are emptied, loses nothing by that',
        'whose driver cannot be reset says why, hears of the next reset, and works again',
        'that found a lie before the device was reset does not fail the device of now',
        'may dispose its driver when it hears of a reset',
      ],
      WAIT_ASYNC,
    ),
    "packages/core/src/queues/own-requests.test.ts > a signal that is an object of the caller's > may throw when its listener is removed: the request and the driver go on":
      REJECTIONS,
    'packages/core/src/trace/trace.test.ts > traceTransport > has a listener that throws disturb nothing':
      REJECTIONS,
    'packages/core/src/trace/trace.test.ts > traceTransport > survives a buffer that is transferred before it is given back':
      TRANSFER,
    'packages/core/src/worst-moment.test.ts > a lie of the device > that makes a listener reset the driver and transfer the bytes: no buffer is lost':
      TRANSFER,
    'packages/files/src/errno.test.ts > (loading the file)': 'it compares with what Node.js knows of Linux',
    'packages/fs/src/virtio-fs.test.ts > a file system over it > tells how much was written, also if the caller has transferred the bytes meanwhile':
      TRANSFER,
    'packages/gpu/src/framebuffer.test.ts > a framebuffer > is taken from the scanouts before its resource is destroyed, and its memory is given back':
      DETACHED,
    'packages/gpu/src/life-cycle.test.ts > disposal > ends what is in flight, and all that follows': DETACHED,
    'packages/input/src/event-codes.test.ts > (loading the file)':
      "it starts a compiler, to compare with Linux's headers",
    'packages/gpu/src/commands.test.ts > a command that a caller made > is sent as it was, even if its array grows while it waits for room':
      RESIZE,
    'packages/net/src/pair-for.test.ts': CLONE,
    'packages/net/src/virtio-net.test.ts > sending > keeps its buffers when the memory of a packet is gone':
      TRANSFER,
    'packages/rng/src/virtio-rng.test.ts > VirtioRng > does not take a buffer for filled that was transferred or resized between two requests': `${TRANSFER}; ${RESIZE}`,
    'packages/socket/src/connection-manager.test.ts > listen > is an iterator that ends with the listener':
      'a loop over an asynchronous iterator that is left does not wait for its end',
    ...below(
      'packages/socket/src/kinds.test.ts',
      ['stream', 'seqpacket'].map(
        (type) => `a caller > that takes the bytes away while they are written learns of it (${type})`,
      ),
      CLONE,
    ),
    'packages/socket/src/kinds.test.ts > a peer that says less than it should > and tells of room only when it is asked is asked again after a while, as long as somebody writes [5.10.6.3]':
      'the clock of the tests cannot take the place of its timers',
    'packages/socket/src/vsock-connection.test.ts > reading > does not end for who has transferred the array meanwhile, and loses nothing':
      TRANSFER,
    ...below(
      'packages/sound/src/edges.test.ts > arrays that change while a call waits',
      [
        'are refused by write, and what follows is not shifted',
        'are refused by read, and the frames can still be read',
      ],
      `${TRANSFER}; ${RESIZE}`,
    ),
    'packages/testing/src/fake-hal.test.ts > DMA memory > detaches when it is given back, for both sides':
      DETACHED,
    'packages/pci/src/device-function.test.ts > DeviceFunction > prints as Linux prints it': INSPECT,
  },
  deno: { ...IN_A_BUNDLE },
  bun: { ...IN_A_BUNDLE },
  node: { ...IN_A_BUNDLE },
};

/** What became of a test. */
export interface UnitResult {
  /** `path > describe > title`. */
  readonly name: string;
  /** `long`: not run, as it says that it takes long. `left`: not run, as others of its file stand for it. */
  readonly status: 'passed' | 'failed' | 'skipped' | 'long' | 'left';
  /** What it said. */
  readonly why?: string;
}

/** What is wrong with the results of an engine. */
export interface Verdict {
  /** Tests that failed, or were skipped, and are no exceptions. */
  readonly unexpected: readonly UnitResult[];
  /** How many tests are exceptions, and did not pass. */
  readonly excepted: number;
  /** Exceptions that are none, and why. */
  readonly stale: readonly string[];
}

/** Compares the results of files with the exceptions in them. */
export function judge(
  results: readonly UnitResult[],
  exceptions: Exceptions,
  files: readonly string[],
): Verdict {
  const titles = Object.keys(exceptions);
  const titleOf = (name: string): string | undefined => titles.find((title) => isBelow(name, title));
  const bad = results.filter(({ status }) => status === 'failed' || status === 'skipped');
  const stale = titles
    .filter((title) => files.some((file) => isBelow(title, file)))
    .flatMap((title) => {
      const below = results.filter(({ name }) => isBelow(name, title));
      const passing = below.find(({ status }) => status === 'passed');
      if (passing !== undefined) {
        return [`${passing.name}: passes, but is an exception; take it off the list`];
      }
      return below.length === 0 ? [`${title}: an exception, but there is no such test`] : [];
    });
  const unexpected = bad.filter(({ name }) => titleOf(name) === undefined);
  return { unexpected, excepted: bad.length - unexpected.length, stale };
}

/** Whether a name is `title` or one of a test below it. */
function isBelow(name: string, title: string): boolean {
  return name === title || name.startsWith(`${title} > `);
}
