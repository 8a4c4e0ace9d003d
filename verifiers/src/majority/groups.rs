//! Sets of votes that agree pairwise, and the one that wins.
//!
//! A group is a clique of the graph whose edges are the pairs of votes that agree. All maximal ones are listed, in bounded time
//! whatever the graph: of 31 votes there are at most 4 × 3^9 = 78,732 (Moon and Moser 1965), and the search takes a few steps
//! for each (Tomita, Tanaka and Takahashi 2006). `credibility` goes through the list once more for each of at most 31 groups
//! that the votes outside the winner are put into. The order of votes is that of their voters, so it decides nothing.

use alloy_primitives::Uint;
use tribunal_events::Rule;

use crate::Vote;

/// Products of at most 31 weights below 2^63, and the trust.
pub(super) type Credibility = Uint<2048, 32>;

/// A set of votes, one bit each.
pub(super) type Group = u32;

/// The indices of a group's votes, ascending.
pub(super) fn members(group: Group) -> impl Iterator<Item = usize> + Clone {
    (0..Group::BITS as usize).filter(move |index| group >> index & 1 == 1)
}

/// The set of the first so many votes.
pub(super) fn first(count: usize) -> Group {
    (0..count).fold(0, |all, index| all | 1 << index)
}

/// Every maximal clique among `votes` (Bron and Kerbosch 1973, with a pivot); none where there are no votes.
pub(super) fn cliques(agreeing: &[Group], votes: Group) -> Vec<Group> {
    let mut found = Vec::new();
    extend(agreeing, 0, votes, 0, &mut found);
    found.retain(|group| *group != 0);
    found
}

fn extend(agreeing: &[Group], group: Group, mut candidates: Group, mut excluded: Group, found: &mut Vec<Group>) {
    if candidates == 0 && excluded == 0 {
        found.push(group);
        return;
    }
    let pivot = members(candidates | excluded).max_by_key(|index| (agreeing[*index] & candidates).count_ones());
    let skipped = pivot.map_or(0, |pivot| agreeing[pivot]);
    for index in members(candidates & !skipped) {
        let bit = 1 << index;
        extend(agreeing, group | bit, candidates & agreeing[index], excluded & agreeing[index], found);
        candidates &= !bit;
        excluded |= bit;
    }
}

/// The votes under one rule.
pub(super) struct Count<'a> {
    rule: &'a Rule,
    /// What each vote weighs.
    weights: Vec<u64>,
    /// Votes that came at all, of whatever environment.
    came: usize,
}

impl<'a> Count<'a> {
    pub(super) fn new(votes: &[&Vote], rule: &'a Rule) -> Self {
        let weight = |vote: &&Vote| match rule {
            Rule::Quorum(_) => vote.weight,
            Rule::Boinc(_) => 1,
            Rule::Credibility(_) => credible_weight(vote.score),
        };
        Self { rule, weights: votes.iter().map(weight).collect(), came: votes.len() }
    }

    /// What a group weighs: the sum of its weights, their product under `credibility`.
    pub(super) fn weigh(&self, group: Group) -> Credibility {
        let mut weights = members(group).map(|index| self.weights[index]);
        if !matches!(self.rule, Rule::Credibility(_)) {
            return weights.map(Credibility::from).sum();
        }
        // Nearly always small enough for a short product.
        let short = weights.clone().try_fold(1u128, |product, weight| product.checked_mul(u128::from(weight)));
        match short {
            Some(product) => Credibility::from(product),
            None => weights
                .try_fold(Credibility::from(1u64), |product, weight| product.checked_mul(Credibility::from(weight)))
                .unwrap_or(Credibility::MAX),
        }
    }

    /// The one group that wins, with its weight; else the reason code and detail of an inconclusive verdict.
    pub(super) fn winner(&self, groups: &[Group]) -> Result<(Group, Credibility), (&'static str, String)> {
        let no_quorum = |detail: String| Err(("no-quorum", detail));
        if let Rule::Boinc(min_quorum) = self.rule
            && self.came < *min_quorum as usize
        {
            return no_quorum(format!("{} votes came, {min_quorum} are needed", self.came));
        }
        let weighed: Vec<(Group, Credibility)> = groups.iter().map(|group| (*group, self.weigh(*group))).collect();
        let Some(most) = weighed.iter().map(|(_, weight)| *weight).max() else {
            return no_quorum("nobody voted".into());
        };
        let best: Vec<Group> = weighed.iter().filter(|(_, weight)| *weight == most).map(|(group, _)| *group).collect();
        let enough = match self.rule {
            Rule::Quorum(quorum) => most >= Credibility::from(*quorum),
            Rule::Boinc(min_quorum) => most > Credibility::from(min_quorum / 2),
            Rule::Credibility(trust) => {
                let others = match best.as_slice() {
                    [group] => self.others(*group, groups),
                    // No group wins, whatever the others weigh; only the word for it is to be found.
                    _ => Credibility::ZERO,
                };
                let total = Credibility::from(1u64) + most + others;
                most * Credibility::from(*trust) > total * Credibility::from(trust.saturating_sub(1))
            }
        };
        let needed = match self.rule {
            Rule::Quorum(quorum) => quorum.to_string(),
            Rule::Boinc(min_quorum) => (min_quorum / 2 + 1).to_string(),
            Rule::Credibility(trust) => format!("trust {trust}"),
        };
        match best.as_slice() {
            _ if !enough => no_quorum(format!("the largest group weighs {most}, {needed} is needed")),
            [group] => Ok((*group, most)),
            _ => Err(("tie", format!("{} groups weigh {most} each", best.len()))),
        }
    }

    /// What the groups outside the given one weigh, where every vote counts in one: of the votes that are left the weightiest
    /// group, and so on; of equal ones the one with the first voter that only it has.
    fn others(&self, winner: Group, groups: &[Group]) -> Credibility {
        let all = groups.iter().fold(0, |all, group| all | group);
        let (mut total, mut left) = (Credibility::ZERO, all & !winner);
        while left != 0 {
            // A part of a clique is one, and every clique among those left is part of a maximal one.
            let parts = groups.iter().map(|group| group & left).filter(|part| *part != 0);
            let next = parts.max_by_key(|part| (self.weigh(*part), part.reverse_bits()));
            let Some(next) = next else { break };
            total += self.weigh(next);
            left &= !next;
        }
        total
    }
}

/// iExec: `max(score / 3, 3) − 1`.
fn credible_weight(score: u64) -> u64 {
    (score / 3).max(3) - 1
}
