#!/bin/sh
# Static analysis of contracts/src with Slither: fails on a finding of medium weight or above that slither/allowed does
# not name, and on a line there that names none any more. Needs python3; works and installs Slither in a folder of its
# own. OpenZeppelin's two libraries that pay are replaced by plain ones, for Slither sees no calls in assembly.
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
rm -rf "$work/project"
mkdir -p "$work/project/node_modules"
cp -R src script foundry.toml "$work/project"
for package in node_modules/*; do
  [ "$package" = node_modules/@openzeppelin ] || ln -s "$PWD/$package" "$work/project/$package"
done
cp -R node_modules/@openzeppelin "$work/project/node_modules"
cp slither/SafeERC20.sol "$work/project/node_modules/@openzeppelin/contracts/token/ERC20/utils/"
cp slither/Address.sol "$work/project/node_modules/@openzeppelin/contracts/utils/"
cp slither/allowed "$work/project"
cd "$work/project"
forge build src --build-info > build.log 2>&1 || { cat build.log >&2; exit 1; }
# Its exit code counts findings of every weight.
"$work/venv/bin/slither" . --foundry-ignore-compile --filter-paths node_modules --json findings.json > slither.log 2>&1 ||
  true
[ -s findings.json ] || { cat slither.log >&2; exit 1; }
python3 - <<'PY'
import json, sys

report = json.load(open("findings.json"))
if not report["success"]:
    sys.exit(report["error"])
allowed = {tuple(line.split("#")[0].split()) for line in open("allowed") if line.split("#")[0].strip()}
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
    print("no longer found, take it out of slither/allowed:", *key)
print(f"{len(found)} findings of medium weight or above, {len(found.keys() - allowed)} of them new")
sys.exit(found.keys() != allowed)
PY
