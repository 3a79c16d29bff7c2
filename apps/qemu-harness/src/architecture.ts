/** The processors of guests. */
export const ARCHITECTURES = ['x86_64', 'aarch64', 'riscv64'] as const;

/** The processor of a guest. */
export type Architecture = (typeof ARCHITECTURES)[number];
