import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Act, ConnectionState } from './connection-state.ts';
import { VsockOp, VsockShutdown } from './protocol.ts';

const { RECEIVE, SEND, BOTH } = VsockShutdown;
const established = (): ConnectionState => new ConnectionState(true);

describe('connecting', () => {
  it('is established by a RESPONSE, and not a second time [5.10.6.5]', () => {
    const state = new ConnectionState(false);
    expect(state.phase).toBe('connecting');
    expect(state.canSend).toBe(false);
    expect(state.receive(VsockOp.RESPONSE, 0)).toBe(Act.CONNECTED);
    expect(state.phase).toBe('established');
    expect(state.canSend).toBe(true);
    expect(state.receive(VsockOp.RESPONSE, 0)).toBe(Act.QUIRK);
  });

  it('is refused by an RST, which is not answered [5.10.6.5]', () => {
    const state = new ConnectionState(false);
    expect(state.receive(VsockOp.RST, 0)).toBe(Act.ENDED);
    expect(state.end).toBe('refused');
    expect(state.receive(VsockOp.RST, 0)).toBe(Act.NONE);
    expect(state.receive(VsockOp.RESPONSE, 0)).toBe(Act.SEND_RST);
  });

  it.each(['REQUEST', 'SHUTDOWN', 'RW'] as const)('is ended by a %s, which cannot come yet', (op) => {
    const state = new ConnectionState(false);
    expect(state.receive(VsockOp[op], 3)).toBe(Act.SEND_RST | Act.ENDED);
    expect(state.end).toBe('protocol');
  });

  it.each([VsockOp.INVALID, VsockOp.CREDIT_REQUEST, VsockOp.CREDIT_UPDATE, 8, 65535])(
    'ignores operation %i',
    (op) => {
      const state = new ConnectionState(false);
      expect(state.receive(op, 0)).toBe(Act.QUIRK);
      expect(state.phase).toBe('connecting');
    },
  );

  it('is given up by its caller with an RST', () => {
    const state = new ConnectionState(false);
    expect(state.abort('timed-out')).toBe(Act.SEND_RST | Act.ENDED);
    expect(state.end).toBe('timed-out');
    expect(state.abort('aborted')).toBe(Act.NONE);
    expect(new ConnectionState(false).shutdown(SEND)).toBe(Act.SEND_RST | Act.ENDED);
  });
});

describe('shutdown by the peer', () => {
  it('adds up, in any order, and is confirmed with an RST [5.10.6.5]', () => {
    for (const [first, second] of [
      [RECEIVE, SEND],
      [SEND, RECEIVE],
      [SEND, BOTH],
    ] as const) {
      const state = established();
      expect(state.receive(VsockOp.SHUTDOWN, first)).toBe(Act.PEER_SHUTDOWN);
      expect(state.canSend).toBe(first !== RECEIVE);
      expect(state.canReceive).toBe(first !== SEND);
      // Bits that are clear do not reset those that were set.
      expect(state.receive(VsockOp.SHUTDOWN, 0)).toBe(Act.QUIRK);
      expect(state.receive(VsockOp.SHUTDOWN, first)).toBe(Act.QUIRK);
      expect(state.receive(VsockOp.SHUTDOWN, second)).toBe(Act.PEER_SHUTDOWN | Act.SEND_RST | Act.ENDED);
      expect(state.end).toBe('clean');
    }
  });

  it('of sending ends reads only; an RST after it is no loss', () => {
    const state = established();
    state.receive(VsockOp.SHUTDOWN, SEND);
    expect(state.receive(VsockOp.RW, 0)).toBe(Act.DROP_DATA | Act.QUIRK);
    expect(state.canSend).toBe(true);
    expect(state.receive(VsockOp.RST, 0)).toBe(Act.ENDED);
    expect(state.end).toBe('clean');
  });

  it('of sending, when this side has none to send either, closes the connection', () => {
    const state = established();
    expect(state.shutdown(SEND)).toBe(Act.SEND_SHUTDOWN);
    expect(state.localShutdown).toBe(SEND);
    expect(state.receive(VsockOp.RW, 0)).toBe(Act.TAKE_DATA);
    expect(state.receive(VsockOp.SHUTDOWN, SEND)).toBe(Act.PEER_SHUTDOWN | Act.SEND_SHUTDOWN);
    expect(state.localShutdown).toBe(BOTH);
    expect(state.phase).toBe('closing');
    expect(state.receive(VsockOp.RST, 0)).toBe(Act.ENDED);
    expect(state.end).toBe('clean');
  });
});

describe('shutdown by this side', () => {
  it('in halves closes when both are said [5.10.6.5]', () => {
    const state = established();
    expect(state.shutdown(RECEIVE)).toBe(Act.SEND_SHUTDOWN);
    expect(state.receive(VsockOp.RW, 0)).toBe(Act.DROP_DATA);
    expect(state.shutdown(RECEIVE)).toBe(Act.NONE);
    expect(state.canSend).toBe(true);
    expect(state.shutdown(SEND)).toBe(Act.SEND_SHUTDOWN);
    expect(state.phase).toBe('closing');
    expect(state.canSend).toBe(false);
    expect(state.receive(VsockOp.RW, 0)).toBe(Act.DROP_DATA);
    expect(state.receive(VsockOp.CREDIT_REQUEST, 0)).toBe(Act.SEND_CREDIT);
    expect(state.shutdown(BOTH)).toBe(Act.NONE);
    expect(state.receive(VsockOp.RST, 0)).toBe(Act.ENDED);
    expect(state.end).toBe('clean');
  });

  it('that meets one of the peer is confirmed', () => {
    const state = established();
    state.shutdown(BOTH);
    expect(state.receive(VsockOp.SHUTDOWN, BOTH)).toBe(Act.PEER_SHUTDOWN | Act.SEND_RST | Act.ENDED);
  });

  it('after the peer sent all it had is one of both directions', () => {
    const state = established();
    state.receive(VsockOp.SHUTDOWN, SEND);
    expect(state.shutdown(SEND)).toBe(Act.SEND_SHUTDOWN);
    expect(state.localShutdown).toBe(BOTH);
    expect(state.phase).toBe('closing');
  });

  it('that the peer does not confirm ends with an RST', () => {
    const state = established();
    state.shutdown(BOTH);
    expect(state.abort('timed-out')).toBe(Act.SEND_RST | Act.ENDED);
    expect(state.receivedAll).toBe(false);
    const ended = established();
    ended.receive(VsockOp.SHUTDOWN, SEND);
    ended.shutdown(BOTH);
    ended.abort('timed-out');
    expect(ended.receivedAll).toBe(true);
  });
});

describe('the end', () => {
  it('by an RST is told from a shutdown, and is not answered', () => {
    const state = established();
    expect(state.receive(VsockOp.RST, 0)).toBe(Act.ENDED);
    expect(state.end).toBe('reset');
    for (let n = 0; n < 100; n += 1) expect(state.receive(VsockOp.RST, 0)).toBe(Act.NONE);
    expect(state.receive(VsockOp.RW, 0)).toBe(Act.SEND_RST);
  });

  it('comes when the peer uses its port again', () => {
    const state = established();
    expect(state.receive(VsockOp.REQUEST, 0)).toBe(Act.ENDED | Act.REPLACED);
    expect(state.end).toBe('reset');
    const closing = established();
    closing.shutdown(BOTH);
    expect(closing.receive(VsockOp.REQUEST, 0)).toBe(Act.ENDED | Act.REPLACED);
    expect(closing.end).toBe('clean');
  });

  it('comes with a reset of the transport, without a packet [5.10.6.7]', () => {
    for (const state of [established(), new ConnectionState(false)]) {
      expect(state.transportReset()).toBe(Act.ENDED);
      expect(state.end).toBe('transport-reset');
      expect(state.transportReset()).toBe(Act.NONE);
    }
  });
});

describe('any course of events', () => {
  it('ends once, answers no RST, and says nothing after the end but RST', () => {
    const packet = fc.record({ op: fc.integer({ min: 0, max: 9 }), flags: fc.nat(7) });
    const call = fc.constantFrom(RECEIVE, SEND, BOTH);
    fc.assert(
      fc.property(fc.boolean(), fc.array(fc.oneof(packet, call), { maxLength: 40 }), (incoming, steps) => {
        const state = new ConnectionState(incoming);
        let ends = 0;
        let sent = 0;
        for (const step of steps) {
          const wasOver = state.phase === 'closed';
          const act = typeof step === 'number' ? state.shutdown(step) : state.receive(step.op, step.flags);
          if (typeof step === 'object' && step.op === VsockOp.RST) expect(act & Act.SEND_RST).toBe(0);
          if (wasOver) expect(act & ~Act.SEND_RST).toBe(0);
          if ((act & Act.ENDED) !== 0) ends += 1;
          if ((act & Act.SEND_SHUTDOWN) !== 0) {
            // Each SHUTDOWN says more than the one before.
            expect(state.localShutdown & sent).toBe(sent);
            expect(state.localShutdown).not.toBe(sent);
            sent = state.localShutdown;
          }
          expect((act & Act.TAKE_DATA) === 0 || (act & Act.DROP_DATA) === 0).toBe(true);
        }
        expect(ends).toBe(state.phase === 'closed' ? 1 : 0);
        expect(state.end === undefined).toBe(state.phase !== 'closed');
      }),
    );
  });
});
