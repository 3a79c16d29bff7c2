/** A module of QuickJS's own, in the part that the runner of unit tests uses. */
declare module 'std' {
  interface OpenFile {
    puts(text: string): void;
    flush(): void;
    readAsString(): string;
    close(): void;
  }

  /** `null` if it cannot be opened. */
  export function open(path: string, mode: 'r'): OpenFile | null;
  /** The standard output. */
  export const out: OpenFile;
}
