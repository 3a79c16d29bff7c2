import type { Options, defineConfig } from 'tsup';

type Config = ReturnType<typeof defineConfig>;

export declare function library(overrides?: Options): Config;
declare const config: Config;
export default config;
