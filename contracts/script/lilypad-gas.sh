#!/bin/sh
# Measures the gas of deals on the contracts of Lilypad's ABI and writes vectors/lilypad-gas.json.
set -eu
cd "$(dirname "$0")/.."
[ -d node_modules/solc ] || npm install --no-save --no-audit --no-fund
forge=$(ls node_modules/@foundry-rs/forge-*/bin/forge)
log=$(TRIBUNAL_WRITE_GAS=true "$forge" test -vv --match-contract LilypadGasTest) || { echo "$log"; exit 1; }
echo "$log" | sed -n '/^  {$/,/^  }$/s/^  //p' > vectors/lilypad-gas.json
cat vectors/lilypad-gas.json
