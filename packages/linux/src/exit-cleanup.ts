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

/** How many listeners of a kind each signal has; all copies of a module in a process share it. */
interface Listeners {
  count: number;
}

/** Of this module, which may be in a process twice: two versions of the package, say. */
const COPIES = Symbol.for('@virtio/linux exit-cleanup');

/**
 * The listeners that leave a signal to others, as this one does: those of this module, and of the package `signal-exit`, which much
 * of npm stands on. If each waited for the other, the signal would end nothing.
 *
 * @returns how many, and the counter of this module's
 */
function yielding(): { readonly all: number; readonly copies: Listeners } {
  const shared = globalThis as unknown as Record<symbol, Partial<Listeners> | undefined>;
  const copies = (shared[COPIES] ??= { count: 0 }) as Listeners;
  const { __signal_exit_emitter__: old } = process as { __signal_exit_emitter__?: Partial<Listeners> };
  const others = (shared[Symbol.for('signal-exit emitter')]?.count ?? 0) + (old?.count ?? 0);
  return { all: copies.count + others, copies };
}

/** A signal without another handler would end the process without an 'exit' event. */
function onSignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > yielding().all) return;
  closeAll();
  unlisten();
  process.kill(process.pid, signal);
}

function unlisten(): void {
  yielding().copies.count -= 1;
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
    yielding().copies.count += 1;
    process.on('exit', closeAll);
    for (const signal of SIGNALS) process.on(signal, onSignal);
  }
  open.add(resource);
  return () => {
    if (open.delete(resource) && open.size === 0) unlisten();
  };
}
