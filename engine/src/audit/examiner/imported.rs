//! Deals that were imported from another marketplace: their records are examined like all others, their history by the
//! rules of the marketplace.

use std::collections::BTreeSet;

use tribunal_events::{Address, Domain, EventKind, ParsedEvent};

use super::{Examiner, Surroundings};
use crate::{
    import::{chronicle::Chronicle, explain::explain, replay::Replay},
    store::Record,
};

/// What was observed so far, and by whom.
#[derive(Default)]
pub(super) struct Observations {
    chronicle: Chronicle,
    importers: BTreeSet<Address>,
}

impl Examiner {
    /// Whether the deal was imported from another marketplace.
    pub const fn is_imported(&self) -> bool {
        self.imported.is_some()
    }

    /// Takes a record of an imported deal.
    pub(super) fn observe_foreign(&mut self, record: &Record, parsed: ParsedEvent) {
        let findings = &mut self.examined.findings;
        let imported = self.imported.get_or_insert_default();
        let name = parsed.kind_name();
        let EventKind::ForeignObserved(foreign) = parsed.clone().into_kind() else {
            return findings.record(record, "event", "an observation, as in an imported deal nobody speaks", name);
        };
        match parsed.authenticate(&Domain::default()) {
            Ok(signed) => {
                self.examined.signatures += 1;
                imported.importers.insert(signed.signer());
                if signed.signer() != record.signer {
                    let (expected, found) = (format!("{:#x}", signed.signer()), format!("{:#x}", record.signer));
                    findings.record(record, "signer", expected, found);
                }
            }
            Err(error) => findings.record(record, "signature", "one by the sender that the event names", error),
        }
        self.examined.engine_events += 1;
        for it in imported.chronicle.take(record.position, &foreign) {
            findings.record(record, it.code, it.expected, it.found);
        }
    }

    /// What the observations of an imported deal give together.
    pub(super) fn finish_foreign(&mut self, surroundings: &Surroundings<'_>) {
        let Some(imported) = &self.imported else { return };
        let findings = &mut self.examined.findings;
        if surroundings.head.is_some_and(|head| head.open) {
            findings.whole("head", "a closed deal, as imported deals are", "open");
        }
        if surroundings.outbox.is_some_and(|outbox| !outbox.is_empty()) {
            findings.whole("outbox", "nothing to be done for an imported deal", "effects");
        }
        let Some((last, at)) = self.examined.last else { return };
        let chronicle = &imported.chronicle;
        let replay = Replay::of(chronicle);
        for it in &replay.problems {
            findings.at(None, Some(it.position), it.code, &it.expected, &it.found);
        }
        if let Some(first) = &chronicle.first {
            let importers: Vec<_> = imported.importers.iter().map(|it| format!("{it:#x}")).collect();
            let text = format!(
                "deal {:?} of {} on chain {}, storage {:#x}: {}, as {} logs tell that {} signed for",
                first.foreign_id,
                first.marketplace.word(),
                first.chain_id,
                first.storage,
                replay.state.word(),
                chronicle.heard.len(),
                importers.join(", ")
            );
            findings.note(Some(last), "imported", text);
        }
        for it in explain(chronicle, &replay, at.us() / 1_000_000) {
            findings.note(Some(it.position), it.code, it.text);
        }
        self.examined.imported = Some(replay.state.word());
    }
}
