// Writes contracts/artifacts from forge's output; with --check compares instead and fails on a difference.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

const check = process.argv.includes("--check");
mkdirSync("artifacts", { recursive: true });
const names = [
  "TribunalEscrow",
  "MediatorRegistry",
  "TestToken",
  "MarketEas",
  "MarketErc20Escrow",
  "MarketErc20EscrowOld",
  "MarketStringObligation",
  "MarketTrustedOracle",
  "MarketTrustedOracleOld",
  "MarketAllArbiter",
  "MarketLilypadToken",
  "MarketLilypadStorage",
  "MarketCoophiveStorage",
  "MarketLilypadPayments",
  "MarketLilypadMediation",
  "MarketLilypadController",
  "TribunalArbiter",
  "PanelHandler",
  "CheckpointRegistry",
];
for (const name of names) {
  const built = JSON.parse(readFileSync(`out/${name}.sol/${name}.json`, "utf8"));
  const artifact = {
    contractName: name,
    abi: built.abi,
    bytecode: { object: built.bytecode.object },
    deployedBytecode: { object: built.deployedBytecode.object },
  };
  const fresh = JSON.stringify(artifact, null, 1) + "\n";
  const path = `artifacts/${name}.json`;
  if (!check) {
    writeFileSync(path, fresh);
  } else if (readFileSync(path, "utf8") !== fresh) {
    console.error(`${path} is not what the sources compile to; run contracts/build.sh and commit it`);
    process.exitCode = 1;
  }
  const bytes = (built.deployedBytecode.object.length - 2) / 2;
  console.log(`${name}: ${bytes} bytes deployed`);
}
