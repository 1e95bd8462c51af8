#!/usr/bin/env bash
# Makes a fresh checkout ready to run: checks Node.js, installs the npm packages, builds TypeScript into dist/ and the
# native engine into build/.
# Safe to run again: a step whose inputs have not changed is skipped. Needs node (>= 20.19) and npm, no terminal.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "setup: $*"; }

fail() {
  echo "setup: $*" >&2
  exit 1
}

# hash_of PATH...: one hash over the names and contents of the files.
hash_of() { find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1; }

# up_to_date FILE HASH: whether the last run of a step left this hash behind.
up_to_date() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ]; }

command -v node > /dev/null || fail "node is not installed; install Node.js 20.19 or newer (https://nodejs.org)"
command -v npm > /dev/null || fail "npm is not installed; it comes with Node.js (https://nodejs.org)"
node_version=$(node --version)
node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
  process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)' ||
  fail "node $node_version is too old; install Node.js 20.19 or newer"

# 1. Packages. The stamps lie inside what they vouch for, so that deleting the folder deletes them too.
packages=$(hash_of package.json package-lock.json)
if up_to_date node_modules/.setup-hash "$packages"; then
  say "packages are up to date"
else
  say "installing the packages of package-lock.json into node_modules/ (npm ci)"
  npm ci --include=dev --no-fund --no-audit < /dev/null || fail "npm ci failed; its message is above"
  echo "$packages" > node_modules/.setup-hash
fi

# 2. TypeScript. dist/ is emptied first, so that nothing of a deleted source file stays.
sources=$(hash_of src tsconfig.json tsconfig.build.json tsconfig.page.json package-lock.json)
if up_to_date dist/.setup-hash "$sources"; then
  say "dist/ is up to date"
else
  say "building TypeScript into dist/ (npm run build)"
  rm -rf dist
  npm run --silent build < /dev/null || fail "the build failed; the compiler's messages are above"
  echo "$sources" > dist/.setup-hash
fi

# 3. The native engine. Without a compiler the project works all the same, but slowly.
native_status=0
bash scripts/build_native.sh || native_status=$?
case $native_status in
  0) ;;
  3) say "going on without the native engine: training uses WebAssembly, which takes 10 to 15 times as long" ;;
  *) fail "the native engine did not build; the compiler's messages are above" ;;
esac

say "ready (node $node_version)"
