#!/usr/bin/env bash
# Set-up, lint and all tests; on a fresh checkout nothing has to be done before. Arguments go to vitest.
# The last line is "N passed, N failed"; lint counts as one test. The exit status is 0 only when nothing failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! bash scripts/setup.sh; then
  echo "0 passed, 1 failed"
  exit 1
fi

npm run --silent lint < /dev/null
lint_status=$?
[ "$lint_status" -eq 0 ] && echo "lint: passed" || echo "lint: FAILED"

results=$(mktemp)
trap 'rm -f "$results"' EXIT
npx --no-install vitest run --reporter=default --reporter=json --outputFile.json="$results" "$@" < /dev/null
node scripts/test_summary.mjs "$results" "$lint_status" "$?"
