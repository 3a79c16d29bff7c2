/**
 * The credit of a connection: how much may be sent without overrunning the receiver's buffer. Each side counts what it sent and what
 * was read from its buffer, modulo 2^32, so all differences are modulo 2^32 too. Counters are signed 32-bit integers, which engines
 * store without an object.
 *
 * @see VIRTIO 1.4, 5.10.6.3
 */

/** What this side may send. */
export class SendCredit {
  /** The peer's buffer space in bytes, as last reported. It may shrink below what is in flight. */
  peerBufAlloc = 0;
  #peerFwdCnt: number;
  #txCnt: number;

  /** @param start the first value of both counters; not 0 only in tests of what happens past 2^32 */
  constructor(start = 0) {
    this.#peerFwdCnt = start | 0;
    this.#txCnt = start | 0;
  }

  /** Bytes that were read from the peer's buffer, as it last reported. */
  get peerFwdCnt(): number {
    return this.#peerFwdCnt >>> 0;
  }

  /** Bytes that were sent. */
  get txCnt(): number {
    return this.#txCnt >>> 0;
  }

  /** Bytes that were sent and, as far as reported, not read from the peer's buffer yet. */
  get inFlight(): number {
    return (this.#txCnt - this.#peerFwdCnt) >>> 0;
  }

  /** Bytes that may be sent now; 0 while the peer's buffer has shrunk below what it holds. */
  get free(): number {
    return Math.max(0, this.peerBufAlloc - this.inFlight);
  }

  /** Counts bytes that were sent; called when they are available to the device, not before. */
  sent(bytes: number): void {
    this.#txCnt = (this.#txCnt + bytes) | 0;
  }

  /**
   * Updates the credit from a packet of the peer.
   *
   * @returns whether the values are possible: the peer cannot have read more than was sent, nor less than before. Otherwise the count
   * does not change.
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
  /** Bytes that were received. */
  #rxCnt: number;

  /** @param start the first value of all counters; not 0 only in tests of what happens past 2^32 */
  constructor(bufAlloc: number, start = 0) {
    this.bufAlloc = bufAlloc;
    this.#fwdCnt = start | 0;
    this.#toldFwdCnt = start | 0;
    this.#rxCnt = start | 0;
  }

  /** Bytes that were read from the buffer. */
  get fwdCnt(): number {
    return this.#fwdCnt >>> 0;
  }

  /** Bytes in the buffer. */
  get buffered(): number {
    return (this.#rxCnt - this.#fwdCnt) >>> 0;
  }

  /** Bytes that the peer may still send. */
  get free(): number {
    return this.bufAlloc - this.buffered;
  }

  /**
   * Counts bytes that were received.
   *
   * @returns false if they are more than the peer may send; then they are not counted
   */
  received(bytes: number): boolean {
    if (bytes > this.free) return false;
    this.#rxCnt = (this.#rxCnt + bytes) | 0;
    return true;
  }

  /** Counts bytes that were read from the buffer. */
  consumed(bytes: number): void {
    this.#fwdCnt = (this.#fwdCnt + bytes) | 0;
  }

  /**
   * Whether to send a `CREDIT_UPDATE`: if a quarter of the buffer became free since the last one; or if anything did and nothing is left
   * to read, as both sides could otherwise wait for each other for ever.
   *
   * Only a `CREDIT_UPDATE` counts: some devices wait for one although other packets have carried the same counts.
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
