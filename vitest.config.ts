import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    passWithNoTests: false,
    // A process for each file: an engine that a test opened cannot reach another file's tests.
    pool: 'forks',
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
