#!/usr/bin/env bash
# Uploads a run that we wrote offline with the official client (`pip install wandb`) to the server of the tests, and checks
# that everything arrives. Not part of the tests, since the client is no dependency.
# Usage: scripts/check_wandb_sync.sh [python]     a Python that has the client; without, `python3`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${1:-python3}
if ! "$python" -c 'import wandb' 2> /dev/null; then
  echo "check_wandb_sync: $python has no wandb; install it with: $python -m pip install wandb" >&2
  exit 3
fi
exec npx --no-install tsx scripts/wandb_sync/check.ts "$python"
