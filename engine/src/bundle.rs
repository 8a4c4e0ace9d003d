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
//! The first record's link before is 32 zero bytes; an event id is the BLAKE3 of the event bytes; a signature is over
//! EIP-712 `DealEvent(bytes32 dealId,bytes32 eventHash)` in the domain that the terms name.
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
    export::{ExportFault, export},
    frame::{decode_frame, encode_frame},
    verify::{VerifyOptions, verify},
};
