//! Evidence about an operator's log, checked without the log: checkpoints, and proofs against them.
//!
//! The log is an RFC 6962 Merkle tree with SHA-256. Leaf `i` (from 0) is the record at log position `i + 1`; its data is the
//! whole record frame. A [`Checkpoint`] is the log's signed word on how long it is and what is in it; it also commits to
//! where every deal stands (the *head map*), so that a proof shows not only that a record is there but that none was left
//! out. Nothing here is shared with the code that makes trees and proofs.
//!
//! | what | form |
//! |---|---|
//! | leaf hash, node | `SHA-256(0x00 ‖ data)`, `SHA-256(0x01 ‖ left ‖ right)`; the empty tree is `SHA-256()` |
//! | inclusion, consistency proof | RFC 9162, 2.1.3 and 2.1.4 |
//! | checkpoint | a C2SP signed note (tlog-checkpoint): origin, size, root in base64, and one extension line `heads/1 <deals> <root in base64>` |
//! | verifier key | C2SP: `<origin>+<key id in hex>+<base64(0x01 ‖ public key)>` |
//!
//! The head map at a tree size is a binary trie over deal ids, most significant bit first. No deal: 32 zero bytes. One deal,
//! at whatever depth: `SHA-256(0x00 ‖ deal id ‖ version ‖ position ‖ link)`, integers 8 bytes big-endian. More: `SHA-256(0x01 ‖
//! those with bit 0 ‖ those with bit 1)`. A proof lists the siblings from the root down to where the deal stands alone;
//! the last of them is never that of no deal.

mod checkpoint;
mod evidence;
mod proof;

pub use self::{
    checkpoint::{
        Checkpoint, CheckpointError, Heads, LogCertificate, LogKey, LogVerifier, NOTE_BYTES_MAX, ORIGIN_CHARS_MAX,
        SignedCheckpoint,
    },
    evidence::{Base64, DealHead, EVIDENCE_BYTES_MAX, Evidence, EvidenceError, Note, OtherHead, in_base64},
    proof::{
        Hash, HeadEntry, ProofError, empty_root, leaf_hash, node_hash, verify_consistency, verify_deal_absent,
        verify_head, verify_inclusion,
    },
};
