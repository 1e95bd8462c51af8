#!/usr/bin/env bash
# Kills writers of a memory bank (adding, editing, deleting, compacting) with SIGKILL at random moments and checks after
# each kill that nothing committed is lost, nothing else is there, every checksum is right and no leftovers stay. Ends
# with status 1 otherwise. Needs no model.
#
# usage: scripts/torture-bank.sh [-k KILLS] [-s SEED]
# example: scripts/torture-bank.sh -k 50 -s 7
set -euo pipefail
cd "$(dirname "$0")/.."

kills=50
seed=$RANDOM
while getopts 'k:s:h' option; do
  case $option in
    k) kills=$OPTARG ;;
    s) seed=$OPTARG ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
exec node --import tsx scripts/torture_bank/main.ts "$kills" "$seed"
