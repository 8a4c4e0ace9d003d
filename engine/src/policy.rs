//! Preflight: which deals this operator agrees to judge, decided from the terms before anything is at stake. Pure.
//!
//! [`Preflight::check`] answers with one [`Finding`] a rule, in this order:
//!
//! | code | refuses where |
//! |---|---|
//! | `agree-by` | the time to agree is over, or shorter than a block and the bus take |
//! | `windows` | a window to submit, judge, serve or mediate is shorter than a block and the bus take |
//! | `draw-window`, `commit-window` | likewise the window for the seeds, and each half of a drawn panel's voting time |
//! | `redraws` | never; notes that somebody who was silent may be asked again |
//! | `judge-time` | the worst case of the job takes longer here than a mediator has, less a margin |
//! | `collateral` | p_min is above 1: cheating pays even where every result is checked |
//! | `check-probability` | p_min is above how often this operator takes a result to be checked |
//! | `runtime`, `method`, `comparator`, `limits` | this operator could only say inconclusive |
//! | `mediation-fee`, `silence-slash` | never; notes on money |
//! | `named` | never; notes that no mediator run here is among those of the terms |
//!
//! Deterrence: with R the price (the most of it where it is metered), S the results collateral, C what cheating gains,
//! d the share of cheats that a check finds and r the share of colluding mediators, a provider is honest where
//! `p·d·(1−r)·(R+S) ≥ C`, so `p_min = C / (d·(1−r)·(R+S))`. PoSP (arXiv 2405.00295) is this form.
//!
//! **Invariant:** a refusal is exact: integers and rationals only, the clock is an argument, nothing is read from anywhere.
//! **Invariant:** nothing here decides an outcome: a proposal that is refused never existed.
//!
//! A store that is restored from a backup reads the bus again from where the backup stood: with a stricter policy than then
//! it refuses what it admitted before. Restore with the settings of the time, or with `enforce = false` until it caught up.
//!
//! Zero windows and proof systems that nobody has cannot occur in [`Terms`]; terms name no `external` verifier.

use std::fmt;

use alloy_primitives::aliases::U512;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tribunal_events::{Address, Amount, Comparator, Method, Protocol, Terms, Timestamp};
use tribunal_verifiers::{Comparison, OperatorLimits, RUNTIMES, compare};

use crate::config::PolicyConfig;

/// The code under which the engine refuses a proposal that a mediator run here would not judge.
pub const REJECTION_CODE: &str = "policy";

const MILLION: u64 = 1_000_000;
/// d where results are compared within a tolerance, or where others' claims are counted.
const DETECTION_WITHIN_TOLERANCE: Share = Share(950_000);

/// A share in parts per million. In settings a number: 0.95. At most a million times the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u64);

impl Share {
    /// All of it.
    pub const ONE: Self = Self(MILLION);

    /// `ppm` parts per million.
    pub const fn from_ppm(ppm: u64) -> Self {
        Self(ppm)
    }

    /// Parts per million.
    pub const fn ppm(self) -> u64 {
        self.0
    }

    /// What is left of the whole; nothing where this is more.
    const fn rest(self) -> u64 {
        MILLION.saturating_sub(self.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / MILLION, self.0 % MILLION);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0 as f64 / MILLION as f64)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        if !(0.0..=MILLION as f64).contains(&number) {
            return Err(serde::de::Error::custom(format!("a share is a number from 0 on, such as 0.95, not {number}")));
        }
        Ok(Self((number * MILLION as f64).round() as u64))
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; no reason to refuse.
    Note,
    /// This operator would not judge the deal.
    Refuse,
}

impl Level {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Refuse => "refuse",
        }
    }
}

/// What one rule says about terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable code of the rule.
    pub code: &'static str,
    /// How much it weighs.
    pub level: Level,
    /// One sentence with the figures.
    pub sentence: String,
}

/// What an operator can and wants to judge.
#[derive(Clone, Debug)]
pub struct Preflight {
    /// Its assumptions and margins.
    pub policy: PolicyConfig,
    /// What one verification may use here.
    pub limits: OperatorLimits,
    /// The mediators that run here; empty: unknown.
    pub mediators: Vec<Address>,
}

impl Preflight {
    /// One finding a rule that applies to these terms, as of `now`.
    pub fn check(&self, terms: &Terms, now: Timestamp) -> Vec<Finding> {
        let drawn = terms.mediation.protocol == Protocol::Drawn;
        let mut findings = vec![self.agree_by(terms, now), self.windows(terms)];
        if drawn {
            findings.extend([self.draw_window(terms), self.commit_window(terms)]);
        }
        findings.extend([redraws(terms), self.judge_time(terms)]);
        findings.extend(self.deterrence(terms));
        findings.extend([runtime(terms), method(terms), comparator(terms), self.limits(terms)]);
        findings.extend([mediation_fee(terms), silence_slash(terms)]);
        findings.extend(self.named(terms));
        findings
    }

    /// Why a proposal of these terms is to be refused: the first refusing sentence, if a mediator run here is named in them.
    pub fn refusal(&self, terms: &Terms, now: Timestamp) -> Option<String> {
        self.here(terms).next()?;
        self.check(terms, now).into_iter().find(|it| it.level == Level::Refuse).map(|it| it.sentence)
    }

    /// Mediators run here that the terms name.
    fn here<'a>(&'a self, terms: &'a Terms) -> impl Iterator<Item = &'a Address> {
        self.mediators.iter().filter(|mediator| terms.mediation.mediators.contains(mediator))
    }

    /// Seconds until what somebody says is recorded and, where a contract holds the money, in a block.
    fn latency_s(&self, terms: &Terms) -> u64 {
        let block_s = if terms.domain().on_chain() { self.policy.block_time_s } else { 0 };
        block_s.saturating_add(self.policy.bus_latency_s)
    }

    fn agree_by(&self, terms: &Terms, now: Timestamp) -> Finding {
        let (by_s, latency_s) = (terms.timeouts.agree_by_s, self.latency_s(terms));
        let until = Timestamp::from_s(by_s).to_string();
        let until = until.get(..19).unwrap_or_default();
        let left_s = by_s.saturating_sub(now.s());
        if now > Timestamp::last_us_of_s(by_s) {
            let ago_s = now.s() - by_s;
            return refuse("agree-by", format!("The time to agree ended {ago_s} s ago, at {until} UTC."));
        }
        let sentence = format!(
            "There are {left_s} s left to agree, until {until} UTC; the other party's word and the lock take {latency_s} s."
        );
        if left_s < latency_s { refuse("agree-by", sentence) } else { ok("agree-by", sentence) }
    }

    fn windows(&self, terms: &Terms) -> Finding {
        let (it, latency_s) = (&terms.timeouts, self.latency_s(terms));
        let windows = [
            ("submit", it.submit_s),
            ("judge", it.judge_s),
            ("serve an artifact", it.availability_s),
            ("mediate", it.mediate_s),
        ];
        match windows.iter().find(|(_, window_s)| *window_s < latency_s) {
            Some((what, window_s)) => refuse(
                "windows",
                format!("The time to {what} is {window_s} s, but the chain and the bus alone take {latency_s} s."),
            ),
            None => {
                let least_s = windows.iter().map(|(_, window_s)| *window_s).min().unwrap_or_default();
                ok("windows", format!("The shortest window is {least_s} s; the chain and the bus take {latency_s} s."))
            }
        }
    }

    fn draw_window(&self, terms: &Terms) -> Finding {
        let (draw_s, latency_s) = (terms.timeouts.draw_s, self.latency_s(terms));
        let sentence =
            format!("Both seeds are due {draw_s} s after a dispute; the chain and the bus take {latency_s} s.");
        if draw_s < latency_s { refuse("draw-window", sentence) } else { ok("draw-window", sentence) }
    }

    fn commit_window(&self, terms: &Terms) -> Finding {
        let (half_s, latency_s) = (terms.timeouts.mediate_s / 2, self.latency_s(terms));
        let sentence = format!(
            "The panel has {half_s} s to judge and commit and {half_s} s to reveal; the chain and the bus take {latency_s} s."
        );
        // Nothing would be left in which to judge.
        if half_s <= latency_s { refuse("commit-window", sentence) } else { ok("commit-window", sentence) }
    }

    /// The worst case: all of the fuel at this machine's rate, cut off by the job's own limit on the clock.
    fn judge_time(&self, terms: &Terms) -> Finding {
        let code = "judge-time";
        if terms.method != Method::Reexecution {
            return ok(code, "No job is run; a proof or a few claims are checked in seconds.".into());
        }
        let drawn = terms.mediation.protocol == Protocol::Drawn;
        let window_ms = u128::from(terms.timeouts.mediate_s) * if drawn { 500 } else { 1000 };
        let latency_ms = u128::from(self.latency_s(terms)) * 1000;
        let kept = window_ms * u128::from(self.policy.margin.rest()) / u128::from(MILLION);
        let budget_ms = kept.saturating_sub(latency_ms);
        let limits = terms.job.limits;
        let fuel_ms = (u128::from(limits.fuel) * 1000).div_ceil(u128::from(self.policy.fuel_per_s.max(1)));
        let wall_ms = u128::from(limits.wall_ms);
        let (fuel, wall) = (seconds(fuel_ms), seconds(wall_ms));
        let has = format!(
            "of {} s to judge {} s are left after a margin of {} and {} s for the chain and the bus",
            seconds(window_ms),
            seconds(budget_ms),
            self.policy.margin,
            seconds(latency_ms)
        );
        if fuel_ms.min(wall_ms) > budget_ms {
            let worst = seconds(fuel_ms.min(wall_ms));
            return refuse(code, format!("The job may take {worst} s here, but {has}."));
        }
        if wall_ms > budget_ms {
            let why = "what is not metered, such as reading and writing, may take longer than that";
            return note(code, format!("The job's fuel lasts {fuel} s here and its limit is {wall} s; {has}: {why}."));
        }
        if fuel_ms > wall_ms {
            let why = "a job that uses it all is inconclusive";
            return note(code, format!("The job's fuel lasts {fuel} s here, but its limit is {wall} s: {why}."));
        }
        ok(code, format!("The job takes at most {fuel} s of fuel and {wall} s on the clock here; {has}."))
    }

    /// What a cheat gains, and what it loses if every result is checked: `p_min` is the one divided by the other.
    fn gain_and_loss(&self, terms: &Terms) -> (U512, U512) {
        let (policy, pricing) = (&self.policy, &terms.pricing);
        let paid = if pricing.metered { pricing.payment_collateral } else { pricing.price };
        let detection = policy.detection.unwrap_or_else(|| detection(terms));
        let wide = |amount: Amount| U512::from_limbs_slice(amount.base_units().as_limbs());
        let number = |number: u64| U512::from(number);
        let all = wide(paid) + wide(pricing.results_collateral);
        let gain = wide(paid) * number(policy.gain.ppm()) * number(MILLION);
        (gain, number(detection.ppm().min(MILLION)) * number(policy.colluding.rest()) * all)
    }

    /// `p_min` of a deal in parts per million, rounded up: how often its result must be checked at least, so that cheating does
    /// not pay. Always, where it pays whatever is checked.
    pub fn least_check_ppm(&self, terms: &Terms) -> u64 {
        let (gain, loss) = self.gain_and_loss(terms);
        if gain.is_zero() {
            return 0;
        }
        if gain >= loss {
            return MILLION;
        }
        u64::try_from((gain * U512::from(MILLION)).div_ceil(loss)).unwrap_or(MILLION)
    }

    /// `p_min = C / (d·(1−r)·(R+S))` as a fraction of integers: C in 10⁻⁶ units on top, d and 1−r in parts per million below.
    fn deterrence(&self, terms: &Terms) -> Vec<Finding> {
        let (policy, pricing) = (&self.policy, &terms.pricing);
        let paid = if pricing.metered { pricing.payment_collateral } else { pricing.price };
        let stake = pricing.results_collateral;
        let detection = policy.detection.unwrap_or_else(|| detection(terms));
        let wide = |amount: Amount| U512::from_limbs_slice(amount.base_units().as_limbs());
        let number = |number: u64| U512::from(number);
        let (gain, loss) = self.gain_and_loss(terms);
        let with = format!(
            "price {paid}, results collateral {stake}, gain {} of the price, detection {detection}, colluding {}",
            policy.gain, policy.colluding
        );
        if gain.is_zero() {
            let sentence = format!("A cheat gains nothing ({with}).");
            return vec![ok("collateral", sentence)];
        }
        if gain > loss {
            let needed = if loss.is_zero() {
                "whatever the collateral".to_owned()
            } else {
                // S ≥ C/(d(1−r)) − R, rounded up.
                let unit = number(detection.ppm().min(MILLION)) * number(policy.colluding.rest());
                let least = gain.div_ceil(unit).saturating_sub(wide(paid));
                format!("a results collateral of at least {least} is needed")
            };
            let sentence = format!("Cheating pays even where every result is checked: {needed} ({with}).");
            return vec![refuse("collateral", sentence)];
        }
        let p_min = percent(gain, loss);
        let mut findings = vec![ok(
            "collateral",
            format!("Cheating does not pay where at least {p_min} of the results are checked ({with})."),
        )];
        let probability = policy.check_probability;
        let assumed = percent(number(probability.ppm()), number(MILLION));
        // p < C/L, crosswise.
        let sentence = format!("At least {p_min} of the results must be checked; this operator assumes {assumed}.");
        findings.push(if number(probability.ppm()) * loss < gain * number(MILLION) {
            refuse("check-probability", sentence)
        } else {
            ok("check-probability", sentence)
        });
        findings
    }

    fn limits(&self, terms: &Terms) -> Finding {
        if terms.method != Method::Reexecution {
            return ok("limits", "No job is run here, so its limits do not matter.".into());
        }
        let (job, here) = (&terms.job.limits, &self.limits);
        let limits = [
            ("fuel", job.fuel, here.fuel_max),
            ("bytes of memory", job.memory_bytes, here.memory_bytes_max),
            ("bytes of output", job.output_bytes, here.output_bytes_max),
            ("ms on the clock", job.wall_ms, here.wall_ms_max),
        ];
        match limits.iter().find(|(_, asked, max)| asked > max) {
            Some((what, asked, max)) => {
                refuse("limits", format!("The job may use {asked} {what}; this operator allows {max}."))
            }
            None => ok(
                "limits",
                format!(
                    "The job may use {} fuel, {} bytes of memory, {} of output and {} ms: all within this operator's limits.",
                    job.fuel, job.memory_bytes, job.output_bytes, job.wall_ms
                ),
            ),
        }
    }

    fn named(&self, terms: &Terms) -> Option<Finding> {
        let first = self.mediators.first()?;
        Some(match self.here(terms).next() {
            Some(mediator) => ok("named", format!("The terms name the mediator {mediator:#x} that runs here.")),
            None => note("named", format!("The terms do not name {first:#x}, the mediator that runs here.")),
        })
    }
}

/// d where the operator says nothing: certain where a result is compared byte for byte with an own run, or proven.
fn detection(terms: &Terms) -> Share {
    match (&terms.method, &terms.comparator) {
        (Method::Proof { .. }, _) | (Method::Reexecution, Comparator::Exact) => Share::ONE,
        _ => DETECTION_WITHIN_TOLERANCE,
    }
}

fn redraws(terms: &Terms) -> Finding {
    let it = &terms.mediation;
    let (candidates, panels) = (it.mediators.len(), u64::from(it.redraws) + 1);
    if it.protocol == Protocol::Appointed {
        return if it.redraws == 0 {
            ok("redraws", "The one appointed mediator is asked once.".into())
        } else {
            note(
                "redraws",
                format!("The one appointed mediator is asked up to {panels} times: nobody else can step in."),
            )
        };
    }
    let sentence = format!("Up to {panels} panels of {} are drawn from {candidates} mediators", it.panel_size);
    if panels * u64::from(it.panel_size) > candidates as u64 {
        note("redraws", format!("{sentence}: some who were asked before may be asked again."))
    } else {
        ok("redraws", format!("{sentence}."))
    }
}

fn runtime(terms: &Terms) -> Finding {
    let (code, runtime) = ("runtime", &terms.job.runtime);
    match terms.method {
        Method::Reexecution if RUNTIMES.contains(&runtime.as_str()) => ok(code, format!("{runtime} runs here.")),
        Method::Reexecution => refuse(code, format!("{runtime} does not run here, only {}.", RUNTIMES.join(", "))),
        _ => ok(code, format!("The job ({runtime}) is not run to check its result.")),
    }
}

fn method(terms: &Terms) -> Finding {
    let code = "method";
    match &terms.method {
        Method::Reexecution => ok(code, "A result is checked by running the job again.".into()),
        Method::Proof { system, curve, .. } => match (system.as_str(), curve.as_str()) {
            ("groth16", "bn254" | "bls12-381") => ok(code, format!("{system} proofs over {curve} are checked here.")),
            _ => refuse(code, format!("{system} proofs over {curve} are not checked here.")),
        },
        Method::Majority { replicators, .. } => {
            ok(code, format!("A result is compared with the claims of {} replicators.", replicators.len()))
        }
    }
}

fn comparator(terms: &Terms) -> Finding {
    // Whether it can be used at all shows on any two texts that differ.
    match compare(&terms.comparator, "probe.txt", b"1\n", b"2\n") {
        Comparison::Unusable(problem) => {
            refuse("comparator", format!("The comparator cannot be used, so no result could be judged: {problem}."))
        }
        _ => {
            let word = match terms.comparator {
                Comparator::Exact => "byte for byte",
                Comparator::Numeric { .. } => "as numbers within a tolerance",
                Comparator::Image { .. } => "as images within a distance",
                Comparator::IgnoreLines(_) => "line by line, but for some",
                Comparator::Norm { .. } => "row by row within a distance, over many rows",
                Comparator::Topk { .. } => "row by row by what is at the top, over many rows",
                Comparator::Toploc { .. } => "by TOPLOC proofs, over many of them",
            };
            ok("comparator", format!("Results are compared {word}."))
        }
    }
}

fn silence_slash(terms: &Terms) -> Finding {
    ok("silence-slash", format!("Silence costs a mediator up to {}.", terms.mediation.silence_slash))
}

fn mediation_fee(terms: &Terms) -> Finding {
    let fee = terms.pricing.mediation_fee;
    if fee.is_zero() {
        return note("mediation-fee", "Mediators are paid nothing.".into());
    }
    let each = fee.split(u64::from(terms.mediation.panel_size.max(1)));
    ok("mediation-fee", format!("A verdict pays {fee}, {each} to each of {}.", terms.mediation.panel_size))
}

fn ok(code: &'static str, sentence: String) -> Finding {
    Finding { code, level: Level::Ok, sentence }
}

fn note(code: &'static str, sentence: String) -> Finding {
    Finding { code, level: Level::Note, sentence }
}

fn refuse(code: &'static str, sentence: String) -> Finding {
    Finding { code, level: Level::Refuse, sentence }
}

/// Seconds for people, to a tenth, rounded up.
fn seconds(ms: u128) -> String {
    let tenths = ms.div_ceil(100);
    if tenths.is_multiple_of(10) { (tenths / 10).to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// A fraction for people, in percent, rounded up to a millionth of the whole.
fn percent(part: U512, whole: U512) -> String {
    let ppm = (part * U512::from(MILLION)).div_ceil(whole);
    let (percent, rest) = ppm.div_rem(U512::from(10_000u64));
    let text = format!("{percent}.{:04}", rest.to::<u64>());
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests;
