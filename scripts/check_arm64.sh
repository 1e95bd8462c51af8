#!/usr/bin/env bash
# Compares the kernels with plain loops in double precision: built for this machine, then built for arm64 (NEON) and run
# there by an emulator. The arm64 addon is built as well, but not loaded. On an arm64 machine the first half is enough.
# Needs cmake, make, an installed checkout (scripts/setup.sh) and, where this machine is not arm64, a cross compiler and an
# emulator of user programs (Debian, Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user).
# Exit status: 0 all agree, 1 something differs or does not build, 3 a tool is missing.
#
# usage: scripts/check_arm64.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -eq 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }

cross=aarch64-linux-gnu
emulator=qemu-aarch64

# need TOOL...: ends the script when one is not there.
need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" > /dev/null && continue
    echo "check_arm64: $tool is missing (Debian, Ubuntu: apt-get install cmake make g++ g++-$cross qemu-user)" >&2
    exit 3
  done
}

# build FOLDER CMAKE_OPTION...: the check and the addon, in build/FOLDER.
build() {
  local folder=build/$1
  mkdir -p "$folder"
  if ! { cmake -S native -B "$folder" "${@:2}" && cmake --build "$folder" --parallel --target memory3_check memory3_native; } \
    > "$folder/build.log" 2>&1 < /dev/null; then
    cat "$folder/build.log" >&2
    echo "check_arm64: the build failed; the messages are above and in $folder/build.log" >&2
    exit 1
  fi
}

need cmake make "${CXX:-c++}"
build check
build/check/memory3_check
[ "$(uname -m)" = aarch64 ] && exit 0
need "$cross-g++" "$emulator"
build check-arm64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 "-DCMAKE_CXX_COMPILER=$cross-g++"
"$emulator" -L "/usr/$cross" build/check-arm64/memory3_check
