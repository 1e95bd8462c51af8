#!/usr/bin/env bash
# From a fresh checkout to a small model that answers from its memories, on a CPU. Arguments go to `memory3 run`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
npx --no-install tsx scripts/quickstart/corpus.ts
exec node bin/memory3.js run -c configs/quickstart.yaml "$@"
