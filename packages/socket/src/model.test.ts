/** Random lives of several connections against a peer that keeps its own account; the device looks now at once, now by interrupt, now late. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FAR } from '../test/connected.ts';
import { FakePeer, type FarConnection, FarProgram, turns } from '../test/fake-peer.ts';
import { VsockShutdown, type VsockConnection } from './index.ts';

interface Pair {
  readonly near: VsockConnection;
  readonly far: FarConnection;
  readonly fromNear: number[];
  readonly fromFar: number[];
  readonly got: number[];
  nearDone: boolean;
  farDone: boolean;
  cut: boolean;
}

const step = fc.record({
  what: fc.constantFrom(
    ...(['write', 'write', 'farWrite', 'farWrite', 'read', 'read', 'farRead', 'farRead'] as const),
    ...(['deaf', 'hear', 'lateness', 'turn', 'creditRequest', 'updateCredit'] as const),
    ...(['endWriting', 'farEnd', 'abort', 'farReset', 'connect', 'accept'] as const),
  ),
  which: fc.nat(7),
  size: fc.oneof(fc.nat(20), fc.nat(3000)),
});

describe('connections in any order of events', () => {
  it(
    'lose nothing, mix nothing up, keep to credit, and end as they should',
    { timeout: 120_000 },
    async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(step, { maxLength: 60 }),
          fc.integer({ min: 1, max: 3000 }),
          fc.integer({ min: 1, max: 3000 }),
          fc.constantFrom(2, 8),
          async (steps, bufAlloc, connectionBufferSize, buffers) => {
            const peer = new FakePeer({
              driver: { buffers, bufferSize: 512 },
              manager: { connectionBufferSize },
            });
            const program = new FarProgram(peer);
            program.listening.add(FAR.port);
            program.bufAlloc = bufAlloc;
            program.onConnection = (far) => (far.eager = false);
            const listener = peer.sockets.listen({ port: 80 });
            const pairs: Pair[] = [];
            let next = 1;
            let value = 0;
            const add = (near: VsockConnection, far: FarConnection | undefined): void => {
              if (far === undefined) throw new Error('the peer does not know the connection');
              far.eager = false;
              pairs.push({
                ...{ near, far, fromNear: [], fromFar: [], got: [] },
                ...{ nearDone: false, farDone: false, cut: false },
              });
            };
            const connect = async (): Promise<void> => {
              peer.deaf = false;
              peer.listen();
              const near = await peer.sockets.connect(FAR);
              add(near, program.connections.get(`${FAR.port}:${near.localPort}`));
            };
            await connect();
            for (const { what, which, size } of steps) {
              const pair = pairs[which % pairs.length] as Pair;
              const { near, far } = pair;
              const bytes = Uint8Array.from({ length: size }, () => (value = (value + 7) & 0xff));
              switch (what) {
                case 'write':
                  if (near.phase === 'established' && !pair.nearDone) {
                    pair.fromNear.push(...bytes.subarray(0, near.tryWrite(bytes)));
                  }
                  break;
                case 'farWrite':
                  if (!pair.farDone && !far.over) {
                    pair.fromFar.push(...bytes);
                    far.write(bytes);
                  }
                  break;
                case 'read':
                  if (!pair.cut) {
                    const into = new Uint8Array(size);
                    pair.got.push(...into.subarray(0, near.tryRead(into)));
                  }
                  break;
                case 'farRead':
                  if (!far.over) far.readSome(size);
                  break;
                case 'creditRequest':
                  if (!far.over) far.say('CREDIT_REQUEST');
                  break;
                case 'updateCredit':
                  near.updateCredit();
                  break;
                case 'deaf':
                  peer.deaf = true;
                  break;
                case 'hear':
                  peer.deaf = false;
                  peer.listen();
                  break;
                case 'lateness':
                  peer.prompt = !peer.prompt;
                  break;
                case 'turn':
                  await turns(2);
                  break;
                case 'endWriting':
                  if (!pair.cut) {
                    pair.nearDone = true;
                    await near.endWriting();
                  }
                  break;
                case 'farEnd':
                  if (!far.over && far.unsent === 0 && !pair.farDone) {
                    pair.farDone = true;
                    far.say('SHUTDOWN', { flags: VsockShutdown.SEND });
                  }
                  break;
                case 'abort':
                  pair.cut = true;
                  near.abort();
                  break;
                case 'farReset':
                  if (far.over) break;
                  pair.cut = true;
                  far.say('RST');
                  break;
                case 'connect':
                  if (pairs.length < 6) await connect();
                  break;
                case 'accept': {
                  if (pairs.length >= 6) break;
                  const made = program.connect(next, 80);
                  const accepted = await listener.accept();
                  expect(accepted.peer.port).toBe(next);
                  next += 1;
                  add(accepted, made);
                }
              }
            }
            // Everything that is under way comes to its end.
            peer.deaf = false;
            peer.listen();
            for (const pair of pairs.filter(({ cut }) => !cut)) {
              const { near, far, fromFar, fromNear, got } = pair;
              far.eager = true;
              far.readSome();
              while (got.length < fromFar.length) {
                far.push();
                const chunk = await near.readChunk();
                if (chunk === undefined) break;
                got.push(...chunk);
              }
              expect(got).toEqual(fromFar);
              await turns();
              far.readSome();
              expect(far.read).toEqual(fromNear);
              await near.close();
              expect(near.end).toBe('clean');
            }
            for (const { cut, near } of pairs) if (cut) expect(near.end).toMatch(/aborted|reset|clean/);
            await turns();
            expect(peer.sockets.size).toBe(0);
            expect(peer.transport.interrupts?.holds).toBe(0);
            expect(peer.driver.quirks).toBe(0);
            peer.end();
          },
        ),
        { numRuns: 150, timeout: 4000 },
      );
    },
  );
});
