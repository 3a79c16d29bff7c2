/**
 * Looks at the manual as readers do: headless Chromium opens pages of each kind, wide and at a phone's width, light and dark. axe must
 * find no fault, nothing may be wider than the screen, and the search must find. Screenshots are in `docs/look`.
 *
 * Words on the command line choose pages: `npm run docs:look -- Errors`.
 *
 * Chromium is the machine's own (`CHROMIUM` names another): Debian's package `chromium`, or the Chrome of a GitHub runner.
 */
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { lookAtPlayground } from '@virtio/playground/look';
import { chromium, type Page } from 'playwright-core';
import { root } from './workspace.ts';

interface Violation {
  readonly id: string;
  readonly help: string;
  readonly nodes: readonly { readonly target: readonly unknown[]; readonly failureSummary?: string }[];
}

const SITE = path.join(root, 'docs/reference');
const SHOTS = path.join(root, 'docs/look');
const PAGES = [
  'index.html',
  'documents/Get_started.html',
  'documents/Choose_a_transport.html',
  'documents/Errors.html',
  'documents/Write_a_driver_for_a_new_device.html',
  'documents/Coming_from_the_Rust_crate.html',
  'documents/Conformance.html',
  'modules/_virtio_blk.html',
  'modules/_virtio_cli.html',
  'classes/_virtio_blk.VirtioBlk.html',
];
const TREE = 'summary[data-key="@virtio';
const SIZES = { wide: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } } as const;

const executable = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'].find(
  (file) => file !== undefined && fs.existsSync(file),
);
if (executable === undefined) {
  console.error('There is no Chromium: apt-get install chromium, or name one in CHROMIUM.');
  process.exit(1);
}
if (!fs.existsSync(path.join(SITE, 'index.html'))) {
  console.error('There is no manual yet: npm run docs');
  process.exit(1);
}
const axe = fs.readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const address = (page: string): string => pathToFileURL(path.join(SITE, page)).href;
const words = process.argv.slice(2);
const pages = PAGES.filter((page) => words.length === 0 || words.some((word) => page.includes(word)));
if (pages.length === 0) {
  console.error(
    `No page has any of these words in its name: ${words.join(', ')}. There are ${PAGES.join(', ')}.`,
  );
  process.exit(2);
}
const problems: string[] = [];

/** What axe looks for: colours once in each scheme, all else once in each width. Colours take it longest. */
function rulesFor(size: string, scheme: 'light' | 'dark'): object | undefined {
  if (scheme === 'dark') return size === 'wide' ? { runOnly: ['color-contrast'] } : undefined;
  return size === 'wide' ? {} : { rules: { 'color-contrast': { enabled: false } } };
}

async function violationsOf(page: Page, rules: object): Promise<Violation[]> {
  await page.evaluate(axe);
  const violations = await page.evaluate<Violation[]>(
    `axe.run(document, ${JSON.stringify({ ...rules, resultTypes: ['violations'] })}).then((result) => result.violations)`,
  );
  // TypeDoc's script builds the tree of packages in the reader's browser, with links in what folds and unfolds: nobody mends that here.
  const isTree = ({ target }: Violation['nodes'][number]): boolean => String(target[0]).startsWith(TREE);
  return violations.filter(({ id, nodes }) => id !== 'nested-interactive' || !nodes.every(isTree));
}

async function search(page: Page): Promise<void> {
  await page.goto(address('index.html'));
  for (const [word, found] of [
    ['readSync', /readSync/],
    ['QUEUE_FULL', /Errors|QUEUE_FULL/],
  ] as const) {
    await page.locator('#tsd-search-trigger').click();
    await page.locator('#tsd-search-input').fill(word);
    try {
      await page.locator('#tsd-search-results li', { hasText: found }).first().waitFor({ timeout: 10_000 });
    } catch {
      problems.push(`the search for ${word} finds nothing`);
    }
    await page.keyboard.press('Escape');
  }
}

fs.rmSync(SHOTS, { recursive: true, force: true });
const browser = await chromium.launch({ executablePath: executable, args: ['--no-sandbox'] });
try {
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ['light', 'dark'] as const) {
      const context = await browser.newContext({ viewport, colorScheme });
      const page = await context.newPage();
      page.on('pageerror', (error) => problems.push(`${size} ${colorScheme}: ${error.message}`));
      for (const name of pages) {
        const what = `${name}, ${size}, ${colorScheme}`;
        await page.goto(address(name));
        await page.waitForLoadState('load');
        // What fades in is looked at when it is there.
        await page.addStyleTag({ content: '*{transition:none!important;animation:none!important}' });
        const wider = await page.evaluate('document.documentElement.scrollWidth - innerWidth');
        if (Number(wider) > 0) problems.push(`${what}: ${String(wider)} pixels wider than the screen`);
        const rules = rulesFor(size, colorScheme);
        const violations = rules === undefined ? [] : await violationsOf(page, rules);
        for (const { id, help, nodes } of violations) {
          const where = nodes.slice(0, 3).map(({ target }) => target.join(' '));
          problems.push(`${what}: ${id}: ${help} (${nodes.length}: ${where.join('; ')})`);
        }
        const shot = `${path.basename(name, '.html')}-${size}-${colorScheme}.png`;
        await page.screenshot({ path: path.join(SHOTS, shot) });
      }
      if (size === 'wide' && colorScheme === 'light') await search(page);
      await context.close();
    }
  }
  problems.push(...(await lookAtPlayground(browser, path.join(SITE, 'playground'), axe, SHOTS)));
} finally {
  await browser.close();
}
for (const problem of problems) console.error(problem);
console.log(`${pages.length * 4} views, ${problems.length} problems; docs/look`);
if (problems.length > 0) process.exitCode = 1;
