/** EDIDs for tests. */

const fromHex = (hex: string): Uint8Array =>
  Uint8Array.from(hex.match(/[0-9a-f]{2}/g) ?? [], (byte) => parseInt(byte, 16));

/** What QEMU makes for `virtio-gpu,xres=1920,yres=1080`: a block, an extension, and zeros up to 1024 bytes. */
export function qemuEdid(): Uint8Array {
  const bytes = new Uint8Array(1024);
  bytes.set(
    fromHex(`
      00ffffffffffff0049143412000000002a180104a5301b7806ee91a3544c99260f505421
      0800e1c0d1c0d100a940b300950081808140d25480a072382540e0395540e71211000018
      000000f7000a004082002820000000000000000000fd00327d1ea0ff010a202020202020
      000000fc0051454d55204d6f6e69746f720a01b0
      02030b00467d6560591f6100000010000000000000000000000000000000001000000000
      000000000000000000000000100000000000000000000000000000000010000000000000
      000000000000000000001000000000000000000000000000000000100000000000000000
      00000000000000000000000000000000000000 2f`),
  );
  return bytes;
}

/** Makes the bytes of a block add up. */
export function sealed(block: Uint8Array): Uint8Array {
  block[127] = 0;
  block[127] = -block.subarray(0, 128).reduce((sum, byte) => sum + byte, 0) & 0xff;
  return block;
}

/** A block of the version 1.4 with nothing in it. */
export function emptyEdid(): Uint8Array {
  const block = new Uint8Array(128);
  block.set([0, 255, 255, 255, 255, 255, 255, 0]);
  block.set([1, 4], 18);
  block.fill(1, 38, 54);
  for (let n = 0; n < 4; n += 1) block[54 + 18 * n + 3] = 0x10;
  return sealed(block);
}
