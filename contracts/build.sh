#!/bin/sh
# Compiles the contracts into contracts/artifacts; with --check compares with the committed ones instead.
set -eu
cd "$(dirname "$0")"
[ -d node_modules/solc ] || npm install --no-save --no-audit --no-fund
# The binary itself: its Node launcher loses the exit code.
forge=$(ls node_modules/@foundry-rs/forge-*/bin/forge)
"$forge" build --skip test
node script/artifacts.mjs "$@"
