//! The entry: one request in, one verdict out. World faults are inconclusive verdicts, never errors.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, atomic::AtomicBool},
    time::Instant,
};

use serde_json::{Value, json};
use tribunal_events::{ContentAddress, Digest, VerdictKind};

use crate::{
    ArtifactSource, BadRequest, Chain, Containers, Job, MemorySource, Method, Reference, Request, VERIFIER_VERSION,
    Verdict, aggregate,
    artifacts::{checked, file_of},
    input_folder, majority,
    modules::Settings,
    proof, reexecution,
    request::write,
    verdict::Evidence,
    wasm::Wasm,
};

/// What an operator allows one verification to use; a job that needs more is inconclusive here (`operator-limit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorLimits {
    /// Fuel.
    pub fuel_max: u64,
    /// Bytes of linear memory.
    pub memory_bytes_max: u64,
    /// Bytes of files, stdout and stderr together.
    pub output_bytes_max: u64,
    /// Milliseconds on the clock.
    pub wall_ms_max: u64,
}

impl Default for OperatorLimits {
    /// 10^12 fuel, 4 GiB of memory, 1 GiB of output, ten minutes.
    fn default() -> Self {
        Self { fuel_max: 1_000_000_000_000, memory_bytes_max: 1 << 32, output_bytes_max: 1 << 30, wall_ms_max: 600_000 }
    }
}

/// What an out-of-process verifier says.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalAnswer {
    /// Its verdict.
    pub verdict: VerdictKind,
    /// Its reason code.
    pub code: String,
    /// Its reason for people.
    pub detail: String,
    /// Whatever it looked at; part of the digest as it stands.
    pub evidence: Value,
    /// Its signature on that, in hex; not part of the digest.
    pub signature: Option<String>,
}

/// Asks out-of-process verifiers; the engine plugs in NATS.
pub trait ExternalVerifier: Send + Sync {
    /// Asks the verifier of that name. `request` has content addresses in the place of file names.
    ///
    /// # Errors
    /// A sentence that says why there is no answer; the verdict is then inconclusive, `verifier-unavailable`.
    fn ask(&self, verifier: &str, request: &Request) -> Result<ExternalAnswer, String>;
}

/// Verifies requests. Cheap to share; one call runs on the caller's thread and one of its own.
pub struct Service {
    pub(crate) limits: OperatorLimits,
    source: Arc<dyn ArtifactSource>,
    /// Starting the compiler takes a moment, and not every caller runs a job.
    pub(crate) wasm: LazyLock<Wasm>,
    /// wasmtime with its own means alone.
    pub(crate) reference: LazyLock<Wasm>,
    /// Plain wasmtime, for benches.
    plain: LazyLock<Wasm>,
    pub(crate) containers: Containers,
    external: Option<Arc<dyn ExternalVerifier>>,
}

/// Bytes, or why there are none.
pub(crate) enum Fetched {
    Bytes(Arc<[u8]>),
    Unavailable(String),
}

/// One request under verification; it names no files any more.
pub(crate) struct Check<'a> {
    pub(crate) service: &'a Service,
    pub(crate) request: &'a Request,
    pub(crate) limits: OperatorLimits,
    /// Set when nobody wants the verdict any more.
    pub(crate) stop: Option<&'a Arc<AtomicBool>>,
    /// The job as it runs, where inputs are folders; else the problem with them.
    job: Result<Option<Job>, String>,
    named: &'a MemorySource,
    source: &'a dyn ArtifactSource,
    start: Instant,
}

impl<'a> Check<'a> {
    fn new(
        service: &'a Service,
        request: &'a Request,
        limits: OperatorLimits,
        named: &'a mut MemorySource,
        source: &'a dyn ArtifactSource,
    ) -> Self {
        let start = Instant::now();
        let job = input_folder::expand(request, source, named);
        Self { service, request, limits, stop: None, job, named, source, start }
    }

    /// Whether the operator's time for one verification is over.
    pub(crate) fn out_of_time(&self) -> bool {
        self.start.elapsed().as_millis() > u128::from(self.limits.wall_ms_max)
    }

    /// The request's job as it runs, with files in the place of folders among its inputs.
    pub(crate) fn job(&self) -> Result<Option<&Job>, &str> {
        match &self.job {
            Ok(job) => Ok(job.as_ref().or(self.request.job.as_ref())),
            Err(problem) => Err(problem),
        }
    }

    pub(crate) fn fetch(&self, reference: &Reference) -> Fetched {
        if let Reference::Cid(cid) = reference {
            return match file_of(self.source, cid) {
                Ok(Some(bytes)) => Fetched::Bytes(bytes),
                Ok(None) => Fetched::Unavailable(format!("nobody serves {cid}")),
                Err(fault) => Fetched::Unavailable(format!("{cid} could not be fetched: {fault}")),
            };
        }
        let ask = |source: &dyn ArtifactSource| source.fetch(reference).and_then(|found| checked(reference, found));
        // Under the address that was computed when it was put in there.
        if let Ok(Some(bytes)) = self.named.fetch(reference) {
            return Fetched::Bytes(bytes);
        }
        match ask(self.source) {
            Ok(Some(bytes)) => Fetched::Bytes(bytes),
            Ok(None) => Fetched::Unavailable(format!("nobody serves {reference}")),
            Err(fault) => Fetched::Unavailable(format!("{reference} could not be fetched: {fault}")),
        }
    }
}

impl Service {
    /// A service that fetches artifacts from these sources, in turn.
    pub fn new(limits: OperatorLimits, sources: Vec<Arc<dyn ArtifactSource>>) -> Self {
        Self {
            limits,
            source: Arc::new(Chain(sources)),
            wasm: LazyLock::new(|| Wasm::new(Settings::Profile)),
            reference: LazyLock::new(|| Wasm::new(Settings::Reference)),
            plain: LazyLock::new(|| Wasm::new(Settings::Plain)),
            containers: Containers::default(),
            external: None,
        }
    }

    /// Runs container jobs with these.
    #[must_use]
    pub fn with_containers(mut self, containers: Containers) -> Self {
        self.containers = containers;
        self
    }

    /// Also asks out-of-process verifiers.
    #[must_use]
    pub fn with_external(mut self, external: Arc<dyn ExternalVerifier>) -> Self {
        self.external = Some(external);
        self
    }

    /// Runs jobs as wasmtime alone compiles them, without rewriting modules first: the same verdicts, two to three times
    /// slower. For whoever would check one by the other.
    #[must_use]
    pub fn by_reference(mut self) -> Self {
        self.wasm = LazyLock::new(|| Wasm::new(Settings::Reference));
        self
    }

    /// Verifies a request with the service's own sources.
    ///
    /// # Errors
    /// [`BadRequest`] where a file named in the request is not there; everything else is a verdict.
    pub fn verify(&self, request: &Request) -> Result<Verdict, BadRequest> {
        self.verify_from(request, self.source.as_ref())
    }

    /// [`Service::verify`] for a caller with a deadline: a job that still runs after `wall_ms_max` is inconclusive here.
    ///
    /// # Errors
    /// As [`Service::verify`].
    pub fn verify_within(&self, request: &Request, wall_ms_max: u64) -> Result<Verdict, BadRequest> {
        self.check(request, self.source.as_ref(), self.within(wall_ms_max), None)
    }

    /// [`Service::verify_within`] with other sources than the service's own, for a caller that may lose interest: a job of
    /// WebAssembly that still runs when `stop` is set is inconclusive here, `cancelled`.
    ///
    /// # Errors
    /// As [`Service::verify`].
    pub fn verify_until(
        &self,
        request: &Request,
        source: &dyn ArtifactSource,
        wall_ms_max: u64,
        stop: &Arc<AtomicBool>,
    ) -> Result<Verdict, BadRequest> {
        self.check(request, source, self.within(wall_ms_max), Some(stop))
    }

    /// Where this service finds artifacts.
    pub fn source(&self) -> &dyn ArtifactSource {
        self.source.as_ref()
    }

    fn within(&self, wall_ms_max: u64) -> OperatorLimits {
        OperatorLimits { wall_ms_max: wall_ms_max.min(self.limits.wall_ms_max), ..self.limits }
    }

    /// What this operator allows a job to take, in milliseconds.
    pub const fn wall_ms_max(&self) -> u64 {
        self.limits.wall_ms_max
    }

    /// Verifies a request with other sources than the service's own.
    ///
    /// # Errors
    /// As [`Service::verify`].
    pub fn verify_from(&self, request: &Request, source: &dyn ArtifactSource) -> Result<Verdict, BadRequest> {
        self.check(request, source, self.limits, None)
    }

    fn check(
        &self,
        request: &Request,
        source: &dyn ArtifactSource,
        limits: OperatorLimits,
        stop: Option<&Arc<AtomicBool>>,
    ) -> Result<Verdict, BadRequest> {
        let start = Instant::now();
        let (request, mut named) = pin(request, source)?;
        let check = Check { stop, start, ..Check::new(self, &request, limits, &mut named, source) };
        let mut verdict = method(&check, &request.method)?;
        verdict.evidence.verifier_version = VERIFIER_VERSION.to_owned();
        verdict.evidence.host = host();
        verdict.evidence.wall_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(verdict)
    }

    /// For benches: runs the request's job in plain wasmtime, without fuel and limits, and tells how long that took.
    /// Nothing is compared and no verdict comes of it.
    ///
    /// # Errors
    /// [`BadRequest`] where there is no job or it does not run.
    pub fn run_plain(&self, request: &Request) -> Result<std::time::Duration, BadRequest> {
        let (request, mut named) = pin(request, self.source.as_ref())?;
        let check = Check::new(self, &request, self.limits, &mut named, self.source.as_ref());
        let job = check.job().map_err(|problem| BadRequest::new("job", problem))?;
        let job = job.ok_or_else(|| BadRequest::new("job", "is missing"))?;
        let start = Instant::now();
        let inputs = crate::reexecution::inputs(&check, job, &mut crate::Evidence::default())?
            .map_err(|missing| BadRequest::new("job", missing))?;
        self.plain.run(job, &inputs, &self.limits, false).map_err(|_| BadRequest::new("job", "does not run"))?;
        Ok(start.elapsed())
    }

    /// The request with the BLAKE3 addresses of the bytes in the place of file names, for whoever has other files.
    ///
    /// # Errors
    /// [`BadRequest`] where a file named in the request is not there.
    pub fn pinned(&self, request: &Request, source: &dyn ArtifactSource) -> Result<Request, BadRequest> {
        Ok(pin(request, source)?.0)
    }

    /// What a `Report` names as its request: BLAKE3 of the canonical JSON, with the BLAKE3 addresses of the bytes in the
    /// place of file names. Content addresses stay as they are.
    ///
    /// # Errors
    /// [`BadRequest`] where a file named in the request is not there.
    pub fn request_digest(&self, request: &Request) -> Result<Digest, BadRequest> {
        self.request_digest_from(request, self.source.as_ref())
    }

    /// [`Service::request_digest`] with other sources than the service's own.
    ///
    /// # Errors
    /// As there.
    pub fn request_digest_from(&self, request: &Request, source: &dyn ArtifactSource) -> Result<Digest, BadRequest> {
        Ok(pin(request, source)?.0.digest())
    }
}

fn host() -> BTreeMap<String, String> {
    let facts = [("arch", std::env::consts::ARCH), ("os", std::env::consts::OS)];
    facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Reads every file that the request names, and puts its content address in the name's place.
fn pin(request: &Request, source: &dyn ArtifactSource) -> Result<(Request, MemorySource), BadRequest> {
    let (mut request, mut named) = (request.clone(), MemorySource::new());
    let mut by_sha256 = false;
    request.references(&mut |_, reference| {
        by_sha256 |= matches!(reference, Reference::Address(ContentAddress::Sha256(_)));
        Ok(())
    })?;
    request.references(&mut |field, reference| {
        let Reference::File(name) = &*reference else { return Ok(()) };
        match source.fetch(reference) {
            Ok(Some(bytes)) => {
                let address = if by_sha256 { named.add(bytes) } else { named.add_blake3(bytes) };
                *reference = Reference::Address(address);
                Ok(())
            }
            Ok(None) => Err(BadRequest::new(field, format!("no file {name} among the artifacts"))),
            Err(fault) => Err(BadRequest::new(field, fault.to_string())),
        }
    })?;
    Ok((request, named))
}

fn method(check: &Check<'_>, asked: &Method) -> Result<Verdict, BadRequest> {
    match asked {
        Method::Reexecution => reexecution::verify(check),
        Method::Proof(asked) => proof::verify(check, asked),
        Method::Majority { votes, rule } => majority::verify(check, votes, rule),
        Method::Aggregate { function, observations } => aggregate::verify(check, function, observations),
        Method::External { verifier } => Ok(external(check, verifier)),
        Method::All(of) => combined(check, asked, of, of.len()),
        Method::Any(of) => combined(check, asked, of, 1),
        Method::Threshold { of, k } => combined(check, asked, of, *k),
    }
}

fn external(check: &Check<'_>, verifier: &str) -> Verdict {
    let mut evidence = Evidence::new(format!("external/{verifier}"));
    evidence.set("comparator", write::comparator(&check.request.comparator));
    let answer = match &check.service.external {
        Some(external) => external.ask(verifier, check.request),
        None => Err("this service asks no out-of-process verifiers".to_owned()),
    };
    match answer {
        Ok(answer) => {
            evidence.set("external", answer.evidence);
            if let Some(signature) = answer.signature {
                evidence.set("external_signature", signature);
                evidence.local = vec!["external_signature"];
            }
            Verdict::new(answer.verdict, &answer.code, answer.detail, evidence)
        }
        Err(problem) => {
            Verdict::inconclusive("verifier-unavailable", format!("verifier {verifier}: {problem}"), evidence)
        }
    }
}

/// At least `needed` of the methods must say valid. All are asked, so that the evidence is the same for everybody.
fn combined(check: &Check<'_>, asked: &Method, of: &[Method], needed: usize) -> Result<Verdict, BadRequest> {
    let parts = of.iter().map(|part| method(check, part)).collect::<Result<Vec<_>, _>>()?;
    let count = |kind| parts.iter().filter(|part| part.verdict == kind).count();
    let (valid, open) = (count(VerdictKind::Valid), count(VerdictKind::Inconclusive));
    let verdict = if valid >= needed {
        VerdictKind::Valid
    } else if valid + open < needed {
        VerdictKind::Invalid
    } else {
        VerdictKind::Inconclusive
    };
    let decisive = parts.iter().enumerate().find(|(_, part)| part.verdict == verdict);
    let (code, detail) = match decisive {
        Some((index, part)) if verdict != VerdictKind::Valid => {
            (part.reason.code.clone(), format!("of[{index}]: {}", part.reason.detail))
        }
        _ => ("ok".to_owned(), format!("{valid} of {} say valid, {needed} are needed", parts.len())),
    };
    let mut evidence = Evidence::new(asked.kind());
    let part = |(part, method): (&Verdict, &Method)| {
        json!({
            "kind": method.kind(),
            "verdict": part.verdict.word(),
            "code": part.reason.code,
            "digest": ContentAddress::Blake3(*part.digest.bytes()).to_string(),
        })
    };
    evidence.set("of", parts.iter().zip(of).map(part).collect::<Vec<_>>());
    evidence.set("needed", needed);
    // What the parts found is worth showing, but their digests already stand for it.
    let found = parts.iter().map(|part| json!({ "reason": part.reason, "evidence": part.evidence.fields }));
    evidence.set("parts", found.collect::<Vec<_>>());
    evidence.local = vec!["parts"];
    Ok(Verdict::new(verdict, &code, detail, evidence))
}
