//! Everything that can be checked about a bundle with nothing but the bundle.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tribunal_events::{Address, Claim, EventKind};
use tribunal_verifiers::{MemorySource, OperatorLimits, Service, address_like};

use super::{
    claims::{BundleReport, published, report},
    container::{BUNDLE_BYTES_MAX, BundleFault, malformed, read},
    contents::{Contents, DealFile, artifact_name, report_name},
};
use crate::audit::{Examined, Examiner, Surroundings, named_artifacts, reverify};

/// How to verify.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// Accounts whose word is taken; empty: the report says whose word the result rests on, and leaves it there.
    pub trust: Vec<Address>,
    /// Run the verifier over the bundled artifacts.
    pub reverify: bool,
    /// What that may use.
    pub limits: OperatorLimits,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { trust: Vec::new(), reverify: true, limits: OperatorLimits::default() }
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
    let mut reverified = None;
    if options.reverify {
        let mut source = MemorySource::new();
        for bytes in contents.artifacts.values() {
            source.add(*bytes);
        }
        let service = Service::new(options.limits, Vec::new());
        reverified = reverify(&mut examined, &service, &source);
    }
    Ok(report(&contents, examined, reverified.as_ref(), &options.trust))
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

fn claimed(record: &crate::store::Record) -> Option<Arc<Claim>> {
    match record.envelope.clone().parse().ok()?.into_kind() {
        EventKind::ResultSubmitted { claim, .. } | EventKind::ReplicaSubmitted { claim } => Some(claim),
        _ => None,
    }
}
