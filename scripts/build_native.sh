#!/usr/bin/env bash
# Builds the native engine: build/native/memory3_native.node from native/; the kernels for GPUs, memory3_cuda.node, where
# nvcc 12 or newer is; and the same kernels on an emulated device for tests, memory3_cuda_emulated.node. Quiet unless
# something fails; safe to run again: nothing happens when the sources have not changed. Needs cmake, a C++17 compiler and
# node_modules/. Faiss (Debian: libfaiss-dev) is taken in when it is there; without it retrieval compares a query with every
# memory.
# Exit status: 0 built or up to date, 3 a tool or library is missing (the other engines work without), 1 the build failed.
# Arguments go to cmake, such as -DMEMORY3_CBLAS=openblas. MEMORY3_BUILD names another folder than build/native.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "build_native: $*"; }

folder=${MEMORY3_BUILD:-build/native}
target=$folder/memory3_native.node
stamp=$folder/.hash
log=$folder/build.log

# missing: the Debian packages that are needed and not there.
missing() {
  local -a packages=()
  command -v cmake > /dev/null || packages+=(cmake)
  command -v "${CXX:-c++}" > /dev/null || packages+=(g++)
  command -v make > /dev/null || packages+=(make)
  echo "${packages[*]}"
}

# faiss_config: the file by which cmake finds Faiss, or nothing.
faiss_config() {
  local file
  for file in /usr/lib/*/cmake/faiss/faiss-config.cmake /usr/lib/cmake/faiss/faiss-config.cmake \
    /usr/local/{lib,share}*/cmake/faiss/faiss-config.cmake; do
    if [ -f "$file" ]; then echo "$file"; fi
  done
}

# wants_faiss ARGUMENT...: builds with a sanitizer are without Faiss, which has none.
wants_faiss() { [[ " $* " != *" -DMEMORY3_FAISS=OFF "* && " $* " != *" -DMEMORY3_SANITIZE="* ]]; }

# install PACKAGE...: with apt-get, where this is possible.
install() {
  if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then return; fi
  say "installing $* (apt-get)"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" > /dev/null 2>&1 < /dev/null ||
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
      > /dev/null 2>&1 < /dev/null || true
}

packages=$(missing)
if [ -n "$packages" ]; then
  # shellcheck disable=SC2086
  install $packages
  packages=$(missing)
fi
if [ -n "$packages" ]; then
  say "the native engine is not built, these are missing: $packages" >&2
  say "install them (Debian, Ubuntu: apt-get install $packages) and run scripts/build_native.sh again" >&2
  exit 3
fi
if [ ! -f node_modules/node-addon-api/napi.h ] || [ ! -d node_modules/node-api-headers/include ]; then
  say "node_modules/ is missing or old; run scripts/setup.sh (or npm ci) first" >&2
  exit 3
fi

# Faiss multiplies with BLAS; of Debian's the reference implementation would be taken, which is many times slower.
if wants_faiss "$@" && [ -z "$(faiss_config)" ]; then
  install libfaiss-dev libopenblas-openmp-dev
  if [ -z "$(faiss_config)" ]; then
    say "building without Faiss, which is not here (Debian, Ubuntu: apt-get install libfaiss-dev libopenblas-openmp-dev):" \
      "retrieval compares a query with every memory, which takes long for a large bank of other vectors than lexical ones" >&2
  fi
fi

hash=$({
  find native test/cuda/fake_cublaslt.cpp -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
  sha256sum node_modules/node-addon-api/package.json node_modules/node-api-headers/package.json
  echo "$(uname -sm) ${CXX:-c++} $(command -v "${CUDACXX:-nvcc}") $* $(faiss_config)"
} | sha256sum | cut -d ' ' -f 1)
if [ -f "$target" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$hash" ]; then
  say "$target is up to date"
  exit 0
fi

say "building $target"
mkdir -p "$folder"
if ! { cmake -S native -B "$folder/cmake" "$@" && cmake --build "$folder/cmake" --parallel; } \
  > "$log" 2>&1 < /dev/null; then
  cat "$log" >&2
  say "the build failed; the messages are above and in $log" >&2
  exit 1
fi
# install_addon FILE: a new file under the old name, so that a process that has the old one loaded keeps it.
install_addon() {
  local name
  name=$(basename "$1")
  cp "$1" "$folder/$name.new"
  mv "$folder/$name.new" "$folder/$name"
}

install_addon "$folder/cmake/memory3_native.node"
rm -f "$folder"/memory3_cuda*.node
for addon in "$folder"/cmake/cuda/memory3_cuda.node "$folder"/cmake/cuda/emulator/memory3_cuda_emulated.node; do
  if [ -f "$addon" ]; then install_addon "$addon"; fi
done
# What stands in for cuBLASLt on the emulated device.
if [ -d "$folder/cmake/fake_cuda_libs" ]; then
  mkdir -p "$folder/fake_cuda_libs"
  for library in "$folder"/cmake/fake_cuda_libs/*; do
    cp "$library" "$folder/fake_cuda_libs.new"
    mv "$folder/fake_cuda_libs.new" "$folder/fake_cuda_libs/$(basename "$library")"
  done
fi
echo "$hash" > "$stamp"
