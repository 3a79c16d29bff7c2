/** Runs one program in a worker, which the page ends if the program does not. */
import { runProgram } from '../src/run-program.ts';
import type { Report, Run } from './messages.ts';

/** Lines of the trace go to the page together, as a program may cause thousands. */
const LINES_AT_ONCE = 50;

let lines: (readonly [string, string])[] = [];
const tell = (report: Report): void => self.postMessage(report);
function flush(): void {
  if (lines.length > 0) tell({ kind: 'trace', lines });
  lines = [];
}

self.addEventListener('message', ({ data }: MessageEvent<Run>) => {
  const began = performance.now();
  void runProgram(data.program, {
    print: (level, text) => {
      flush();
      tell({ kind: 'print', level, text });
    },
    trace: (line, kind) => {
      lines.push([line, kind]);
      if (lines.length >= LINES_AT_ONCE) flush();
    },
  }).then((result) => {
    flush();
    const ms = performance.now() - began;
    tell({ kind: 'end', ms, ...('error' in result ? { error: String(result.error) } : {}) });
  });
});
