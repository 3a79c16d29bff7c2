/** The example of a small IP stack, against another of its kind and against frames that are none. */
import { describe, expect, it } from 'vitest';
import { TinyStack } from '../examples/tiny-stack.ts';

function pair(): {
  a: TinyStack;
  b: TinyStack;
  toA: WritableStreamDefaultWriter<Uint8Array>;
  seen: Uint8Array[];
} {
  const seen: Uint8Array[] = [];
  // Both sides have room for some frames, as a wire with cards at its ends has.
  const room = { highWaterMark: 64 };
  const wire = (): TransformStream<Uint8Array, Uint8Array> =>
    new TransformStream<Uint8Array, Uint8Array>(
      {
        transform(frame, controller) {
          seen.push(frame);
          controller.enqueue(frame);
        },
      },
      room,
      room,
    );
  const [ab, ba, inject] = [wire(), wire(), wire()];
  const toA = inject.writable.getWriter();
  void (async () => {
    for await (const frame of ba.readable) await toA.write(frame).catch(() => undefined);
  })();
  const a = new TinyStack(
    { readable: inject.readable, writable: ab.writable },
    { macAddress: Uint8Array.of(2, 0, 0, 0, 0, 1), address: '10.0.0.1' },
  );
  const b = new TinyStack(
    { readable: ab.readable, writable: ba.writable },
    { macAddress: Uint8Array.of(2, 0, 0, 0, 0, 2), address: '10.0.0.2' },
  );
  return { a, b, toA, seen };
}

describe('the example of an IP stack', () => {
  it('resolves, pings and is pinged, and carries datagrams both ways', async () => {
    const { a, b, seen } = pair();
    await Promise.all([a.ping('10.0.0.2'), b.ping('10.0.0.1'), a.ping('10.0.0.2', new Uint8Array(1))]);
    using left = a.udp(1000);
    using right = b.udp(53);
    await left.send('10.0.0.2', 53, Uint8Array.of(1, 2, 3));
    expect(await right.receive()).toEqual({ address: '10.0.0.1', port: 1000, data: Uint8Array.of(1, 2, 3) });
    await right.send('10.0.0.1', 1000, new Uint8Array(0));
    expect(await left.receive()).toEqual({ address: '10.0.0.2', port: 53, data: new Uint8Array(0) });
    expect(seen.every(({ length }) => length >= 60)).toBe(true);
    await a.close();
    await expect(a.ping('192.0.2.1')).rejects.toThrow('no gateway');
  });

  it('stands frames of any kind', async () => {
    const { a, toA } = pair();
    for (let n = 0; n < 500; n += 1) {
      const frame = Uint8Array.from({ length: n % 90 }, (_, i) => Math.imul(i * 7 + n, 0x9e3779b1) >>> 24);
      frame.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff].slice(0, frame.length));
      if (frame.length > 24) frame.set([8, n % 2 === 0 ? 6 : 0, n % 3 === 0 ? 0x45 : 0x4f, 0, 8, 0], 12);
      await toA.write(frame);
    }
    await a.ping('10.0.0.2');
  });
});
