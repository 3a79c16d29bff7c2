/**
 * The commands of the control queue as values: each is built and checked here, and sent by `request`, `requestSync` or `submit` of
 * {@link VirtioGpu}. They are for programs with their own renderer; for pictures on a display a `Framebuffer` is easier.
 */
export * from './blob-commands.ts';
export * from './context-commands.ts';
export * from './display-commands.ts';
