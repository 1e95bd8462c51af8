#!/usr/bin/env bash
# Compiles the kernels for GPUs and shows what the compiler made of each: registers, spills, tensor-core instructions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
  cat << 'TEXT'
usage: scripts/gpu/inspect.sh [--for LIST] [NAME…]

  --for LIST   GPUs by compute capability, separated by commas (default: 80,90a)
  NAME         only native/cuda/NAME.cu (default: all)

Needs nvcc 12 or newer (CUDACXX names another), no GPU. One line a kernel:

  registers, spills and stack in bytes, shared memory in bytes that does not come with the launch, and barriers, as ptxas
  tells; mma, ldmatrix and cp.async, counted in the PTX; HMMA, counted in the machine code, where cuobjdump is.

Exit status 1 when a kernel spills registers, or when a kernel for tiles of attention has no mma instruction or, of all
files, is not there.

examples:
  scripts/gpu/inspect.sh
  scripts/gpu/inspect.sh --for 90a attention_forward attention_backward
TEXT
}

say() { echo "inspect: $*" >&2; }

architectures=80,90a
names=()
all=0
while [ $# -gt 0 ]; do
  case $1 in
    --for) architectures=${2:?--for needs a list}; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) names+=("$1") ;;
  esac
  shift
done
if [ ${#names[@]} -eq 0 ]; then
  all=1
  for file in native/cuda/*.cu; do names+=("$(basename "$file" .cu)"); done
fi
nvcc=${CUDACXX:-nvcc}
if ! command -v "$nvcc" > /dev/null; then
  say "nvcc is not here; install CUDA's toolkit, version 12 or newer, or set CUDACXX"
  exit 3
fi
if ! command -v c++filt > /dev/null; then
  say "c++filt is not here; install binutils"
  exit 3
fi

# The kernels for tiles of attention, which must compute on tensor cores.
tiles='attendTilesKernel|queryGradKernel|keyGradKernel|memoryGradKernel'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# compile ARCHITECTURE NAME: leaves NAME.ptx, NAME.cubin, what ptxas says and, where cuobjdump is, the machine code. The
# options are those of native/cuda/CMakeLists.txt.
# shellcheck disable=SC2317 # xargs calls it
compile() {
  local out=$folder/$1
  mkdir -p "$out/$2"
  "$nvcc" -std=c++17 -O3 -DNDEBUG --expt-relaxed-constexpr --extended-lambda -Inative/cuda "-arch=sm_$1" -cubin \
    --ptxas-options=-v --keep --keep-dir "$out/$2" -o "$out/$2.cubin" "native/cuda/$2.cu" > "$out/$2.log" 2>&1 || {
    cat "$out/$2.log" >&2
    return 1
  }
  mv "$out/$2"/*.ptx "$out/$2.ptx"
  rm -r "${out:?}/$2"
  if command -v cuobjdump > /dev/null; then cuobjdump -sass "$out/$2.cubin" > "$out/$2.sass"; fi
}
export -f compile
export nvcc folder

# figures ARCHITECTURE: a line of tab-separated figures a kernel, mangled name first.
figures() {
  local -a files=("$folder/$1"/*.log "$folder/$1"/*.ptx)
  if compgen -G "$folder/$1/*.sass" > /dev/null; then files+=("$folder/$1"/*.sass); fi
  awk -v OFS='\t' '
    function first(pattern) { return match($0, pattern) ? substr($0, RSTART, RLENGTH) + 0 : 0 }
    /Compiling entry function/ { split($0, part, "\047"); name = part[2]; seen[name] = 1 }
    /bytes stack frame/ { stack[name] = first("[0-9]+ bytes stack"); spill[name] = first("[0-9]+ bytes spill stores") }
    /Used [0-9]+ registers/ {
      match($0, "Used [0-9]+"); registers[name] = substr($0, RSTART + 5, RLENGTH - 5) + 0
      match($0, "used [0-9]+ barriers"); barriers[name] = RSTART ? substr($0, RSTART + 5) + 0 : 0
      shared[name] = first("[0-9]+ bytes smem")
    }
    /\.entry / { match($0, "\\.entry [A-Za-z0-9_$]+"); kernel = substr($0, RSTART + 7, RLENGTH - 7) }
    FILENAME ~ /\.ptx$/ && /^}/ { kernel = "" }
    FILENAME ~ /\.ptx$/ && kernel != "" {
      if (/mma\.sync/) mma[kernel]++
      if (/ldmatrix\.sync/) load[kernel]++
      if (/cp\.async\.c[ag]\.shared/) copy[kernel]++
    }
    /Function : / { sub(".*Function : ", ""); code = $0; coded[code] = 1 }
    FILENAME ~ /\.sass$/ && /HMMA/ { hmma[code]++ }
    END {
      for (name in seen) print name, registers[name], spill[name] + 0, stack[name] + 0, shared[name] + 0, \
        barriers[name] + 0, mma[name] + 0, load[name] + 0, copy[name] + 0, (name in coded) ? hmma[name] + 0 : "-"
    }' "${files[@]}"
}

# table ARCHITECTURE: prints it, and ends with 1 when something is wrong.
table() {
  figures "$1" | c++filt | sed -e 's/void memory3::(anonymous namespace):://' -e 's/memory3::(anonymous namespace):://g' \
    -e 's/memory3:://g' -e 's/([^\t]*)\t/\t/' | LC_ALL=C sort | awk -F '\t' -v tiles="$tiles" -v all="$all" -v architecture="$1" '
    function fail(why) { problems[++count] = "inspect: sm_" architecture ": " why }
    { kernel = $1; sub("<.*", "", kernel); seen[kernel] = 1; isTile = kernel ~ "^(" tiles ")$" }
    NR == 1 {
      printf "%-44s %9s %6s %6s %7s %9s %5s %9s %9s %5s\n", "sm_" architecture, "registers", "spills", "stack", "shared", \
        "barriers", "mma", "ldmatrix", "cp.async", "HMMA"
    }
    { printf "%-44s %9s %6s %6s %7s %9s %5s %9s %9s %5s\n", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 }
    $3 > 0 { fail($1 " spills registers") }
    isTile && $7 == 0 { fail($1 " has no mma instruction") }
    isTile && $10 == "0" { fail($1 " has no HMMA instruction") }
    END {
      expected = split(tiles, name, "|")
      for (i = 1; all && i <= expected; i++) if (!(name[i] in seen)) fail("there is no " name[i])
      for (i = 1; i <= count; i++) print problems[i] > "/dev/stderr"
      exit count > 0
    }'
}

status=0
for architecture in ${architectures//,/ }; do
  # shellcheck disable=SC2016 # for the inner bash
  printf '%s\n' "${names[@]}" | xargs -P "${JOBS:-2}" -I{} bash -c 'compile "$0" {}' "$architecture" || {
    say "the kernels do not compile for sm_$architecture"
    exit 1
  }
  table "$architecture" || status=1
  echo
done
exit $status
