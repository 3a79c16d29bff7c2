/**
 * The methods of a virtqueue by which its chains are built, published and taken. A tracer replaces them with its own functions. A
 * transport knows only these of a queue, so that neither module imports the other.
 */
export interface QueueCalls {
  /** The index of the queue. */
  readonly index: number;
  /** How many bytes the device wrote for the token that {@link QueueCalls.pop} returned last. */
  readonly usedLength: number;
  /** Begins a chain of `count` buffers; returns false if there is no room. */
  tryBegin(count: number): boolean;
  /** Adds a buffer that the device reads. */
  pushReadable(address: number, length: number): void;
  /** Adds a buffer that the device writes. */
  pushWritable(address: number, length: number): void;
  /** Ends the chain; returns its token. */
  submit(): number;
  /** Makes all submitted chains available to the device. */
  publish(): void;
  /** Takes the next chain that the device has used; returns its token, or -1. */
  pop(): number;
  /** Empties the queue and gives it to the device again. */
  reset(): void;
}
