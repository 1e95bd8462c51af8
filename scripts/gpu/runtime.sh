# shellcheck shell=bash
# Sourced by the scripts of this folder and by the launcher of a pack: where Node, the programs and the CUDA libraries are.
# In a pack (pack.sh) Node is unpacked on first use, beside the pack or, where that cannot be written, in a temporary folder.
#   MEMORY3_RUNTIME       another folder for what is unpacked
#   MEMORY3_CUDA_LIBS     where cuBLAS is; found in the wheels of python3 when it is not set

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# fail MESSAGE...: says what is wrong and ends with 2.
fail() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# unpack ARCHIVE FOLDER: with tar and xz, or with python3.
unpack() {
  local partial="$2.partial.$$"
  mkdir -p "$partial"
  if command -v tar > /dev/null && command -v xz > /dev/null; then
    xz -dc "$1" | tar -xf - -C "$partial"
  elif command -v python3 > /dev/null; then
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$1" "$partial"
  else
    rm -rf "$partial"
    fail "unpacking $1 needs tar and xz, or python3"
  fi
  mv -T "$partial" "$2" 2> /dev/null || rm -rf "$partial" # another process was first
}

# The folder of the unpacked runtime.
runtime_folder() {
  if [ -n "${MEMORY3_RUNTIME:-}" ]; then
    echo "$MEMORY3_RUNTIME"
  elif [ -w "$root" ] || [ -d "$root/runtime" ]; then
    echo "$root/runtime"
  else
    echo "${TMPDIR:-/tmp}/memory3-runtime-$(id -u)-$(cksum < "$root/runtime.tar.xz" | tr ' ' -)"
  fi
}

# has_library NAME: whether the loader finds a library without our help.
has_library() {
  local folder
  for folder in /lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu /lib64 /usr/lib64 /usr/lib; do
    if [ -e "$folder/$1" ]; then return 0; fi
  done
  return 1
}

node_libraries=${LD_LIBRARY_PATH:-}
if [ -f "$root/runtime.tar.xz" ]; then
  runtime=$(runtime_folder)
  [ -x "$runtime/node" ] || unpack "$root/runtime.tar.xz" "$runtime"
  node_binary=$runtime/node
  node_libraries=$runtime/lib${node_libraries:+:$node_libraries}
  # The box's own C++ library comes first: a driver may want one that is newer than ours.
  has_library libstdc++.so.6 || node_libraries=$runtime/lib/cxx:$node_libraries
else
  node_binary=$(command -v node) || fail "there is no node here; make a pack with scripts/gpu/pack.sh where there is one"
fi

# run_node ARGUMENT...: Node with the libraries of the pack; other programs do not see them.
run_node() { LD_LIBRARY_PATH=$node_libraries "$node_binary" "$@"; }

# run_program NAME ARGUMENT...: a program of bench/gpu, compiled in a pack.
run_program() {
  local name=$1
  shift
  if [ -f "$root/bench/gpu/$name.js" ]; then
    run_node "$root/bench/gpu/$name.js" "$@"
  else
    run_node --import "$root/node_modules/tsx/dist/loader.mjs" "$root/bench/gpu/$name.ts" "$@"
  fi
}

# cuda_libraries: the folder of cuBLAS in the wheels of python3, or nothing.
cuda_libraries() {
  command -v python3 > /dev/null || return 0
  python3 - << 'PYTHON' 2> /dev/null || true
import glob, os, site, sys
folders = [*sys.path, *site.getsitepackages(), site.getusersitepackages()]
found = [f for folder in folders for f in sorted(glob.glob(os.path.join(folder, "nvidia", "*", "lib", "libcublasLt.so*")))]
print(os.path.dirname(found[0]) if found else "", end="")
PYTHON
}

if [ -z "${MEMORY3_CUDA_LIBS:-}" ]; then
  MEMORY3_CUDA_LIBS=$(cuda_libraries)
  if [ -n "$MEMORY3_CUDA_LIBS" ]; then export MEMORY3_CUDA_LIBS; else unset MEMORY3_CUDA_LIBS; fi
fi
