//! Is the claim the one that most voters made too?
//!
//! A group is a set of votes that agree pairwise: a clique, since agreement within a tolerance is not transitive. Votes are
//! put in the order of their voters first, so the order in which they came decides nothing.
//!
//! Sources: BOINC `sched/validator.cpp` (min_quorum), iExec PoCo `IexecPoco2Facet.sol` (credibility): with
//! weight = max(score / 3, 3) − 1, a group's credibility is the product of its weights, the total is 1 and the sum over
//! groups, and a group wins when credibility × trust > total × (trust − 1).

use alloy_primitives::Uint;
use serde_json::{Value, json};
use tribunal_events::{Comparator, ContentAddress, Rule, VerdictKind};

use crate::{
    BadRequest, Claim, Claimed, VOTES_MAX, Verdict, Vote,
    comparator::{self, Comparison},
    reexecution::claimed_evidence,
    request::write,
    service::{Check, Fetched},
    verdict::Evidence,
};

/// Products of at most 31 weights below 2^63, and the trust.
type Credibility = Uint<2048, 32>;

/// A set of votes, one bit each.
type Group = u32;

/// Why two claims could not be compared.
struct Unknown {
    code: &'static str,
    detail: String,
}

pub(crate) fn verify(check: &Check<'_>, votes: &[Vote], rule: &Rule) -> Result<Verdict, BadRequest> {
    let Some(claim) = &check.request.claim else { return Err(BadRequest::new("claim", "is missing")) };
    if votes.len() > VOTES_MAX {
        return Err(BadRequest::new("method.votes", format!("at most {VOTES_MAX}, not {}", votes.len())));
    }
    let mut votes: Vec<&Vote> = votes.iter().collect();
    votes.sort_by_key(|vote| vote.voter);
    if let Some(pair) = votes.windows(2).find(|pair| pair[0].voter == pair[1].voter) {
        return Err(BadRequest::new("method.votes", format!("{:?} votes twice", pair[0].voter)));
    }
    let comparator = &check.request.comparator;
    let word = match rule {
        Rule::Quorum(_) => "quorum",
        Rule::Boinc(_) => "boinc",
        Rule::Credibility(_) => "credibility",
    };
    let mut evidence = Evidence::new(format!("majority/{word}"));
    evidence.set("comparator", write::comparator(comparator));
    claimed_evidence(claim, &mut evidence);
    evidence.set("votes", votes.iter().map(|vote| ballot(vote)).collect::<Vec<_>>());

    let agreeing = match agreement(check, comparator, &votes) {
        Ok(agreeing) => agreeing,
        Err(unknown) => return Ok(Verdict::inconclusive(unknown.code, unknown.detail, evidence)),
    };
    let groups = cliques(&agreeing);
    let (winner, weight) = match winner(&votes, &groups, rule) {
        Ok(winner) => winner,
        Err((code, detail)) => return Ok(Verdict::inconclusive(code, detail, evidence)),
    };
    let members = members(winner).map(|index| votes[index]);
    let voters: Vec<Value> = members.clone().map(|vote| address(vote).into()).collect();
    let size = voters.len();
    evidence.set("winners", voters);
    evidence.set("winners_weight", weight.to_string());
    for vote in members {
        match differ(check, comparator, &vote.claim, claim) {
            Ok(None) => {}
            Ok(Some(difference)) => {
                let detail = format!("{size} of {} voters agree on another result: {difference}", votes.len());
                return Ok(Verdict::new(VerdictKind::Invalid, "outvoted", detail, evidence));
            }
            Err(unknown) => return Ok(Verdict::inconclusive(unknown.code, unknown.detail, evidence)),
        }
    }
    let detail = format!("{size} of {} voters agree on the claim", votes.len());
    Ok(Verdict::new(VerdictKind::Valid, "ok", detail, evidence))
}

fn address(vote: &Vote) -> String {
    format!("{:?}", vote.voter).to_lowercase()
}

fn ballot(vote: &Vote) -> Value {
    let mut claimed = Evidence::default();
    claimed_evidence(&vote.claim, &mut claimed);
    let mut ballot = json!({
        "voter": address(vote),
        "termination": vote.claim.termination.word(),
        "exit_code": vote.claim.exit_code,
        "stdout": claimed.fields.get("claimed_stdout"),
        "outputs": claimed.fields.get("claimed_outputs"),
        "weight": write::integer(vote.weight),
        "score": write::integer(vote.score),
    });
    if let Some(folder) = claimed.fields.get("claimed_folder") {
        ballot["folder"] = folder.clone();
    }
    ballot
}

/// For every vote, whom it agrees with, without itself.
fn agreement(check: &Check<'_>, comparator: &Comparator, votes: &[&Vote]) -> Result<Vec<Group>, Unknown> {
    let mut agreeing = vec![0; votes.len()];
    for a in 0..votes.len() {
        for b in 0..a {
            if differ(check, comparator, &votes[b].claim, &votes[a].claim)?.is_none() {
                agreeing[a] |= 1 << b;
                agreeing[b] |= 1 << a;
            }
        }
    }
    Ok(agreeing)
}

/// The first difference of two claims. The instruction count is no part of the result.
fn differ(
    check: &Check<'_>,
    comparator: &Comparator,
    expected: &Claim,
    claimed: &Claim,
) -> Result<Option<String>, Unknown> {
    if expected.termination != claimed.termination {
        let (expected, claimed) = (expected.termination.word(), claimed.termination.word());
        return Ok(Some(format!("termination: expected {expected}, claimed {claimed}")));
    }
    if expected.exit_code != claimed.exit_code {
        let word = |code: Option<i32>| code.map_or("none".to_owned(), |code| code.to_string());
        return Ok(Some(format!(
            "exit code: expected {}, claimed {}",
            word(expected.exit_code),
            word(claimed.exit_code)
        )));
    }
    if expected.folder != claimed.folder {
        let word = |folder: Option<crate::Cid>| folder.map_or("none".to_owned(), |folder| folder.to_string());
        return Ok(Some(format!("folder: expected {}, claimed {}", word(expected.folder), word(claimed.folder))));
    }
    let mut pairs = Vec::new();
    match (&expected.stdout, &claimed.stdout) {
        (None, None) => {}
        (Some(expected), Some(claimed)) => pairs.push(("stdout", expected, claimed)),
        _ => return Ok(Some("stdout: only one of the two claims it".into())),
    }
    match (&expected.outputs, &claimed.outputs) {
        (None, None) => {}
        (Some(expected), Some(claimed)) => {
            let paths = |outputs: &[crate::ClaimedOutput]| outputs.iter().map(|output| output.path.clone()).collect();
            let (own, other): (Vec<String>, Vec<String>) = (paths(expected), paths(claimed));
            if own != other {
                let only = own.iter().find(|path| !other.contains(path));
                let only = only.or_else(|| other.iter().find(|path| !own.contains(path))).cloned();
                return Ok(Some(format!("{}: only one of the two claims it", only.unwrap_or_default())));
            }
            let files = expected.iter().zip(claimed);
            pairs.extend(files.map(|(expected, claimed)| (expected.path.as_str(), &expected.bytes, &claimed.bytes)));
        }
        _ => return Ok(Some("outputs: only one of the two claims them".into())),
    }
    for (name, expected, claimed) in pairs {
        if let Some(difference) = differ_bytes(check, comparator, name, expected, claimed)? {
            return Ok(Some(format!("{name}: {difference}")));
        }
    }
    Ok(None)
}

fn differ_bytes(
    check: &Check<'_>,
    comparator: &Comparator,
    name: &str,
    expected: &Claimed,
    claimed: &Claimed,
) -> Result<Option<String>, Unknown> {
    let both = expected.address().zip(claimed.address());
    if both.is_some_and(|(expected, claimed)| expected == claimed) || expected.reference() == claimed.reference() {
        return Ok(None);
    }
    if let (Some((expected @ ContentAddress::Blake3(_), claimed @ ContentAddress::Blake3(_))), Comparator::Exact)
    | (Some((expected @ ContentAddress::Sha256(_), claimed @ ContentAddress::Sha256(_))), Comparator::Exact) =
        (both, comparator)
    {
        return Ok(Some(format!("expected {expected}, claimed {claimed}")));
    }
    let fetch = |bytes: &Claimed| match check.fetch(&bytes.reference()) {
        Fetched::Bytes(bytes) => Ok(bytes),
        Fetched::Unavailable(detail) => {
            Err(Unknown { code: "artifact-unavailable", detail: format!("{name}: {detail}") })
        }
    };
    let (expected, claimed) = (fetch(expected)?, fetch(claimed)?);
    match comparator::compare(comparator, name, &expected, &claimed) {
        Comparison::Agree => Ok(None),
        Comparison::Differ(difference) => Ok(Some(difference)),
        Comparison::Unusable(detail) => Err(Unknown { code: "comparator-invalid", detail }),
    }
}

fn members(group: Group) -> impl Iterator<Item = usize> + Clone {
    (0..Group::BITS as usize).filter(move |index| group >> index & 1 == 1)
}

/// Every maximal clique (Bron and Kerbosch 1973, with a pivot): at most 3^(31/3), about 90,000.
fn cliques(agreeing: &[Group]) -> Vec<Group> {
    let all = (0..agreeing.len()).fold(0, |all, index| all | 1 << index);
    let mut found = Vec::new();
    extend(agreeing, 0, all, 0, &mut found);
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

/// The one group that wins under the rule, with its weight; else the reason code and detail of an inconclusive verdict.
fn winner(votes: &[&Vote], groups: &[Group], rule: &Rule) -> Result<(Group, Credibility), (&'static str, String)> {
    let weigh = |group: Group| -> Credibility {
        let members = members(group).map(|index| votes[index]);
        match rule {
            Rule::Quorum(_) => members.map(|vote| Credibility::from(vote.weight)).sum(),
            Rule::Boinc(_) => Credibility::from(group.count_ones()),
            Rule::Credibility(_) => members.map(|vote| Credibility::from(credible_weight(vote.score))).product(),
        }
    };
    let no_quorum = |detail: String| Err(("no-quorum", detail));
    if let Rule::Boinc(min_quorum) = rule
        && votes.len() < *min_quorum as usize
    {
        return no_quorum(format!("{} votes came, {min_quorum} are needed", votes.len()));
    }
    let weighed: Vec<(Group, Credibility)> = groups.iter().map(|group| (*group, weigh(*group))).collect();
    let Some(most) = weighed.iter().map(|(_, weight)| *weight).max() else { return no_quorum("nobody voted".into()) };
    let best: Vec<Group> = weighed.iter().filter(|(_, weight)| *weight == most).map(|(group, _)| *group).collect();
    let enough = match rule {
        Rule::Quorum(quorum) => most >= Credibility::from(*quorum),
        Rule::Boinc(min_quorum) => most > Credibility::from(min_quorum / 2),
        Rule::Credibility(trust) => best.iter().any(|group| {
            let total = Credibility::from(1u64) + total_credibility(*group, groups, votes.len(), &weigh);
            most * Credibility::from(*trust) > total * Credibility::from(trust.saturating_sub(1))
        }),
    };
    let needed = match rule {
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

/// iExec: `max(score / 3, 3) − 1`.
fn credible_weight(score: u64) -> u64 {
    (score / 3).max(3) - 1
}

/// The sum over groups, where every vote counts in one: first the given group, then of the votes that are left the
/// weightiest group, and so on; equal ones in the order of voters.
fn total_credibility(
    first: Group,
    groups: &[Group],
    votes: usize,
    weigh: &dyn Fn(Group) -> Credibility,
) -> Credibility {
    let all = (0..votes).fold(0, |all: Group, index| all | 1 << index);
    let (mut total, mut left) = (weigh(first), all & !first);
    while left != 0 {
        // A part of a clique is one, and every clique among those left is part of a maximal one.
        let parts = groups.iter().map(|group| group & left).filter(|part| *part != 0);
        let next = parts.max_by_key(|part| (weigh(*part), std::cmp::Reverse(part.reverse_bits())));
        let Some(next) = next else { break };
        total += weigh(next);
        left &= !next;
    }
    total
}
