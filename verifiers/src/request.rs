//! What is asked: a job, a claim about it, and how to check the claim.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{Cid, Function, Observation};
use tribunal_events::{Address, Comparator, ContentAddress, DealId, Digest, Limits, ProofBinding, Rule, Termination};

mod read;
mod reference;
pub(crate) mod write;

pub use reference::{Claimed, Reference};

/// Bytes of a request's text at most.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Votes in one request at most: groups are cliques, and those take time exponential in the votes.
pub const VOTES_MAX: usize = 31;

/// The request itself is wrong; nothing was checked. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BadRequest {
    /// Path of the field in the request, "job.inputs\[0\].path"; "request" for the whole.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl BadRequest {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// A verification request that passed every check that needs no artifact.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Makes a retry idempotent.
    pub request_id: Option<String>,
    /// The recorded deal that the job and the claim must equal.
    pub deal_id: Option<DealId>,
    /// How to check.
    pub method: Method,
    /// The job.
    pub job: Option<Job>,
    /// The claim that is judged.
    pub claim: Option<Claim>,
    /// When two results agree.
    pub comparator: Comparator,
}

/// How a claim is checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// Run the job again.
    Reexecution,
    /// Check a proof.
    Proof(ProofMethod),
    /// Compare with what others claim.
    Majority {
        /// One claim a voter.
        votes: Vec<Vote>,
        /// When a group wins.
        rule: Rule,
    },
    /// Compute an aggregate again.
    Aggregate {
        /// How.
        function: Function,
        /// Of what; sources are distinct.
        observations: Vec<Observation>,
    },
    /// Ask an out-of-process verifier.
    External {
        /// Its name.
        verifier: String,
    },
    /// Every one must say valid.
    All(Vec<Method>),
    /// One must say valid.
    Any(Vec<Method>),
    /// At least `k` must say valid.
    Threshold {
        /// The methods.
        of: Vec<Method>,
        /// How many.
        k: usize,
    },
}

/// A proof, its key and what it must be bound to.
#[derive(Clone, Debug, PartialEq)]
pub struct ProofMethod {
    /// "groth16", "sp1" or "risc0".
    pub system: String,
    /// "bn254" or "bls12-381"; empty for other systems than groth16.
    pub curve: String,
    /// The key.
    pub verification_key: Option<Reference>,
    /// The proof.
    pub proof: Option<Reference>,
    /// Its public inputs.
    pub public: Option<Reference>,
    /// What public inputs must say: `to` is "deal-id" or "output-digest".
    pub bind: Vec<ProofBinding>,
}

/// What one voter claims.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// Who.
    pub voter: Address,
    /// What.
    pub claim: Claim,
    /// Weight under the rule `quorum`.
    pub weight: u64,
    /// Score under the rule `credibility`.
    pub score: u64,
}

/// A job by artifacts and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Runtime profile.
    pub runtime: String,
    /// The program.
    pub module: Reference,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Environment, ascending by name.
    pub env: Vec<(String, String)>,
    /// Standard input; empty without one.
    pub stdin: Option<Reference>,
    /// Files put before the program, ascending by path.
    pub inputs: Vec<JobInput>,
    /// Files or folders collected from it.
    pub outputs: Vec<String>,
    /// What it may use.
    pub limits: Limits,
}

/// A file put before the program, read-only.
#[derive(Clone, Debug, PartialEq)]
pub struct JobInput {
    /// Absolute path inside the job.
    pub path: String,
    /// Its bytes.
    pub artifact: Reference,
}

/// What somebody says a job gave. What is absent is not claimed and not compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// How the job ended; by itself where nothing is said.
    pub termination: Termination,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Fuel used.
    pub instruction_count: Option<u64>,
    /// Standard output.
    pub stdout: Option<Claimed>,
    /// Every file under the job's outputs, ascending by path.
    pub outputs: Option<Vec<ClaimedOutput>>,
    /// In place of `stdout` and `outputs`: the CID of the result folder (see the crate's documentation).
    pub folder: Option<Cid>,
    /// What it ran in, "device", "driver", "data-type", …, by name; nothing said: empty. Recorded, and where votes are
    /// counted those of the same environment count first.
    pub environment: BTreeMap<String, String>,
}

/// One claimed file.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimedOutput {
    /// Absolute path inside the job.
    pub path: String,
    /// Its bytes.
    pub bytes: Claimed,
}

/// The content addresses that a verification reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The job's side: module, inputs, standard input, verification key.
    pub inputs: BTreeSet<ContentAddress>,
    /// The result's side: the judged claim's files, standard output, proof and public inputs.
    pub outputs: BTreeSet<ContentAddress>,
    /// Other voters' results.
    pub votes: BTreeSet<ContentAddress>,
    /// Whether a verdict depends on the bytes of `outputs` and `votes`. Where the comparator is exact, digests decide and
    /// the bytes only make the reason more precise.
    pub outputs_decide: bool,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`BadRequest`] names the first field that is wrong; unknown fields and keys given twice are wrong.
    pub fn parse(text: &str) -> Result<Self, BadRequest> {
        read::request(text)
    }

    /// The request that checks the claim of a deal: job, method and comparator from the signed terms, votes from the
    /// replicas of the replicators that the terms name (others are left out).
    pub fn for_deal(
        terms: &tribunal_events::Terms,
        claim: &tribunal_events::Claim,
        replicas: &[(Address, Arc<tribunal_events::Claim>)],
    ) -> Self {
        use tribunal_events::Method as DealMethod;
        let method = match &terms.method {
            DealMethod::Reexecution => Method::Reexecution,
            DealMethod::Proof { system, curve, verification_key, bind } => Method::Proof(ProofMethod {
                system: system.clone(),
                curve: curve.clone(),
                verification_key: Some(Reference::Address(*verification_key)),
                proof: claim.proof.map(|(proof, _)| Reference::Address(proof)),
                public: claim.proof.map(|(_, public)| Reference::Address(public)),
                bind: bind.clone(),
            }),
            DealMethod::Majority { rule, replicators } => {
                let votes = replicators.iter().filter_map(|replicator| {
                    let (voter, replica) = replicas.iter().find(|(voter, _)| *voter == replicator.address)?;
                    let claim = Claim::from(replica.as_ref());
                    Some(Vote { voter: *voter, claim, weight: replicator.weight, score: replicator.score })
                });
                Method::Majority { votes: votes.collect(), rule: rule.clone() }
            }
        };
        let job = &terms.job;
        let input = |input: &tribunal_events::JobInput| JobInput {
            path: input.path.clone(),
            artifact: Reference::Address(input.artifact),
        };
        Self {
            request_id: None,
            deal_id: Some(terms.deal_id()),
            method,
            job: Some(Job {
                runtime: job.runtime.clone(),
                module: Reference::Address(job.module),
                args: job.args.clone(),
                env: job.env.clone(),
                stdin: job.stdin.map(Reference::Address),
                inputs: job.inputs.iter().map(input).collect(),
                outputs: job.outputs.clone(),
                limits: job.limits,
            }),
            claim: Some(Claim::from(claim)),
            comparator: terms.comparator.clone(),
        }
    }

    /// The content addresses that a verification of this request reads.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs { outputs_decide: self.comparator != Comparator::Exact, ..Needs::default() };
        self.method.needs(self, &mut needs);
        needs
    }

    /// The canonical JSON (RFC 8785) of the request as it stands: defaults and names written out.
    pub fn canonical_json(&self) -> String {
        write::canonical(self)
    }

    /// BLAKE3 of [`Request::canonical_json`]: what a `Report` is about. `Service::request_digest` first puts the digests
    /// of the bytes in the place of file names.
    pub fn digest(&self) -> Digest {
        Digest::blake3(self.canonical_json().as_bytes())
    }

    /// The first artifact that is named by file, field and name: what a stranger's request must not do.
    pub fn first_file(&self) -> Option<(String, String)> {
        let mut found = None;
        let _ = self.clone().references(&mut |field, reference| {
            if let (Reference::File(name), None) = (&*reference, &found) {
                found = Some((field.to_owned(), name.clone()));
            }
            Ok(())
        });
        found
    }

    /// Every artifact reference, with the path of its field, to be read or replaced.
    pub(crate) fn references(
        &mut self,
        visit: &mut dyn FnMut(&str, &mut Reference) -> Result<(), BadRequest>,
    ) -> Result<(), BadRequest> {
        if let Some(job) = &mut self.job {
            visit("job.module", &mut job.module)?;
            if let Some(stdin) = &mut job.stdin {
                visit("job.stdin", stdin)?;
            }
            for (index, input) in job.inputs.iter_mut().enumerate() {
                visit(&format!("job.inputs[{index}].artifact"), &mut input.artifact)?;
            }
        }
        if let Some(claim) = &mut self.claim {
            claim.references("claim", visit)?;
        }
        self.method.references("method", visit)
    }
}

impl Claim {
    fn references(
        &mut self,
        field: &str,
        visit: &mut dyn FnMut(&str, &mut Reference) -> Result<(), BadRequest>,
    ) -> Result<(), BadRequest> {
        if let Some(Claimed::Artifact(reference)) = &mut self.stdout {
            visit(&format!("{field}.stdout.artifact"), reference)?;
        }
        for (index, output) in self.outputs.iter_mut().flatten().enumerate() {
            if let Claimed::Artifact(reference) = &mut output.bytes {
                visit(&format!("{field}.outputs[{index}].artifact"), reference)?;
            }
        }
        Ok(())
    }

    fn addresses(&self) -> impl Iterator<Item = ContentAddress> + '_ {
        let outputs = self.outputs.iter().flatten().map(|output| &output.bytes);
        self.stdout.iter().chain(outputs).filter_map(Claimed::address)
    }
}

impl Method {
    /// The word in requests and evidence.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Reexecution => "reexecution",
            Self::Proof(_) => "proof",
            Self::Majority { .. } => "majority",
            Self::Aggregate { .. } => "aggregate",
            Self::External { .. } => "external",
            Self::All(_) => "all",
            Self::Any(_) => "any",
            Self::Threshold { .. } => "threshold",
        }
    }

    /// The combined methods; none for others.
    pub fn parts(&self) -> &[Method] {
        match self {
            Self::All(of) | Self::Any(of) | Self::Threshold { of, .. } => of,
            _ => &[],
        }
    }

    fn needs(&self, request: &Request, needs: &mut Needs) {
        let address = |reference: &Reference| match reference {
            Reference::Address(address) => Some(*address),
            _ => None,
        };
        let claimed = || request.claim.iter().flat_map(Claim::addresses);
        match self {
            Self::Reexecution => {
                if let Some(job) = &request.job {
                    let files = job.inputs.iter().map(|input| &input.artifact);
                    needs
                        .inputs
                        .extend(std::iter::once(&job.module).chain(&job.stdin).chain(files).filter_map(address));
                }
                needs.outputs.extend(claimed());
            }
            Self::Proof(proof) => {
                needs.inputs.extend(proof.verification_key.iter().filter_map(address));
                needs.outputs.extend(proof.proof.iter().chain(&proof.public).filter_map(address));
                needs.outputs_decide = true;
            }
            Self::Majority { votes, .. } => {
                needs.outputs.extend(claimed());
                needs.votes.extend(votes.iter().flat_map(|vote| vote.claim.addresses()));
            }
            Self::Aggregate { observations, .. } => {
                needs.inputs.extend(observations.iter().map(|it| &it.artifact).filter_map(address));
                needs.outputs.extend(claimed());
            }
            Self::External { .. } => {}
            Self::All(of) | Self::Any(of) | Self::Threshold { of, .. } => {
                for method in of {
                    method.needs(request, needs);
                }
            }
        }
    }

    fn references(
        &mut self,
        field: &str,
        visit: &mut dyn FnMut(&str, &mut Reference) -> Result<(), BadRequest>,
    ) -> Result<(), BadRequest> {
        match self {
            Self::Reexecution | Self::External { .. } => Ok(()),
            Self::Proof(proof) => {
                let parts = [
                    ("verification_key", &mut proof.verification_key),
                    ("proof", &mut proof.proof),
                    ("public", &mut proof.public),
                ];
                for (name, reference) in parts {
                    if let Some(reference) = reference {
                        visit(&format!("{field}.proof.{name}.artifact"), reference)?;
                    }
                }
                Ok(())
            }
            Self::Majority { votes, .. } => {
                for (index, vote) in votes.iter_mut().enumerate() {
                    vote.claim.references(&format!("{field}.votes[{index}].claim"), visit)?;
                }
                Ok(())
            }
            Self::Aggregate { observations, .. } => {
                for (index, observation) in observations.iter_mut().enumerate() {
                    visit(&format!("{field}.observations[{index}].artifact"), &mut observation.artifact)?;
                }
                Ok(())
            }
            Self::All(of) | Self::Any(of) | Self::Threshold { of, .. } => {
                for (index, method) in of.iter_mut().enumerate() {
                    method.references(&format!("{field}.of[{index}]"), visit)?;
                }
                Ok(())
            }
        }
    }
}

impl From<&tribunal_events::Claim> for Claim {
    fn from(claim: &tribunal_events::Claim) -> Self {
        let artifact = |address| Claimed::Artifact(Reference::Address(address));
        let output = |file: &tribunal_events::ClaimedFile| ClaimedOutput {
            path: file.path.clone(),
            bytes: artifact(file.artifact),
        };
        Self {
            termination: claim.termination,
            exit_code: Some(claim.exit_code),
            instruction_count: Some(claim.instruction_count),
            stdout: Some(artifact(claim.stdout)),
            outputs: Some(claim.outputs.iter().map(output).collect()),
            folder: None,
            environment: claim.environment.clone(),
        }
    }
}
