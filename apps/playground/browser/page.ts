/** The page: the examples, an editor for each file of a program, its output, and the trace of its devices. */
import { javascript } from '@codemirror/lang-javascript';
import { syntaxHighlighting } from '@codemirror/language';
import { classHighlighter } from '@lezer/highlight';
import { basicSetup, EditorView } from 'codemirror';
import type { Program } from '../src/run-program.ts';
import type { Report, Run } from './messages.ts';

/** The bundler puts these here. */
declare const EXAMPLES: readonly { readonly title: string; readonly files: Program }[];
declare const WORKER: string;

/** More lines than these slow the page down and are read by nobody. */
const MOST_LINES = 5000;

function element<T extends Element>(selector: string, type: new () => T): T {
  const found = document.querySelector(selector);
  if (!(found instanceof type)) throw new Error(`the page has no ${selector}`);
  return found;
}

const choice = element('#example', HTMLSelectElement);
const tabs = element('#tabs', HTMLDivElement);
const editors = element('#editors', HTMLDivElement);
const run = element('#run', HTMLButtonElement);
const stop = element('#stop', HTMLButtonElement);
const output = element('#output', HTMLPreElement);
const trace = element('#trace', HTMLPreElement);
const registers = element('#registers', HTMLInputElement);
const state = element('#state', HTMLSpanElement);

/** The colours are in the style sheet, which knows light from dark. */
const LOOK = [
  syntaxHighlighting(classHighlighter),
  EditorView.theme({}, { dark: matchMedia('(prefers-color-scheme: dark)').matches }),
];
let views: { readonly name: string; readonly view: EditorView; readonly tab: HTMLButtonElement }[] = [];
let worker: Worker | undefined;

function show(name: string): void {
  for (const one of views) {
    one.view.dom.hidden = one.name !== name;
    one.tab.setAttribute('aria-selected', String(one.name === name));
    one.tab.tabIndex = one.name === name ? 0 : -1;
  }
}

function open(files: Program): void {
  for (const { view } of views) view.destroy();
  tabs.replaceChildren();
  views = files.map(([name, doc]) => {
    const view = new EditorView({
      doc,
      parent: editors,
      extensions: [
        basicSetup,
        javascript({ typescript: true }),
        EditorView.contentAttributes.of({ 'aria-label': `Text of ${name}` }),
        LOOK,
      ],
    });
    // So that it can be scrolled by the keyboard.
    view.scrollDOM.tabIndex = 0;
    const tab = document.createElement('button');
    tab.type = 'button';
    tab.role = 'tab';
    tab.textContent = name;
    tab.addEventListener('click', () => show(name));
    tabs.append(tab);
    return { name, view, tab };
  });
  const [first] = files;
  if (first !== undefined) show(first[0]);
}

function add(list: HTMLPreElement, text: string, kind: string): void {
  if (list.childElementCount >= MOST_LINES) return;
  const line = document.createElement('span');
  line.className = kind;
  line.textContent = list.childElementCount === MOST_LINES - 1 ? '… and more\n' : `${text}\n`;
  list.append(line);
}

function end(text: string): void {
  worker?.terminate();
  worker = undefined;
  run.disabled = false;
  stop.disabled = true;
  state.textContent = text;
}

function take(report: Report): void {
  switch (report.kind) {
    case 'print':
      add(output, report.text, report.level);
      break;
    case 'trace':
      for (const [line, kind] of report.lines) add(trace, line, kind);
      trace.scrollTop = trace.scrollHeight;
      break;
    case 'end':
      if (report.error !== undefined) add(output, report.error, 'error');
      end(`${report.error === undefined ? 'Done' : 'Failed'} after ${report.ms.toFixed(0)} ms`);
      break;
  }
}

run.addEventListener('click', () => {
  output.replaceChildren();
  trace.replaceChildren();
  run.disabled = true;
  stop.disabled = false;
  state.textContent = 'Running';
  const url = URL.createObjectURL(new Blob([WORKER], { type: 'text/javascript' }));
  worker = new Worker(url);
  URL.revokeObjectURL(url);
  worker.addEventListener('message', ({ data }: MessageEvent<Report>) => take(data));
  worker.addEventListener('error', ({ message }) => {
    add(output, message, 'error');
    end('Failed');
  });
  const program = views.map(({ name, view }) => [name, view.state.doc.toString()] as const);
  worker.postMessage({ program } satisfies Run);
});
stop.addEventListener('click', () => end('Stopped'));
registers.addEventListener('change', () => trace.classList.toggle('without-registers', !registers.checked));
choice.addEventListener('change', () => open(EXAMPLES[choice.selectedIndex]?.files ?? []));
choice.append(...EXAMPLES.map(({ title }) => new Option(title)));
open(EXAMPLES[0]?.files ?? []);
