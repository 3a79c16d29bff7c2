/**
 * Tells the places in the sources that places in a bundle come from, for what a guest says of a failure. Node.js can do so by itself, but would
 * read the source map whenever it starts.
 */
import { SourceMap, type SourceMapPayload } from 'node:module';
import { relative, resolve } from 'node:path';

/** Replaces the places of a bundle in a text by those of its sources. */
export type Origins = (text: string) => string;

/**
 * @param file the bundle's path in the guest
 * @param json its source map
 * @param directory the folder that the sources in it are relative to, and those in the text shall be
 */
export function originsOf(file: string, json: string, directory: string): Origins {
  const map = new SourceMap(JSON.parse(json) as SourceMapPayload);
  return (text) =>
    text.replace(
      /(?:file:\/\/)?(\/[^\s():]+):(\d+):(\d+)/g,
      (found, path: string, line: string, column: string) => {
        if (path !== file) return found;
        const origin = map.findOrigin(Number(line), Number(column));
        if (!('fileName' in origin)) return found;
        return `${relative(directory, resolve(directory, origin.fileName))}:${origin.lineNumber}:${origin.columnNumber}`;
      },
    );
}
