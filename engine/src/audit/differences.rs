//! How an engine event as recorded differs from the one that the rules give.

use tribunal_events::{Address, Amount, B256, EventKind, Payout, Terms};

/// One field that differs: code, expected, found.
pub(super) type Difference = (&'static str, String, String);

/// The fields of two engine events of one kind that differ; the operator's countersignatures are left out.
pub(super) fn differences(expected: &EventKind, found: &EventKind) -> Vec<Difference> {
    let mut list = Vec::new();
    let mut field = |code, expected: String, found: String| {
        if expected != found {
            list.push((code, expected, found));
        }
    };
    match (expected, found) {
        (
            EventKind::PanelDrawn { round, seed, candidates, panel, .. },
            EventKind::PanelDrawn { round: f_round, seed: f_seed, candidates: f_candidates, panel: f_panel, .. },
        ) => {
            field("round", round.to_string(), f_round.to_string());
            field("draw-seed", seed.to_string(), f_seed.to_string());
            field("candidates", accounts(candidates), accounts(f_candidates));
            field("panel", accounts(panel), accounts(f_panel));
        }
        (
            EventKind::VerdictReached { round, outcome, reason_code, voters },
            EventKind::VerdictReached { round: f_round, outcome: f_outcome, reason_code: f_code, voters: f_voters },
        ) => {
            field("round", round.to_string(), f_round.to_string());
            field("outcome", outcome.word().into(), f_outcome.word().into());
            field("reason", reason_code.clone(), f_code.clone());
            field("voters", accounts(voters), accounts(f_voters));
        }
        (
            EventKind::DeadlineElapsed { deadline, deadline_us, round, silent, .. },
            EventKind::DeadlineElapsed {
                deadline: f_deadline,
                deadline_us: f_us,
                round: f_round,
                silent: f_silent,
                ..
            },
        ) => {
            field("round", round.to_string(), f_round.to_string());
            field("deadline", format!("{deadline} at {deadline_us} µs"), format!("{f_deadline} at {f_us} µs"));
            field("silent", accounts(silent), accounts(f_silent));
        }
        (
            EventKind::Settled { outcome, payouts, transaction, block },
            EventKind::Settled { outcome: f_outcome, payouts: f_payouts, transaction: f_transaction, block: f_block },
        ) => {
            field("outcome", outcome.word().into(), f_outcome.word().into());
            field("payouts", money(payouts), money(f_payouts));
            field("transaction", mined(*transaction, *block), mined(*f_transaction, *f_block));
            if let Some((locked, paid)) = unbalanced(f_payouts) {
                list.push(("conservation", format!("{locked} paid out, as was locked"), paid));
            }
        }
        (EventKind::ChainObserved { .. }, EventKind::ChainObserved { .. }) if expected == found => {}
        _ => field("event-missing", expected.name().into(), found.name().into()),
    }
    list
}

/// What is wrong with the signature that the operator adds for a contract.
pub(super) fn countersignature(kind: &EventKind, terms: &Terms) -> Option<Difference> {
    let (domain, hash) = (terms.domain(), terms.hash());
    let (code, signature, digest, wanted) = match kind {
        EventKind::PanelDrawn { round, panel, panel_signature, .. } => {
            ("panel-signature", panel_signature, domain.panel_digest(hash, *round, panel), domain.on_chain())
        }
        EventKind::DeadlineElapsed { round, silent, silence_signature, .. } => {
            let wanted = domain.on_chain() && !silent.is_empty();
            ("silence-signature", silence_signature, domain.silence_digest(hash, *round, silent), wanted)
        }
        _ => return None,
    };
    let operator = format!("a signature by {:#x}", terms.operator);
    match (signature, wanted) {
        (None, false) => None,
        (None, true) => Some((code, operator, "none".into())),
        (Some(_), false) => Some((code, "none, as no contract asks for it".into(), "a signature".into())),
        (Some(signature), true) => match signature.recover(digest) {
            Ok(signer) if signer == terms.operator => None,
            Ok(signer) => Some((code, operator, format!("one by {signer:#x}"))),
            Err(error) => Some((code, operator, error.to_string())),
        },
    }
}

/// Accounts as text.
pub(super) fn accounts(list: &[Address]) -> String {
    if list.is_empty() {
        return "nobody".into();
    }
    list.iter().map(|account| format!("{account:#x}")).collect::<Vec<_>>().join(", ")
}

fn money(payouts: &[Payout]) -> String {
    let one = |it: &Payout| format!("{} {:#x} {} of {}", it.role.word(), it.account, it.paid, it.locked);
    payouts.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn mined(transaction: Option<B256>, block: u64) -> String {
    transaction.map_or_else(|| "no transaction".into(), |hash| format!("{hash:#x} in block {block}"))
}

/// The sums of what was locked and of what is paid, where they differ.
fn unbalanced(payouts: &[Payout]) -> Option<(String, String)> {
    let total = |of: fn(&Payout) -> Amount| {
        payouts.iter().map(of).try_fold(Amount::ZERO, |sum, amount| sum.checked_add(amount))
    };
    let (locked, paid) = (total(|it| it.locked), total(|it| it.paid));
    let text = |sum: Option<Amount>| sum.map_or_else(|| "more than 2^256".into(), |sum| sum.to_string());
    (locked.is_none() || locked != paid).then(|| (text(locked), text(paid)))
}
