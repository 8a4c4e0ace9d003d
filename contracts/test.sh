#!/bin/sh
# Runs the contracts' tests; arguments go to forge, as in contracts/test.sh --match-test slash -vvv
set -eu
cd "$(dirname "$0")"
[ -d node_modules/solc ] || npm install --no-save --no-audit --no-fund
# The binary itself: its Node launcher loses the exit code.
forge=$(ls node_modules/@foundry-rs/forge-*/bin/forge)
exec "$forge" test "$@"
