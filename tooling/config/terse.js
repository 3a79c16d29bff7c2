/**
 * What the builds do to the sources. In all of them a program need not keep tables that it does not use. The build without texts is for programs
 * that must be small: what is said in `new VirtioError(code, text)` is left out, so that a message is the code and where to read of it.
 * Packages that export the condition `virtio-terse` get it as a second file beside the first.
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
 * Source code whose tables are marked as free of effects, so that programs need not keep those that they do not use.
 *
 * @param {string} source
 */
const withPureTables = (source) =>
  source.replace(/^((?:export )?const .* = )(?=new (?:Layout|FeatureTable)\b)/gm, '$1/* @__PURE__ */ ');

/**
 * A plugin for esbuild that changes the sources of the packages.
 *
 * @param {string} name
 * @param {(source: string) => string} change
 * @returns {import('esbuild').Plugin}
 */
const changing = (name, change) => ({
  name,
  setup(build) {
    build.onLoad({ filter: /[\\/]packages[\\/][^\\/]+[\\/]src[\\/].*\.ts$/ }, ({ path }) => ({
      contents: change(fs.readFileSync(path, 'utf8')),
      loader: 'ts',
    }));
  },
});

/** What every build does. */
export const pureTables = changing('pure-tables', withPureTables);

/** The build without texts. */
export const terse = changing('terse', (source) => withPureTables(withoutTexts(source)));
