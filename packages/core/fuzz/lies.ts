/**
 * What a lying device does to a queue. A lie is harmless if the driver must not even notice it, as it is about memory that
 * the driver writes and has no reason to read, or about when the device wants to be notified; after any other lie the
 * driver may find out, or may not.
 */
import type { DmaRegion } from '@virtio/core';
import {
  type DeviceQueue,
  type FakeHal,
  PackedDeviceQueue,
  type Random,
  SplitDeviceQueue,
} from '@virtio/testing';

/** What the liar knows of the queue. */
export interface Scene {
  readonly random: Random;
  readonly hal: FakeHal;
  readonly ring: DeviceQueue;
  /** The region of the indirect tables, if there is one. */
  readonly tables: DmaRegion | undefined;
  /** A chain that is with the device, not used yet, and the bytes that it offers; -1 for none. */
  readonly inFlight: number;
  readonly offered: number;
  /** A chain that is submitted and not published, or -1. */
  readonly staged: number;
  /** The chain that was popped last, or -1. */
  readonly popped: number;
}

type Lie = (scene: Scene) => void;

/** Overwrites some bytes of a range: one, a run, or all. */
function scribble({ random, hal }: Scene, address: number, length: number): void {
  const bytes = hal.view(address, length, 'any');
  const start = random.oneIn(4) ? 0 : random.below(length);
  const end = random.oneIn(4) ? length : Math.min(length, start + 1 + random.below(64));
  const value = random.pick([0, 0xff, -1, -1]);
  for (let i = start; i < end; i += 1) bytes[i] = value < 0 ? random.bits() : value;
}

function area(scene: Scene, index: number): readonly [address: number, length: number] {
  const { address, length } = scene.ring.areas[index] ?? { address: 0, length: 0 };
  return [address, length];
}

/** A value of 16 bits near zero, near `now`, or anywhere. */
function index16(random: Random, now: number): number {
  return (
    random.pick([now + 1, now - 1, now + 32768, random.below(4), now + random.below(64), random.bits()]) &
    0xffff
  );
}

/** Lies that the driver must not notice. */
export const harmlessLies: Readonly<Record<string, Lie>> = {
  descriptors(scene) {
    const [address, length] = area(scene, 0);
    // A packed ring's descriptors carry what the device has used as well, but for their addresses.
    if (scene.ring instanceof PackedDeviceQueue) {
      scribble(scene, address + scene.random.below(length / 16) * 16, 8);
    } else scribble(scene, address, length);
  },
  'driver area': (scene) => {
    scribble(scene, ...area(scene, 1));
  },
  tables(scene) {
    const { tables } = scene;
    if (tables) scribble(scene, tables.address, tables.bytes.length);
  },
  'wants notifications at random': ({ random, ring }) => {
    if (ring instanceof SplitDeviceQueue) {
      ring.usedFlags = random.pick([0, 1, random.bits() & 0xffff]);
      if (ring.eventIdx) ring.availEvent = index16(random, ring.availIdx);
    } else if (ring instanceof PackedDeviceQueue) {
      ring.deviceEvent = { flags: random.below(4), offset: random.bits() & 0x7fff, wrap: random.below(2) };
    }
  },
};

/** Lies after which the driver may find out. */
export const lies: Readonly<Record<string, Lie>> = {
  'id out of range': ({ random, ring }) => {
    ring.forceUsed(
      random.pick([ring.size, ring.size + 1, 0xffff, 0x10000 + random.below(ring.size), random.bits()]),
      0,
    );
  },
  'id at random': ({ random, ring }) => {
    ring.forceUsed(random.below(ring.size), random.pick([0, random.below(4096), random.bits()]));
  },
  'id not published': ({ ring, staged, random }) => {
    ring.forceUsed(staged < 0 ? random.below(ring.size) : staged, 0);
  },
  'id used twice': ({ ring, popped, inFlight }) => {
    if (popped < 0) {
      ring.forceUsed(inFlight < 0 ? 0 : inFlight, 0);
      ring.forceUsed(inFlight < 0 ? 0 : inFlight, 0);
    } else ring.forceUsed(popped, 0);
  },
  'length too large': ({ random, ring, inFlight, offered }) => {
    const length = random.pick([offered + 1, offered + 4096, 0xffffffff, offered + random.below(1000)]);
    ring.forceUsed(inFlight < 0 ? 0 : inFlight, Math.min(length, 0xffffffff));
  },
  'used index': ({ random, ring }) => {
    // A packed ring has no index: one more descriptor is marked as used, with whatever stands in it.
    if (ring instanceof SplitDeviceQueue) ring.usedIdx = index16(random, ring.usedIdx);
    else if (ring instanceof PackedDeviceQueue) mark(ring, ring.usedPosition.offset, ring.usedPosition.wrap);
  },
  'wrap counter flipped': (scene) => {
    const { random, ring } = scene;
    if (!(ring instanceof PackedDeviceQueue)) {
      scribble(scene, ...area(scene, 2));
      return;
    }
    const { offset, wrap } = random.pick([ring.usedPosition, ring.availPosition]);
    mark(ring, offset, wrap ^ 1);
  },
  'used ring': (scene) => {
    scribble(scene, ...area(scene, scene.ring instanceof SplitDeviceQueue ? 2 : 0));
  },
  anything(scene) {
    scribble(scene, ...area(scene, scene.random.below(3)));
  },
};

function mark(ring: PackedDeviceQueue, offset: number, wrap: number): void {
  const { flags } = ring.readDescriptor(offset);
  ring.writeDescriptor(offset, { flags: (flags & 0x7f7f) | (wrap === 1 ? 0x8080 : 0) });
}
