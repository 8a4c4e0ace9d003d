//! Runs the job again and compares what comes out with what is claimed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use serde_json::Value;
use tribunal_events::{Comparator, ContentAddress, Termination, VerdictKind};

use crate::{
    BadRequest, Cid, Claim, Claimed, Job, OperatorLimits, Verdict,
    comparator::{self, Comparison, Examined},
    container,
    request::write,
    sequential::Tally,
    service::{Check, Fetched},
    verdict::Evidence,
    wasm::{Inputs, NoRun, PROFILE, Run},
};

/// What a comparison of a run and a claim found.
pub(crate) struct Finding {
    pub(crate) verdict: VerdictKind,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
}

impl Finding {
    fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict: VerdictKind::Invalid, code, detail: detail.into() }
    }

    fn inconclusive(code: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict: VerdictKind::Inconclusive, code, detail: detail.into() }
    }
}

/// Names of runtime profiles that this verifier runs; any other is inconclusive, `unknown-runtime`.
pub const RUNTIMES: [&str; 4] = ["wasm", PROFILE, "oci", container::PROFILE];

pub(crate) fn verify(check: &Check<'_>) -> Result<Verdict, BadRequest> {
    let (Some(asked), Some(claim)) = (&check.request.job, &check.request.claim) else {
        return Err(BadRequest::new("job", "a job and a claim are needed"));
    };
    if container::is_container(&asked.runtime) {
        return match check.job() {
            Ok(job) => container::verify(check, job.unwrap_or(asked), claim),
            Err(problem) => Ok(Verdict::inconclusive("job-malformed", problem, Evidence::new("reexecution/oci"))),
        };
    }
    let comparator = &check.request.comparator;
    let mut evidence = Evidence::new("reexecution/wasm");
    evidence.set("comparator", write::comparator(comparator));
    evidence.set("runtime", if asked.runtime == "wasm" { PROFILE } else { &asked.runtime });
    claimed_evidence(claim, &mut evidence);
    if *comparator != Comparator::Exact {
        evidence.local = vec!["own_outputs", "own_stdout", "fuel_used", "grade"];
    }
    if !RUNTIMES.contains(&asked.runtime.as_str()) {
        let detail =
            format!("this verifier has the runtimes {PROFILE} and {}, not {}", container::PROFILE, asked.runtime);
        return Ok(Verdict::inconclusive("unknown-runtime", detail, evidence));
    }
    let job = match check.job() {
        Ok(job) => job.unwrap_or(asked),
        Err(problem) => return Ok(Verdict::inconclusive("job-malformed", problem.to_owned(), evidence)),
    };
    let inputs = match inputs(check, job, &mut evidence)? {
        Ok(inputs) => inputs,
        Err(missing) => return Ok(Verdict::inconclusive("artifact-unavailable", missing, evidence)),
    };
    let start = Instant::now();
    let run = match check.service.wasm.run(job, &inputs, &check.limits, claim.folder.is_some()) {
        Ok(run) => run,
        Err(NoRun::ModuleInvalid(problem)) if claim.folder.is_some() => {
            return Ok(Verdict::inconclusive("no-own-folder", problem, evidence));
        }
        Err(NoRun::ModuleInvalid(problem)) => {
            return Ok(Verdict::new(VerdictKind::Invalid, "module-invalid", problem, evidence));
        }
        Err(NoRun::Inconclusive { code, detail }) => return Ok(Verdict::inconclusive(code, detail, evidence)),
    };
    let digests = |(path, bytes): (&String, &Vec<u8>)| (path.clone(), address(bytes));
    evidence.set("own_outputs", Value::Object(run.outputs.iter().map(digests).collect()));
    evidence.set("own_stdout", address(&run.stdout));
    evidence.set("own_termination", run.termination.word());
    evidence.set("own_exit_code", run.exit_code);
    evidence.set("fuel_used", write::integer(run.fuel_used));
    if let Some(Ok(folder)) = &run.folder {
        evidence.set("own_folder", folder.cid.to_string());
        if let Some(returned) = folder.returned {
            evidence.set("own_folder_returned", returned.to_string());
        }
    }
    let mut finding = judge(check, &run, claim, comparator)?;
    if finding.verdict == VerdictKind::Invalid
        && let Some(doubt) = second_run(check, job, &inputs, &run, start)
    {
        finding = doubt;
    }
    if let Some(grade) = graded(check, &run, claim).filter(|_| finding.verdict == VerdictKind::Valid) {
        evidence.set("grade", grade);
    }
    Ok(Verdict::new(finding.verdict, finding.code, finding.detail, evidence))
}

/// Before anybody is convicted the job runs once more as wasmtime alone compiles it: a fault in what we do to modules must
/// not be read as guilt. Whoever has no time left for that stays with the first run.
fn second_run(check: &Check<'_>, job: &Job, inputs: &Inputs, run: &Run, start: Instant) -> Option<Finding> {
    let spent = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let wall_ms_max = check.limits.wall_ms_max.saturating_sub(spent);
    let limits = OperatorLimits { wall_ms_max, ..check.limits };
    let second = check.service.reference.run(job, inputs, &limits, run.folder.is_some()).ok()?;
    let detail = "two runs of the job, compiled in two ways, differ on this machine";
    (second != *run).then(|| Finding::inconclusive("executor-fault", detail))
}

fn address(bytes: &[u8]) -> Value {
    ContentAddress::of(bytes).to_string().into()
}

/// Writes down what is claimed, as it is addressed.
pub(crate) fn claimed_evidence(claim: &Claim, evidence: &mut Evidence) {
    if let Some(outputs) = &claim.outputs {
        let all = outputs.iter().map(|output| (output.path.clone(), output.bytes.reference().to_string().into()));
        evidence.set("claimed_outputs", Value::Object(all.collect()));
    }
    if let Some(stdout) = &claim.stdout {
        evidence.set("claimed_stdout", stdout.reference().to_string());
    }
    if let Some(folder) = &claim.folder {
        evidence.set("claimed_folder", folder.to_string());
    }
    if !claim.environment.is_empty() {
        evidence.set("claimed_environment", write::environment(&claim.environment));
    }
}

/// Fetches what the job starts from.
pub(crate) fn inputs(
    check: &Check<'_>,
    job: &Job,
    evidence: &mut Evidence,
) -> Result<Result<Inputs, String>, BadRequest> {
    let mut missing = Vec::new();
    let mut fetch = |reference| match check.fetch(reference) {
        Fetched::Bytes(bytes) => Some(bytes),
        Fetched::Unavailable(problem) => {
            missing.push(problem);
            None
        }
    };
    let module = fetch(&job.module);
    let stdin = job.stdin.as_ref().map(&mut fetch);
    let files: Vec<_> = job.inputs.iter().map(|input| fetch(&input.artifact)).collect();
    let digest = |bytes: &[u8]| ContentAddress::of(bytes).to_string();
    let module = module.map(|bytes| (ContentAddress::of(&bytes), bytes));
    if let Some((address, _)) = &module {
        evidence.set("module", address.to_string());
    }
    if let Some(Some(stdin)) = &stdin {
        evidence.set("stdin", digest(stdin));
    }
    let named = job.inputs.iter().zip(&files).map(|(input, bytes)| {
        let address = bytes.as_ref().map_or_else(|| input.artifact.to_string(), |bytes| digest(bytes));
        (input.path.clone(), address.into())
    });
    evidence.set("inputs", Value::Object(named.collect()));
    match (module, missing.is_empty()) {
        (Some((module_address, module)), true) => {
            let files = files.into_iter().flatten().collect();
            Ok(Ok(Inputs { module, module_address, stdin: stdin.flatten(), files, stop: check.stop.cloned() }))
        }
        _ => Ok(Err(missing.join("; "))),
    }
}

pub(crate) fn judge(
    check: &Check<'_>,
    run: &Run,
    claim: &Claim,
    comparator: &Comparator,
) -> Result<Finding, BadRequest> {
    if let Some(claimed) = claim.folder
        && let Some(finding) = compare_folders(run, claimed)
    {
        return Ok(finding);
    }
    if let Some(finding) = compare_endings(run, claim) {
        return Ok(finding);
    }
    let (mut doubt, mut tally) = (None, Tally::default());
    if let Some(claimed) = &claim.stdout {
        let code = "stdout-differs";
        match compare_bytes(check, comparator, "stdout", code, &run.stdout, claimed, &mut tally) {
            Some(finding) if finding.verdict == VerdictKind::Invalid => return Ok(finding),
            finding => doubt = doubt.or(finding),
        }
    }
    if let Some(outputs) = &claim.outputs {
        let claimed: BTreeMap<_, _> = outputs.iter().map(|output| (output.path.as_str(), &output.bytes)).collect();
        let paths: BTreeSet<_> = claimed.keys().copied().chain(run.outputs.keys().map(String::as_str)).collect();
        for path in paths {
            let finding = match (run.outputs.get(path), claimed.get(path)) {
                (Some(own), Some(claimed)) => {
                    compare_bytes(check, comparator, path, "output-differs", own, claimed, &mut tally)
                }
                (Some(_), None) => {
                    Some(Finding::invalid("output-differs", format!("{path}: produced, but not claimed")))
                }
                (None, _) => Some(Finding::invalid("output-differs", format!("{path}: claimed, but not produced"))),
            };
            match finding {
                Some(finding) if finding.verdict == VerdictKind::Invalid => return Ok(finding),
                finding => doubt = doubt.or(finding),
            }
        }
    }
    if let Some(claimed) = claim.instruction_count.filter(|claimed| *claimed > run.fuel_used) {
        let detail = format!("metered {}, claimed {claimed}", run.fuel_used);
        return Ok(Finding::invalid("instruction-count", detail));
    }
    // The samples of all files together; where a file could not be had, theirs are not all.
    if doubt.is_none() {
        doubt = decide(comparator, &tally, "output-differs");
    }
    let ok = || Finding { verdict: VerdictKind::Valid, code: "ok", detail: "the claim is what the job gives".into() };
    Ok(doubt.unwrap_or_else(ok))
}

/// Whoever claims a folder ran the job elsewhere, in another runtime and under limits of their own: only a run that nothing
/// here cut short or coloured says that they are wrong. Nothing: the folder is what the job gives.
fn compare_folders(run: &Run, claimed: Cid) -> Option<Finding> {
    let open = |code, detail: String| Some(Finding::inconclusive(code, detail));
    let own = match &run.folder {
        None if run.termination == Termination::OutOfFuel => {
            return open("job-limit", "the job runs out of the fuel that the request gives it".into());
        }
        None => {
            let trap = run.trap.as_deref().unwrap_or("trap");
            return open("no-own-folder", format!("the job traps ({trap}), so it gives no folder here"));
        }
        Some(Err(problem)) => return open("no-own-folder", problem.clone()),
        Some(Ok(own)) => own,
    };
    if own.cid == claimed || own.returned == Some(claimed) {
        return None;
    }
    let differ = match own.returned {
        None => format!("folder: expected {}, claimed {claimed}", own.cid),
        Some(returned) => format!("folder: expected {} or {returned}, claimed {claimed}", own.cid),
    };
    if let Some(what) = run.refused {
        return open("job-limit", format!("{differ}; a limit refused the job {what} on the way"));
    }
    if run.asked_the_host {
        return open("host-dependent", format!("{differ}; the job asks for the time or for random bytes"));
    }
    Some(Finding::invalid("folder-differs", differ))
}

/// The worst grade of all that is claimed, where the comparator gives grades; what is equal byte for byte has none to give.
pub(crate) fn graded(check: &Check<'_>, run: &Run, claim: &Claim) -> Option<u8> {
    let outputs = claim.outputs.iter().flatten();
    let outputs = outputs.filter_map(|output| Some((run.outputs.get(&output.path)?, &output.bytes)));
    let all = claim.stdout.iter().map(|stdout| (&run.stdout, stdout)).chain(outputs);
    let grades = all.filter_map(|(own, claimed)| match check.fetch(&claimed.reference()) {
        Fetched::Bytes(bytes) if bytes[..] != own[..] => comparator::grade(&check.request.comparator, own, &bytes),
        _ => None,
    });
    grades.min()
}

fn compare_endings(run: &Run, claim: &Claim) -> Option<Finding> {
    let says = match (claim.termination, claim.exit_code) {
        (Termination::Exit, Some(code)) => format!("the claim says that it exits with {code}"),
        (Termination::Exit, None) => "the claim says that it exits".to_owned(),
        (Termination::Trap, _) => "the claim says that it traps".to_owned(),
        (Termination::OutOfFuel, _) => "the claim says that it runs out of fuel".to_owned(),
    };
    match (run.termination, claim.termination) {
        (Termination::Exit, Termination::Exit) => {
            let claimed = claim.exit_code.filter(|claimed| *claimed != run.exit_code)?;
            let detail = format!("exit code: expected {}, claimed {claimed}", run.exit_code);
            Some(Finding::invalid("exit-code-differs", detail))
        }
        (own, claimed) if own == claimed => None,
        (Termination::Exit, _) => {
            let detail = format!("the job exits with {}, {says}", run.exit_code);
            Some(Finding::invalid("termination-differs", detail))
        }
        (Termination::Trap, _) => {
            let trap = run.trap.as_deref().unwrap_or("trap");
            Some(Finding::invalid("trap", format!("the job traps ({trap}), {says}")))
        }
        (Termination::OutOfFuel, _) => {
            Some(Finding::invalid("out-of-fuel", format!("the job runs out of fuel, {says}")))
        }
    }
}

/// What the samples of all files say together.
pub(crate) fn decide(comparator: &Comparator, tally: &Tally, code: &'static str) -> Option<Finding> {
    finding_of(comparator::decide(comparator, tally), code)
}

/// What a comparison says of the claim; nothing where the two agree.
fn finding_of(comparison: Comparison, code: &'static str) -> Option<Finding> {
    match comparison {
        Comparison::Agree => None,
        Comparison::Differ(detail) => Some(Finding::invalid(code, detail)),
        Comparison::Between(detail) => Some(Finding::inconclusive("between-bands", detail)),
        Comparison::Unusable(problem) => Some(Finding::inconclusive("comparator-invalid", problem)),
    }
}

/// Compares one file; samples go to the tally of the whole result.
pub(crate) fn compare_bytes(
    check: &Check<'_>,
    comparator: &Comparator,
    name: &str,
    code: &'static str,
    own: &[u8],
    claimed: &Claimed,
    tally: &mut Tally,
) -> Option<Finding> {
    let named = claimed.names(own);
    if named == Some(true) {
        if let Examined::Samples(samples) = comparator::examine(comparator, name, own, own) {
            tally.add(name, samples);
        }
        return None;
    }
    let bytes = match check.fetch(&claimed.reference()) {
        Fetched::Bytes(bytes) => bytes,
        Fetched::Unavailable(_) if *comparator == Comparator::Exact && named == Some(false) => {
            let detail = format!("{name}: expected {}, claimed {}", claimed.name_of(own), claimed.reference());
            return Some(Finding::invalid(code, detail));
        }
        Fetched::Unavailable(problem) => {
            return Some(Finding::inconclusive("artifact-unavailable", format!("{name}: {problem}")));
        }
    };
    match comparator::examine(comparator, name, own, &bytes) {
        Examined::Samples(samples) => {
            tally.add(name, samples);
            None
        }
        Examined::Outright(comparison) => finding_of(comparison, code).map(|finding| match finding.verdict {
            VerdictKind::Invalid => Finding { detail: format!("{name}: {}", finding.detail), ..finding },
            _ => finding,
        }),
    }
}
