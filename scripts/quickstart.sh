#!/usr/bin/env bash
# From a fresh checkout to a small model that answers from its memories, on a CPU. Arguments go to `memory3 run`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
npx --no-install tsx scripts/quickstart/corpus.ts
if ! node bin/memory3.js doctor | grep -q '^Faiss: there'; then
  echo "quickstart: Faiss is not here, so memories are found without it (--set retrieval.index=exact)"
  set -- --set retrieval.index=exact "$@"
fi
exec node bin/memory3.js run -c configs/quickstart.yaml "$@"
