#!/usr/bin/env bash
# Builds the native engine with a sanitizer and runs the tests of all kernels on it; anything that it reports fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat << 'TEXT'
usage: scripts/sanitize.sh [address|undefined|thread|all]

  address    reads and writes outside of arrays, use after free
  undefined  overflow, misaligned access, shifts, null
  thread     data races between the threads of the engine
  all        address and undefined (the default)

Needs GCC with its sanitizers and an installed checkout (scripts/setup.sh). One line a sanitizer; the log is in
build/sanitize-NAME/test.log.

examples:
  scripts/sanitize.sh
  scripts/sanitize.sh address
TEXT
}

# runtime_of NAME: the sanitizer's library, which must be loaded before node's own libraries.
runtime_of() {
  local -A libraries=([address]=libasan.so [undefined]=libubsan.so [thread]=libtsan.so)
  "${CXX:-c++}" -print-file-name="${libraries[$1]}"
}

# check NAME: builds and tests with one sanitizer.
check() {
  local name=$1 folder=build/sanitize-$1
  MEMORY3_BUILD=$folder bash scripts/build_native.sh "-DMEMORY3_SANITIZE=$name" > /dev/null || {
    echo "sanitize: $name: the build failed, see $folder/build.log" >&2
    return 1
  }
  # Leaks of node itself are none of ours; a process that a report ends fails its test file. Node installs its own
  # handler of SIGSEGV for WebAssembly.
  if MEMORY3_ADDON=$PWD/$folder/memory3_native.node LD_PRELOAD=$(runtime_of "$name") \
    ASAN_OPTIONS=detect_leaks=0:handle_segv=0:log_path=$PWD/$folder/report \
    UBSAN_OPTIONS=print_stacktrace=1:log_path=$PWD/$folder/report \
    TSAN_OPTIONS=report_bugs=1:history_size=4:log_path=$PWD/$folder/report \
    npx --no-install vitest run --testTimeout=300000 --hookTimeout=300000 -t native test/native test/ops test/model test/optim test/memory/sparse_index.test.ts test/memory/bank.test.ts \
    > "$folder/test.log" 2>&1 < /dev/null && ! compgen -G "$folder/report*" > /dev/null; then
    echo "sanitize: $name: passed ($(grep -oE '[0-9]+ passed' "$folder/test.log" | tail -1))"
  else
    echo "sanitize: $name: FAILED; see $folder/test.log and $folder/report.*" >&2
    return 1
  fi
}

case ${1:-all} in
  address | undefined | thread) names=("$1") ;;
  all) names=(address undefined) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
status=0
for name in "${names[@]}"; do
  rm -f build/sanitize-"$name"/report*
  check "$name" || status=1
done
exit $status
