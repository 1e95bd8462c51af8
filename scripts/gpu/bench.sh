#!/usr/bin/env bash
# Measures the CUDA engine and its peers in PyTorch in turn on one GPU and prints one table with what must be reached;
# ends with 1 when a figure is missing or misses.
set -uo pipefail
# shellcheck source=scripts/gpu/runtime.sh
source "$(dirname "${BASH_SOURCE[0]}")/runtime.sh"

usage() {
  cat << 'USAGE'
usage: scripts/gpu/bench.sh [options]

About 5 minutes. Each part has a time limit; one that fails or is cut off loses only its own figures.
  --out FOLDER     figures.jsonl, logs, table.txt (default: build/gpu-bench below this folder)
  --parts LIST     of peak,attention,ours,eager,compiled,memories (default: all). peak: products; attention: alone, both sides;
                   ours: all steps of memory3; eager, compiled: PyTorch's warmup step; memories: its steps with memories
  --shape NAME     of bench/gpu/shapes.json (default: paper)
  --runs N         steps that are measured (default: 5)
  --seconds N      for everything together (default: 300)
  --add            keep the figures that are there and add to them

examples:
  scripts/gpu/bench.sh
  scripts/gpu/bench.sh --parts attention
  scripts/gpu/bench.sh --parts eager,compiled --add
USAGE
}

out=$root/build/gpu-bench parts=peak,attention,ours,eager,compiled,memories
shape=paper runs=5 seconds=300 keep=''
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --add) keep=yes && shift ;;
    --out | --parts | --shape | --runs | --seconds)
      [ $# -gt 1 ] || fail "$1 needs a value"
      declare "${1#--}=$2" && shift 2
      ;;
    *) usage >&2 && exit 2 ;;
  esac
done

mkdir -p "$out" || fail "cannot write to $out"
out=$(cd "$out" && pwd)
[ -n "$keep" ] || rm -f "$out"/*.jsonl "$out"/*.log "$out/table.txt"
began=$SECONDS
export -f run_node run_program
export node_binary node_libraries root

# part NAME LIMIT SIDE COMMAND...: runs for LIMIT seconds at most, or what is left; its figures are added to figures.jsonl.
part() {
  local name=$1 limit=$2 side=$3 left=$((seconds - (SECONDS - began))) status note=''
  shift 3
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt 10 ]; then
    note="no time was left of $seconds s"
  else
    timeout --kill-after=5 "$limit" bash -c "$*" > "$out/$name.jsonl" 2> "$out/$name.log"
    status=$?
    cat "$out/$name.jsonl" >> "$out/figures.jsonl"
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
torch="python3 '$root/bench/peers/gpu/measure.py'"
steps="--shape $shape --runs $runs"

{ nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader || true; } \
  2> /dev/null | tee "$out/card.txt"
date -u +%Y-%m-%d >> "$out/card.txt"

has peak && part torch-gemm 40 torch "$torch" gemm --shape "$shape"
has peak && part gemm 40 memory3 run_program bench gemm --shape "$shape"
has attention && part attention 40 memory3 run_program bench attention --shape "$shape"
has attention && part torch-attention 70 torch "$torch" attention --shape "$shape"
has ours && part steps 110 memory3 run_program bench warmup,bank,online,profile "$steps"
has eager && part torch-eager 50 torch "$torch" warmup --variant eager "$steps"
has compiled && part torch-compiled 80 torch "$torch" warmup --variant compiled "$steps"
has memories && part torch-flex 60 torch "$torch" bank --variant flex "$steps"
has memories && part torch-loop 40 torch "$torch" online --variant loop "$steps"

run_program bench table "$out/figures.jsonl" --shape "$shape" | tee "$out/table.txt"
status=${PIPESTATUS[0]}
echo "bench: $((SECONDS - began)) s; figures, logs and this table are in $out" >&2
exit "$status"
