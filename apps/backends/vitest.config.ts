// The suites against back ends of others: `npm run backends`. They are not unit tests, as they need the packages of the back ends.
import { defaultServerConditions } from 'vite';
import { defineConfig } from 'vitest/config';

const conditions = ['@virtio/source', ...defaultServerConditions];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    name: 'back ends',
    root: import.meta.dirname,
    include: ['suites/**/*.test.ts'],
    globalSetup: ['src/setup.ts'],
    environment: 'node',
    // One after the other: back ends and drivers poll, and each suite wants a processor of its own.
    fileParallelism: false,
    // Only for what hangs: a busy machine takes its time.
    testTimeout: 300_000,
  },
});
