/** A connection between the driver and a {@link FarProgram}, for tests. */
import type { VsockConnection } from '../src/index.ts';
import { FakePeer, type FarConnection, FarProgram, HOST, type PeerOptions } from './fake-peer.ts';

export const FAR = { cid: HOST, port: 1234 };

export interface Connected {
  readonly peer: FakePeer;
  readonly program: FarProgram;
  readonly near: VsockConnection;
  readonly far: FarConnection;
}

/** Connects. `lazy` programs do not read by themselves. */
export function connected({
  bufAlloc = 4096,
  bufferSize = 4096,
  lazy = false,
  type = 'stream',
  ...options
}: PeerOptions & {
  readonly bufAlloc?: number;
  readonly bufferSize?: number;
  readonly lazy?: boolean;
  readonly type?: 'stream' | 'seqpacket';
} = {}): Connected {
  const peer = new FakePeer({ ...(type === 'seqpacket' ? { features: 2n } : {}), ...options });
  const program = new FarProgram(peer);
  program.listening.add(FAR.port);
  program.bufAlloc = bufAlloc;
  program.onConnection = (far) => (far.eager = !lazy);
  const near = peer.sockets.connectSync(FAR, { bufferSize, type });
  const far = [...program.connections.values()].at(-1);
  if (far === undefined) throw new Error('there is no connection');
  return { peer, program, near, far };
}

/** The code of an error, for `toThrow`. */
export const coded = (code: string): object => ({ code });
