/**
 * The VirtIO network device.
 *
 * @packageDocumentation
 */
export * from './config.ts';
export * from './control.ts';
export * from './features.ts';
export * from './header.ts';
export * from './mac.ts';
export * from './protocol.ts';
export * from './stats.ts';
