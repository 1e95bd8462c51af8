#!/usr/bin/env bash
# Kills a run with SIGKILL at random moments, resumes it each time, and compares the final weights and the bank with
# those of a run that was never stopped; with -d only its data are built and compared. Ends with status 1 when a single
# bit differs.
#
# usage: scripts/torture.sh [-d] [-c CONFIG] [-k KILLS] [-s SEED] [-- options of `memory3 run`]
# example: scripts/torture.sh -c configs/quickstart.yaml -k 5
# example: scripts/torture.sh -d -c configs/data/npm.yaml
set -euo pipefail
cd "$(dirname "$0")/.."

config=configs/quickstart.yaml
kills=5
seed=$RANDOM
command=(run)
while getopts 'dc:k:s:h' option; do
  case $option in
    d) command=(data build) ;;
    c) config=$OPTARG ;;
    k) kills=$OPTARG ;;
    s) seed=$OPTARG ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[[ ${1:-} == -- ]] && shift

work=$(mktemp -d "${TMPDIR:-/tmp}/memory3-torture.XXXXXX")
trap 'rm -rf "$work"' EXIT
run() { exec node bin/memory3.js "${command[@]}" -c "$config" "$@"; }

# One line for each file that the two runs must have alike. Checkpoints that only a stop makes are not among them.
fingerprint() {
  local folder
  folder=$(find "$1" -mindepth 1 -maxdepth 1 -type d)
  if [[ ${command[0]} == data ]]; then
    # build.json says how long the stages took, too.
    (cd "$folder/data" && find . -type f ! -name build.json -exec sha256sum {} + | sort -k 2)
    grep -h '"contentHash"' "$folder/data/build.json"
    return
  fi
  for stage in warmup continual; do
    local last
    last=$(find "$folder/$stage/checkpoints" -mindepth 1 -maxdepth 1 -name 'step-*' | sort | tail -n 1)
    sha256sum "$last/model.safetensors" "$last/optimizer.safetensors" | cut -d ' ' -f 1
  done
  find "$folder/bank" -name rows.bin -exec sha256sum {} + | cut -d ' ' -f 1 | sort
}

echo "uninterrupted run"
started=$(date +%s%N)
(run --set "runsFolder=$work/whole" "$@") > "$work/whole.log" 2>&1 || { cat "$work/whole.log"; exit 1; }
milliseconds=$((($(date +%s%N) - started) / 1000000))
echo "  took $((milliseconds / 1000)) s"

RANDOM=$seed
echo "run with $kills kills (seed $seed)"
for ((kill = 1; kill <= kills; kill++)); do
  # Moments are spread over the whole run: the k-th lies in the k-th part of it, as each resumes what the last one left.
  run --set "runsFolder=$work/killed" "$@" > "$work/killed.log" 2>&1 &
  pid=$!
  delay=$((milliseconds / (kills + 1) * (RANDOM % 1000 + 300) / 1000))
  sleep "$((delay / 1000)).$(printf '%03d' $((delay % 1000)))"
  if kill -9 "$pid" 2> /dev/null; then
    echo "  kill $kill after $delay ms: $(tr -d "\0" < "$work/killed.log" | tail -n 1 | cut -c 1-100)"
  else
    echo "  kill $kill: the run had ended"
  fi
  wait "$pid" 2> /dev/null || true
done
(run --set "runsFolder=$work/killed" "$@") > "$work/killed.log" 2>&1 || { cat "$work/killed.log"; exit 1; }

fingerprint "$work/whole" > "$work/whole.sum"
fingerprint "$work/killed" > "$work/killed.sum"
if diff "$work/whole.sum" "$work/killed.sum"; then
  echo "same bits: $(wc -l < "$work/whole.sum") files; $(sed -n 3p "$work/whole.sum")"
else
  echo "DIFFERENT: left the whole run's files, right the killed one's; seed $seed" >&2
  exit 1
fi
