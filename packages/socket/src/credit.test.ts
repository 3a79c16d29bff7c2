import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ReceiveCredit, SendCredit } from './credit.ts';

const u32 = fc.integer({ min: 0, max: 0xffffffff });

describe('SendCredit', () => {
  it('is what the peer has room for, less what is in flight [5.10.6.3]', () => {
    const credit = new SendCredit();
    expect(credit.free).toBe(0);
    expect(credit.update(1000, 0)).toBe(true);
    credit.sent(600);
    expect(credit.free).toBe(400);
    expect(credit.inFlight).toBe(600);
    expect(credit.update(1000, 500)).toBe(true);
    expect(credit.free).toBe(900);
  });

  it('goes on past 2^32', () => {
    const credit = new SendCredit(0xffff_fff0);
    credit.update(100, 0xffff_fff0);
    credit.sent(100);
    expect(credit.txCnt).toBe(0x54);
    expect(credit.free).toBe(0);
    expect(credit.update(100, 0x10)).toBe(true);
    expect(credit.inFlight).toBe(0x44);
    expect(credit.free).toBe(100 - 0x44);
  });

  it('is nothing, not a huge number, when the peer’s buffer shrinks below what is in flight', () => {
    const credit = new SendCredit();
    credit.update(1000, 0);
    credit.sent(1000);
    expect(credit.update(10, 0)).toBe(true);
    expect(credit.free).toBe(0);
    credit.update(10, 995);
    expect(credit.free).toBe(5);
    credit.update(0xffff_ffff, 1000);
    expect(credit.free).toBe(0xffff_ffff);
  });

  it('refuses a count of more than was sent, or of less than before', () => {
    const credit = new SendCredit();
    credit.update(100, 0);
    credit.sent(50);
    expect(credit.update(100, 51)).toBe(false);
    expect(credit.free).toBe(50);
    expect(credit.update(100, 20)).toBe(true);
    expect(credit.update(100, 19)).toBe(false);
    expect(credit.update(200, 0xffff_ffff)).toBe(false);
    expect(credit.peerFwdCnt).toBe(20);
    expect(credit.free).toBe(170);
  });

  it('never allows more than the peer’s buffer holds, wherever the counters begin', () => {
    const steps = fc.array(fc.tuple(fc.nat(5000), fc.nat(5000), fc.nat(4096)), { maxLength: 60 });
    fc.assert(
      fc.property(u32, steps, (start, moves) => {
        const credit = new SendCredit(start);
        // The peer, in plain numbers that do not wrap.
        let sent = 0;
        let taken = 0;
        for (const [want, take, size] of moves) {
          expect(credit.update(size, (start + taken) >>> 0)).toBe(true);
          const count = Math.min(want, credit.free);
          expect(count === 0 || sent - taken + count <= size).toBe(true);
          expect(credit.free).toBe(Math.max(0, size - (sent - taken)));
          credit.sent(count);
          sent += count;
          taken += Math.min(take, sent - taken);
        }
      }),
    );
  });
});

describe('ReceiveCredit', () => {
  it('counts what is buffered, and refuses more than there is room for', () => {
    const credit = new ReceiveCredit(100);
    expect(credit.received(60)).toBe(true);
    expect(credit.received(41)).toBe(false);
    expect(credit.buffered).toBe(60);
    expect(credit.received(40)).toBe(true);
    expect(credit.free).toBe(0);
    credit.consumed(10);
    expect(credit.fwdCnt).toBe(10);
    expect(credit.free).toBe(10);
  });

  it('asks for an update after a quarter, or when nothing is left to read', () => {
    const credit = new ReceiveCredit(100);
    credit.received(100);
    credit.consumed(24);
    expect(credit.updateIsDue(false)).toBe(false);
    expect(credit.updateIsDue(true)).toBe(true);
    credit.consumed(1);
    expect(credit.updateIsDue(false)).toBe(true);
    credit.updated();
    expect(credit.updateIsDue(false)).toBe(false);
    expect(credit.updateIsDue(true)).toBe(false);
  });

  it('goes on past 2^32', () => {
    const credit = new ReceiveCredit(1000, 0xffff_ff00);
    expect(credit.received(1000)).toBe(true);
    expect(credit.received(1)).toBe(false);
    credit.consumed(900);
    expect(credit.fwdCnt).toBe((0xffff_ff00 + 900) % 2 ** 32);
    expect(credit.buffered).toBe(100);
    expect(credit.updateIsDue(false)).toBe(true);
    credit.updated();
    expect(credit.updateIsDue(true)).toBe(false);
  });
});

describe('both sides together', () => {
  it('never stop for good, and never lose a byte, if the reader reads', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 80 });
    fc.assert(
      fc.property(u32, fc.integer({ min: 1, max: 256 }), sizes, sizes, (start, bufAlloc, writes, reads) => {
        const sender = new SendCredit(start);
        const receiver = new ReceiveCredit(bufAlloc, start);
        sender.update(bufAlloc, receiver.fwdCnt);
        let left = writes.reduce((sum, size) => sum + size, 0);
        let at = 0;
        for (let idle = 0; left > 0 || receiver.buffered > 0;) {
          const sent = Math.min(left, sender.free, writes[at % writes.length] as number);
          expect(receiver.received(sent)).toBe(true);
          sender.sent(sent);
          left -= sent;
          const read = Math.min(receiver.buffered, reads[at % reads.length] as number);
          receiver.consumed(read);
          if (receiver.updateIsDue(receiver.buffered === 0)) {
            receiver.updated();
            expect(sender.update(bufAlloc, receiver.fwdCnt)).toBe(true);
          }
          idle = sent + read === 0 ? idle + 1 : 0;
          expect(idle).toBeLessThan(2);
          at += 1;
        }
      }),
    );
  });
});
