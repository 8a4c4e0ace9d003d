//! The cases that name or draw a mediator: what is asked of it, until when, and what it pays. A fold of the store.

use serde::Serialize;
use tribunal_core::{Deal, Phase, next_deadline, voting_deadline};
use tribunal_events::{Address, Amount, DealId, Method, Timestamp};

use crate::{
    replay::{ReplayFault, load},
    store::Store,
};

/// What a case asks of a mediator, in the order in which it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Named in the terms; nobody disputes anything.
    Named,
    /// Disputed, and the panel is not drawn yet.
    Draw,
    /// To be judged: fetch, verify, and give or commit to a verdict.
    Judge,
    /// Artifacts were asked for; their party still has time.
    Artifacts,
    /// Committed; others can still commit.
    Committed,
    /// To be revealed.
    Reveal,
    /// Voted; others can still vote.
    Voted,
    /// Others were drawn in this round.
    NotDrawn,
    /// Decided; the money is on its way.
    Decided,
}

impl Stage {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Draw => "draw",
            Self::Judge => "judge",
            Self::Artifacts => "artifacts",
            Self::Committed => "committed",
            Self::Reveal => "reveal",
            Self::Voted => "voted",
            Self::NotDrawn => "not-drawn",
            Self::Decided => "decided",
        }
    }

    /// One sentence for people.
    pub const fn asks(self) -> &'static str {
        match self {
            Self::Named => "nothing: the deal names you, and nobody disputes it",
            Self::Draw => "nothing yet: both seeds decide who is drawn",
            Self::Judge => "find the verdict and give it",
            Self::Artifacts => "wait for artifacts that a party must serve",
            Self::Committed => "wait until votes may be revealed",
            Self::Reveal => "reveal the vote you committed to",
            Self::Voted => "nothing more: you have voted",
            Self::NotDrawn => "nothing: others were drawn in this round",
            Self::Decided => "nothing: the case is decided",
        }
    }

    /// Whether this mediator must act for the case to go on.
    pub const fn is_our_turn(self) -> bool {
        matches!(self, Self::Judge | Self::Reveal)
    }
}

/// A case in the inbox of one mediator.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// The deal.
    pub deal_id: DealId,
    /// Whose inbox.
    pub mediator: Address,
    /// `appointed` or `drawn`.
    pub protocol: &'static str,
    /// The round, once a panel is known.
    pub round: Option<u32>,
    /// What is asked.
    pub stage: Stage,
    /// The same as one sentence.
    pub asks: &'static str,
    /// Until when this mediator can act, or until when the deal stands as it does.
    #[serde(serialize_with = "rfc3339")]
    pub deadline: Option<Timestamp>,
    /// How the result is checked.
    pub method: &'static str,
    /// Fuel that the provider claims to have used.
    pub claimed_fuel: Option<u64>,
    /// Paid for a verdict valid or invalid, if every member of the panel votes; base units of `token`.
    pub pays: Amount,
    /// Paid where the panel cannot tell.
    pub pays_inconclusive: Amount,
    /// Slashed for silence, at most.
    pub slash: Amount,
    /// The deal's token.
    pub token: Address,
}

fn rfc3339<S: serde::Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

/// What a deal means for a mediator; nothing where its terms do not name it, or it is over.
pub fn case(deal: &Deal, mediator: Address) -> Option<Case> {
    let terms = deal.terms();
    if !terms.mediation.mediators.contains(&mediator) {
        return None;
    }
    let mut round = None;
    let mut deadline = next_deadline(deal).map(|deadline| deadline.at);
    let stage = match deal.phase() {
        Phase::Settled { .. } => return None,
        Phase::Decided(decision) => {
            round = decision.round.as_ref().map(tribunal_mediators::Round::number);
            Stage::Decided
        }
        Phase::Disputed { dispute, .. } => match &dispute.round {
            None => Stage::Draw,
            Some(current) => {
                round = Some(current.number());
                deadline = voting_deadline(deal);
                if !current.panel().contains(&mediator) {
                    Stage::NotDrawn
                } else if current.has_voted(mediator) {
                    Stage::Voted
                } else if current.has_committed(mediator) {
                    if dispute.revealing { Stage::Reveal } else { Stage::Committed }
                } else if dispute.requests.values().any(|request| !request.elapsed && !request.served) {
                    Stage::Artifacts
                } else {
                    Stage::Judge
                }
            }
        },
        _ => Stage::Named,
    };
    let members = match terms.mediation.protocol {
        tribunal_events::Protocol::Drawn => terms.mediation.panel_size,
        _ => 1,
    };
    let fee = terms.pricing.mediation_fee;
    let half = fee.split(4).checked_mul(2).unwrap_or_default();
    Some(Case {
        deal_id: deal.id(),
        mediator,
        protocol: if deal.is_drawn() { "drawn" } else { "appointed" },
        round,
        stage,
        asks: stage.asks(),
        deadline,
        method: match &terms.method {
            Method::Reexecution => "reexecution",
            Method::Proof { .. } => "proof",
            Method::Majority { .. } => "majority",
        },
        claimed_fuel: deal.submission().map(|submission| submission.claim.instruction_count),
        pays: fee.split(u64::from(members.max(1))),
        pays_inconclusive: half.split(u64::from(members.max(1))),
        slash: terms.mediation.silence_slash,
        token: terms.money().token,
    })
}

/// Every open case of these mediators: what asks for something first, then by deadline.
///
/// # Errors
/// Where the store cannot be read.
pub fn inbox(store: &Store, mediators: &[Address]) -> Result<Vec<Case>, ReplayFault> {
    let mut cases = Vec::new();
    for deal_id in store.open_deals()? {
        let deal = match load(store, &deal_id) {
            Ok(Some(deal)) => deal,
            Ok(None) => continue,
            // One deal that cannot be read hides no other.
            Err(fault) => {
                tracing::error!(%deal_id, %fault, "a deal cannot be read; someone must act");
                continue;
            }
        };
        cases.extend(mediators.iter().filter_map(|mediator| case(&deal, *mediator)));
    }
    sort(&mut cases);
    Ok(cases)
}

/// The most urgent first.
pub fn sort(cases: &mut [Case]) {
    let late = Timestamp::from_us(u64::MAX);
    cases.sort_by_key(|case| (!case.stage.is_our_turn(), case.deadline.unwrap_or(late), case.deal_id, case.mediator));
}
