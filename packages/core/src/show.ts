/** Values in messages: `"7"` and `7n` must not look like numbers. */

/** A value as it would be written in source code. */
export function show(value: unknown): string {
  switch (typeof value) {
    case 'number':
    case 'boolean':
      return String(value);
    case 'bigint':
      return `${value}n, a bigint`;
    case 'string':
      return JSON.stringify(value.slice(0, 32));
    default:
      return describe(value);
  }
}

/** The type of a value, in words. */
export function describe(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (typeof value !== 'object') return `a ${typeof value}`;
  return `an object of type ${Object.prototype.toString.call(value).slice('[object '.length, -1)}`;
}
