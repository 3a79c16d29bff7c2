/** Follows every link of the manual as built: to a page, to a place in it, to a file. Addresses elsewhere are not asked for. */
import fs from 'node:fs';
import path from 'node:path';
import { errorCodes } from './guides.ts';
import { root } from './workspace.ts';

interface Page {
  readonly links: readonly string[];
  readonly anchors: ReadonlySet<string>;
}

/** The links of a page, and the places that others can link to. */
export function readPage(html: string): Page {
  const plain = (text: string): string => text.replaceAll('&amp;', '&').replaceAll('&quot;', '"');
  const links = [...html.matchAll(/<(?:a|link|img|script)\b[^>]*?\s(?:href|src)="([^"]*)"/g)];
  const anchors = [...html.matchAll(/\s(?:id|name)="([^"]*)"/g)];
  return {
    links: links.map(([, link = '']) => plain(link)),
    anchors: new Set(anchors.map(([, anchor = '']) => plain(anchor))),
  };
}

/** The links of the pages of `folder` that lead nowhere, as `page: link`. */
export function brokenLinks(folder: string): { pages: number; links: number; broken: string[] } {
  const files = fs.globSync('**/*.html', { cwd: folder });
  const pages = new Map(
    files.map((file) => [file, readPage(fs.readFileSync(path.join(folder, file), 'utf8'))]),
  );
  const broken: string[] = [];
  let links = 0;
  for (const [file, page] of pages) {
    for (const link of page.links) {
      if (/^[a-z][a-z+.-]*:/i.test(link)) continue;
      links += 1;
      const [where = '', anchor = ''] = link.split('#');
      const bare = decodeURIComponent(where.replace(/\?.*$/, ''));
      const target = bare === '' ? file : path.join(path.dirname(file), bare);
      const known = pages.get(target);
      const there = known !== undefined || (target !== '' && fs.existsSync(path.join(folder, target)));
      if (
        !there ||
        (known !== undefined && anchor !== '' && !known.anchors.has(decodeURIComponent(anchor)))
      ) {
        broken.push(`${file}: ${link}`);
      }
    }
  }
  return { pages: pages.size, links, broken };
}

if (import.meta.main) {
  const folder = path.join(root, 'docs/reference');
  const { pages, links, broken } = brokenLinks(folder);
  // `VirtioError.help` of each code.
  const errors = readPage(fs.readFileSync(path.join(folder, 'documents/Errors.html'), 'utf8'));
  for (const code of errorCodes()) {
    if (!errors.anchors.has(code.toLowerCase())) broken.push(`VirtioError.help of ${code}`);
  }
  for (const link of broken.slice(0, 50)) console.error(link);
  console.log(`${pages} pages, ${links} links, ${broken.length} of them broken`);
  if (broken.length > 0 || links === 0) process.exitCode = 1;
}
