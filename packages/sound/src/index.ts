/**
 * The driver of VirtIO sound devices.
 *
 * @packageDocumentation
 */
export * from './formats.ts';
export * from './pcm-state.ts';
export * from './protocol.ts';
export * from './samples.ts';
