/** The guest's half of what the network tests share. */
import { type NetDriver, type NetOptions, VirtioNet, VirtioNetRaw } from '@virtio/net';
import { deepEqual } from 'node:assert/strict';
import type { GuestContext } from '../../framework/define.ts';
import { expectRing, open } from '../_open.ts';
import { GUEST_MAC } from './_frames.ts';

type Context = Pick<GuestContext, 'cell' | 'device'>;

function opened<D extends NetDriver>(
  context: Context,
  make: (device: ReturnType<typeof open>) => D,
): { readonly net: D } & Disposable {
  using stack = new DisposableStack();
  const device = stack.use(open(context, 'net'));
  const net = stack.use(make(device));
  expectRing(net.features, context.cell);
  deepEqual(Array.from(net.macAddress), [...GUEST_MAC]);
  const kept = stack.move();
  return { net, [Symbol.dispose]: () => kept.dispose() };
}

/** The buffered driver on the test's device. */
export function openNet(
  context: Context,
  options: NetOptions = {},
): { readonly net: VirtioNet } & Disposable {
  return opened(context, ({ transport, hal }) => new VirtioNet(transport, hal, options));
}

/** The raw driver on the test's device. */
export function openRaw(context: Context): { readonly net: VirtioNetRaw } & Disposable {
  return opened(context, ({ transport, hal }) => new VirtioNetRaw(transport, hal));
}

/** Gives others their turn. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
