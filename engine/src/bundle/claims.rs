//! What a bundle says, and on what each part of it rests.

use serde::Serialize;
use tribunal_core::{Decision, Phase};
use tribunal_events::{Address, ContentAddress, DealId, EventKind, Outcome, VerdictKind};

use super::{
    VerifyOptions,
    contents::{Contents, DealFile},
};
use crate::audit::{Discrepancy, Examined, Note, Reverified};

/// How far a claim can be checked with the file alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Computed again from the file: nobody need be believed.
    Proved,
    /// Somebody's signed word.
    Attested,
    /// Needs the chain, the operator's log or an artifact that the file does not hold.
    NotCheckableOffline,
    /// Does not hold.
    Failed,
}

impl Standing {
    /// As printed.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Attested => "attested",
            Self::NotCheckableOffline => "not checkable offline",
            Self::Failed => "FAILED",
        }
    }
}

/// One thing that a bundle says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// Stable name.
    pub claim: &'static str,
    /// How far it can be checked.
    pub standing: Standing,
    /// Whose word it is, where it is attested.
    pub by: Vec<Address>,
    /// One sentence.
    pub why: String,
}

/// Somebody whose word the result rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Word {
    /// Who.
    pub account: Address,
    /// `operator` or `mediator`.
    pub role: &'static str,
    /// What for.
    pub about: String,
    /// Whether the account is among those trusted, where any were named.
    pub trusted: Option<bool>,
}

/// What verifying a bundle gave.
#[derive(Clone, Debug, Serialize)]
pub struct BundleReport {
    /// The deal.
    pub deal_id: DealId,
    /// Where it stands; `unknown` where it could not be replayed.
    pub state: &'static str,
    /// The outcome's word, `open` without one.
    pub outcome: &'static str,
    /// Why, as a stable code; empty without an outcome.
    pub reason_code: String,
    /// What the file is about.
    pub deal: DealFile,
    /// Everything it says.
    pub claims: Vec<Claim>,
    /// Whose word the result rests on.
    pub rests_on: Vec<Word>,
    /// Whether those who were named as trusted suffice; nothing where nobody was named.
    pub trusted: Option<bool>,
    /// Our own verdict over the bundled artifacts, where there is one.
    pub verdict: Option<serde_json::Value>,
    /// Whether anything failed, by deal and position.
    pub discrepancies: Vec<Discrepancy>,
    /// What else a reader should know.
    pub notes: Vec<Note>,
    sound: bool,
}

impl BundleReport {
    /// Whether nothing failed and, where trusted accounts were named, they suffice.
    pub const fn is_sound(&self) -> bool {
        self.sound
    }

    /// The standing of a claim.
    pub fn standing(&self, claim: &str) -> Option<Standing> {
        self.claims.iter().find(|it| it.claim == claim).map(|it| it.standing)
    }
}

/// Codes of discrepancies by the claim that they make fail.
const CODES: [(&str, &[&str]); 10] = [
    ("chain", &["receipt", "chain-receipt", "chain-block", "chain-log", "chain-outcome", "chain-payouts"]),
    ("log", &["log-key", "checkpoint", "inclusion"]),
    ("complete", &["deal-head", "log-key", "checkpoint"]),
    ("contents", &["terms", "summary", "report", "artifact", "left-out"]),
    ("records", &["version", "position", "time", "deal-id", "event-id", "previous-link", "link", "event"]),
    ("signatures", &["signature", "signer", "operator", "panel-signature", "silence-signature"]),
    (
        "rules",
        &[
            "not-admitted",
            "unfounded",
            "event-missing",
            "deadline-missed",
            "group-time",
            "after-settlement",
            "round",
            "outcome",
            "reason",
            "voters",
            "deadline",
            "silent",
            "effect",
            "effect-lost",
            "outbox",
            "replay",
            "snapshot",
            "head",
        ],
    ),
    ("draw", &["draw-seed", "candidates", "panel"]),
    ("money", &["payouts", "conservation", "transaction"]),
    ("verdict", &["vote"]),
];

/// Collects claims; what failed is looked up by code.
struct Claims<'a> {
    examined: &'a Examined,
    list: Vec<Claim>,
}

impl Claims<'_> {
    fn failed(&self, claim: &str) -> Option<String> {
        let (_, codes) = CODES.iter().find(|(name, _)| *name == claim)?;
        let found = &self.examined.findings.discrepancies;
        let first = found.iter().find(|it| codes.contains(&it.code))?;
        let place = first.version.map_or_else(String::new, |version| format!("record {version}: "));
        Some(format!("{place}{}: expected {}, found {}", first.code, first.expected, first.found))
    }

    fn say(&mut self, claim: &'static str, standing: Standing, by: Vec<Address>, why: impl Into<String>) {
        let (standing, by, why) = match self.failed(claim) {
            Some(problem) => (Standing::Failed, Vec::new(), problem),
            None => (standing, by, why.into()),
        };
        self.list.push(Claim { claim, standing, by, why });
    }

    fn proved(&mut self, claim: &'static str, why: impl Into<String>) {
        self.say(claim, Standing::Proved, Vec::new(), why);
    }

    fn unchecked(&mut self, claim: &'static str, why: impl Into<String>) {
        self.say(claim, Standing::NotCheckableOffline, Vec::new(), why);
    }

    /// What can only be told of a history that could be replayed.
    fn replayed(&mut self, claim: &'static str, why: impl Into<String>) {
        if self.examined.replayed {
            self.proved(claim, why);
        } else {
            self.unchecked(claim, "the history could not be replayed to its end");
        }
    }
}

/// Says of everything in a bundle on what it rests.
pub(super) fn report(
    contents: &Contents<'_>,
    examined: Examined,
    reverified: Option<&Reverified>,
    options: &VerifyOptions,
) -> BundleReport {
    let trust = &options.trust;
    let mut claims = Claims { examined: &examined, list: Vec::new() };
    claims.proved("file", "every byte is covered by the digests of manifest and file");
    let artifacts = contents.artifacts.len();
    claims.proved(
        "contents",
        format!("terms, summary, reports and {artifacts} artifacts are those that the records name"),
    );
    claims.proved("records", format!("{} records in one unbroken chain", examined.records));
    claims.proved("signatures", format!("{} events, each signed by the account that it names", examined.signatures));
    claims.replayed("rules", "every event is one that the rules admit, or give, where and when it is recorded");
    consent(&mut claims);
    draw(&mut claims, contents);
    let decision = examined.deal.as_ref().and_then(|deal| match deal.phase() {
        Phase::Decided(decision) | Phase::Settled { decision, .. } => Some(decision),
        _ => None,
    });
    let witnesses = verdict(&mut claims, decision, reverified);
    money(&mut claims, contents);
    places(&mut claims, contents);
    if !contents.deal.left_out.is_empty() {
        let list = contents.deal.left_out.iter().map(ContentAddress::to_string).collect::<Vec<_>>().join(", ");
        claims.unchecked("artifacts", format!("the file does not hold {list}"));
    }
    let list = claims.list;
    let mut rests_on = words(&examined, decision, &witnesses);
    let logged = contents.logged.as_ref().map(|logged| &logged.certificate.vkey);
    let log_trusted = options.trust_logs.is_empty() || logged.is_some_and(|key| options.trust_logs.contains(key));
    let accounts_trusted = (!trust.is_empty()).then(|| {
        for word in &mut rests_on {
            word.trusted = Some(trust.contains(&word.account));
        }
        let operator = rests_on.iter().filter(|word| word.role == "operator").all(|word| word.trusted == Some(true));
        let mediators = rests_on.iter().filter(|word| word.role == "mediator");
        let quorum = examined.terms.as_ref().map_or(1, |terms| terms.mediation.quorum.max(1)) as usize;
        operator && (witnesses.is_empty() || mediators.filter(|word| word.trusted == Some(true)).count() >= quorum)
    });
    let trusted = match accounts_trusted {
        None if options.trust_logs.is_empty() => None,
        accounts => Some(accounts.unwrap_or(true) && log_trusted),
    };
    let whole = examined.findings.discrepancy_count == 0 && examined.replayed;
    let sound = whole && list.iter().all(|claim| claim.standing != Standing::Failed) && trusted != Some(false);
    let deal = examined.deal.as_ref().filter(|_| examined.replayed);
    BundleReport {
        deal_id: contents.deal.deal_id,
        state: deal.map_or("unknown", |deal| deal.state()),
        outcome: deal.and_then(|deal| deal.outcome()).map_or("open", |outcome| outcome.word()),
        reason_code: decision.map_or_else(String::new, |decision| decision.reason_code.clone()),
        deal: contents.deal.clone(),
        claims: list,
        rests_on,
        trusted,
        verdict: reverified.and_then(|it| it.verdict.as_ref()).map(tribunal_verifiers::Verdict::to_json),
        discrepancies: examined.findings.discrepancies,
        notes: examined.findings.notes,
        sound,
    }
}

fn consent(claims: &mut Claims<'_>) {
    let Some(terms) = claims.examined.terms.clone() else { return };
    let (client, provider) = (format!("{:#x}", terms.client), format!("{:#x}", terms.provider));
    match claims.examined.deal.as_ref().map(|deal| (deal.consents().is_some(), deal.phase())) {
        Some((true, _)) => {
            claims.proved("consent", format!("client {client} and provider {provider} signed the terms"))
        }
        Some((false, Phase::Negotiating { by, .. })) => {
            let proposer = terms.account(*by);
            claims.proved("consent", format!("{proposer:#x} signed the terms, the other party has not"));
        }
        Some((false, _)) => claims.proved("consent", "one party signed the terms, the other never did"),
        None => claims.unchecked("consent", "the history could not be replayed"),
    }
}

fn draw(claims: &mut Claims<'_>, contents: &Contents<'_>) {
    let drawn = contents.records.iter().any(|record| kind(record).is_some_and(|kind| kind == "panel_drawn"));
    if !drawn {
        return;
    }
    let appointed = claims.examined.terms.as_ref().is_some_and(|terms| terms.timeouts.draw_s == 0);
    claims.replayed(
        "draw",
        if appointed {
            "the mediator is the one that both parties named"
        } else {
            "the panels follow from both parties' seeds, which they committed to before there was a result"
        },
    );
}

/// The kind of a record's event, where it can be read.
fn kind(record: &crate::store::Record) -> Option<&'static str> {
    record.envelope.clone().parse().ok().map(|parsed| parsed.kind_name())
}

/// The outcome, and whose votes it rests on where verification cannot be repeated.
fn verdict(claims: &mut Claims<'_>, decision: Option<&Decision>, reverified: Option<&Reverified>) -> Vec<Address> {
    let Some(decision) = decision.filter(|_| claims.examined.replayed) else {
        let open = claims.examined.replayed;
        claims.unchecked(
            "verdict",
            if open { "there is none yet" } else { "the history could not be replayed to its end" },
        );
        return Vec::new();
    };
    let Some(terms) = claims.examined.terms.clone() else { return Vec::new() };
    let outcome = decision.outcome.word();
    let kind = match decision.outcome {
        Outcome::Valid => VerdictKind::Valid,
        Outcome::Invalid => VerdictKind::Invalid,
        Outcome::Inconclusive => VerdictKind::Inconclusive,
        Outcome::Accepted if decision.reason_code == "accepted" => {
            claims.say("verdict", Standing::Attested, vec![terms.client], "accepted: the client's own word");
            return Vec::new();
        }
        Outcome::Withdrawn => {
            let both = vec![terms.client, terms.provider];
            claims.say("verdict", Standing::Attested, both, "withdrawn: both parties' own word");
            return Vec::new();
        }
        _ => {
            let why = format!("{outcome} ({}): rests on the operator's clock", decision.reason_code);
            claims.say("verdict", Standing::Attested, vec![terms.operator], why);
            return Vec::new();
        }
    };
    let Some(round) = &decision.round else {
        let why = format!("{outcome} ({}): rests on the operator's clock", decision.reason_code);
        claims.say("verdict", Standing::Attested, vec![terms.operator], why);
        return Vec::new();
    };
    let voters: Vec<Address> = round.votes().filter(|vote| vote.verdict == kind).map(|vote| vote.mediator).collect();
    let own = reverified.and_then(|it| it.verdict.as_ref());
    if let Some(own) = own.filter(|own| own.verdict == kind && decision.reason_code != "withheld") {
        let votes = format!("as {} voted", counted(&voters));
        claims.proved("verdict", format!("{outcome} ({}): verified again, {votes}", own.reason.code));
        return Vec::new();
    }
    if voters.is_empty() {
        // Members voted, and no verdict had a quorum.
        claims
            .replayed("verdict", format!("{outcome} ({}): follows from the votes by the rules", decision.reason_code));
        return Vec::new();
    }
    let why = match decision.reason_code.as_str() {
        "withheld" => format!("{outcome} (withheld): an artifact was not served, say {}", counted(&voters)),
        code => {
            format!("{outcome} ({code}): so say {}; the file does not suffice to verify again", counted(&voters))
        }
    };
    claims.say("verdict", Standing::Attested, voters.clone(), why);
    voters
}

fn counted(mediators: &[Address]) -> String {
    match mediators.len() {
        1 => "1 mediator".into(),
        count => format!("{count} mediators"),
    }
}

fn money(claims: &mut Claims<'_>, contents: &Contents<'_>) {
    let phase = claims.examined.deal.as_ref().map(|deal| deal.phase().clone());
    if let Some(Phase::Settled { payouts, .. }) = &phase {
        claims.replayed(
            "money",
            format!("{} payouts as settlement rule 1 gives them; nothing is lost or made", payouts.len()),
        );
    } else if claims.failed("money").is_some() {
        claims.proved("money", "");
    }
    if contents.deal.chain_id == 0 {
        return;
    }
    let list = claims
        .examined
        .taken()
        .into_iter()
        .map(|step| format!("{} in {:#x}, block {}", step.step, step.transaction, step.block));
    let list = list.collect::<Vec<_>>().join("; ");
    let (chain, contract) = (contents.deal.chain_id, contents.deal.contract);
    let why = match list.as_str() {
        "" => format!("no transaction is recorded; chain {chain}, contract {contract:#x}"),
        list => {
            let receipts = match contents.receipts.len() {
                0 => String::new(),
                count => format!("; {count} receipts, as a node gave them, say the same"),
            };
            format!("chain {chain}, contract {contract:#x}, as the operator says: {list}{receipts}")
        }
    };
    claims.unchecked("chain", why);
}

/// What only the operator's store can show.
fn places(claims: &mut Claims<'_>, contents: &Contents<'_>) {
    let settled = claims.examined.deal.as_ref().is_some_and(tribunal_core::Deal::is_settled);
    if settled && claims.examined.replayed {
        let by_contract = !claims.examined.taken().is_empty();
        let chain = if by_contract { " but that the chain moved transactions to other blocks" } else { "" };
        claims.proved("end", format!("the deal is settled, and nothing can follow{chain}"));
    } else {
        claims.unchecked("end", "the deal was open when the file was made; it may have gone on");
    }
    let at = |record: Option<&crate::store::Record>| record.map_or_else(String::new, |it| it.recorded_at.to_string());
    let (first, last) = (at(contents.records.first()), at(contents.records.last()));
    let times = format!("from {first} to {last}, by the operator's clock");
    let deal = &contents.deal;
    let places = format!("positions {} to {} of the operator's log", deal.first_position, deal.last_position);
    let Some(logged) = &contents.logged else {
        claims.unchecked("times", format!("{times}; the file holds no checkpoint of its log"));
        claims.unchecked("log", format!("{places}; the file holds no checkpoint of it"));
        return claims.unchecked("complete", "without a checkpoint nobody has signed that no record is left out");
    };
    let (said, by) = (logged.checkpoint.checkpoint(), vec![logged.certificate.operator]);
    let size = said.size;
    claims.say("log", Standing::Attested, by.clone(), format!("{places} of {size} records, signed as {}", said.origin));
    let complete = format!("when the log had {size} records, these {} were all of the deal", deal.records);
    claims.say("complete", Standing::Attested, by.clone(), complete);
    if claims.failed("log").is_some() {
        return claims.unchecked("times", times);
    }
    claims.say("times", Standing::Attested, by, format!("{times}, in the signed order"));
}

fn words(examined: &Examined, decision: Option<&Decision>, witnesses: &[Address]) -> Vec<Word> {
    let Some(terms) = &examined.terms else { return Vec::new() };
    let mut about = vec!["when, and in which order, it received what others said, and that nothing is left out"];
    if examined.by_time {
        about.push("that time ran out");
    }
    if !examined.steps.is_empty() {
        about.push("what the contract did");
    }
    let operator = Word { account: terms.operator, role: "operator", about: about.join("; "), trusted: None };
    let why = decision
        .map_or_else(String::new, |it| format!("that the result is {} ({})", it.outcome.word(), it.reason_code));
    let mediator = |account: &Address| Word { account: *account, role: "mediator", about: why.clone(), trusted: None };
    std::iter::once(operator).chain(witnesses.iter().map(mediator)).collect()
}

/// The reports that votes published, by version.
pub(super) fn published(contents: &Contents<'_>) -> Vec<(u64, String)> {
    let report = |record: &crate::store::Record| {
        let kind: EventKind = record.envelope.clone().parse().ok()?.into_kind();
        super::contents::report_of(&kind).map(|report| (record.version, report.to_owned()))
    };
    contents.records.iter().filter_map(report).collect()
}
