//! Is the claim the one that most voters made too?
//!
//! # Groups
//!
//! A group is a set of votes that agree pairwise: a clique, since agreement within a tolerance is not transitive. Votes are
//! put in the order of their voters first, so the order in which they came decides nothing. The group that weighs most wins,
//! if the rule has enough of it; two groups of the greatest weight are a tie, which is inconclusive.
//!
//! | rule | a group weighs | enough |
//! |---|---|---|
//! | `quorum` | the sum of its votes' weights | at least `quorum` |
//! | `boinc` | its votes | at least floor(min_quorum / 2) + 1, and at least `min_quorum` votes came |
//! | `credibility` | the product of max(score / 3, 3) − 1 | weight × trust > total × (trust − 1), where the total is 1 and the weights of the winner and of the groups that the other votes are put into: of those left always the weightiest |
//!
//! The claim is valid where it agrees with every vote of the winner, invalid where it differs from one.
//!
//! Sources: BOINC `sched/validator.cpp` (min_quorum), iExec PoCo `IexecPoco2Facet.sol` (credibility).
//!
//! # Environments
//!
//! Where the claim says what it ran in (`environment`), the votes of the same environment, name by name and value by value,
//! are counted first, and a winner among them decides. Where they have no winner, all votes are counted, and the claim is
//! valid or invalid as said above, except that it is invalid only where it differs from a vote of its own environment in the
//! winning group: strangers alone convict nobody, since another device may honestly give another result
//! (`other-environment`). A claim that says nothing is compared with all votes at once, so nobody need say anything. That
//! `boinc` needs `min_quorum` votes means votes of any environment.
//!
//! # Open pairs
//!
//! Under a comparator with bands two votes may neither agree nor differ. Such a pair is not in one group. But the claim is then
//! called valid or invalid only where no way to settle the open pairs could lead elsewhere: invalid, if every group that could
//! form of votes from which the claim does not differ weighs less than the winner; valid, if so does every group that could
//! form and has a vote with which the claim does not agree. Under `credibility`, whose total depends on all groups, an open
//! pair among the votes leaves it open (`between-bands`).

use serde_json::{Value, json};
use tribunal_events::{Comparator, ContentAddress, Rule, VerdictKind};

use self::groups::{Count, Group, cliques, first, members};
use crate::{
    BadRequest, Claim, Claimed, VOTES_MAX, Verdict, Vote,
    comparator::{self, Comparison, Examined},
    reexecution::claimed_evidence,
    request::write,
    sequential::Tally,
    service::{Check, Fetched},
    verdict::Evidence,
};

mod groups;

/// Why two claims could not be compared.
struct Unknown {
    code: &'static str,
    detail: String,
}

/// What two claims are to each other.
enum Relation {
    Agree,
    /// The first difference.
    Differ(String),
    /// Between the bands of the comparator.
    Open(String),
}

/// What is to be said, with the winners where there are any.
struct Outcome {
    verdict: VerdictKind,
    code: &'static str,
    detail: String,
}

/// The votes and what they are to each other and to the claim.
struct Ballot<'a> {
    votes: Vec<&'a Vote>,
    /// For every vote, whom it agrees with, without itself.
    agreeing: Vec<Group>,
    /// The same, and whom it may agree with.
    perhaps: Vec<Group>,
    /// What the claim is to every vote; of no matter while no group wins.
    claim: Result<Vec<Relation>, Unknown>,
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
    let word = match rule {
        Rule::Quorum(_) => "quorum",
        Rule::Boinc(_) => "boinc",
        Rule::Credibility(_) => "credibility",
    };
    let mut evidence = Evidence::new(format!("majority/{word}"));
    evidence.set("comparator", write::comparator(&check.request.comparator));
    claimed_evidence(claim, &mut evidence);
    evidence.set("votes", votes.iter().map(|vote| ballot(vote)).collect::<Vec<_>>());
    let outcome = match Ballot::take(check, votes, claim) {
        Ok(ballot) => ballot.outcome(claim, rule, &mut evidence),
        Err(Unknown { code, detail }) => Outcome { verdict: VerdictKind::Inconclusive, code, detail },
    };
    Ok(Verdict::new(outcome.verdict, outcome.code, outcome.detail, evidence))
}

impl<'a> Ballot<'a> {
    fn take(check: &Check<'_>, votes: Vec<&'a Vote>, claim: &Claim) -> Result<Self, Unknown> {
        let (mut agreeing, mut perhaps) = (vec![0; votes.len()], vec![0; votes.len()]);
        for a in 0..votes.len() {
            for b in 0..a {
                let found = relate(check, &votes[b].claim, &votes[a].claim)?;
                if !matches!(found, Relation::Differ(_)) {
                    perhaps[a] |= 1 << b;
                    perhaps[b] |= 1 << a;
                }
                if matches!(found, Relation::Agree) {
                    agreeing[a] |= 1 << b;
                    agreeing[b] |= 1 << a;
                }
            }
        }
        let claim = votes.iter().map(|vote| relate(check, &vote.claim, claim)).collect();
        Ok(Self { votes, agreeing, perhaps, claim })
    }

    fn outcome(&self, claim: &Claim, rule: &Rule, evidence: &mut Evidence) -> Outcome {
        let all = first(self.votes.len());
        let alike = self.votes.iter().enumerate().filter(|(_, vote)| vote.claim.environment == claim.environment);
        let own = alike.fold(0, |group: Group, (index, _)| group | 1 << index);
        if !claim.environment.is_empty() && own != all {
            let among = self.count(rule, own, own, evidence);
            if !matches!(among.code, "no-quorum" | "tie") {
                evidence.set("counted", "environment");
                return among;
            }
            evidence.set("counted", "all");
        }
        let convicting = if claim.environment.is_empty() { all } else { own };
        self.count(rule, all, convicting, evidence)
    }

    /// Counts some of the votes; the claim is invalid only where it differs from one of those that may convict.
    fn count(&self, rule: &Rule, votes: Group, convicting: Group, evidence: &mut Evidence) -> Outcome {
        let inconclusive = |code, detail| Outcome { verdict: VerdictKind::Inconclusive, code, detail };
        let count = Count::new(&self.votes, rule);
        let (winner, weight) = match count.winner(&cliques(&self.agreeing, votes)) {
            Ok(winner) => winner,
            Err((code, detail)) => return inconclusive(code, detail),
        };
        let voters: Vec<Value> = members(winner).map(|index| address(self.votes[index]).into()).collect();
        let (size, of) = (voters.len(), votes.count_ones());
        evidence.set("winners", voters);
        evidence.set("winners_weight", weight.to_string());

        let claim = match &self.claim {
            Ok(claim) => claim,
            Err(unknown) => return inconclusive(unknown.code, unknown.detail.clone()),
        };
        let related = |so: fn(&Relation) -> bool| {
            let found = claim.iter().enumerate().filter(|(_, relation)| so(relation));
            found.fold(0, |group: Group, (index, _)| group | 1 << index)
        };
        let agreeing = related(|relation| matches!(relation, Relation::Agree));
        let differing = related(|relation| matches!(relation, Relation::Differ(_)));
        let open = members(votes).any(|index| (self.perhaps[index] & !self.agreeing[index]) & votes != 0);
        // Whether a group of these votes that has one of those could weigh as much as the winner.
        let rivals = |votes: Group, with: Group| {
            let groups = cliques(&self.perhaps, votes);
            groups.iter().any(|group| group & with != 0 && count.weigh(*group) >= weight)
        };
        let unsettled = |what: &str| inconclusive("between-bands", format!("{size} of {of} voters agree, but {what}"));
        if open && matches!(rule, Rule::Credibility(_)) {
            return unsettled(
                "votes are between the bands of the comparator, so the credibility of the others is not known",
            );
        }
        let difference = |index: usize| match &claim[index] {
            Relation::Agree => String::new(),
            Relation::Differ(what) | Relation::Open(what) => what.clone(),
        };
        if let Some(index) = members(winner & differing).next() {
            let detail = format!("{size} of {of} voters agree on another result: {}", difference(index));
            return match members(winner & differing & convicting).next() {
                None => {
                    inconclusive("other-environment", format!("{detail}; none of them has the claim's environment"))
                }
                Some(_) if open && rivals(votes & !differing, votes) => unsettled(
                    "votes that are between the bands could make a group of equal weight that the claim is in",
                ),
                Some(own) => {
                    let detail = format!("{size} of {of} voters agree on another result: {}", difference(own));
                    Outcome { verdict: VerdictKind::Invalid, code: "outvoted", detail }
                }
            };
        }
        if let Some(index) = members(winner & !agreeing).next() {
            return unsettled(&format!("the claim is between the bands: {}", difference(index)));
        }
        if open && rivals(votes, !agreeing) {
            return unsettled(
                "votes that are between the bands could make a group of equal weight that the claim is not in",
            );
        }
        let detail = format!("{size} of {of} voters agree on the claim");
        Outcome { verdict: VerdictKind::Valid, code: "ok", detail }
    }
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
    if let Some(environment) = claimed.fields.get("claimed_environment") {
        ballot["environment"] = environment.clone();
    }
    ballot
}

/// What two claims are to each other. The instruction count and the environment are no part of the result.
fn relate(check: &Check<'_>, expected: &Claim, claimed: &Claim) -> Result<Relation, Unknown> {
    if check.out_of_time() {
        let detail = format!("comparing the votes takes longer than {} ms", check.limits.wall_ms_max);
        return Err(Unknown { code: "wall-time", detail });
    }
    let pairs = match pairs(expected, claimed) {
        Ok(pairs) => pairs,
        Err(difference) => return Ok(Relation::Differ(difference)),
    };
    let comparator = &check.request.comparator;
    let (mut tally, mut open) = (Tally::default(), None);
    for (name, expected, claimed) in pairs {
        let comparison = match examine(check, comparator, name, expected, claimed)? {
            Examined::Outright(comparison) => comparison,
            Examined::Samples(samples) => {
                tally.add(name, samples);
                continue;
            }
        };
        match comparison {
            Comparison::Agree => {}
            Comparison::Differ(difference) => return Ok(Relation::Differ(format!("{name}: {difference}"))),
            Comparison::Between(what) => open = open.or(Some(format!("{name}: {what}"))),
            Comparison::Unusable(detail) => return Err(Unknown { code: "comparator-invalid", detail }),
        }
    }
    match (comparator::decide(comparator, &tally), open) {
        (Comparison::Differ(difference), _) => Ok(Relation::Differ(difference)),
        (Comparison::Unusable(detail), _) => Err(Unknown { code: "comparator-invalid", detail }),
        (_, Some(open)) | (Comparison::Between(open), None) => Ok(Relation::Open(open)),
        (Comparison::Agree, None) => Ok(Relation::Agree),
    }
}

/// The files that two claims both name, by name; else what only one of them says.
fn pairs<'a>(expected: &'a Claim, claimed: &'a Claim) -> Result<Vec<(&'a str, &'a Claimed, &'a Claimed)>, String> {
    if expected.termination != claimed.termination {
        let (expected, claimed) = (expected.termination.word(), claimed.termination.word());
        return Err(format!("termination: expected {expected}, claimed {claimed}"));
    }
    if expected.exit_code != claimed.exit_code {
        let word = |code: Option<i32>| code.map_or("none".to_owned(), |code| code.to_string());
        return Err(format!("exit code: expected {}, claimed {}", word(expected.exit_code), word(claimed.exit_code)));
    }
    if expected.folder != claimed.folder {
        let word = |folder: Option<crate::Cid>| folder.map_or("none".to_owned(), |folder| folder.to_string());
        return Err(format!("folder: expected {}, claimed {}", word(expected.folder), word(claimed.folder)));
    }
    let mut pairs = Vec::new();
    match (&expected.stdout, &claimed.stdout) {
        (None, None) => {}
        (Some(expected), Some(claimed)) => pairs.push(("stdout", expected, claimed)),
        _ => return Err("stdout: only one of the two claims it".into()),
    }
    match (&expected.outputs, &claimed.outputs) {
        (None, None) => {}
        (Some(expected), Some(claimed)) => {
            let paths = |outputs: &[crate::ClaimedOutput]| outputs.iter().map(|output| output.path.clone()).collect();
            let (own, other): (Vec<String>, Vec<String>) = (paths(expected), paths(claimed));
            if own != other {
                let only = own.iter().find(|path| !other.contains(path));
                let only = only.or_else(|| other.iter().find(|path| !own.contains(path))).cloned();
                return Err(format!("{}: only one of the two claims it", only.unwrap_or_default()));
            }
            let files = expected.iter().zip(claimed);
            pairs.extend(files.map(|(expected, claimed)| (expected.path.as_str(), &expected.bytes, &claimed.bytes)));
        }
        _ => return Err("outputs: only one of the two claims them".into()),
    }
    Ok(pairs)
}

/// Compares one file of two claims.
fn examine(
    check: &Check<'_>,
    comparator: &Comparator,
    name: &str,
    expected: &Claimed,
    claimed: &Claimed,
) -> Result<Examined, Unknown> {
    let both = expected.address().zip(claimed.address());
    // Equal files need no bytes, unless their samples count beside those of other files.
    let same =
        both.is_some_and(|(expected, claimed)| expected == claimed) || expected.reference() == claimed.reference();
    if same && comparator::test(comparator).is_none() {
        return Ok(Examined::Outright(Comparison::Agree));
    }
    if let (Some((expected @ ContentAddress::Blake3(_), claimed @ ContentAddress::Blake3(_))), Comparator::Exact)
    | (Some((expected @ ContentAddress::Sha256(_), claimed @ ContentAddress::Sha256(_))), Comparator::Exact) =
        (both, comparator)
    {
        return Ok(Examined::Outright(Comparison::Differ(format!("expected {expected}, claimed {claimed}"))));
    }
    let fetch = |bytes: &Claimed| match check.fetch(&bytes.reference()) {
        Fetched::Bytes(bytes) => Ok(bytes),
        Fetched::Unavailable(detail) => {
            Err(Unknown { code: "artifact-unavailable", detail: format!("{name}: {detail}") })
        }
    };
    let (expected, claimed) = (fetch(expected)?, fetch(claimed)?);
    Ok(comparator::examine(comparator, name, &expected, &claimed))
}
