/**
 * Closes what is open when the process ends. The kernel closes descriptors and frees memory by itself, but it neither resets a
 * device that uses physical addresses nor gives a device back to its previous driver.
 */
const open = new Set<Disposable>();
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

function closeAll(): void {
  for (const resource of [...open].reverse()) {
    open.delete(resource);
    try {
      resource[Symbol.dispose]();
    } catch (error) {
      process.emitWarning(`a device could not be closed at exit: ${String(error)}`);
    }
  }
}

/** A signal without another handler would end the process without an 'exit' event. */
function onSignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 1) return;
  closeAll();
  unlisten();
  process.kill(process.pid, signal);
}

function unlisten(): void {
  process.off('exit', closeAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

/**
 * Disposes a resource when the process ends by itself, by `process.exit`, an error or a signal without a handler.
 *
 * @returns a function that cancels this
 */
export function disposeAtExit(resource: Disposable): () => void {
  if (open.size === 0) {
    process.on('exit', closeAll);
    for (const signal of SIGNALS) process.on(signal, onSignal);
  }
  open.add(resource);
  return () => {
    if (open.delete(resource) && open.size === 0) unlisten();
  };
}
