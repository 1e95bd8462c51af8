#!/usr/bin/env bash
# Gives the browser tests their browser: Debian's Chromium. Without it those tests are skipped, and say so.
# Safe to run again. Where it may not install packages it says which one is wanted. Needs no terminal.
set -euo pipefail

say() { echo "setup: $*"; }

browser=${MEMORY3_BROWSER:-/usr/bin/chromium}
if [ -x "$browser" ]; then
  say "the browser is there: $("$browser" --version 2> /dev/null || echo "$browser")"
  exit 0
fi
if [ -n "${MEMORY3_BROWSER:-}" ]; then
  echo "setup: MEMORY3_BROWSER names $browser, which is no program" >&2
  exit 1
fi
if ! command -v apt-get > /dev/null || [ "$(id -u)" -ne 0 ]; then
  say "no browser at $browser; install Chromium (Debian: apt-get install chromium) or set MEMORY3_BROWSER; until then its tests are skipped"
  exit 3
fi
say "installing Chromium (apt-get install chromium)"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update < /dev/null || say "the package lists could not be renewed; trying with those that are here"
if apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core < /dev/null > /dev/null; then
  say "the browser is there: $(chromium --version)"
else
  say "Chromium could not be installed; its tests are skipped"
  exit 3
fi
