#!/usr/bin/env bash
# Builds the native engine and the kernels for GPUs on an emulated device with a sanitizer and runs the tests of all kernels
# on them; anything that it reports fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat << 'TEXT'
usage: scripts/sanitize.sh [address|undefined|thread|cuda|all]

  address    reads and writes outside of arrays, use after free
  undefined  overflow, misaligned access, shifts, null
  thread     data races between the threads of the engine
  cuda       address and undefined for the kernels for GPUs only, on the emulated device
  all        address and undefined for all kernels (the default)

Needs GCC with its sanitizers and an installed checkout (scripts/setup.sh). One line a sanitizer and engine; the logs are
build/sanitize-NAME/ENGINE.log.

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

# build NAME: builds with one sanitizer.
build() {
  MEMORY3_BUILD=build/sanitize-$1 bash scripts/build_native.sh "-DMEMORY3_SANITIZE=$1" > /dev/null || {
    echo "sanitize: $1: the build failed, see build/sanitize-$1/build.log" >&2
    return 1
  }
}

# check NAME ENGINE ARGUMENT...: tests what was built; the arguments choose the tests.
check() {
  local name=$1 engine=$2 folder=build/sanitize-$1
  local log=$folder/$engine.log report=$folder/report-$engine
  shift 2
  rm -f "$report"*
  # Leaks of node itself are none of ours; a process that a report ends fails its test file. Node installs its own
  # handler of SIGSEGV for WebAssembly.
  if MEMORY3_ADDON=$PWD/$folder/memory3_native.node MEMORY3_TEST_CUDA=$PWD/$folder/memory3_cuda_emulated.node \
    LD_PRELOAD=$(runtime_of "$name") \
    ASAN_OPTIONS=detect_leaks=0:handle_segv=0:log_path=$PWD/$report \
    UBSAN_OPTIONS=print_stacktrace=1:log_path=$PWD/$report \
    TSAN_OPTIONS=report_bugs=1:history_size=4:log_path=$PWD/$report \
    npx --no-install vitest run --testTimeout=300000 --hookTimeout=300000 "$@" > "$log" 2>&1 < /dev/null &&
    ! compgen -G "$report*" > /dev/null; then
    echo "sanitize: $name: $engine: passed ($(grep -oE '[0-9]+ passed' "$log" | tail -1))"
  else
    echo "sanitize: $name: $engine: FAILED; see $log and $report.*" >&2
    return 1
  fi
}

# check_native NAME, check_cuda NAME: the tests of one engine.
check_native() {
  check "$1" native -t native test/native test/ops test/model test/optim test/memory/sparse_index.test.ts \
    test/memory/bank.test.ts
}
check_cuda() { check "$1" cuda test/cuda; }

names=(address undefined)
engines=(native cuda)
case ${1:-all} in
  address | undefined) names=("$1") ;;
  thread) names=(thread) engines=(native) ;;
  cuda) engines=(cuda) ;;
  all) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
status=0
for name in "${names[@]}"; do
  build "$name" || { status=1; continue; }
  for engine in "${engines[@]}"; do "check_$engine" "$name" || status=1; done
done
exit $status
