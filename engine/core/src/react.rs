use serde::{Deserialize, Serialize};
use tribunal_events::{Address, Digest, EventKind, Outcome};

use crate::{Deal, Phase, REORGANISED};

/// IO that follows from an event; done at least once, recognised by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// BLAKE3 `derive_key("tribunal.v1 effect", deal id, stream version and index as 8 bytes big-endian each)`.
    pub id: Digest,
    /// What to do.
    pub kind: EffectKind,
}

/// What is to be done. How is read from the deal when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum EffectKind {
    /// Lock the money in the contract.
    Open,
    /// Tell the contract that a result is there.
    Submit,
    /// Tell the contract that it is disputed.
    Dispute,
    /// Tell the contract a party's seed.
    Reveal {
        /// 1 the client's, 2 the provider's.
        party: u8,
    },
    /// Slash drawn mediators that were silent in a round.
    Silence {
        /// The round.
        round: u32,
    },
    /// Move the money by the outcome.
    Settle,
    /// Judge the case, if one of its mediators is run here.
    Judge {
        /// The round.
        round: u32,
    },
    /// Reveal committed votes, if one of its mediators is run here.
    RevealVotes {
        /// The round.
        round: u32,
    },
    /// Publish the verdict.
    Publish,
    /// Show the contract two verdicts of one mediator in one round. No event asks for it: one of the two was refused.
    Equivocation {
        /// Who signed both.
        mediator: Address,
        /// The round.
        round: u32,
    },
}

impl EffectKind {
    /// Whether it is a step of the deal on the chain; those of one deal are done in order.
    pub const fn is_chain(&self) -> bool {
        !matches!(self, Self::Judge { .. } | Self::RevealVotes { .. } | Self::Publish | Self::Equivocation { .. })
    }

    /// The step that has this name; nothing where none has.
    pub fn of_step(name: &str) -> Option<Self> {
        Some(match name {
            "open" => Self::Open,
            "submit" => Self::Submit,
            "dispute" => Self::Dispute,
            "reveal-client" => Self::Reveal { party: 1 },
            "reveal-provider" => Self::Reveal { party: 2 },
            "settle" => Self::Settle,
            other => Self::Silence { round: other.strip_prefix("silence-")?.parse().ok()? },
        })
    }

    /// Its place among the steps of a deal: the contract takes none before all of a lower rank. Other effects come last.
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Submit => 1,
            Self::Dispute => 2,
            Self::Reveal { .. } => 3,
            Self::Silence { .. } => 4,
            Self::Settle => 5,
            Self::Judge { .. } | Self::RevealVotes { .. } | Self::Publish | Self::Equivocation { .. } => u8::MAX,
        }
    }

    /// The name under which its outcome is recorded.
    pub fn step(&self) -> String {
        match self {
            Self::Open => "open".into(),
            Self::Submit => "submit".into(),
            Self::Dispute => "dispute".into(),
            Self::Reveal { party: 1 } => "reveal-client".into(),
            Self::Reveal { .. } => "reveal-provider".into(),
            Self::Silence { round } => format!("silence-{round}"),
            Self::Settle => "settle".into(),
            Self::Judge { .. } | Self::RevealVotes { .. } | Self::Publish | Self::Equivocation { .. } => String::new(),
        }
    }
}

/// Effects of an event that has just been folded in: `deal` is the state after it.
pub fn react(deal: &Deal, kind: &EventKind, signer: Address) -> Vec<Effect> {
    let on_chain = deal.terms.domain().on_chain();
    let mut kinds = Vec::new();
    match kind {
        EventKind::Agreed { .. } if on_chain => kinds.push(EffectKind::Open),
        EventKind::ResultSubmitted { .. } if on_chain => kinds.push(EffectKind::Submit),
        EventKind::Disputed { .. } if on_chain => kinds.push(EffectKind::Dispute),
        EventKind::SeedRevealed { .. } if on_chain => {
            let party = deal.terms.party(signer).map_or(0, |party| party as u8);
            kinds.push(EffectKind::Reveal { party });
        }
        EventKind::PanelDrawn { round, .. } => kinds.push(EffectKind::Judge { round: *round }),
        EventKind::ArtifactServed { .. } | EventKind::ArtifactMissing { .. } => {
            if let Some(round) = deal.dispute().and_then(|dispute| dispute.round.as_ref()) {
                kinds.push(EffectKind::Judge { round: round.number() });
            }
        }
        EventKind::VoteCommitted { round, .. } if deal.dispute().is_some_and(|dispute| dispute.revealing) => {
            kinds.push(EffectKind::RevealVotes { round: *round });
        }
        EventKind::DeadlineElapsed { deadline, round, silent, .. } => match deadline.as_str() {
            "availability" => kinds.push(EffectKind::Judge { round: *round }),
            "commit" => kinds.push(EffectKind::RevealVotes { round: *round }),
            "mediate" if on_chain && !silent.is_empty() && deal.is_drawn() => {
                kinds.push(EffectKind::Silence { round: *round });
            }
            _ => {}
        },
        // Taken again, by an effect with an id of its own.
        EventKind::ChainObserved { step, failure: Some(failure), .. } if failure == REORGANISED => {
            kinds.extend(EffectKind::of_step(step));
        }
        _ => {}
    }
    if let (Phase::Decided(decision), false) = (&deal.phase, matches!(kind, EventKind::ChainObserved { .. })) {
        if matches!(decision.outcome, Outcome::Valid | Outcome::Invalid | Outcome::Inconclusive) {
            kinds.push(EffectKind::Publish);
        }
        if on_chain && decision.funded {
            kinds.push(EffectKind::Settle);
        }
    }
    kinds.into_iter().zip(0u64..).map(|(kind, index)| Effect { id: effect_id(deal, index), kind }).collect()
}

pub(crate) fn effect_id(deal: &Deal, index: u64) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("tribunal.v1 effect");
    hasher.update(deal.id().bytes()).update(&deal.version.to_be_bytes()).update(&index.to_be_bytes());
    Digest::new(*hasher.finalize().as_bytes())
}
