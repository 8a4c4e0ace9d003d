//! Everything that can be checked about a bundle with nothing but the bundle.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tribunal_events::{
    Address, Claim, EventKind,
    tlog::{Base64, Hash, HeadEntry, LogVerifier, leaf_hash, verify_head, verify_inclusion},
};
use tribunal_verifiers::{MemorySource, OperatorLimits, Service, address_like};

use super::{
    claims::{BundleReport, published, report},
    container::{BUNDLE_BYTES_MAX, BundleFault, malformed, read},
    contents::{Contents, DealFile, Logged, artifact_name, report_name},
    frame::encode_frame,
};
use crate::audit::{Examined, Examiner, Surroundings, compare_receipts, named_artifacts, reverify};

/// How to verify.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Accounts whose word is taken; empty: the report says whose word the result rests on, and leaves it there.
    pub trust: Vec<Address>,
    /// Logs whose word is taken, by their keys; empty: the operator's certificate says which key is its log's.
    pub trust_logs: Vec<LogVerifier>,
    /// Run the verifier over the bundled artifacts.
    pub reverify: bool,
    /// What that may use.
    pub limits: OperatorLimits,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { trust: Vec::new(), trust_logs: Vec::new(), reverify: true, limits: OperatorLimits::default() }
    }
}

/// Verifies a bundle. Needs no store, no network, no clock.
///
/// # Errors
/// [`BundleFault`] where the bytes are no bundle, or were changed; what is wrong with what it says is in the report.
pub fn verify(bytes: &[u8], options: &VerifyOptions) -> Result<BundleReport, BundleFault> {
    if bytes.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(malformed("the file", format!("{} bytes, more than {BUNDLE_BYTES_MAX}", bytes.len())));
    }
    let sections = read(bytes)?;
    let contents = Contents::read(&sections)?;
    let mut examiner = Examiner::new(contents.deal.deal_id);
    for record in &contents.records {
        examiner.take(record);
    }
    let mut examined = examiner.finish(&Surroundings::default());
    compare(&contents, &mut examined);
    check_log(&contents, &mut examined);
    compare_receipts(&mut examined, &contents.records, &contents.receipts);
    let mut reverified = None;
    if options.reverify {
        let mut source = MemorySource::new();
        for bytes in contents.artifacts.values() {
            source.add(*bytes);
        }
        let service = Service::new(options.limits, Vec::new());
        reverified = reverify(&mut examined, &service, &source);
    }
    Ok(report(&contents, examined, reverified.as_ref(), options))
}

/// What stands beside the records must be what follows from them.
fn compare(contents: &Contents<'_>, examined: &mut Examined) {
    let Some(terms) = examined.terms.clone() else {
        examined.findings.whole("terms", "the terms in the first record", "a first record without any");
        return;
    };
    let findings = &mut examined.findings;
    if contents.terms != terms.bytes() {
        findings.whole("terms", "the terms in the first record", "other bytes");
    }
    let claims: Vec<Arc<Claim>> = contents.records.iter().filter_map(claimed).collect();
    let named = named_artifacts(&terms, &claims);
    for (address, bytes) in &contents.artifacts {
        let actual = address_like(address, bytes);
        if actual != *address {
            findings.whole("artifact", artifact_name(address), actual);
        } else if !named.contains(address) {
            findings.whole("artifact", "an artifact that terms or claims name", artifact_name(address));
        }
    }
    let held: BTreeSet<_> = contents.artifacts.keys().copied().collect();
    let left_out: BTreeSet<_> = named.difference(&held).copied().collect();
    if let (Some(first), Some(last)) = (contents.records.first(), contents.records.last()) {
        let expected = DealFile::of(&terms, contents.records.len() as u64, first, last, left_out);
        if expected != contents.deal {
            let text = |file: &DealFile| serde_json::to_string(file).unwrap_or_default();
            findings.whole("summary", text(&expected), text(&contents.deal));
        }
    }
    let published: BTreeMap<u64, String> = published(contents).into_iter().collect();
    for version in published.keys().chain(contents.reports.keys()).collect::<BTreeSet<_>>() {
        let said = published.get(version).map(String::as_bytes);
        if said != contents.reports.get(version).copied() {
            let expected =
                if said.is_some() { "the report in that record" } else { "no report, as that record has none" };
            findings.whole("report", expected, report_name(*version));
        }
    }
}

/// That the operator's log holds the records, where it says it does, and no more of the deal.
fn check_log(contents: &Contents<'_>, examined: &mut Examined) {
    let (Some(logged), Some(terms)) = (&contents.logged, examined.terms.clone()) else { return };
    let findings = &mut examined.findings;
    let Logged { checkpoint, certificate, proofs } = logged;
    if certificate.operator != terms.operator {
        let expected = format!("the word of the operator {:#x}, whom the terms name", terms.operator);
        findings.whole("log-key", expected, format!("{:#x}'s", certificate.operator));
    } else if let Err(error) = certificate.verify() {
        findings.whole("log-key", "the operator's signature", error);
    }
    let said = match checkpoint.verify(&certificate.vkey) {
        Ok(said) => said,
        Err(error) => return findings.whole("checkpoint", "a checkpoint of the certified key", error),
    };
    if proofs.tree_size != said.size || proofs.inclusion.len() != contents.records.len() {
        let found = format!("{} proofs of {} records", proofs.inclusion.len(), proofs.tree_size);
        let expected = format!("a proof for each of {} records of {}", contents.records.len(), said.size);
        return findings.whole("inclusion", expected, found);
    }
    for (record, path) in contents.records.iter().zip(&proofs.inclusion) {
        let leaf = leaf_hash(&encode_frame(record));
        let index = record.position.wrapping_sub(1);
        let held =
            hashes(path).is_some_and(|path| verify_inclusion(&leaf, index, said.size, &path, &said.root).is_ok());
        if !held {
            findings.record(record, "inclusion", "a record of the log", "a proof that does not hold");
        }
    }
    let Some(last) = contents.records.last() else { return };
    let (deal_id, version, position, link) = (contents.deal.deal_id, last.version, last.position, last.link);
    let entry = HeadEntry { deal_id, version, position, link };
    let held = hashes(&proofs.head).is_some_and(|path| verify_head(&entry, &path, &said.heads.root).is_ok());
    if !held {
        let expected = format!("that version {version} was the deal's last among {} records", said.size);
        findings.whole("deal-head", expected, "a proof that does not hold");
    }
}

fn hashes(path: &[Base64]) -> Option<Vec<Hash>> {
    path.iter().map(|hash| hash.0.as_slice().try_into().ok()).collect()
}

fn claimed(record: &crate::store::Record) -> Option<Arc<Claim>> {
    match record.envelope.clone().parse().ok()?.into_kind() {
        EventKind::ResultSubmitted { claim, .. } | EventKind::ReplicaSubmitted { claim } => Some(claim),
        _ => None,
    }
}
