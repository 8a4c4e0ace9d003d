use std::collections::{BTreeMap, BTreeSet};

use tribunal_events::{Comparator, ContentAddress, Limits, ProofBinding, Rule, Termination, check_environment};

use super::{
    BadRequest, Claim, Claimed, ClaimedOutput, Job, JobInput, Method, ProofMethod, REQUEST_BYTES_MAX, Reference,
    Request, VOTES_MAX, Vote,
};
use crate::json::{self, Json};

mod aggregate;
mod comparator;

const LIST_MAX: usize = 256;
const CLAIMED_OUTPUTS_MAX: usize = 1024;
const TEXT_BYTES_MAX: usize = 4096;
const PATH_BYTES_MAX: usize = 1024;
const COMBINED_MAX: usize = 16;
const COMBINED_DEPTH_MAX: usize = 3;

type Read<T> = Result<T, BadRequest>;

fn wrong<T>(field: &str, problem: impl Into<String>) -> Read<T> {
    Err(BadRequest::new(field, problem))
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The fields of one object, taken one by one; what is left over is unknown.
struct Fields<'a> {
    path: String,
    left: Vec<(&'a str, &'a Json)>,
}

/// A value and where it stands.
struct At<'a> {
    path: String,
    value: &'a Json,
}

impl<'a> Fields<'a> {
    fn of(at: &At<'a>) -> Read<Self> {
        match at.value {
            Json::Object(fields) => Ok(Self {
                path: at.path.clone(),
                left: fields.iter().map(|(name, value)| (name.as_str(), value)).collect(),
            }),
            other => wrong(&at.path, format!("an object is needed, not {}", other.kind())),
        }
    }

    fn at(&self, name: &str) -> String {
        if self.path == "request" { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// An absent field and `null` are the same.
    fn optional(&mut self, name: &str) -> Option<At<'a>> {
        let index = self.left.iter().position(|(found, _)| *found == name)?;
        let (_, value) = self.left.swap_remove(index);
        (*value != Json::Null).then(|| At { path: self.at(name), value })
    }

    fn required(&mut self, name: &str) -> Read<At<'a>> {
        self.optional(name).ok_or_else(|| BadRequest::new(self.at(name), "is missing"))
    }

    fn finish(self) -> Read<()> {
        match self.left.iter().map(|(name, _)| *name).min() {
            None => Ok(()),
            Some(name) => wrong(&self.at(&short(name)), "no such field"),
        }
    }
}

impl<'a> At<'a> {
    fn text(&self) -> Read<&'a str> {
        match self.value {
            Json::Text(text) if text.len() > TEXT_BYTES_MAX => {
                wrong(&self.path, format!("at most {TEXT_BYTES_MAX} bytes, not {}", text.len()))
            }
            Json::Text(text) if text.contains('\0') => wrong(&self.path, "a zero byte is not allowed"),
            Json::Text(text) => Ok(text),
            other => wrong(&self.path, format!("a string is needed, not {}", other.kind())),
        }
    }

    fn list(&self, most: usize) -> Read<Vec<At<'a>>> {
        match self.value {
            Json::List(items) if items.len() > most => {
                wrong(&self.path, format!("at most {most} entries, not {}", items.len()))
            }
            Json::List(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(index, value)| At { path: format!("{}[{index}]", self.path), value })
                .collect()),
            other => wrong(&self.path, format!("a list is needed, not {}", other.kind())),
        }
    }

    /// An integer as a JSON number or as a decimal string.
    fn integer(&self, least: i128, most: i128) -> Read<i128> {
        let text = match self.value {
            Json::Number(text) | Json::Text(text) => text,
            other => return wrong(&self.path, format!("an integer is needed, not {}", other.kind())),
        };
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = !digits.is_empty()
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        let value = text.parse::<i128>().ok().filter(|_| plain && text != "-0");
        match value {
            Some(value) if (least..=most).contains(&value) => Ok(value),
            Some(_) => wrong(&self.path, format!("between {least} and {most}, not {}", short(text))),
            None => wrong(&self.path, format!("an integer is needed, not {:?}", short(text))),
        }
    }

    fn u64(&self, least: u64) -> Read<u64> {
        Ok(self.integer(i128::from(least), i128::from(u64::MAX))? as u64)
    }

    /// A decimal number that is not negative, as its text.
    fn decimal(&self) -> Read<String> {
        let (Json::Number(text) | Json::Text(text)) = self.value else {
            return wrong(&self.path, format!("a number is needed, not {}", self.value.kind()));
        };
        let number = crate::numeric::decimal(text).filter(|value| value.is_finite() && *value >= 0.0);
        if number.is_none() || text.len() > 32 {
            return wrong(&self.path, format!("a decimal number, not negative, not {:?}", short(text)));
        }
        Ok(text.clone())
    }

    fn reference(&self) -> Read<Reference> {
        let text = self.text()?;
        text.parse().map_err(|problem: String| BadRequest::new(&self.path, problem))
    }

    fn job_path(&self) -> Read<String> {
        let path = self.text()?;
        let good = path.starts_with('/')
            && path.len() > 1
            && path.len() <= PATH_BYTES_MAX
            && path[1..].split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        if good {
            Ok(path.to_owned())
        } else {
            wrong(&self.path, format!("not an absolute plain path: {:?}", short(path)))
        }
    }
}

pub(super) fn request(text: &str) -> Read<Request> {
    if text.len() > REQUEST_BYTES_MAX {
        return wrong("request", format!("at most {REQUEST_BYTES_MAX} bytes, not {}", text.len()));
    }
    let value = json::parse(text).map_err(|problem| BadRequest::new("request", format!("is no JSON: {problem}")))?;
    let mut fields = Fields::of(&At { path: "request".into(), value: &value })?;
    let request_id = match fields.optional("request_id") {
        None => None,
        Some(at) => match at.text()? {
            id if id.is_empty() || id.len() > 256 => return wrong(&at.path, "between 1 and 256 bytes"),
            id => Some(id.to_owned()),
        },
    };
    let deal_id = match fields.optional("deal_id") {
        None => None,
        Some(at) => {
            let id = at.text()?.parse();
            Some(id.map_err(|error: tribunal_events::IdError| BadRequest::new(&at.path, error.to_string()))?)
        }
    };
    let method = method(&fields.required("method")?, 0)?;
    let job = fields.optional("job").map(|at| job(&at)).transpose()?;
    let claim = fields.optional("claim").map(|at| claim(&at)).transpose()?;
    let comparator = match fields.optional("comparator") {
        None => Comparator::Exact,
        Some(at) => comparator::comparator(&at)?,
    };
    fields.finish()?;
    let request = Request { request_id, deal_id, method, job, claim, comparator };
    check_folders(&request)?;
    check_method(&request, &request.method, "method")?;
    Ok(request)
}

/// What the CID of a result folder needs from the rest of the request.
fn check_folders(request: &Request) -> Read<()> {
    fn votes(method: &Method) -> bool {
        let voted = |votes: &[Vote]| votes.iter().any(|vote| vote.claim.folder.is_some());
        matches!(method, Method::Majority { votes, .. } if voted(votes)) || method.parts().iter().any(votes)
    }
    let claimed = request.claim.as_ref().is_some_and(|claim| claim.folder.is_some());
    if (claimed || votes(&request.method)) && request.comparator != Comparator::Exact {
        return wrong("comparator", "must be exact where a result folder is claimed: a CID is near no other");
    }
    match &request.job {
        Some(job) if claimed => crate::result_folder::check(job).or_else(|(field, problem)| wrong(field, problem)),
        _ => Ok(()),
    }
}

/// What a method needs from the rest of the request.
fn check_method(request: &Request, method: &Method, field: &str) -> Read<()> {
    let claim_needed = || match &request.claim {
        Some(_) => Ok(()),
        None => wrong("claim", format!("is missing: method {} judges it", method.kind())),
    };
    match method {
        Method::Reexecution => {
            if request.job.is_none() {
                return wrong("job", "is missing: method reexecution runs it");
            }
            claim_needed()
        }
        Method::Majority { .. } => claim_needed(),
        Method::Aggregate { .. } => {
            claim_needed()?;
            let outputs = request.claim.as_ref().and_then(|claim| claim.outputs.as_ref()).map_or(0, Vec::len);
            if outputs != 1 {
                return wrong("claim.outputs", format!("an aggregate is one output file, not {outputs}"));
            }
            Ok(())
        }
        Method::Proof(proof) => {
            let to = |what| proof.bind.iter().any(|binding| binding.to == what);
            if to("deal-id") && request.deal_id.is_none() {
                return wrong("deal_id", "is missing: the proof is to be bound to it");
            }
            let outputs = request.claim.as_ref().and_then(|claim| claim.outputs.as_ref()).map_or(0, Vec::len);
            if to("output-digest") && outputs != 1 {
                return wrong("claim.outputs", format!("a proof is bound to one output file, not {outputs}"));
            }
            Ok(())
        }
        Method::External { .. } => Ok(()),
        Method::All(of) | Method::Any(of) | Method::Threshold { of, .. } => {
            for (index, part) in of.iter().enumerate() {
                check_method(request, part, &format!("{field}.of[{index}]"))?;
            }
            Ok(())
        }
    }
}

fn method(at: &At<'_>, depth: usize) -> Read<Method> {
    let mut fields = Fields::of(at)?;
    let kind = fields.required("kind")?;
    let method = match kind.text()? {
        "reexecution" => Method::Reexecution,
        "proof" => {
            let mut proof = proof(&fields.required("proof")?)?;
            if let Some(bind) = fields.optional("bind") {
                proof.bind = bind.list(16)?.iter().map(binding).collect::<Read<_>>()?;
            }
            Method::Proof(proof)
        }
        "majority" => {
            let list = fields.required("votes")?;
            let votes = list.list(VOTES_MAX)?.iter().map(vote).collect::<Read<Vec<_>>>()?;
            let mut voters = BTreeSet::new();
            if let Some(index) = votes.iter().position(|vote| !voters.insert(vote.voter)) {
                let voter = format!("{:?}", votes[index].voter);
                return wrong(&format!("{}[{index}].voter", list.path), format!("{voter} votes twice"));
            }
            Method::Majority { votes, rule: rule(&fields.required("rule")?)? }
        }
        "aggregate" => aggregate::aggregate(&mut fields)?,
        "external" => {
            let verifier = fields.required("verifier")?;
            let name = verifier.text()?;
            let good = !name.is_empty()
                && name.len() <= 64
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if !good {
                return wrong(&verifier.path, "a name of letters, digits, - and _ is needed");
            }
            Method::External { verifier: name.to_owned() }
        }
        kind @ ("all" | "any" | "threshold") => {
            if depth >= COMBINED_DEPTH_MAX {
                return wrong(&at.path, format!("methods are combined at most {COMBINED_DEPTH_MAX} deep"));
            }
            let list = fields.required("of")?;
            let of = list.list(COMBINED_MAX)?.iter().map(|part| method(part, depth + 1)).collect::<Read<Vec<_>>>()?;
            if of.is_empty() {
                return wrong(&list.path, "at least one method is needed");
            }
            match kind {
                "all" => Method::All(of),
                "any" => Method::Any(of),
                _ => {
                    let k = fields.required("k")?.integer(1, of.len() as i128)? as usize;
                    Method::Threshold { of, k }
                }
            }
        }
        other => {
            return wrong(
                &kind.path,
                format!(
                    "reexecution, proof, majority, aggregate, external, all, any or threshold, not {:?}",
                    short(other)
                ),
            );
        }
    };
    fields.finish()?;
    Ok(method)
}

fn proof(at: &At<'_>) -> Read<ProofMethod> {
    let mut fields = Fields::of(at)?;
    let system = fields.required("system")?;
    let mut proof = ProofMethod {
        system: system.text()?.to_owned(),
        curve: String::new(),
        verification_key: None,
        proof: None,
        public: None,
        bind: Vec::new(),
    };
    match proof.system.as_str() {
        "groth16" => {}
        // Named, and answered `unsupported-proof-system`; what fields they will have is not settled.
        "sp1" | "risc0" => return Ok(proof),
        other => return wrong(&system.path, format!("groth16, sp1 or risc0, not {:?}", short(other))),
    }
    let curve = fields.required("curve")?;
    proof.curve = match curve.text()? {
        "bn254" | "bn128" => "bn254".into(),
        "bls12-381" => "bls12-381".into(),
        other => return wrong(&curve.path, format!("bn254 or bls12-381, not {:?}", short(other))),
    };
    let mut artifact = |name: &str| {
        let at = fields.required(name)?;
        let mut fields = Fields::of(&at)?;
        let reference = fields.required("artifact")?.reference()?;
        fields.finish()?;
        Ok(Some(reference))
    };
    proof.verification_key = artifact("verification_key")?;
    proof.proof = artifact("proof")?;
    proof.public = artifact("public")?;
    fields.finish()?;
    Ok(proof)
}

fn binding(at: &At<'_>) -> Read<ProofBinding> {
    let mut fields = Fields::of(at)?;
    let input = fields.required("input")?.integer(0, 65_535)? as u32;
    let to = fields.required("to")?;
    let word = to.text()?;
    if !matches!(word, "deal-id" | "output-digest") {
        return wrong(&to.path, format!("deal-id or output-digest, not {:?}", short(word)));
    }
    fields.finish()?;
    Ok(ProofBinding { input, to: word.to_owned() })
}

fn vote(at: &At<'_>) -> Read<Vote> {
    let mut fields = Fields::of(at)?;
    let voter_at = fields.required("voter")?;
    let text = voter_at.text()?;
    let hex = text.len() == 42 && text.starts_with("0x");
    let Some(voter) = text.parse().ok().filter(|_| hex) else {
        return wrong(&voter_at.path, format!("an address, 0x and 40 hex digits, not {:?}", short(text)));
    };
    let claim = claim(&fields.required("claim")?)?;
    let weight = match fields.optional("weight") {
        None => 1,
        Some(at) => at.integer(1, i128::from(u32::MAX))? as u64,
    };
    let score = match fields.optional("score") {
        None => 0,
        Some(at) => at.u64(0)?,
    };
    fields.finish()?;
    Ok(Vote { voter, claim, weight, score })
}

fn rule(at: &At<'_>) -> Read<Rule> {
    let mut fields = Fields::of(at)?;
    let kind = fields.required("kind")?;
    let rule = match kind.text()? {
        "quorum" => Rule::Quorum(fields.required("quorum")?.u64(1)?),
        "boinc" => Rule::Boinc(fields.required("min_quorum")?.integer(1, i128::from(u32::MAX))? as u32),
        "credibility" => Rule::Credibility(fields.required("trust")?.u64(1)?),
        other => return wrong(&kind.path, format!("quorum, boinc or credibility, not {:?}", short(other))),
    };
    fields.finish()?;
    Ok(rule)
}

fn job(at: &At<'_>) -> Read<Job> {
    let mut fields = Fields::of(at)?;
    let runtime_at = fields.required("runtime")?;
    let runtime = runtime_at.text()?.to_owned();
    if runtime.is_empty() || runtime.len() > 64 {
        return wrong(&runtime_at.path, "a runtime profile such as wasm-1 is needed");
    }
    let module = fields.required("module")?.reference()?;
    let mut args = Vec::new();
    if let Some(at) = fields.optional("args") {
        for arg in at.list(LIST_MAX)? {
            args.push(arg.text()?.to_owned());
        }
    }
    let mut env = Vec::new();
    if let Some(at) = fields.optional("env") {
        let mut variables = Fields::of(&at)?;
        if variables.left.len() > LIST_MAX {
            return wrong(&at.path, format!("at most {LIST_MAX} entries, not {}", variables.left.len()));
        }
        for (name, value) in std::mem::take(&mut variables.left) {
            let value = At { path: variables.at(&short(name)), value };
            if name.is_empty() || name.len() > TEXT_BYTES_MAX || name.contains(['=', '\0']) {
                return wrong(&value.path, "a name without = and zero byte is needed");
            }
            env.push((name.to_owned(), value.text()?.to_owned()));
        }
        env.sort();
    }
    let stdin = fields.optional("stdin").map(|at| at.reference()).transpose()?;
    let mut inputs = Vec::new();
    if let Some(at) = fields.optional("inputs") {
        for input in at.list(LIST_MAX)? {
            let mut fields = Fields::of(&input)?;
            let path = fields.required("path")?.job_path()?;
            let artifact = fields.required("artifact")?.reference()?;
            fields.finish()?;
            inputs.push(JobInput { path, artifact });
        }
        inputs.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(pair) = inputs.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return wrong(&at.path, format!("{} is given twice", pair[0].path));
        }
    }
    let outputs_at = fields.required("outputs")?;
    let outputs = outputs_at.list(LIST_MAX)?.iter().map(At::job_path).collect::<Read<Vec<_>>>()?;
    let limits = limits(&fields.required("limits")?)?;
    fields.finish()?;
    let job = Job { runtime, module, args, env, stdin, inputs, outputs, limits };
    // Lays the files out once without bytes, so that a path that is both file and folder is found here.
    crate::filesystem::FileSystem::for_paths(&job)
        .map_err(|problem| BadRequest::new(format!("{}.inputs", at.path), problem))?;
    Ok(job)
}

fn limits(at: &At<'_>) -> Read<Limits> {
    let mut fields = Fields::of(at)?;
    let mut limit = |name: &str| fields.required(name)?.u64(1);
    let limits = Limits {
        fuel: limit("fuel")?,
        memory_bytes: limit("memory_bytes")?,
        output_bytes: limit("output_bytes")?,
        wall_ms: limit("wall_ms")?,
    };
    fields.finish()?;
    Ok(limits)
}

fn claimed(fields: &mut Fields<'_>) -> Read<Claimed> {
    let path = fields.path.clone();
    match (fields.optional("artifact"), fields.optional("blake3")) {
        (Some(artifact), None) => Ok(Claimed::Artifact(artifact.reference()?)),
        (None, Some(digest)) => {
            let text = digest.text()?;
            let address: Result<ContentAddress, _> = format!("blake3:{text}").parse();
            let problem = |_| BadRequest::new(&digest.path, format!("64 lowercase hex digits, not {:?}", short(text)));
            address.map(Claimed::Digest).map_err(problem)
        }
        (None, None) => wrong(&path, "an artifact or a blake3 digest is needed"),
        (Some(_), Some(_)) => wrong(&path, "an artifact or a blake3 digest, not both"),
    }
}

fn claim(at: &At<'_>) -> Read<Claim> {
    let mut fields = Fields::of(at)?;
    let termination = match fields.optional("termination") {
        None => Termination::Exit,
        Some(at) => match at.text()? {
            "exit" => Termination::Exit,
            "trap" => Termination::Trap,
            "out-of-fuel" => Termination::OutOfFuel,
            other => return wrong(&at.path, format!("exit, trap or out-of-fuel, not {:?}", short(other))),
        },
    };
    let exit_code = match fields.optional("exit_code") {
        None => None,
        Some(at) => Some(at.integer(i128::from(i32::MIN), i128::from(i32::MAX))? as i32),
    };
    let instruction_count = fields.optional("instruction_count").map(|at| at.u64(0)).transpose()?;
    let stdout = match fields.optional("stdout") {
        None => None,
        Some(at) => {
            let mut fields = Fields::of(&at)?;
            let stdout = claimed(&mut fields)?;
            fields.finish()?;
            Some(stdout)
        }
    };
    let outputs = match fields.optional("outputs") {
        None => None,
        Some(at) => {
            let mut outputs = Vec::new();
            for output in at.list(CLAIMED_OUTPUTS_MAX)? {
                let mut fields = Fields::of(&output)?;
                let path = fields.required("path")?.job_path()?;
                let bytes = claimed(&mut fields)?;
                fields.finish()?;
                outputs.push(ClaimedOutput { path, bytes });
            }
            outputs.sort_by(|a, b| a.path.cmp(&b.path));
            if let Some(pair) = outputs.windows(2).find(|pair| pair[0].path == pair[1].path) {
                return wrong(&at.path, format!("{} is given twice", pair[0].path));
            }
            Some(outputs)
        }
    };
    let folder = match fields.optional("folder") {
        None => None,
        Some(at) if stdout.is_some() || outputs.is_some() => {
            return wrong(&at.path, "stands in place of stdout and outputs, not beside them");
        }
        Some(at) if termination != Termination::Exit => {
            return wrong(&at.path, "only a job that ends by itself has a result folder");
        }
        Some(at) => {
            let cid = at.text()?.parse();
            Some(cid.map_err(|error: crate::CidError| BadRequest::new(&at.path, error.to_string()))?)
        }
    };
    let mut environment = BTreeMap::new();
    if let Some(at) = fields.optional("environment") {
        let entries = Fields::of(&at)?.left;
        for (name, value) in entries {
            let value = At { path: format!("{}.{}", at.path, short(name)), value };
            environment.insert(name.to_owned(), value.text()?.to_owned());
        }
        check_environment(&environment).map_err(|problem| BadRequest::new(&at.path, problem))?;
    }
    fields.finish()?;
    Ok(Claim { termination, exit_code, instruction_count, stdout, outputs, folder, environment })
}
