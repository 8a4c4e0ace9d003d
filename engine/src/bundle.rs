//! Portable evidence: one deal in one file that anyone can verify with nothing but the file.
//!
//! [`export`] writes it from a store, [`verify`] reads it, repeats every check of an [`audit`](crate::audit) over its
//! records and runs the verifiers again over its artifacts. The same deal with the same artifacts at hand gives the same
//! bytes.
//!
//! # Format 2
//!
//! ```text
//! tribunal-bundle 2\n
//! <blake3> <bytes> <name>\n        one line a section, ascending by name (as bytes), no name twice
//! \n
//! <the bytes of every section, in the order of the lines, nothing between>
//! <32 bytes>                       BLAKE3 derive_key("tribunal.v1 bundle", everything before)
//! ```
//!
//! `<blake3>` is the BLAKE3 of the section in 64 lowercase hex digits, `<bytes>` its length in decimal without leading
//! zeros, `<name>` 1 to 100 characters out of `a-z 0-9 . / : -`; single spaces between. At most 65,536 sections. The
//! lengths add up to the file: nothing is left over. A name that is not in this table makes the file no bundle:
//!
//! | section | what |
//! |---|---|
//! | `artifact/<address>` | the bytes of an artifact that the deal names; `<address>` is `blake3:<64 hex>` or `sha256:<64 hex>`, and is theirs |
//! | `checkpoint` | a signed checkpoint of the operator's log: the first whose size covers the deal's last record |
//! | `deal.json` | [`DealFile`]: ids, operator, domain, the range of records, and which artifacts the file does not hold |
//! | `log-key.json` | `{"vkey": …, "operator": "0x…", "signature": "0x…"}`: the operator's word on the key that signed `checkpoint`, EIP-712 `LogKey(string origin,bytes32 publicKey)` in the domain of chain 0 and the zero contract |
//! | `proofs.json` | `{"tree_size": N, "inclusion": [[…], …], "head": […]}`: against `checkpoint`, hashes in base64: the audit path of each record, in order of versions, and the deal's siblings in the head map |
//! | `receipt/<transaction>` | the receipt of a transaction of the deal as a node gave it (`eth_getTransactionReceipt`, JSON), `0x` and 64 hex digits in the name; nobody has signed it |
//! | `record/<version>` | a record, version in 8 digits from `00000001` on, gapless |
//! | `report/<version>` | the verdict in full as a mediator published it with the vote in that record |
//! | `terms` | the terms as both parties signed them: protobuf `tribunal.v1.Terms`; deal id = BLAKE3 derive_key("tribunal.v1 deal", these bytes) |
//!
//! A record, all integers big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1, 1 | frame version 1, flags 0 |
//! | 4, 4 | bytes of the event, bytes of the signature |
//! | 8, 8 | log position, version in the deal |
//! | 32, 32, 32 | deal id, event id, link before |
//! | 8 | recorded at, microseconds since 1970-01-01 UTC |
//! | 20 | signer |
//! | … | event (protobuf `tribunal.v1.Event`) and signature (65 bytes r, s, v), exactly as sent |
//! | 32 | link after: BLAKE3 derive_key("tribunal.v1 link", link before, all bytes of the record before this one) |
//!
//! The first record's link before is 32 zero bytes; an event id is the BLAKE3 of the event bytes; positions ascend.
//!
//! Signatures are EIP-712 in the domain `{name "Tribunal", version "1", chainId, verifyingContract}` with the chain and the
//! contract of the terms' settlement (0 and the zero address where it names none):
//!
//! | type | by | where |
//! |---|---|---|
//! | `DealEvent(bytes32 dealId,bytes32 eventHash)` | the event's sender, who is the signer; from `panel_drawn` on the operator | every record |
//! | `Terms(…)`, below | each party | `terms_signature` in `proposed` and `agreed` |
//! | `Verdict(bytes32 termsHash,uint32 round,uint8 verdict,uint64 instructionCount,bytes32 digest)` | the event's sender | `vote_revealed`, `verdict_given` |
//!
//! `termsHash` is the struct hash of `Terms`, whose fields and preimages `contracts/src/ITribunalEscrow.sol` gives. Of the
//! message in section `terms`: `price` is the fixed price, or the price of one instruction (`pricing` 2); `feeBps` is 0 for
//! a public good; `mediatorsHash` is over the operator and `mediation`, an appointed mediator being a panel of 1 with quorum 1;
//! `timeoutsHash` over the six durations in the message's order. What is absent is zero.
//!
//! `deal.json` is compact JSON, fields in the order of [`DealFile`]; ids, links and accounts are lowercase hex after `0x`.
//! A deal names as artifacts: module, stdin, inputs and verification key in its terms; stdout, outputs, proof and public
//! inputs in claims, replicas' too. A report is the `report_json` of the verdict in its record; there is one for each that is
//! not empty. The verdict's digest is BLAKE3 derive_key("tribunal.v1 verdict", RFC 8785 form of the report's `{evidence,
//! reason: {code}, verdict}`), `evidence` without `verifier_version`, `wall_us` and `host`, and without `own_outputs`,
//! `own_stdout` and `fuel_used` unless the runtime is deterministic and the comparator exact.
//!
//! `checkpoint`, `log-key.json` and `proofs.json` are there all three or none. Trees, head map, notes and keys are defined in
//! [`tribunal_events::tlog`]; leaf `i` of the log is the whole record (a `record/…` section) at position `i + 1`.
//!
//! # What a file can and cannot prove
//!
//! Who said what, that the rules allow every step, that panels are drawn as they must be, that money was divided as
//! agreed, and, with the artifacts, that the verdict is right: all that is proved. At which time and in which order the
//! operator received events, and that none was left out up to the checkpoint, its log attests: whoever holds another
//! checkpoint of it can show that it lied. A file cannot show that transactions are on a chain, or that an open deal has
//! not gone on since. [`BundleReport`] says so claim by claim.
//!
//! **Invariant:** every byte of a file is covered by its digests and has a meaning; none can change unseen.
//! **Invariant:** reading allocates in proportion to the file, whatever lengths it claims.

mod claims;
mod container;
mod contents;
mod export;
mod frame;
mod verify;

pub use self::{
    claims::{BundleReport, Claim, Standing, Word},
    container::{BUNDLE_BYTES_MAX, BundleFault, MAGIC, SECTIONS_MAX, read, write},
    contents::DealFile,
    export::{ExportFault, export, export_with},
    frame::{decode_frame, encode_frame},
    verify::{VerifyOptions, verify},
};
