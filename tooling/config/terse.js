/**
 * The build without texts, for programs that must be small: what is said in `new VirtioError(code, text)` is left out, so that a message is the
 * code and where to read of it. Packages that export the condition `virtio-terse` get it as a second file beside the first.
 */
import fs from 'node:fs';
import ts from 'typescript';

/**
 * Source code without the texts of errors.
 *
 * @param {string} source
 */
export function withoutTexts(source) {
  const file = ts.createSourceFile('source.ts', source, ts.ScriptTarget.Latest, true, ts.ScriptKind.TS);
  /** @type {[number, number][]} */
  const texts = [];
  /** @param {ts.Node} node */
  const look = (node) => {
    if (
      ts.isNewExpression(node) &&
      ts.isIdentifier(node.expression) &&
      node.expression.text === 'VirtioError'
    ) {
      const text = node.arguments?.[1];
      if (text !== undefined) texts.push([text.getStart(file), text.getEnd()]);
      // What else it is made of may hold errors of its own.
      for (const argument of node.arguments ?? []) if (argument !== text) look(argument);
      return;
    }
    ts.forEachChild(node, look);
  };
  look(file);
  let terse = source;
  for (const [start, end] of texts.reverse()) terse = `${terse.slice(0, start)}''${terse.slice(end)}`;
  return terse;
}

/**
 * A plugin for esbuild.
 *
 * @type {import('esbuild').Plugin}
 */
export const terse = {
  name: 'terse',
  setup(build) {
    build.onLoad({ filter: /[\\/]packages[\\/][^\\/]+[\\/]src[\\/].*\.ts$/ }, ({ path }) => ({
      contents: withoutTexts(fs.readFileSync(path, 'utf8')),
      loader: 'ts',
    }));
  },
};
