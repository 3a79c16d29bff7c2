/**
 * Uses the playground as a reader does, in headless Chromium (`npm run docs:look`): runs each example, changes one, stops one that does
 * not end. axe must find no fault, and nothing may be wider than the screen.
 */
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Browser, Page } from 'playwright-core';

interface Violation {
  readonly id: string;
  readonly help: string;
  readonly nodes: readonly { readonly target: readonly unknown[] }[];
}

const SIZES = { wide: { width: 1280, height: 800 }, phone: { width: 390, height: 844 } } as const;
/** What each example prints last. */
const LAST = {
  Console: 'the user sees: Hello Ada!',
  'Shared folder': 'names: from-host.txt, from-guest.txt',
  'The balloon of the tutorial': 'and now 100',
} as const;

/** Presses Run and waits for the end. */
async function runToEnd(page: Page): Promise<{ state: string; printed: string; traced: string }> {
  await page.locator('#run').click();
  await page.locator('#state', { hasText: /Done|Failed/ }).waitFor({ timeout: 30_000 });
  return {
    state: await page.locator('#state').innerText(),
    printed: (await page.locator('#output').innerText()).trim(),
    traced: await page.locator('#trace').innerText(),
  };
}

/** Looks at the playground in `site`, a folder; `axe` is the script of axe-core. Returns what is wrong. */
export async function lookAtPlayground(
  browser: Browser,
  site: string,
  axe: string,
  shots: string,
): Promise<string[]> {
  const problems: string[] = [];
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ['light', 'dark'] as const) {
      const what = `playground, ${size}, ${colorScheme}`;
      const context = await browser.newContext({ viewport, colorScheme });
      const page = await context.newPage();
      page.on('pageerror', ({ message }) => problems.push(`${what}: ${message}`));
      await page.goto(pathToFileURL(path.join(site, 'index.html')).href);
      for (const [title, last] of Object.entries(LAST)) {
        await page.locator('#example').selectOption(title);
        const { state, printed, traced } = await runToEnd(page);
        if (!state.startsWith('Done') || !printed.endsWith(last)) {
          problems.push(`${what}: ${title}: ${state}, and it printed "${printed}"`);
        }
        const editors = await page.locator('.cm-editor:visible').count();
        if (editors !== 1) problems.push(`${what}: ${title}: ${editors} editors at once`);
        if (!/queue \d+: published/.test(traced)) problems.push(`${what}: ${title}: no chain in the trace`);
      }
      const wider = await page.evaluate('document.documentElement.scrollWidth - innerWidth');
      if (Number(wider) > 0) problems.push(`${what}: ${String(wider)} pixels wider than the screen`);
      await page.evaluate(axe);
      const violations = await page.evaluate<Violation[]>('axe.run().then((result) => result.violations)');
      for (const { id, help, nodes } of violations) {
        const where = nodes.slice(0, 3).map(({ target }) => target.join(' '));
        problems.push(`${what}: ${id}: ${help} (${nodes.length}: ${where.join('; ')})`);
      }
      await page.screenshot({ path: path.join(shots, `playground-${size}-${colorScheme}.png`) });
      if (size === 'wide' && colorScheme === 'light') problems.push(...(await change(page)));
      await context.close();
    }
  }
  return problems;
}

/** Writes programs of its own: one that throws, and one that does not end. */
async function change(page: Page): Promise<string[]> {
  const problems: string[] = [];
  const write = async (text: string): Promise<void> => {
    await page.locator('#example').selectOption('Console');
    await page.locator('.cm-content').first().fill(text);
  };
  await write('console.log("mine", 6 * 7); throw new Error("on purpose");');
  const { state, printed } = await runToEnd(page);
  if (!state.startsWith('Failed') || printed !== 'mine 42\nError: on purpose') {
    problems.push(`playground: a program that throws: ${state}, and it printed "${printed}"`);
  }
  await write('for (;;);');
  await page.locator('#run').click();
  await page.locator('#stop').click();
  if ((await page.locator('#state').innerText()) !== 'Stopped') {
    problems.push('playground: it does not stop a program that does not end');
  }
  return problems;
}
