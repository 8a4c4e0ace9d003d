//! The engine's own words: puts an event that the core decided on into the schema and signs it as the operator.

use tribunal_core::Deal;
use tribunal_events::{Envelope, EventKind, SigningKey, Terms, proto};

/// Adds the signatures of the operator that contracts ask for, which the pure core cannot make.
pub fn countersign(kind: EventKind, terms: &Terms, operator: &SigningKey) -> EventKind {
    let (domain, hash) = (terms.domain(), terms.hash());
    match kind {
        EventKind::PanelDrawn { round, seed, candidates, panel, .. } => {
            let signature = operator.sign(domain.panel_digest(hash, round, &panel));
            let panel_signature = domain.on_chain().then_some(signature);
            EventKind::PanelDrawn { round, seed, candidates, panel, panel_signature }
        }
        EventKind::DeadlineElapsed { deadline, deadline_us, round, silent, .. } => {
            let signature = operator.sign(domain.silence_digest(hash, round, &silent));
            let silence_signature = (domain.on_chain() && !silent.is_empty()).then_some(signature);
            EventKind::DeadlineElapsed { deadline, deadline_us, round, silent, silence_signature }
        }
        kind => kind,
    }
}

/// Signs an event of the engine in its deal.
///
/// # Panics
/// For kinds that parties and mediators say.
pub fn seal(kind: &EventKind, deal: &Deal, operator: &SigningKey) -> Envelope {
    let event = event(kind, deal);
    Envelope::sign(&event, &deal.terms().domain(), operator).expect("a deal id has 32 bytes")
}

fn event(kind: &EventKind, deal: &Deal) -> proto::Event {
    use proto::event::Kind;
    let addresses = |list: &[tribunal_events::Address]| list.iter().map(|address| address.to_vec()).collect::<Vec<_>>();
    let signature =
        |it: &Option<tribunal_events::Signature>| it.map(|signature| signature.bytes().to_vec()).unwrap_or_default();
    let kind = match kind {
        EventKind::PanelDrawn { round, seed, candidates, panel, panel_signature } => {
            Kind::PanelDrawn(proto::PanelDrawn {
                round: *round,
                seed: seed.bytes().to_vec(),
                candidates: addresses(candidates),
                panel: addresses(panel),
                panel_signature: signature(panel_signature),
            })
        }
        EventKind::VerdictReached { round, outcome, reason_code, voters } => {
            Kind::VerdictReached(proto::VerdictReached {
                round: *round,
                outcome: *outcome as i32,
                reason_code: reason_code.clone(),
                voters: addresses(voters),
            })
        }
        EventKind::DeadlineElapsed { deadline, deadline_us, round, silent, silence_signature } => {
            Kind::DeadlineElapsed(proto::DeadlineElapsed {
                deadline: deadline.clone(),
                deadline_us: *deadline_us,
                round: *round,
                silent: addresses(silent),
                silence_signature: signature(silence_signature),
            })
        }
        EventKind::ChainObserved { step, effect_id, transaction, block, failure, block_time_s } => {
            Kind::ChainObserved(proto::ChainObserved {
                step: step.clone(),
                effect_id: effect_id.bytes().to_vec(),
                transaction: transaction.to_vec(),
                block: *block,
                failed: failure.is_some(),
                failure: failure.clone().unwrap_or_default(),
                block_time_s: block_time_s.unwrap_or_default(),
            })
        }
        EventKind::Settled { outcome, payouts, transaction, block } => Kind::Settled(proto::Settled {
            outcome: *outcome as i32,
            payouts: payouts.iter().map(proto::Payout::from).collect(),
            transaction: transaction.map(|hash| hash.to_vec()).unwrap_or_default(),
            block: *block,
        }),
        other => panic!("the engine does not say `{}`", other.name()),
    };
    proto::Event { schema_version: 1, deal_id: deal.id().bytes().to_vec(), sender: Vec::new(), kind: Some(kind) }
}
