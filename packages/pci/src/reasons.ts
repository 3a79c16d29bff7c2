/** Reasons of errors that share a code. */

/** The values of `reason` in a `VirtioError` of this package. */
export type PciErrorReason =
  /** The vendor id is not that of virtio devices, 0x1af4. */
  | 'WRONG_VENDOR_ID'
  /** The device id is not one of the specification [4.1.2.1]. */
  | 'UNKNOWN_DEVICE_ID'
  /** No capability names a common configuration [4.1.4.3]. */
  | 'COMMON_CFG_MISSING'
  /** No capability names a notification structure [4.1.4.4]. */
  | 'NOTIFY_CFG_MISSING'
  /** No capability names an ISR status [4.1.4.5]. */
  | 'ISR_CFG_MISSING'
  /** The device has only the legacy interface. */
  | 'LEGACY_ONLY'
  /** A structure has fewer bytes than needed. */
  | 'STRUCTURE_TOO_SHORT'
  /** A structure ends outside its BAR. */
  | 'STRUCTURE_OUTSIDE_BAR'
  /** A structure is not aligned for its registers. */
  | 'STRUCTURE_MISALIGNED'
  /** `notify_off_multiplier` is neither 0 nor an even power of two [4.1.4.4]. */
  | 'BAD_NOTIFY_MULTIPLIER'
  /** A structure is in a BAR that the device does not have. */
  | 'BAR_MISSING'
  /** A BAR has no address. */
  | 'BAR_NOT_ALLOCATED'
  /** A BAR is in I/O space, which cannot be mapped here. */
  | 'BAR_IN_IO_SPACE'
  /** A BAR has a type that PCI does not define. */
  | 'BAR_TYPE_RESERVED'
  /** A BAR has a size that is not a power of two, or is a 64-bit BAR without a second half. */
  | 'BAD_BAR'
  /** The list of capabilities points into the header, or has a loop. */
  | 'BAD_CAPABILITY_LIST';

/** The option `reason` of a `VirtioError`. */
export function because(reason: PciErrorReason | undefined): { readonly reason: PciErrorReason | undefined } {
  return { reason };
}
