//! The policy that an audit is held against: TOML, every key optional, unknown ones refused.
//!
//! ```toml
//! [audit]
//! dispute = "recorded"         # or "all": results that nobody disputed are judged, too
//!
//! [verification]
//! only_kind = "reexecution"    # deals of other methods stay as they are: "reexecution", "proof", "majority"
//! method = "recorded"          # or "reexecution": proofs and majorities are judged by running the job again
//! comparator = { kind = "numeric", relative = 1e-6 }    # as in a verification request
//! rule = { kind = "quorum", quorum = 2 }                # of majorities, as in a verification request
//! fuel_max = 1000000000
//! memory_bytes_max = 67108864
//! output_bytes_max = 1048576
//! wall_ms_max = 60000
//!
//! [mediation]
//! count = "votes"              # the recorded votes count; "verifier": our own verdict decides
//! quorum = 2                   # weight of equal votes that decides
//! weights = { "0x…" = 2 }      # of mediators; others weigh 1
//!
//! [settlement]
//! victim_bps = 5000
//! fee_bps = 250
//! public_good = false
//! mediation_fee = "1000"
//! submit_collateral = "1000"
//! judge_collateral = "1000"
//! results_collateral_multiple = 1.5
//! ```
//!
//! Without `count`, our own verdict decides where `[verification]` says anything, else the votes do.

use std::{collections::BTreeMap, ops::Range};

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};
use tribunal_events::{Address, Amount, Bps, Comparator, Rule, Terms, U256};
use tribunal_verifiers::{Method, OperatorLimits, Request};

use crate::policy::Share;

/// Bits of any amount of a deal at most, as in terms.
const AMOUNT_BITS_MAX: usize = 192;
/// The results collateral is multiplied by this at most.
const MULTIPLE_MAX: u64 = 1_000;

/// What is wrong with a policy, and in which line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", line.map_or_else(String::new, |line| format!("line {line}: ")))]
pub struct PolicyError {
    /// The line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong, with the key.
    pub problem: String,
}

/// Another verification, mediation or settlement policy than the recorded one.
#[derive(Clone, Debug)]
pub struct Policy {
    digest: String,
    file: File,
    comparator: Option<Comparator>,
    rule: Option<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    audit: AuditSection,
    verification: Verification,
    mediation: Mediation,
    settlement: Settlement,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuditSection {
    dispute: Dispute,
}

/// Which results are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dispute {
    #[default]
    Recorded,
    All,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Verification {
    only_kind: Option<Kind>,
    method: Option<JudgedBy>,
    comparator: Option<toml::Spanned<toml::Table>>,
    rule: Option<toml::Spanned<toml::Table>>,
    fuel_max: Option<u64>,
    memory_bytes_max: Option<u64>,
    output_bytes_max: Option<u64>,
    wall_ms_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Reexecution,
    Proof,
    Majority,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum JudgedBy {
    Recorded,
    Reexecution,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mediation {
    count: Option<Count>,
    quorum: Option<u64>,
    weights: BTreeMap<Address, u32>,
}

/// What decides a dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Count {
    Votes,
    Verifier,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settlement {
    #[serde(deserialize_with = "bps")]
    victim_bps: Option<Bps>,
    #[serde(deserialize_with = "bps")]
    fee_bps: Option<Bps>,
    public_good: Option<bool>,
    #[serde(deserialize_with = "amount")]
    mediation_fee: Option<Amount>,
    #[serde(deserialize_with = "amount")]
    submit_collateral: Option<Amount>,
    #[serde(deserialize_with = "amount")]
    judge_collateral: Option<Amount>,
    #[serde(deserialize_with = "multiple")]
    results_collateral_multiple: Option<Share>,
}

fn bps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bps>, D::Error> {
    let number = u32::deserialize(deserializer)?;
    Bps::new(number).map(Some).ok_or_else(|| D::Error::custom(format!("at most 10000, not {number}")))
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Amount>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an amount in base units, as a number or as text")]
    enum Written {
        Number(u64),
        Text(String),
    }
    let amount = match Written::deserialize(deserializer)? {
        Written::Number(number) => Amount::from(number),
        Written::Text(text) => text.parse().map_err(D::Error::custom)?,
    };
    if amount.base_units().bit_len() > AMOUNT_BITS_MAX {
        return Err(D::Error::custom("amounts of a deal are below 2^192"));
    }
    Ok(Some(amount))
}

fn multiple<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Share>, D::Error> {
    let multiple = Share::deserialize(deserializer)?;
    if multiple.ppm() > MULTIPLE_MAX * Share::ONE.ppm() {
        return Err(D::Error::custom(format!("at most {MULTIPLE_MAX}, not {multiple}")));
    }
    Ok(Some(multiple))
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`] names the key and the line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let line = |span: Range<usize>| text.get(..span.start).map(|before| before.matches('\n').count() + 1);
        let file: File = toml::from_str(text).map_err(|error| PolicyError {
            line: error.span().and_then(line),
            problem: error.message().trim().replace('\n', " "),
        })?;
        let about = |table: &toml::Spanned<toml::Table>, problem: String| PolicyError {
            line: line(table.span()),
            problem: format!("verification.{problem}"),
        };
        let comparator = file.verification.comparator.as_ref().map(|table| {
            // Whatever a request may say, and nothing else.
            let asked = json!({ "method": { "kind": "external", "verifier": "none" }, "comparator": table.get_ref() });
            request(&asked).map(|request| request.comparator).map_err(|problem| about(table, problem))
        });
        let rule = file.verification.rule.as_ref().map(|table| {
            let asked = json!({ "method": { "kind": "majority", "votes": [], "rule": table.get_ref() }, "claim": {} });
            match request(&asked).map(|request| request.method) {
                Ok(Method::Majority { rule, .. }) => Ok(rule),
                Ok(_) => Err(about(table, "rule: no rule of a majority".into())),
                Err(problem) => Err(about(table, problem.trim_start_matches("method.").to_owned())),
            }
        });
        let digest = format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex());
        Ok(Self { digest, comparator: comparator.transpose()?, rule: rule.transpose()?, file })
    }

    /// BLAKE3 of the file's bytes.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What a verification may use under the policy; the operator's own limits where it says nothing.
    pub fn limits(&self, own: OperatorLimits) -> OperatorLimits {
        let it = &self.file.verification;
        OperatorLimits {
            fuel_max: it.fuel_max.unwrap_or(own.fuel_max),
            memory_bytes_max: it.memory_bytes_max.unwrap_or(own.memory_bytes_max),
            output_bytes_max: it.output_bytes_max.unwrap_or(own.output_bytes_max),
            wall_ms_max: it.wall_ms_max.unwrap_or(own.wall_ms_max),
        }
    }

    /// Whether a job that goes beyond a limit does so by the policy's word. Time on the clock is the machine's.
    pub(super) const fn limits_jobs(&self) -> bool {
        let it = &self.file.verification;
        it.fuel_max.is_some() || it.memory_bytes_max.is_some() || it.output_bytes_max.is_some()
    }

    /// Whether results that nobody disputed are judged.
    pub(super) fn disputes_all(&self) -> bool {
        self.file.audit.dispute == Dispute::All
    }

    /// Whether it says anything about deals of this method.
    pub(super) fn judges(&self, terms: &Terms) -> bool {
        use tribunal_events::Method::{Majority, Proof, Reexecution};
        let kind = match &terms.method {
            Reexecution => Kind::Reexecution,
            Proof { .. } => Kind::Proof,
            Majority { .. } => Kind::Majority,
        };
        self.file.verification.only_kind.is_none_or(|only| only == kind)
    }

    /// What decides a dispute.
    pub(super) const fn count(&self) -> Count {
        let it = &self.file.verification;
        match self.file.mediation.count {
            Some(count) => count,
            None if self.limits_jobs()
                || it.wall_ms_max.is_some()
                || it.only_kind.is_some()
                || it.method.is_some()
                || it.comparator.is_some()
                || it.rule.is_some() =>
            {
                Count::Verifier
            }
            None => Count::Votes,
        }
    }

    /// The weight of equal votes that decides.
    pub(super) fn quorum(&self, terms: &Terms) -> u64 {
        self.file.mediation.quorum.unwrap_or_else(|| u64::from(terms.mediation.quorum))
    }

    /// What a mediator's vote weighs.
    pub(super) fn weight(&self, mediator: Address) -> u64 {
        self.file.mediation.weights.get(&mediator).copied().map_or(1, u64::from)
    }

    /// Whether votes are counted otherwise than by the terms.
    pub(super) fn recounts(&self) -> bool {
        self.file.mediation.quorum.is_some() || !self.file.mediation.weights.is_empty()
    }

    /// The request that judges a deal's result under the policy.
    pub(super) fn request(&self, mut request: Request) -> Request {
        if let Some(comparator) = &self.comparator {
            request.comparator = comparator.clone();
        }
        if self.file.verification.method == Some(JudgedBy::Reexecution) {
            request.method = Method::Reexecution;
        }
        if let (Method::Majority { rule, .. }, Some(other)) = (&mut request.method, &self.rule) {
            *rule = other.clone();
        }
        request
    }

    /// The terms with the policy's money: what the settlement is computed from. Nobody signed them.
    ///
    /// # Errors
    /// Where an amount would be beyond 2^192.
    pub(super) fn terms(&self, signed: &Terms) -> Result<Terms, String> {
        let (mut terms, it) = (signed.clone(), &self.file.settlement);
        if *it == Settlement::default() {
            return Ok(terms);
        }
        if it.public_good == Some(false) {
            let fee = signed.message().fee.map_or(0, |fee| fee.fee_bps);
            terms.fee_bps = Bps::new(fee).unwrap_or_default();
        }
        terms.fee_bps = it.fee_bps.unwrap_or(terms.fee_bps);
        if it.public_good == Some(true) {
            terms.fee_bps = Bps::default();
        }
        terms.victim_bps = it.victim_bps.unwrap_or(terms.victim_bps);
        let pricing = &mut terms.pricing;
        pricing.mediation_fee = it.mediation_fee.unwrap_or(pricing.mediation_fee);
        pricing.submit_collateral = it.submit_collateral.unwrap_or(pricing.submit_collateral);
        pricing.judge_collateral = it.judge_collateral.unwrap_or(pricing.judge_collateral);
        if let Some(multiple) = it.results_collateral_multiple {
            // Below 2^192 times 10^9: far from 2^256.
            let product = pricing.results_collateral.base_units() * U256::from(multiple.ppm());
            let collateral = product / U256::from(Share::ONE.ppm());
            if collateral.bit_len() > AMOUNT_BITS_MAX {
                return Err(format!("{multiple} times its results collateral is beyond 2^192"));
            }
            pricing.results_collateral = Amount::new(collateral);
        }
        Ok(terms)
    }
}

fn request(asked: &Value) -> Result<Request, String> {
    Request::parse(&asked.to_string()).map_err(|bad| bad.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> (Option<usize>, String) {
        let error = Policy::parse(text).unwrap_err();
        (error.line, error.problem)
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let (line, text) = problem("[mediation]\nquorum = 2\n\nquorums = 3\n");
        assert_eq!(line, Some(4));
        assert!(text.contains("quorums"), "{text}");
        let (line, text) = problem("[verification]\nmethod = \"guess\"\n");
        assert_eq!(line, Some(2));
        assert!(text.contains("guess"), "{text}");
        let (line, text) = problem("[audit]\n[verification]\ncomparator = { kind = \"numeric\", relativ = 1 }\n");
        assert_eq!(line, Some(3));
        assert!(text.starts_with("verification.comparator.relativ"), "{text}");
        let (line, text) = problem("[verification]\nrule = { kind = \"quorum\", quorum = 0 }\n");
        assert_eq!(line, Some(2));
        assert!(text.starts_with("verification.rule.quorum"), "{text}");
        let (line, text) = problem("[settlement]\nvictim_bps = 10001\n");
        assert_eq!(line, Some(2));
        assert!(text.contains("10001"), "{text}");
    }

    #[test]
    fn every_key_is_optional_and_means_what_it_says() {
        let nothing = Policy::parse("").unwrap();
        assert_eq!((nothing.count(), nothing.disputes_all(), nothing.recounts()), (Count::Votes, false, false));
        let text = "[audit]\ndispute = \"all\"\n[verification]\nrule = { kind = \"boinc\", min_quorum = 3 }\n\
                    comparator = { kind = \"numeric\", relative = 1e-6, absolute = 0.5 }\nfuel_max = 7\n\
                    [settlement]\nmediation_fee = 5\nsubmit_collateral = \"6\"\nresults_collateral_multiple = 1.5\n";
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.rule, Some(Rule::Boinc(3)));
        let Some(Comparator::Numeric { relative, absolute, ulps: 0 }) = &policy.comparator else { panic!() };
        assert_eq!((relative.parse::<f64>(), absolute.parse::<f64>()), (Ok(1e-6), Ok(0.5)));
        assert_eq!(policy.limits(OperatorLimits::default()).fuel_max, 7);
        assert_eq!((policy.count(), policy.disputes_all(), policy.limits_jobs()), (Count::Verifier, true, true));
        let money = &policy.file.settlement;
        assert_eq!((money.mediation_fee, money.submit_collateral), (Some(Amount::from(5)), Some(Amount::from(6))));
        // The votes still count where the policy says so.
        let text = format!("{text}[mediation]\ncount = \"votes\"\n");
        assert_eq!(Policy::parse(&text).unwrap().count(), Count::Votes);
    }
}
