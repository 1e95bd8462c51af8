#!/usr/bin/env bash
# Checks the CUDA engine on a GPU and prints one table; ends with 1 when anything failed or was cut off.
set -uo pipefail
# shellcheck source=scripts/gpu/runtime.sh
source "$(dirname "${BASH_SOURCE[0]}")/runtime.sh"

usage() {
  cat << 'USAGE'
usage: scripts/gpu/check.sh [options]

Every operation against the CPU engine in values and gradients, 50 steps of a small model beside it, bad input, the paper's
2.4 B shape, a checkpoint and its resumption, and the operations under compute-sanitizer. 4 minutes at most. Each part has a
time limit; one that fails or is cut off leaves the others their time, and after an illegal access the operations go on in
another process.
  --out FOLDER     results, logs, table (default: build/gpu-check below this folder)
  --parts LIST     of operations,training,errors,memcheck,racecheck,shape,resume (default: all)
  --size small     operations in the sizes for emulated devices (default: large)
  --steps N        of the small model (default: 50)
  --shape NAME     of bench/gpu/shapes.json for shape and resume (default: paper)
  --seconds N      for everything together (default: 240); with more, each part has more

examples:
  scripts/gpu/check.sh
  scripts/gpu/check.sh --parts operations,training
  MEMORY3_CUDA_ADDON=build/native/memory3_cuda_emulated.node MEMORY3_CUDA_LIBS=build/native/fake_cuda_libs \
    scripts/gpu/check.sh --size small --shape tiny --steps 3 --seconds 900 --parts operations,training,errors,shape,resume
                         (no GPU: the same kernels on an emulated device)
USAGE
}

out=$root/build/gpu-check parts=operations,training,errors,memcheck,racecheck,shape,resume
size=large steps=50 shape=paper seconds=240
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage && exit 0 ;;
    --out | --parts | --size | --steps | --shape | --seconds)
      [ $# -gt 1 ] || fail "$1 needs a value"
      declare "${1#--}=$2" && shift 2
      ;;
    *) usage >&2 && exit 2 ;;
  esac
done

mkdir -p "$out" || fail "cannot write to $out"
out=$(cd "$out" && pwd)
rm -f "$out"/*.jsonl "$out"/*.log "$out/table.txt"
began=$SECONDS
export -f run_node run_program program
export node_binary node_libraries root code

# finding PART NAME NOTE: a line for something that failed.
finding() { printf '{"part":"%s","name":"%s","ok":false,"note":"%s"}\n' "$1" "$2" "${3//[\"\\[:cntrl:]]/ }"; }

# last_words NAME: the last line that a part said.
last_words() { grep -v '^ *$' "$out/$1.log" | tail -1 | cut -c -150; }

# part NAME LIMIT COMMAND...: runs a part for LIMIT of 240 seconds at most, or what is left; its lines go to NAME.jsonl.
part() {
  local name=$1 limit=$2 left=$((seconds - (SECONDS - began))) status
  shift 2
  [ "$seconds" -gt 240 ] && limit=$((limit * seconds / 240))
  [ "$left" -lt "$limit" ] && limit=$left
  if [ "$limit" -lt 5 ]; then
    finding "$name" 'not run' "no time was left of $seconds s" >> "$out/$name.jsonl"
    return
  fi
  timeout --kill-after=5 "$limit" bash -c "$*" > "$out/$name.jsonl" 2> "$out/$name.log"
  status=$?
  if [ $status -eq 124 ] || [ $status -eq 137 ]; then
    echo >> "$out/$name.jsonl" # a line may be cut off
    finding "$name" 'cut off' "after $limit s, in: $(last_words "$name")" >> "$out/$name.jsonl"
  elif [ $status -ne 0 ] && ! grep -q '"ok":false' "$out/$name.jsonl"; then
    finding "$name" 'the program ended' "with $status: $(last_words "$name")" >> "$out/$name.jsonl"
  fi
  echo "check: $name ended after $((SECONDS - began)) s" >&2
}

# The sanitizer of the CUDA toolkit, or nothing.
sanitizer=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin:/usr/local/cuda/bin command -v compute-sanitizer)

# sanitized TOOL TEXT OPTION...: the operations whose names contain TEXT under compute-sanitizer; without it the part is
# skipped. Node takes longer to come to the GPU than the sanitizer waits by default.
sanitized() {
  local found='mapfile -t words < <(program check);'
  if [ -z "$sanitizer" ]; then
    printf '{"part":"%s","name":"compute-sanitizer","ok":true,"skipped":true,"note":"%s"}\n' "$1" \
      'it is not here; it comes with the CUDA toolkit' > "$out/$1.jsonl"
    return
  fi
  part "$1" 150 "$found LD_LIBRARY_PATH=\$node_libraries '$sanitizer' --tool $1 ${*:3} --launch-timeout 60 \
    --target-processes all --error-exitcode 9 --log-file '$out/$1.txt' \
    \"\$node_binary\" \"\${words[@]}\" operations --size small --only '$2'"
  sed -i "s/\"part\":\"operations/\"part\":\"$1/" "$out/$1.jsonl"
  if [ -s "$out/$1.jsonl" ] && ! grep -q '"ok":false' "$out/$1.jsonl"; then
    printf '{"part":"%s","name":"nothing found","ok":true}\n' "$1" >> "$out/$1.jsonl"
  elif grep -q 'SUMMARY: [1-9]' "$out/$1.txt" 2> /dev/null; then
    finding "$1" 'compute-sanitizer found' "$(grep 'SUMMARY' "$out/$1.txt" | cut -c -100); see $1.txt" >> "$out/$1.jsonl"
  fi
}

has() { [[ ",$parts," == *",$1,"* ]]; }

# The large shape has the GPU for itself; then what needs little memory goes on together, sanitizers as long as there is time.
has shape && part shape 110 run_program check shape --shape "$shape"
has resume && part resume 110 run_program check resume --shape "$shape" &
has operations && part operations 120 run_program check operations --size "$size" &
for kind in warmup bank online; do
  has training && part "training-$kind" 100 run_program check training --steps "$steps" --kinds "$kind" &
done
has errors && part errors 60 run_program check errors &
# Errors of calls are for the engine itself, which looks at each; libraries make some on purpose.
has memcheck && sanitized memcheck '' --report-api-errors no &
has racecheck && sanitized racecheck attention &
wait

cat "$out"/*.jsonl > "$out/all.jsonl" 2> /dev/null
run_program check table "$out/all.jsonl" | tee "$out/table.txt"
status=${PIPESTATUS[0]}
echo "check: $((SECONDS - began)) s; lines, logs and this table are in $out" >&2
exit "$status"
