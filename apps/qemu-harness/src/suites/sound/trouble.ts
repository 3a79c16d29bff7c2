/** Sound devices that go away, and drivers that do. */
import { VirtioError } from '@virtio/core';
import { deepEqual, equal, rejects } from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { guestTest, onPci } from '../../framework/define.ts';
import { expectPlayed, host, openSound, playSignal, silence, TAIL, wavSound } from './_sound.ts';
import { type Signal, whole } from './_signal.ts';

const PARAMETERS = {
  format: 'S16',
  rate: 48_000,
  channels: 2,
  periodBytes: 4 * 1920,
  bufferBytes: 8 * 4 * 1920,
} as const;

export default [
  guestTest({
    device: 'sound',
    name: 'is unplugged while it plays: the call in flight says so, and what was played is in the file',
    long: true,
    devices: { sound: wavSound(48_000, {}, true) },
    skip: (cell) => (onPci(cell) ? undefined : 'MMIO devices cannot be unplugged'),
    host,
    async guest(context) {
      const gone = context.host('gone', null);
      const signal: Signal = { rate: 48_000, frames: 480_000, seed: 20 };
      {
        using opened = openSound(context);
        const stream = await opened.sound.openPlayback(PARAMETERS);
        const failed: VirtioError[] = [];
        opened.sound.on('failure', (error) => failed.push(error));
        const ended = rejects(playSignal(stream, signal), (error) => VirtioError.is(error, 'DEVICE_REMOVED'));
        await delay(1500);
        await context.host('unplug', null);
        await ended;
        deepEqual(
          failed.map(({ code }) => code),
          ['DEVICE_REMOVED'],
        );
        await rejects(stream.write(silence(1)), (error) => VirtioError.is(error, 'DEVICE_REMOVED'));
      }
      await gone;
      const verdict = await context.host('judge', {
        expected: [{ signal, atLeast: 24_000 }],
        frames: 24_000,
      });
      expectPlayed(verdict, 48_000);
      // QEMU has closed the file, so its head is right.
      equal(verdict.complete, true);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'is reset while it plays, and plays again',
    long: true,
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      const broken: Signal = { rate: 48_000, frames: 240_000, seed: 21 };
      const next: Signal = { rate: 48_000, frames: 48_000, seed: 22 };
      const stream = await sound.openPlayback(PARAMETERS);
      const ended = rejects(playSignal(stream, broken), (error) => VirtioError.is(error, 'DEVICE_RESET'));
      await delay(1500);
      // QEMU keeps what it was given over a reset, and plays on: so the stream is stopped and released first.
      sound.control.stopSync(stream.id);
      sound.control.releaseSync(stream.id);
      sound.reset();
      await ended;
      equal(stream.closed, true);
      const again = await sound.openPlayback(PARAMETERS);
      await again.write(silence(TAIL));
      await again.write(whole(next));
      await again.write(silence(TAIL));
      await again.close();
      const verdict = await context.host('judge', {
        expected: [{ signal: broken, atLeast: 24_000 }, { signal: next }],
        frames: 24_000 + next.frames,
      });
      expectPlayed(verdict, 48_000);
    },
  }),

  guestTest({
    device: 'sound',
    name: 'is opened and closed 100 times without growth',
    long: true,
    devices: { sound: wavSound(48_000) },
    host,
    async guest(context) {
      using opened = openSound(context);
      const { sound } = opened;
      for (let round = 0; round < 100; round += 1) {
        const stream = await sound.openPlayback({
          ...PARAMETERS,
          bufferBytes: PARAMETERS.periodBytes * (1 + (round % 4)),
        });
        await stream.write(silence(100 + round));
        if (round % 2 === 0) await stream.stop();
        if (round % 3 === 0) stream[Symbol.dispose]();
        else await stream.close();
      }
      const signal: Signal = { rate: 48_000, frames: 24_000, seed: 23 };
      const stream = await sound.openPlayback(PARAMETERS);
      await stream.write(whole(signal));
      await stream.write(silence(TAIL));
      await stream.close();
      expectPlayed(await context.host('judge', { expected: [{ signal }], frames: signal.frames }), 48_000);
      equal(sound.quirks, 0);
    },
  }),
];
