/**
 * The commands of the control queue as values: each is built and checked here, and sent by `request`, `requestSync` or `submit` of
 * {@link VirtioGpu}. They are for those who bring their own renderer; pictures on a display are easier with a `Framebuffer`.
 */
export * from './blob-commands.ts';
export * from './context-commands.ts';
export * from './display-commands.ts';
