//! Read models of imported deals: what the command line, HTTP and the page show. Folds of the store, nothing else.

use serde::Serialize;
use serde_json::{Value, json};
use tribunal_contracts::lilypad::history::{self, Said};
use tribunal_events::{Address, Amount, DealId, EventKind, Foreign, ForeignSaid};

use super::{
    chronicle::{Chronicle, Problem},
    explain::{Explained, explain},
    ledger::Account,
    replay::Replay,
    rule::tokens,
};
use crate::{
    replay::ReplayFault,
    store::{Record, Store},
    view::{DealSummary, PayoutView, TimelineEntry},
};

/// Where an imported deal comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Origin {
    /// `lilypad`.
    pub marketplace: &'static str,
    /// EIP-155 id of the chain.
    pub chain_id: u64,
    /// The contract that keeps the marketplace's deals.
    pub storage: Address,
    /// The deal's id there.
    pub foreign_id: String,
}

/// A deal that was imported, replayed.
pub struct Imported {
    /// Where it comes from.
    pub origin: Origin,
    /// What was observed.
    pub chronicle: Chronicle,
    /// What came of it.
    pub replay: Replay,
    /// What contradicts the marketplace's rules, or itself.
    pub problems: Vec<Problem>,
    /// What its known defects did.
    pub notes: Vec<Explained>,
    /// Its last record.
    pub last: Record,
    /// One line a record.
    pub timeline: Vec<TimelineEntry>,
}

/// Reads an imported deal, up to log position `at`; nothing where there is none, or the deal was made here.
///
/// # Errors
/// Where the store cannot be read.
pub fn imported(store: &Store, deal_id: &DealId, at: Option<u64>) -> Result<Option<Imported>, ReplayFault> {
    let mut chronicle = Chronicle::default();
    let (mut problems, mut timeline, mut last) = (Vec::new(), Vec::new(), None);
    for record in store.stream(deal_id, 1) {
        let record = record?;
        let position = record.position;
        if at.is_some_and(|at| position > at) {
            break;
        }
        let parsed = record.envelope.clone().parse().map_err(|source| ReplayFault::Decode { position, source })?;
        let EventKind::ForeignObserved(foreign) = parsed.into_kind() else { return Ok(None) };
        problems.extend(chronicle.take(position, &foreign));
        timeline.push(TimelineEntry {
            version: record.version,
            position,
            at: record.recorded_at.to_string(),
            kind: "foreign_observed",
            by: format!("importer {:#x}", record.signer),
            what: sentence(&foreign),
            event_id: record.event_id.to_string(),
            link: record.link.to_string(),
        });
        last = Some(record);
    }
    let (Some(first), Some(last)) = (&chronicle.first, last) else { return Ok(None) };
    let origin = Origin {
        marketplace: first.marketplace.word(),
        chain_id: first.chain_id,
        storage: first.storage,
        foreign_id: first.foreign_id.clone(),
    };
    let replay = Replay::of(&chronicle);
    problems.extend(replay.problems.iter().cloned());
    let notes = explain(&chronicle, &replay, last.recorded_at.us() / 1_000_000);
    Ok(Some(Imported { origin, chronicle, replay, problems, notes, last, timeline }))
}

impl Imported {
    /// The line about it among other deals.
    pub fn summary(&self) -> DealSummary {
        let payout = |(account, role, it): (Address, &'static str, Account)| PayoutView {
            account,
            role,
            locked: Amount::new(it.locked),
            paid: Amount::new(it.returned.saturating_add(it.received)),
            net: it.net(),
        };
        DealSummary {
            deal_id: self.last.deal_id,
            state: "imported",
            outcome: self.replay.state.word(),
            reason_code: None,
            client: self.replay.client.unwrap_or_default(),
            provider: self.replay.provider.unwrap_or_default(),
            version: self.last.version,
            last_position: self.last.position,
            updated_at: self.last.recorded_at.to_string(),
            next_deadline: None,
            payouts: self.accounts().into_iter().map(payout).collect(),
            transaction: None,
            imported: Some(self.origin.clone()),
        }
    }

    /// Accounts with what they are.
    pub fn accounts(&self) -> Vec<(Address, &'static str, Account)> {
        let role = |account: Address| match account {
            it if Some(it) == self.replay.client => "client",
            it if Some(it) == self.replay.provider => "provider",
            it if self.replay.mediator.is_some_and(|(mediator, ..)| it == mediator) => "mediator",
            _ => "other",
        };
        self.replay.ledger.accounts.iter().map(|(account, it)| (*account, role(*account), *it)).collect()
    }

    /// All about it, as JSON.
    pub fn json(&self) -> Value {
        let mut json = serde_json::to_value(self.summary()).expect("a summary has only text keys");
        let account = |(account, role, it): (Address, &'static str, Account)| {
            json!({
                "account": account, "role": role, "locked": it.locked.to_string(), "returned": it.returned.to_string(),
                "received": it.received.to_string(), "given": it.given.to_string(), "slashed": it.slashed.to_string(),
                "in_escrow": it.in_escrow().0.to_string(), "net": it.net(),
            })
        };
        json["accounts"] = self.accounts().into_iter().map(account).collect();
        json["token_owner"] = self.replay.ledger.slashed.to_string().into();
        json["problems"] = (self.problems.iter())
            .map(|it| json!({ "position": it.position, "code": it.code, "expected": it.expected, "found": it.found }))
            .collect();
        json["notes"] = (self.notes.iter())
            .map(|it| json!({ "position": it.position, "code": it.code, "text": it.text }))
            .collect();
        json["link"] = self.last.link.to_string().into();
        json["timeline"] = json!(self.timeline);
        json
    }
}

/// One sentence about an observation.
pub fn sentence(foreign: &Foreign) -> String {
    let said = match &foreign.said {
        ForeignSaid::Answer { call, .. } => format!("the storage answers to {}", call.word()),
        ForeignSaid::Log { topics, data, .. } => match history::read_log(foreign.role, topics, data) {
            Ok((_, Said::State(state))) => format!("the deal comes to {}", state.word()),
            Ok((_, Said::Result { data_id, instruction_count, .. })) => {
                format!("the provider gives result {data_id}, {instruction_count} instructions")
            }
            Ok((_, Said::Mediator(mediator))) => format!("{mediator:#x} is asked to mediate"),
            Ok((_, Said::Payment { payee, amount, reason, direction })) => {
                format!("{payee:#x} {} {} as {}", direction.word(), tokens(amount), reason.word())
            }
            Err(problem) => format!("no event of the {} contract: {problem}", foreign.role.word()),
        },
    };
    let time = foreign.block_time_s.map_or_else(String::new, |s| {
        let at = tribunal_events::Timestamp::from_s(s).to_string();
        format!(", {}", at.get(..19).unwrap_or(&at).replace('T', " "))
    });
    format!("{said} (block {}{time})", foreign.block)
}
