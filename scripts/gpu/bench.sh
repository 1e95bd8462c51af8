#!/usr/bin/env bash
# Measures the CUDA engine and its peers in PyTorch in turn on one GPU and prints one table with what must be reached;
# ends with 1 when a figure is missing or misses.
set -uo pipefail
# shellcheck source=scripts/gpu/runtime.sh
source "$(dirname "${BASH_SOURCE[0]}")/runtime.sh"

usage() {
  cat << 'USAGE'
usage: scripts/gpu/bench.sh [options]

5 minutes at most. Each part has a time limit; one that fails or is cut off loses only its own figures.
  --out FOLDER     figures.jsonl, logs, table.txt (default: build/gpu-bench below this folder)
  --parts LIST     of peak,attention,ours,eager,compiled,memories (default: all). peak: products; attention: alone, both sides;
                   ours: all steps of memory3; eager, compiled: PyTorch's warmup step; memories: its steps with memories
  --shape NAME     of bench/gpu/shapes.json (default: paper)
  --runs N         steps that are measured (default: 5)
  --seconds N      for everything together (default: 300); with more, each part has more
  --peer-device D  of PyTorch (default: cuda); cpu, in float32, tries the programs out with --shape tiny
  --add            keep the figures that are there and add to them

PyTorch is that of python3; PYTHON=/path/to/python3 names another.

examples:
  scripts/gpu/bench.sh
  scripts/gpu/bench.sh --parts attention
  scripts/gpu/bench.sh --parts eager,compiled --add
  MEMORY3_CUDA_ADDON=build/native/memory3_cuda_emulated.node MEMORY3_CUDA_LIBS=build/native/fake_cuda_libs \
    scripts/gpu/bench.sh --shape tiny --runs 1 --seconds 900 --peer-device cpu      (no GPU: do the programs run?)
USAGE
}

out=$root/build/gpu-bench parts=peak,attention,ours,eager,compiled,memories
shape=paper runs=5 seconds=300 peer_device=cuda keep=''
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --add) keep=yes && shift ;;
    --out | --parts | --shape | --runs | --seconds | --peer-device)
      [ $# -gt 1 ] || fail "$1 needs a value"
      name=${1#--}
      declare "${name//-/_}=$2" && shift 2
      ;;
    *) usage >&2 && exit 2 ;;
  esac
done

mkdir -p "$out" || fail "cannot write to $out"
out=$(cd "$out" && pwd)
[ -n "$keep" ] || rm -f "$out"/*.jsonl "$out"/*.log "$out/table.txt"
began=$SECONDS
export -f run_node run_program program
export node_binary node_libraries root code

# part NAME LIMIT SIDE COMMAND...: runs for LIMIT of 300 seconds at most, or what is left; its figures are added to
# figures.jsonl.
part() {
  local name=$1 limit=$2 side=$3 left=$((seconds - (SECONDS - began))) status note=''
  shift 3
  [ "$seconds" -gt 300 ] && limit=$((limit * seconds / 300))
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt 10 ]; then
    note="no time was left of $seconds s"
  else
    timeout --kill-after=5 "$limit" bash -c "$*" > "$out/$name.jsonl" 2> "$out/$name.log"
    status=$?
    { cat "$out/$name.jsonl" && echo; } >> "$out/figures.jsonl" # a line may be cut off
    if [ $status -eq 124 ] || [ $status -eq 137 ]; then
      note="cut off after $limit s"
    elif [ $status -ne 0 ] && ! grep -q '"error":' "$out/$name.jsonl"; then
      note="ended with $status; see $name.log"
    fi
  fi
  [ -z "$note" ] ||
    printf '{"side":"%s","case":"%s","variant":"","error":"%s"}\n' "$side" "$name" "$note" >> "$out/figures.jsonl"
  echo "bench: $name ended after $((SECONDS - began)) s" >&2
}

has() { [[ ",$parts," == *",$1,"* ]]; }
torch="'$python' '$code/bench/peers/gpu/measure.py'"
steps="--shape $shape --runs $runs"
# What PyTorch computes is float32 on a CPU.
on="--device $peer_device"
[ "$peer_device" = cuda ] || on="$on --dtype float32"

{ nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader || true; } \
  2> /dev/null | tee "$out/card.txt"
date -u +%Y-%m-%d >> "$out/card.txt"

has peak && part torch-gemm 40 torch "$torch" gemm --shape "$shape" "$on"
has peak && part gemm 40 memory3 run_program bench gemm --shape "$shape"
has attention && part attention 40 memory3 run_program bench attention --shape "$shape"
has attention && part torch-attention 70 torch "$torch" attention --shape "$shape" "$on"
has ours && part steps 110 memory3 run_program bench warmup,profile,bank,online "$steps"
has eager && part torch-eager 50 torch "$torch" warmup --variant eager "$steps" "$on"
has compiled && part torch-compiled 80 torch "$torch" warmup --variant compiled "$steps" "$on"
has memories && part torch-flex 60 torch "$torch" bank --variant flex "$steps" "$on"
has memories && part torch-loop 40 torch "$torch" online --variant loop "$steps" "$on"

run_program bench table "$out/figures.jsonl" --shape "$shape" | tee "$out/table.txt"
status=${PIPESTATUS[0]}
echo "bench: $((SECONDS - began)) s; figures, logs and this table are in $out" >&2
exit "$status"
