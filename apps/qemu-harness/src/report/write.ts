/** Writes the report's files. */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Report } from '../framework/results.ts';
import { REPORT_DIR } from '../paths.ts';
import { formatHtml } from './html.ts';

/** Writes `report.json` and `report.html`, and the JSON once more where `extra` says. Returns the HTML file's path. */
export function writeReport(report: Report, extra?: string): string {
  mkdirSync(REPORT_DIR, { recursive: true });
  const json = `${JSON.stringify(report, null, 2)}\n`;
  const html = join(REPORT_DIR, 'report.html');
  replace(join(REPORT_DIR, 'report.json'), json);
  replace(html, formatHtml(report));
  if (extra !== undefined) replace(extra, json);
  return html;
}

// A report is whole or the old one.
function replace(path: string, text: string): void {
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, text);
  renameSync(temporary, path);
}
