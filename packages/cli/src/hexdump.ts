/** Hex dumps: sixteen bytes per line, like `hexdump -C`; repeated lines become one `*`. */

const WIDTH = 16;

/** Makes the lines of a dump. */
export class HexDump {
  #last: string | undefined;
  #repeating = false;

  /** The lines of a piece at `position` of the data. The length of each piece but the last is a multiple of 16. */
  lines(bytes: Uint8Array, position: number): string[] {
    const lines: string[] = [];
    for (let at = 0; at < bytes.length; at += WIDTH) {
      const row = bytes.subarray(at, at + WIDTH);
      const digits = Array.from(row, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
      if (digits === this.#last && row.length === WIDTH) {
        if (!this.#repeating) lines.push('*');
        this.#repeating = true;
        continue;
      }
      this.#last = digits;
      this.#repeating = false;
      const text = Array.from(row, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.'));
      const place = (position + at).toString(16).padStart(8, '0');
      lines.push(`${place}  ${digits.padEnd(3 * WIDTH - 1)}  |${text.join('')}|`);
    }
    return lines;
  }
}
