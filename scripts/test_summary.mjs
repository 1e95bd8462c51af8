// Prints "N passed, N failed" from vitest's JSON report and exits with 1 when anything failed.
// Usage: node scripts/test_summary.mjs REPORT LINT_STATUS VITEST_STATUS
import { readFileSync } from 'node:fs';

const [path, lintStatus, vitestStatus] = process.argv.slice(2);

/** Counts of vitest's report; an empty one was never written, because vitest itself did not run. */
function countTests(text) {
  if (text === '') return { passed: 0, failed: 1, skipped: 0 };
  const report = JSON.parse(text);
  // A file that cannot be loaded has failed, though it holds no failed test.
  const broken = report.testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
  );
  return {
    passed: report.numPassedTests,
    // Errors outside any test, such as an unhandled rejection, show in vitest's exit status alone.
    failed: Math.max(report.numFailedTests + broken.length, vitestStatus === '0' ? 0 : 1),
    skipped: report.numPendingTests + report.numTodoTests,
  };
}

const tests = countTests(readFileSync(path, 'utf8'));
const lintPassed = lintStatus === '0' ? 1 : 0;
const failed = tests.failed + 1 - lintPassed;
if (tests.skipped > 0) console.log(`${tests.skipped} skipped`);
console.log(`${tests.passed + lintPassed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
