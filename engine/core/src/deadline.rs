use tribunal_events::{Address, Timestamp};

use crate::{Deal, Phase};

/// The next moment at which time alone changes a deal. It has passed when a later moment is known from the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// What ends.
    pub kind: DeadlineKind,
    /// The last moment within it.
    pub at: Timestamp,
    /// The round it belongs to, 0 outside a dispute.
    pub round: u32,
    /// Mediators who are silent, if it ends a round.
    pub silent: Vec<Address>,
}

/// What a deadline ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum DeadlineKind {
    Agree,
    Submit,
    Judge,
    Draw,
    /// Time to serve an artifact that a mediator asked for.
    Availability,
    /// Time to commit; then votes may be revealed though a member is silent.
    Commit,
    Mediate,
}

impl DeadlineKind {
    /// The word in the schema.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Agree => "agree",
            Self::Submit => "submit",
            Self::Judge => "judge",
            Self::Draw => "draw",
            Self::Availability => "availability",
            Self::Commit => "commit",
            Self::Mediate => "mediate",
        }
    }
}

/// The earliest deadline of a deal in its present state.
pub fn next_deadline(deal: &Deal) -> Option<Deadline> {
    let timeouts = &deal.terms.timeouts;
    let plain = |kind, at| Some(Deadline { kind, at, round: 0, silent: Vec::new() });
    match &deal.phase {
        Phase::Negotiating { .. } => plain(DeadlineKind::Agree, Timestamp::last_us_of_s(timeouts.agree_by_s)),
        // Until the money is locked, or known not to be, time stands still for the provider.
        Phase::Agreed { funded: false, .. } => None,
        Phase::Agreed { at, .. } => plain(DeadlineKind::Submit, at.deadline_after_s(timeouts.submit_s)),
        Phase::ResultSubmitted { submission, .. } => {
            plain(DeadlineKind::Judge, submission.at.deadline_after_s(timeouts.judge_s))
        }
        Phase::Disputed { dispute, .. } => {
            let Some(round) = &dispute.round else {
                return plain(DeadlineKind::Draw, dispute.at.deadline_after_s(timeouts.draw_s));
            };
            let number = round.number();
            let end = timeouts.mediate_deadline(dispute.at, number);
            let mediate = Deadline { kind: DeadlineKind::Mediate, at: end, round: number, silent: round.silent() };
            let commit = (deal.is_drawn() && !dispute.revealing).then(|| Deadline {
                kind: DeadlineKind::Commit,
                at: commit_deadline(deal, dispute.at, number),
                ..mediate.clone()
            });
            let availability = dispute
                .requests
                .values()
                .filter(|request| !request.elapsed)
                .map(|request| request.at.deadline_after_s(timeouts.availability_s))
                .min()
                .map(|at| Deadline { kind: DeadlineKind::Availability, at, ..mediate.clone() });
            // Of equal moments the one that comes first in the order of kinds.
            [availability, commit, Some(mediate)]
                .into_iter()
                .flatten()
                .min_by_key(|deadline| (deadline.at, deadline.kind))
        }
        Phase::Decided(_) | Phase::Settled { .. } => None,
    }
}

/// The last moment at which a member of the current panel can give, commit to or reveal its verdict.
pub fn voting_deadline(deal: &Deal) -> Option<Timestamp> {
    let dispute = deal.dispute()?;
    let round = dispute.round.as_ref()?.number();
    Some(if deal.is_drawn() && !dispute.revealing {
        commit_deadline(deal, dispute.at, round)
    } else {
        deal.terms.timeouts.mediate_deadline(dispute.at, round)
    })
}

/// Commitments end half of the voting time before the round does.
pub(crate) fn commit_deadline(deal: &Deal, disputed_at: Timestamp, round: u32) -> Timestamp {
    let end = deal.terms.timeouts.mediate_deadline(disputed_at, round);
    Timestamp::from_us(end.us().saturating_sub(deal.terms.timeouts.mediate_s.saturating_mul(500_000)))
}
