/** The output of commands: text for people, or JSON for programs. */
import Table from 'cli-table3';
import pc from 'picocolors';
import { once } from 'node:events';
import { stripVTControlCharacters } from 'node:util';
import type { Host, Output } from './host.ts';

/** Options of {@link Printer}. */
export interface PrintOptions {
  readonly json?: boolean | undefined;
  readonly color?: boolean | undefined;
}

/** The colours of picocolors, switched on or off. */
export type Colors = ReturnType<typeof pc.createColors>;

/** Whether a stream gets colours: --color decides, then NO_COLOR, then FORCE_COLOR, and otherwise whether it is a terminal. */
export function wantsColor({ isTTY = false }: Output, env: Host['env'], color?: boolean): boolean {
  if (color !== undefined) return color;
  if ((env.NO_COLOR ?? '') !== '') return false;
  if ((env.FORCE_COLOR ?? '') !== '') return env.FORCE_COLOR !== '0';
  return isTTY && env.TERM !== 'dumb';
}

/** JSON of any result of commands, also with `bigint`; bytes become hexadecimal digits, and `Infinity` becomes null. */
export function toJson(value: unknown, indent?: number): string {
  return JSON.stringify(
    value,
    (_key, item: unknown) => {
      if (typeof item === 'bigint') {
        return item <= BigInt(Number.MAX_SAFE_INTEGER) && item >= 0n
          ? Number(item)
          : `0x${item.toString(16)}`;
      }
      if (item instanceof Uint8Array) return Buffer.from(item).toString('hex');
      if (item instanceof Map) return Object.fromEntries(item as Map<string, unknown>);
      return item;
    },
    indent,
  );
}

/** What is between the columns of a table. */
const GAP = '  ';

/** Prints the output of a command. */
export class Printer {
  readonly json: boolean;
  readonly colors: Colors;
  readonly #host: Host;

  constructor(host: Host, { json = false, color }: PrintOptions) {
    this.json = json;
    this.colors = pc.createColors(!json && wantsColor(host.stdout, host.env, color));
    this.#host = host;
  }

  /** Prints a line for people. */
  line(text = ''): void {
    if (!this.json) this.#host.stdout.write(`${text}\n`);
  }

  /** Prints the result for programs: one document. */
  result(value: unknown): void {
    if (this.json) this.#host.stdout.write(`${toJson(value, 2)}\n`);
  }

  /** Prints one of many results for programs, on one line. */
  record(value: unknown): void {
    if (this.json) this.#host.stdout.write(`${toJson(value)}\n`);
  }

  /** Prints a remark for people, on standard error. */
  note(text: string): void {
    if (!this.json) this.#host.stderr.write(`${text}\n`);
  }

  /**
   * Prints a table without lines, so that other programs can split it. On a terminal that is too narrow, its last column is wrapped; if
   * that does not suffice, each row becomes a few lines: its first cell, and below it the others with their titles.
   */
  table(head: readonly string[], rows: readonly (readonly string[])[]): void {
    const { columns, isTTY } = this.#host.stdout;
    const width = isTTY === true && columns !== undefined && columns > 0 ? columns : Infinity;
    const all = head.length === 0 ? rows : [head, ...rows];
    const last = Math.max(0, ...all.map((row) => row.length)) - 1;
    const cells = (column: number): string[] => all.map((row) => stripVTControlCharacters(row[column] ?? ''));
    let before = 0;
    for (let column = 0; column < last; column += 1) {
      before += Math.max(...cells(column).map((cell) => cell.length)) + GAP.length;
    }
    const room = width - before;
    const widest = Math.max(0, ...cells(last).map((cell) => cell.length));
    const word = Math.max(0, ...cells(last).flatMap((cell) => cell.split(' ').map(({ length }) => length)));
    if (widest <= room || (last > 0 && word <= room)) {
      this.#table(head, rows, last, widest <= room ? undefined : room);
      return;
    }
    if (head.length < 3) {
      this.#table(head, rows, last, undefined);
      return;
    }
    for (const [first = '', ...others] of rows) {
      this.line(first);
      this.table(
        [],
        others.map((cell, index) => [`${GAP}${this.colors.bold(head[index + 1] ?? '')}`, cell]),
      );
    }
  }

  /** @param room how wide the last column may be */
  #table(
    head: readonly string[],
    rows: readonly (readonly string[])[],
    last: number,
    room: number | undefined,
  ): void {
    const none = [
      'top',
      'top-mid',
      'top-left',
      'top-right',
      'bottom',
      'bottom-mid',
      'bottom-left',
      'bottom-right',
    ];
    const more = ['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'];
    const chars = Object.fromEntries([...none, ...more].map((name) => [name, '']));
    const table = new Table({
      chars: { ...chars, middle: GAP },
      style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
      ...(room !== undefined && { colWidths: [...new Array<null>(last).fill(null), room], wordWrap: true }),
    });
    if (head.length > 0) table.push(head.map((title) => this.colors.bold(title)));
    table.push(...rows.map((row) => [...row]));
    for (const line of table.toString().split('\n')) this.line(line.trimEnd());
  }

  /** Writes bytes as they are. Waits if their reader is slow. */
  async bytes(bytes: Uint8Array): Promise<void> {
    const { stdout, signal } = this.#host;
    if (!stdout.write(bytes)) await once(stdout, 'drain', { signal });
  }

  /** Waits until a slow reader has read most of the output. */
  async settle(): Promise<void> {
    const { stdout, signal } = this.#host;
    if (stdout.writableNeedDrain) await once(stdout, 'drain', { signal });
  }
}
