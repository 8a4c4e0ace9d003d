//! From a store to one file.

use std::collections::BTreeMap;

use tribunal_events::{B256, DealId, EventKind, tlog::in_base64};
use tribunal_verifiers::{ArtifactSource, Reference, address_like};

use super::{
    container::{BUNDLE_BYTES_MAX, SECTIONS_MAX, write},
    contents::{
        CHECKPOINT, DEAL, DealFile, LOG_KEY, PROOFS, ProofsFile, TERMS, artifact_name, receipt_name, record_name,
        report_name, report_of,
    },
    frame::encode_frame,
};
use crate::{
    audit::named_artifacts,
    log::certificates,
    store::{Record, Store, StoreFault},
};

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ExportFault {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// No such deal.
    #[error("there is no deal {0} in this store")]
    UnknownDeal(DealId),
    /// The first record holds no terms.
    #[error("the records of deal {deal_id} do not begin with a proposal: {problem}; `tribunal audit` says more")]
    NoTerms {
        /// The deal.
        deal_id: DealId,
        /// What is wrong.
        problem: String,
    },
    /// A deal of another marketplace.
    #[error(
        "deal {0} was imported from another marketplace: the chain's own logs are its evidence, and no bundle is made of them; \
         `tribunal deals show {0}` and `tribunal audit {0}` tell its history"
    )]
    Imported(DealId),
    /// More than a bundle holds.
    #[error("the bundle would have {found} {what}, more than {most}; --no-artifacts leaves artifacts out")]
    TooLarge {
        /// Bytes or sections.
        what: &'static str,
        /// How many.
        found: u64,
        /// The limit.
        most: u64,
    },
}

/// The evidence of one deal as a file. Artifacts that `artifacts` cannot serve, or all without it, are left out and
/// listed in `deal.json`.
///
/// # Errors
/// [`ExportFault`]; a deal whose history is wrong is exported as it stands, and verifying the file finds it.
pub fn export(store: &Store, deal_id: &DealId, artifacts: Option<&dyn ArtifactSource>) -> Result<Vec<u8>, ExportFault> {
    export_with(store, deal_id, artifacts, &BTreeMap::new())
}

/// As [`export`], with receipts of the deal's transactions as a node gave them.
///
/// # Errors
/// As [`export`].
pub fn export_with(
    store: &Store,
    deal_id: &DealId,
    artifacts: Option<&dyn ArtifactSource>,
    receipts: &BTreeMap<B256, Vec<u8>>,
) -> Result<Vec<u8>, ExportFault> {
    let mut sections: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut bytes: u64 = 0;
    for (transaction, receipt) in receipts {
        bytes += receipt.len() as u64;
        sections.insert(receipt_name(transaction), receipt.clone());
    }
    let mut terms = None;
    let mut claims = Vec::new();
    let mut ends: Option<(Record, Record)> = None;
    let mut positions = Vec::new();
    for record in store.stream(deal_id, 1) {
        let record = record?;
        match record.envelope.clone().parse().map(tribunal_events::ParsedEvent::into_kind) {
            Ok(kind) => {
                if let Some(report) = report_of(&kind) {
                    bytes += report.len() as u64;
                    sections.insert(report_name(record.version), report.as_bytes().to_vec());
                }
                match kind {
                    EventKind::Proposed { terms: proposed, .. } if ends.is_none() => terms = Some(proposed),
                    EventKind::ForeignObserved(_) if ends.is_none() => return Err(ExportFault::Imported(*deal_id)),
                    EventKind::ResultSubmitted { claim, .. } | EventKind::ReplicaSubmitted { claim } => {
                        claims.push(claim)
                    }
                    _ => {}
                }
            }
            Err(error) if ends.is_none() => {
                return Err(ExportFault::NoTerms { deal_id: *deal_id, problem: error.to_string() });
            }
            Err(_) => {}
        }
        let frame = encode_frame(&record);
        bytes += frame.len() as u64;
        bounded(bytes, sections.len())?;
        sections.insert(record_name(record.version), frame);
        positions.push(record.position);
        ends = Some(match ends {
            Some((first, _)) => (first, record),
            None => (record.clone(), record),
        });
    }
    let Some((first, last)) = ends else { return Err(ExportFault::UnknownDeal(*deal_id)) };
    let Some(terms) = terms else {
        return Err(ExportFault::NoTerms { deal_id: *deal_id, problem: "the first event is another".into() });
    };
    let mut left_out = named_artifacts(&terms, &claims);
    for address in left_out.clone() {
        // What a source cannot hand out, for whatever reason, is not in the file; the file says so.
        let Some(Ok(Some(found))) = artifacts.map(|source| source.fetch(&Reference::Address(address))) else {
            continue;
        };
        if address_like(&address, &found) == address {
            bytes += found.len() as u64;
            bounded(bytes, sections.len())?;
            sections.insert(artifact_name(&address), found.to_vec());
            left_out.remove(&address);
        }
    }
    let deal = DealFile::of(&terms, last.version, &first, &last, left_out);
    sections.insert(DEAL.into(), serde_json::to_vec(&deal).expect("a deal file has a JSON form"));
    sections.insert(TERMS.into(), terms.bytes().to_vec());
    logged(store, deal_id, &positions, &mut sections)?;
    Ok(write(&sections))
}

/// What the log says of the deal, by the first checkpoint after its last record: so the same deal gives the same file.
/// Nothing where no such checkpoint is signed yet, or its key is certified by nobody.
fn logged(
    store: &Store,
    deal_id: &DealId,
    positions: &[u64],
    sections: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), StoreFault> {
    let Some(head) = store.kept_head(deal_id)? else { return Ok(()) };
    if head.entry.map(|entry| entry.version) != Some(positions.len() as u64) {
        return Ok(()); // the deal moved on while it was read
    }
    let known = certificates(store)?;
    let Some(certificate) = known.iter().find(|it| head.checkpoint.verify(&it.vkey).is_ok()) else { return Ok(()) };
    let tree_size = head.checkpoint.checkpoint().size;
    let Some(paths) = store.prove_inclusions(positions, tree_size)? else { return Ok(()) };
    let inclusion = paths.iter().map(|path| in_base64(path)).collect();
    let proofs = ProofsFile { tree_size, inclusion, head: in_base64(&head.siblings) };
    sections.insert(CHECKPOINT.into(), head.checkpoint.note().as_bytes().to_vec());
    sections.insert(LOG_KEY.into(), serde_json::to_vec(certificate).expect("a certificate has a JSON form"));
    sections.insert(PROOFS.into(), serde_json::to_vec(&proofs).expect("proofs have a JSON form"));
    Ok(())
}

/// Refuses before memory is filled; a few sections and lines stay free for the rest.
fn bounded(bytes: u64, sections: usize) -> Result<(), ExportFault> {
    let manifest = sections as u64 * 256;
    if bytes + manifest > BUNDLE_BYTES_MAX - (1 << 20) {
        return Err(ExportFault::TooLarge { what: "bytes", found: bytes, most: BUNDLE_BYTES_MAX });
    }
    if sections + 4 > SECTIONS_MAX {
        return Err(ExportFault::TooLarge { what: "sections", found: sections as u64, most: SECTIONS_MAX as u64 });
    }
    Ok(())
}
