/** How help looks on narrow terminals. */
import { type Command, Help, type HelpConfiguration } from 'commander';

/** The least width of a column of help, in characters; where there is less, texts stand below what they explain. */
const LEAST_WIDTH = 20;

/** An argument, an option or a command, and what it is for. */
function formatItem(this: Help, term: string, termWidth: number, description: string, helper: Help): string {
  const width = helper.helpWidth ?? 80;
  if (description === '' || width - termWidth - 4 >= 2 * LEAST_WIDTH) {
    return Help.prototype.formatItem.call(this, term, termWidth, description, helper);
  }
  const text = helper.boxWrap(description, width - 6);
  return `  ${term}\n${text.replace(/^/gm, '      ')}`;
}

/** For `configureHelp`. */
export const HELP: HelpConfiguration = { minWidthToWrap: LEAST_WIDTH, formatItem };

/** A remark below the help of a command, as wide as that. */
export function remark(command: Command, text: string): string {
  const helper = command.createHelp();
  return `\n${helper.boxWrap(text, command.configureOutput().getOutHelpWidth?.() ?? 80)}`;
}
