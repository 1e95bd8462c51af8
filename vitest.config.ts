import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    passWithNoTests: false,
    // A process for each file: an engine that a test opened cannot reach another file's tests.
    pool: 'forks',
    // Test files run beside each other; those of the commands start processes of their own.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
