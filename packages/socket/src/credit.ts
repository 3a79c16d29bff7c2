/**
 * The credit of a connection: how much may be sent without overrunning the receiver's buffer. Each side counts for itself what it
 * sent and what it took out of its buffer, modulo 2^32, so all differences are taken modulo 2^32 too. Counters are kept as signed
 * integers of 32 bits, which engines hold without an object.
 *
 * @see VIRTIO 1.4, 5.10.6.3
 */

/** What this side may send. */
export class SendCredit {
  /** The peer's buffer space in bytes, as it last said. It may shrink below what is in flight. */
  peerBufAlloc = 0;
  #peerFwdCnt: number;
  #txCnt: number;

  /** @param start where both counters begin: another number than 0 only to test what happens past 2^32 */
  constructor(start = 0) {
    this.#peerFwdCnt = start | 0;
    this.#txCnt = start | 0;
  }

  /** Bytes that the peer has taken out of its buffer, as it last said. */
  get peerFwdCnt(): number {
    return this.#peerFwdCnt >>> 0;
  }

  /** Bytes that were sent. */
  get txCnt(): number {
    return this.#txCnt >>> 0;
  }

  /** Bytes that were sent and that the peer has not taken out of its buffer yet. */
  get inFlight(): number {
    return (this.#txCnt - this.#peerFwdCnt) >>> 0;
  }

  /** Bytes that may be sent now. 0, not less, while a buffer that has shrunk holds more than it should. */
  get free(): number {
    return Math.max(0, this.peerBufAlloc - this.inFlight);
  }

  /** So many bytes were sent; called when the device has them, not before. */
  sent(bytes: number): void {
    this.#txCnt = (this.#txCnt + bytes) | 0;
  }

  /**
   * Takes what a packet of the peer says.
   *
   * @returns whether it can be: the peer cannot have taken more than was sent, nor less than before. Otherwise the count is left as
   * it was.
   */
  update(bufAlloc: number, fwdCnt: number): boolean {
    this.peerBufAlloc = bufAlloc;
    if ((fwdCnt - this.#peerFwdCnt) >>> 0 > this.inFlight) return false;
    this.#peerFwdCnt = fwdCnt | 0;
    return true;
  }
}

/** What the peer may send. */
export class ReceiveCredit {
  /** The buffer space in bytes that this side announces. */
  readonly bufAlloc: number;
  #fwdCnt: number;
  /** The value of `fwdCnt` in the last `CREDIT_UPDATE`. */
  #toldFwdCnt: number;
  /** Bytes that came. */
  #rxCnt: number;

  /** @param start where all counters begin: another number than 0 only to test what happens past 2^32 */
  constructor(bufAlloc: number, start = 0) {
    this.bufAlloc = bufAlloc;
    this.#fwdCnt = start | 0;
    this.#toldFwdCnt = start | 0;
    this.#rxCnt = start | 0;
  }

  /** Bytes that were taken out of the buffer. */
  get fwdCnt(): number {
    return this.#fwdCnt >>> 0;
  }

  /** Bytes in the buffer. */
  get buffered(): number {
    return (this.#rxCnt - this.#fwdCnt) >>> 0;
  }

  /** Bytes that may still come. */
  get free(): number {
    return this.bufAlloc - this.buffered;
  }

  /**
   * So many bytes came.
   *
   * @returns false if they are more than the peer may send; then they are not counted
   */
  received(bytes: number): boolean {
    if (bytes > this.free) return false;
    this.#rxCnt = (this.#rxCnt + bytes) | 0;
    return true;
  }

  /** So many bytes were taken out of the buffer. */
  consumed(bytes: number): void {
    this.#fwdCnt = (this.#fwdCnt + bytes) | 0;
  }

  /**
   * Whether to send a `CREDIT_UPDATE`: when a quarter of the buffer came free that was not told of, and when anything did and there is
   * nothing left to read, so that a peer that waits for room goes on before both sides wait for ever.
   *
   * Only an update counts as telling: there are devices that wait for one even though other packets have told them the same.
   *
   * @param drained whether there is nothing left to read
   */
  updateIsDue(drained: boolean): boolean {
    const untold = (this.#fwdCnt - this.#toldFwdCnt) >>> 0;
    return untold > 0 && (drained || untold * 4 >= this.bufAlloc);
  }

  /** A `CREDIT_UPDATE` was sent. */
  updated(): void {
    this.#toldFwdCnt = this.#fwdCnt;
  }
}
