/** Splits a line into words as a POSIX shell does with quotes and backslashes, without expanding anything. */
import { HarnessError } from '../errors.ts';

/**
 * Splits `text` into words.
 *
 * @throws {@link HarnessError} `BAD_ARGUMENTS` if a quote is not closed
 */
export function splitArgs(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: '"' | "'" | undefined;
  for (let index = 0; index < text.length; index++) {
    const character = text.charAt(index);
    if (quote === "'") {
      if (character === "'") quote = undefined;
      else word = (word ?? '') + character;
    } else if (character === '\\') {
      const next = text.charAt(index + 1);
      index++;
      // Within double quotes a backslash only escapes what would be special there [POSIX shell, 2.2.3].
      const literal = quote === '"' && !'"\\$`\n'.includes(next);
      if (next === '' && quote === undefined) throw unclosed(text, 'ends with a backslash');
      word = (word ?? '') + (next === '\n' ? '' : literal ? `\\${next}` : next);
    } else if (quote === '"') {
      if (character === '"') quote = undefined;
      else word = (word ?? '') + character;
    } else if (character === '"' || character === "'") {
      quote = character;
      word ??= '';
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? '') + character;
    }
  }
  if (quote !== undefined) throw unclosed(text, `has a ${quote} that is not closed`);
  if (word !== undefined) words.push(word);
  return words;
}

function unclosed(text: string, what: string): HarnessError {
  return new HarnessError(
    'BAD_ARGUMENTS',
    `The arguments for QEMU cannot be split into words: \`${text}\` ${what}.`,
  );
}
