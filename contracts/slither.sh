#!/bin/sh
# Static analysis of contracts/src with Slither: fails on a finding of medium weight or above that slither.allowed does
# not name, and on a line there that names none any more. Needs python3; installs Slither into a folder of its own.
set -eu
cd "$(dirname "$0")"
[ -d node_modules/solc ] || npm install --no-save --no-audit --no-fund
work=${SLITHER_DIR:-${TMPDIR:-/tmp}/tribunal-slither}
if [ ! -x "$work/venv/bin/slither" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet slither-analyzer==0.11.6
fi
bin=$(dirname "$PWD"/node_modules/@foundry-rs/forge-*/bin/forge)
export PATH="$bin:$PATH"
rm -rf "$work/out" "$work/findings.json"
# Compiled here: slither would ask for a compiler of its own.
forge build src --force --build-info --out "$work/out" --cache-path "$work/cache" > "$work/build.log" 2>&1 ||
  { cat "$work/build.log" >&2; exit 1; }
# Its exit code counts findings of every weight.
"$work/venv/bin/slither" . --foundry-ignore-compile --foundry-out-directory "$work/out" \
  --foundry-build-info-directory "$work/out/build-info" --filter-paths node_modules --json "$work/findings.json" \
  > "$work/slither.log" 2>&1 || true
[ -s "$work/findings.json" ] || { cat "$work/slither.log" >&2; exit 1; }
python3 - "$work/findings.json" slither.allowed <<'PY'
import json, sys

report = json.load(open(sys.argv[1]))
if not report["success"]:
    sys.exit(report["error"])
allowed = {tuple(line.split("#")[0].split()) for line in open(sys.argv[2]) if line.split("#")[0].strip()}
found = {}
for finding in report["results"]["detectors"]:
    if finding["impact"] in ("High", "Medium"):
        first = finding["elements"][0]
        parent = first["type_specific_fields"]["parent"]["name"]
        found[finding["check"], f"{parent}.{first['name']}"] = finding["description"]
for key in sorted(found.keys() - allowed):
    print("not looked into:", *key)
    print(found[key])
for key in sorted(allowed - found.keys()):
    print("no longer found, take it out of slither.allowed:", *key)
print(f"{len(found)} findings of medium weight or above, {len(found.keys() - allowed)} of them new")
sys.exit(found.keys() != allowed)
PY
