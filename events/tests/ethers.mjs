// The other side of events/tests/it/ethers.rs: signs and recovers this project's typed data with ethers, whose types are
// written here by hand from PROTOCOL. Reads one JSON object on stdin, writes one on stdout.
//
//   {"secret": "0x…", "domains": [{…}], "values": {"Terms": {…}, …}, "signatures": [{"domain": 0, "type": "Terms", "signature": "0x…"}],
//    "mediation": [...], "timeouts": [...], "panel": [...]}

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const require = createRequire(new URL('../../fixtures/package.json', import.meta.url));
const { ethers } = require('ethers');

const fields = (list) => list.split(', ').map((field) => {
  const [type, name] = field.split(' ');
  return { name, type };
});
const TYPES = {
  DealEvent: fields('bytes32 dealId, bytes32 eventHash'),
  Terms: fields('bytes32 dealId, address client, address provider, address token, address treasury, uint256 price, '
    + 'uint8 pricing, uint256 paymentCollateral, uint256 resultsCollateral, uint256 submitCollateral, '
    + 'uint256 judgeCollateral, uint256 mediationFee, uint16 victimBps, uint16 feeBps, bytes32 mediatorsHash, '
    + 'bytes32 timeoutsHash, uint32 rule'),
  Verdict: fields('bytes32 termsHash, uint32 round, uint8 verdict, uint64 instructionCount, bytes32 digest'),
  Report: fields('bytes32 requestDigest, bytes32 verdictDigest'),
  Receipt: fields('bytes32 eventId, uint64 streamVersion, uint64 logPosition, uint8 status'),
  Move: fields('bytes32 termsHash, uint8 action, uint64 instructionCount, bytes32 data'),
  Panel: fields('bytes32 termsHash, uint32 round, bytes32 panelHash'),
  Silence: fields('bytes32 termsHash, uint32 round, bytes32 silentHash'),
};

const asked = JSON.parse(readFileSync(0, 'utf8'));
const wallet = new ethers.Wallet(asked.secret);
const only = (type) => ({ [type]: TYPES[type] });
const signed = [];
for (const [index, domain] of asked.domains.entries()) {
  for (const [type, value] of Object.entries(asked.values)) {
    signed.push({
      domain: index,
      type,
      digest: ethers.TypedDataEncoder.hash(domain, only(type), value),
      signature: await wallet.signTypedData(domain, only(type), value),
    });
  }
}
const recovered = asked.signatures.map(({ domain, type, signature }) =>
  ethers.verifyTypedData(asked.domains[domain], only(type), asked.values[type], signature).toLowerCase());
const abi = ethers.AbiCoder.defaultAbiCoder();
const hash = (types, values) => ethers.keccak256(abi.encode(types, values));
console.log(JSON.stringify({
  address: wallet.address.toLowerCase(),
  signed,
  recovered,
  termsHash: ethers.TypedDataEncoder.hashStruct('Terms', only('Terms'), asked.values.Terms),
  mediatorsHash: hash(['address', 'address[]', 'uint8', 'uint8', 'uint8', 'bool', 'uint256'], asked.mediation),
  timeoutsHash: hash(Array(6).fill('uint64'), asked.timeouts),
  panelHash: hash(['address[]'], [asked.panel]),
}));
