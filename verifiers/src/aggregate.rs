//! Is the claimed aggregate that of the observations?
//!
//! The aggregate is computed again and becomes JSON in the canonical form of RFC 8785, which the comparator holds against the
//! one file that the claim names under `outputs`. Nothing else of the claim is judged.
//!
//! # Observations
//!
//! JSON, `.npy` or `.safetensors`, told apart by their bytes; arrays count as nested lists, tensors as fields of an object. All
//! observations of a request are alike in everything but numbers, and the aggregate is like them, number by number. Numbers
//! are doubles, the nearest one; NaN, infinities and text beyond all doubles are no observation (`observation-malformed`).
//!
//! # Functions
//!
//! With n observations of a number, ascending:
//!
//! | function | result |
//! |---|---|
//! | `median` | the one in the middle; for an even n half the sum of the two there |
//! | `trimmed-mean` | the mean without the g smallest and the g largest, g = floor(`trim` × n) |
//! | `mad-outliers` | an object: `median` m, `mad` (the median of the distances to m), and the names of the sources whose number x is an outlier, 0.6745 × abs(x − m) > `threshold` × mad (Iglewicz and Hoaglin 1993): in `shared` those with at least `witnesses` other outliers within threshold × mad / 0.6745 of x, in `lone` the rest |
//! | `fedavg` | the sum of weight × number over the sum of weights (McMahan et al. 2017); every update is signed |
//!
//! What several sources saw is an anomaly, what one alone says may be a lie: the two are told apart, and neither is a verdict
//! on a source. The verdict is on the claimed aggregate alone.
//!
//! Sums are exact and rounded to a double once (`exact`), so the order of observations and the machine change nothing.
//!
//! # Signatures
//!
//! An observation may carry a signature of its source, an update must: EIP-712 `Update(bytes32 task,address source,uint64
//! weight,bytes32 contentHash)` in the domain without a contract, where `task` is the request's deal id or zero, and
//! `contentHash` BLAKE3 of the bytes. One that is not by the source is a bad request: nobody is judged by it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use tribunal_events::{Address, B256, Comparator, ContentAddress, Domain, Signature, UpdateStruct, VerdictKind};

use self::exact::{Units, mean, middle, units};
use crate::{
    BadRequest, Reference, Verdict,
    json::Json,
    numeric::{self, Number},
    reexecution::{self, claimed_evidence},
    request::write,
    sequential::Tally,
    service::{Check, Fetched},
    verdict::Evidence,
};

mod exact;

/// Numbers of all observations together, at most.
const NUMBERS_MAX: usize = 1 << 21;

/// How observations become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Function {
    /// The one in the middle.
    Median,
    /// The mean of those that are left.
    TrimmedMean {
        /// Share left out on either side, in billionths, below one half.
        trim: u64,
    },
    /// Who is far from the others.
    MadOutliers {
        /// Distance in units of the median distance, in billionths.
        threshold: u64,
        /// Other outliers near by that make one shared.
        witnesses: u32,
    },
    /// The weighted mean of signed updates.
    FederatedAverage,
}

impl Function {
    /// The word in requests and evidence.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Median => "median",
            Self::TrimmedMean { .. } => "trimmed-mean",
            Self::MadOutliers { .. } => "mad-outliers",
            Self::FederatedAverage => "fedavg",
        }
    }
}

/// What one source says.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Its name; an address where it is signed.
    pub source: String,
    /// Its bytes.
    pub artifact: Reference,
    /// Its weight in a federated average.
    pub weight: u64,
    /// Of whom the source is the address.
    pub signature: Option<(Address, Signature)>,
}

/// The bytes of all observations, in their order.
type Observed = Vec<Arc<[u8]>>;

/// Why there is no aggregate: reason code and detail.
type NoAggregate = (&'static str, String);

pub(crate) fn verify(
    check: &Check<'_>,
    function: &Function,
    observations: &[Observation],
) -> Result<Verdict, BadRequest> {
    let outputs = check.request.claim.as_ref().and_then(|claim| Some((claim, claim.outputs.as_deref()?)));
    let Some((claim, [output])) = outputs else {
        return Err(BadRequest::new("claim.outputs", "one file is needed: the aggregate"));
    };
    let comparator = &check.request.comparator;
    let mut evidence = Evidence::new(format!("aggregate/{}", function.word()));
    evidence.set("comparator", write::comparator(comparator));
    claimed_evidence(claim, &mut evidence);
    if *comparator != Comparator::Exact {
        evidence.local = vec!["own_outputs"];
    }
    let bytes = match fetch(check, observations, &mut evidence)? {
        Ok(bytes) => bytes,
        Err(missing) => return Ok(Verdict::inconclusive("artifact-unavailable", missing, evidence)),
    };
    let own = match aggregate(check, function, observations, &bytes) {
        Ok(own) => write::canonical_text(&own),
        Err((code, detail)) => return Ok(Verdict::inconclusive(code, detail, evidence)),
    };
    let digest = Value::from(ContentAddress::of(own.as_bytes()).to_string());
    evidence.set("own_outputs", Value::Object([(output.path.clone(), digest)].into_iter().collect()));
    let mut tally = Tally::default();
    let found = reexecution::compare_bytes(
        check,
        comparator,
        &output.path,
        "output-differs",
        own.as_bytes(),
        &output.bytes,
        &mut tally,
    )
    .or_else(|| reexecution::decide(comparator, &tally, "output-differs"));
    Ok(match found {
        Some(finding) => Verdict::new(finding.verdict, finding.code, finding.detail, evidence),
        None => {
            let detail = format!("the claim is the {} of {} observations", function.word(), observations.len());
            Verdict::new(VerdictKind::Valid, "ok", detail, evidence)
        }
    })
}

/// Fetches all observations and checks their signatures.
fn fetch(
    check: &Check<'_>,
    observations: &[Observation],
    evidence: &mut Evidence,
) -> Result<Result<Observed, String>, BadRequest> {
    let task = check.request.deal_id.map_or(B256::ZERO, |id| B256::from(*id.bytes()));
    let (mut all, mut missing, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for (index, observation) in observations.iter().enumerate() {
        let bytes = match check.fetch(&observation.artifact) {
            Fetched::Bytes(bytes) => bytes,
            Fetched::Unavailable(problem) => {
                missing.push(problem);
                continue;
            }
        };
        let digest = blake3::hash(&bytes);
        named.push(serde_json::json!({
            "source": observation.source,
            "artifact": format!("blake3:{}", digest.to_hex()),
            "weight": write::integer(observation.weight),
            "signed": observation.signature.is_some(),
        }));
        if let Some((source, signature)) = &observation.signature {
            let content = B256::from(*digest.as_bytes());
            let update = UpdateStruct { task, source: *source, weight: observation.weight, contentHash: content };
            let signer = signature.recover(Domain::default().digest(&update));
            if signer.as_ref() != Ok(source) {
                let field = format!("method.observations[{index}].signature");
                return Err(BadRequest::new(field, format!("is not by {} for these bytes", observation.source)));
            }
        }
        all.push(bytes);
    }
    evidence.set("observations", named);
    Ok(if missing.is_empty() { Ok(all) } else { Err(missing.join("; ")) })
}

/// The aggregate of all observations.
fn aggregate(
    check: &Check<'_>,
    function: &Function,
    observations: &[Observation],
    bytes: &[Arc<[u8]>],
) -> Result<Value, NoAggregate> {
    let (mut first, mut columns): (Option<Json>, Vec<Vec<f64>>) = (None, Vec::new());
    for (observation, bytes) in observations.iter().zip(bytes) {
        let malformed = |problem: String| ("observation-malformed", format!("{}: {problem}", observation.source));
        let tree = numeric::tree(bytes).map_err(malformed)?;
        let mut numbers = Vec::new();
        leaves("$", &tree, first.as_ref(), &mut numbers).map_err(malformed)?;
        if numbers.len().saturating_mul(observations.len()) > NUMBERS_MAX {
            let problem =
                format!("{} numbers of {} sources are more than {NUMBERS_MAX}", numbers.len(), observations.len());
            return Err(("operator-limit", problem));
        }
        first.get_or_insert(tree);
        columns.push(numbers);
    }
    let first = first.ok_or_else(|| ("observation-malformed", "there is no observation".to_owned()))?;
    let (mut at, mut late) = (0, false);
    let all = rebuild(&first, &mut || {
        late |= check.out_of_time();
        if late {
            return Value::Null;
        }
        let column: Vec<f64> = columns.iter().map(|numbers| numbers[at]).collect();
        at += 1;
        number(function, observations, &column)
    });
    match late {
        true => Err(("wall-time", format!("the aggregate takes longer than {} ms", check.limits.wall_ms_max))),
        false => Ok(all),
    }
}

/// Collects the numbers of an observation that is like the first one in everything else.
fn leaves(path: &str, tree: &Json, first: Option<&Json>, numbers: &mut Vec<f64>) -> Result<(), String> {
    let unlike = |first: &Json| numeric::unlike(path, first, tree);
    match (tree, first) {
        (Json::Number(text), None | Some(Json::Number(_))) => {
            let number = Number::read(text).and_then(|number| number.double()).filter(|number| number.is_finite());
            numbers.push(number.ok_or_else(|| format!("{path}: {text} is no finite double"))?);
            Ok(())
        }
        (Json::List(items), None | Some(Json::List(_))) => {
            let others = match first {
                Some(Json::List(others)) if others.len() != items.len() => {
                    return Err(format!("{path}: the first has {} entries, this one {}", others.len(), items.len()));
                }
                Some(Json::List(others)) => others.as_slice(),
                _ => &[],
            };
            items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| leaves(&format!("{path}[{index}]"), item, others.get(index), numbers))
        }
        (Json::Object(_), None) => numeric::fields(tree, &Json::Null).try_for_each(|(name, item, _)| {
            item.map_or(Ok(()), |item| leaves(&format!("{path}.{name}"), item, None, numbers))
        }),
        (Json::Object(_), Some(other @ Json::Object(_))) => {
            numeric::fields(tree, other).try_for_each(|(name, item, other)| {
                let path = format!("{path}.{}", name.chars().take(40).collect::<String>());
                match (item, other) {
                    (Some(item), Some(other)) => leaves(&path, item, Some(other), numbers),
                    (None, _) => Err(format!("{path}: is in the first and not in this one")),
                    (_, None) => Err(format!("{path}: is in this one and not in the first")),
                }
            })
        }
        (_, None) => Ok(()),
        (tree, Some(first)) if tree == first => Ok(()),
        (_, Some(first)) => Err(unlike(first)),
    }
}

/// The tree with every number replaced, in the order of [`leaves`].
fn rebuild(tree: &Json, next: &mut dyn FnMut() -> Value) -> Value {
    match tree {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Text(text) => Value::String(text.clone()),
        Json::Number(_) => next(),
        Json::List(items) => items.iter().map(|item| rebuild(item, next)).collect(),
        Json::Object(fields) => {
            let fields: BTreeMap<&str, &Json> = fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
            Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), rebuild(value, next))).collect())
        }
    }
}

/// What the function makes of one number of every source.
fn number(function: &Function, observations: &[Observation], column: &[f64]) -> Value {
    let all: Vec<Units> = column.iter().map(|value| units(*value)).collect();
    let mut ascending = all.clone();
    ascending.sort_unstable();
    match function {
        Function::Median => mean(middle(&ascending), 1).into(),
        Function::TrimmedMean { trim } => {
            // Below half of the sources on either side, so some are left.
            let left_out = (u128::from(*trim) * all.len() as u128 / 1_000_000_000) as usize;
            let kept = &ascending[left_out..ascending.len() - left_out];
            mean(kept.iter().copied().sum(), kept.len() as u64).into()
        }
        Function::FederatedAverage => {
            let weighted = all.iter().zip(observations).map(|(value, observation)| *value * whole(observation.weight));
            mean(weighted.sum(), observations.iter().map(|observation| observation.weight).sum()).into()
        }
        Function::MadOutliers { threshold, witnesses } => {
            let median = middle(&ascending);
            let mut distances: Vec<Units> = all.iter().map(|value| (*value - median).abs()).collect();
            distances.sort_unstable();
            let mad = middle(&distances);
            // 0.6745 × distance ≤ threshold × mad, in whole numbers: distances are, so the bound may be rounded down.
            let most = mad * whole(10_000) * whole(*threshold) / whole(6_745 * 1_000_000_000);
            let near = |distance: Units| distance <= most;
            let outliers: Vec<usize> = (0..all.len()).filter(|index| !near((all[*index] - median).abs())).collect();
            let (mut lone, mut shared) = (Vec::new(), Vec::new());
            for index in &outliers {
                let beside = |other: &&usize| *other != index && near((all[**other] - all[*index]).abs());
                let list =
                    if outliers.iter().filter(beside).count() >= *witnesses as usize { &mut shared } else { &mut lone };
                list.push(observations[*index].source.as_str());
            }
            lone.sort_unstable();
            shared.sort_unstable();
            serde_json::json!({ "lone": lone, "mad": mean(mad, 1), "median": mean(median, 1), "shared": shared })
        }
    }
}

fn whole(value: u64) -> Units {
    Units::from_raw(alloy_primitives::Uint::from(value))
}
