# shellcheck shell=bash
# Sourced by the scripts of this folder and by the launcher of a pack: where Node, the programs and the CUDA libraries are.
# In a pack (pack.sh) all that runs is in runtime.tar.xz, which is unpacked on first use beside it or, where that cannot be
# written, in a temporary folder.
#   MEMORY3_RUNTIME       another folder for what is unpacked
#   MEMORY3_CUDA_LIBS     where cuBLAS is; found in the wheels of python3 when it is not set
#   PYTHON                another python3: the one with PyTorch and the wheels

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# fail MESSAGE...: says what is wrong and ends with 2.
fail() {
  echo "$(basename "$0"): $*" >&2
  exit 2
}

# unpack ARCHIVE FOLDER: with tar and xz, or with python3.
unpack() {
  local partial="$2.partial.$$"
  mkdir -p "$partial" || fail "cannot write to $(dirname "$2"); MEMORY3_RUNTIME names another folder"
  if command -v tar > /dev/null && command -v xz > /dev/null; then
    xz -dc "$1" | tar -xf - -C "$partial" || true
  elif command -v "$python" > /dev/null; then
    "$python" -W ignore -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$1" "$partial" || true
  else
    rm -rf "$partial"
    fail "unpacking $1 needs tar and xz, or python3"
  fi
  if [ ! -f "$partial/package.json" ]; then # the last file of the archive
    rm -rf "$partial"
    fail "$1 could not be unpacked to $2; is the disk full, the archive whole?"
  fi
  mv -T "$partial" "$2" 2> /dev/null || rm -rf "$partial" # another process was first
}

# runtime_folder: that of the unpacked runtime, another one for each pack.
runtime_folder() {
  local name
  name=$(< "$root/runtime.sum")
  if [ -n "${MEMORY3_RUNTIME:-}" ]; then
    echo "$MEMORY3_RUNTIME"
  elif [ -w "$root" ] || [ -d "$root/runtime-$name" ]; then
    echo "$root/runtime-$name"
  else
    echo "${TMPDIR:-/tmp}/memory3-$(id -u)-$name"
  fi
}

# has_cxx VERSION: whether the box's C++ library is new enough.
has_cxx() {
  local folder
  for folder in /lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu /lib64 /usr/lib64 /usr/lib; do
    if [ -e "$folder/libstdc++.so.6" ]; then
      grep -qF "$1" "$folder/libstdc++.so.6"
      return
    fi
  done
  return 1
}

python=${PYTHON:-python3}
node_libraries=${LD_LIBRARY_PATH:-}
# The folder with bin/, bench/ and what they need: this one, or that of the unpacked runtime.
code=$root
if [ -f "$root/runtime.tar.xz" ]; then
  code=$(runtime_folder)
  [ -x "$code/node" ] || unpack "$root/runtime.tar.xz" "$code"
  node_binary=$code/node
  node_libraries=$code/lib${node_libraries:+:$node_libraries}
  # The box's own C++ library comes first: a driver may want one that is newer than ours.
  has_cxx "$(< "$code/lib/cxx/version")" || node_libraries=$code/lib/cxx:$node_libraries
else
  node_binary=$(command -v node) || fail "there is no node here; make a pack with scripts/gpu/pack.sh where there is one"
fi

# run_node ARGUMENT...: Node with the libraries of the pack; other programs do not see them.
run_node() { LD_LIBRARY_PATH=$node_libraries "$node_binary" "$@"; }

# program NAME: the arguments of Node for a program of bench/gpu, compiled in a pack.
program() {
  if [ -f "$code/bench/gpu/$1.js" ]; then
    echo "$code/bench/gpu/$1.js"
  else
    printf '%s\n' --import "$root/node_modules/tsx/dist/loader.mjs" "$code/bench/gpu/$1.ts"
  fi
}

# run_program NAME ARGUMENT...: runs it.
run_program() {
  local -a words
  mapfile -t words < <(program "$1")
  shift
  run_node "${words[@]}" "$@"
}

# cuda_libraries: the folder of cuBLAS in the wheels of python3, or nothing.
cuda_libraries() {
  command -v "$python" > /dev/null || return 0
  "$python" - << 'PYTHON' 2> /dev/null || true
import glob, os, sys
folders = list(sys.path)
try:
    import site
    folders += [*site.getsitepackages(), site.getusersitepackages()]
except AttributeError:
    pass  # old virtual environments
found = [f for folder in folders for f in sorted(glob.glob(os.path.join(folder, "nvidia", "*", "lib", "libcublasLt.so*")))]
print(os.path.dirname(found[0]) if found else "", end="")
PYTHON
}

if [ -z "${MEMORY3_CUDA_LIBS:-}" ]; then
  MEMORY3_CUDA_LIBS=$(cuda_libraries)
  if [ -n "$MEMORY3_CUDA_LIBS" ]; then export MEMORY3_CUDA_LIBS; else unset MEMORY3_CUDA_LIBS; fi
fi
