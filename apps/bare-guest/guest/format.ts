/** Formats values as text, much like `console.log` of other engines. */

const MAX_DEPTH = 4;
const MAX_ITEMS = 100;

/** A string as it is, anything else as a person would write it. */
export function format(value: unknown): string {
  return typeof value === 'string' ? value : describe(value, 0);
}

function describe(value: unknown, depth: number): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return `[Function ${value.name}]`;
  if (typeof value === 'symbol') return value.toString();
  if (typeof value !== 'object' || value === null) return String(value);
  if (value instanceof Error) return describeError(value, depth);
  if (depth >= MAX_DEPTH) return '…';
  const list = Array.isArray(value)
    ? (value as readonly unknown[])
    : ArrayBuffer.isView(value) && Symbol.iterator in value
      ? [...(value as Uint8Array)]
      : undefined;
  const name = (value.constructor as { name?: string } | undefined)?.name ?? '';
  if (list !== undefined) {
    const items = list.slice(0, MAX_ITEMS).map((item) => describe(item, depth + 1));
    if (list.length > MAX_ITEMS) items.push(`… ${list.length - MAX_ITEMS} more`);
    return `${name === 'Array' ? '' : `${name} `}[${items.join(', ')}]`;
  }
  const entries = value instanceof Map ? [...value] : Object.entries(value);
  const items = entries.map(([key, item]) => `${String(key)}: ${describe(item, depth + 1)}`);
  return `${name === 'Object' || name === '' ? '' : `${name} `}{ ${items.join(', ')} }`;
}

function describeError(error: Error, depth: number): string {
  const code = 'code' in error && typeof error.code === 'string' ? ` [${error.code}]` : '';
  const cause = error.cause === undefined ? '' : `\ncaused by ${describe(error.cause, depth + 1)}`;
  return `${error.name}: ${error.message}${code}\n${(error.stack ?? '').trimEnd()}${cause}`;
}
