//! Profile `oci-1`: jobs that are containers, by runc.
//!
//! `job.module` is an OCI image layout in a tar archive (`container/layout`); its layers are laid over one another in memory
//! (`container/tree`), written to a folder, and run (`container/runc`) with `container/bundle`'s configuration.
//!
//! A container is not deterministic by nature, and what stops it is this machine's kernel. So a claim is *invalid* only if
//! two runs of ours agree with each other and neither agrees with the claim; the second run is kept on one processor, so that
//! a result that depends on how threads meet shows that. No limit that stops a run says anything about the claim.

use std::{
    env,
    num::NonZero,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tribunal_events::{Comparator, ContentAddress, Termination, VerdictKind};

use crate::{
    BadRequest, Claim, Job, Verdict,
    comparator::{self, Comparison},
    reexecution::{claimed_evidence, graded, inputs, judge},
    request::write,
    result_folder,
    service::Check,
    verdict::Evidence,
    wasm::{Inputs, Run},
};

mod archive;
mod bundle;
mod cgroup;
mod collect;
mod layers;
mod layout;
mod runc;
mod seccomp;
mod tree;
mod workspace;

use bundle::{Limits, OWNER, Plan};
use layers::Files;
use layout::Image;
use runc::{Budget, Ran, Scene};
use workspace::Workspace;

/// The newest profile of container jobs.
pub(crate) const PROFILE: &str = "oci-1";
/// Where programs are looked for, unless an image says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Characters of a reason.
const DETAIL_CHARS_MAX: usize = 500;

/// Whether a runtime's name means this profile.
pub(crate) fn is_container(runtime: &str) -> bool {
    matches!(runtime, "oci" | PROFILE)
}

/// Why there is no result; always inconclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stop {
    code: &'static str,
    detail: String,
}

impl Stop {
    /// Images are strangers' words: they are shown short, and in one line.
    fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let shown = |c: char| if c.is_control() { '?' } else { c };
        Self { code, detail: detail.into().chars().take(DETAIL_CHARS_MAX).map(shown).collect() }
    }

    /// The image is none: others may have read it otherwise.
    fn invalid(detail: impl Into<String>) -> Self {
        Self::new("image-invalid", detail)
    }

    fn unsupported(detail: impl Into<String>) -> Self {
        Self::new("image-unsupported", detail)
    }

    fn malformed(detail: impl Into<String>) -> Self {
        Self::new("job-malformed", detail)
    }

    /// More than this verifier allows.
    fn operator(detail: impl Into<String>) -> Self {
        Self::new("operator-limit", detail)
    }

    fn memory(detail: impl Into<String>) -> Self {
        Self::new("memory-limit", detail)
    }

    fn output(detail: impl Into<String>) -> Self {
        Self::new("output-limit", detail)
    }

    fn wall(detail: impl Into<String>) -> Self {
        Self::new("wall-time", detail)
    }

    fn unavailable(detail: impl Into<String>) -> Self {
        Self::new("runtime-unavailable", detail)
    }

    fn fault(detail: impl Into<String>) -> Self {
        Self::new("executor-fault", detail)
    }

    /// This machine's disk or processes failed.
    fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::fault(format!("{what}: {error}"))
    }

    fn within(self, what: &str) -> Self {
        Self::new(self.code, format!("{what}: {}", self.detail))
    }

    /// With the first line of what a program said.
    fn because(self, said: &str) -> Self {
        match said.lines().next() {
            Some(line) => Self::new(self.code, format!("{}: {line}", self.detail)),
            None => self,
        }
    }
}

/// What container jobs run with: runc, and a folder for images and containers that is empty between verifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containers {
    runc: PathBuf,
    folder: PathBuf,
}

impl Default for Containers {
    /// `runc` of the path, `tribunal-containers` in the folder for temporary files.
    fn default() -> Self {
        Self::new("runc", env::temp_dir().join("tribunal-containers"))
    }
}

impl Containers {
    /// `runc`: a path, or a name that is looked for. `folder`: made where it is missing; nobody but this user may write
    /// into it. What killed processes left there is removed before each job.
    pub fn new(runc: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self { runc: runc.into(), folder: folder.into() }
    }

    /// Whether this machine can run container jobs.
    ///
    /// # Errors
    /// A sentence that says what is missing; container jobs are inconclusive here then, `runtime-unavailable`.
    pub fn probe(&self) -> Result<(), String> {
        self.find().map(|_| ()).map_err(|stop| stop.detail)
    }

    /// The program, where all that it needs is there.
    fn find(&self) -> Result<PathBuf, Stop> {
        let name = self.runc.display();
        let runc = find_program(&self.runc)
            .ok_or_else(|| Stop::unavailable(format!("there is no program {name}; Debian's package is runc")))?;
        if !rustix::process::geteuid().is_root() {
            return Err(Stop::unavailable("only root can limit what a container uses"));
        }
        let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
        if !Path::new("/proc/self/ns/user").exists() || most.trim() == "0" {
            return Err(Stop::unavailable("this kernel allows no user namespaces"));
        }
        let controllers = cgroup::controllers();
        if let Some(missing) = ["memory", "pids"].iter().find(|name| !controllers.contains(**name)) {
            return Err(Stop::unavailable(format!("control groups here cannot limit {missing}")));
        }
        Ok(runc)
    }
}

fn find_program(name: &Path) -> Option<PathBuf> {
    let runs = |path: &Path| {
        let metadata = std::fs::metadata(path);
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if name.components().count() > 1 {
        return std::path::absolute(name).ok().filter(|path| runs(path));
    }
    let own = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&own).chain(env::split_paths(PATH)).collect();
    folders.into_iter().filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(|path| runs(path))
}

/// Runs the job and judges the claim.
pub(crate) fn verify(check: &Check<'_>, job: &Job, claim: &Claim) -> Result<Verdict, BadRequest> {
    let mut evidence = Evidence::new("reexecution/oci");
    evidence.set("comparator", write::comparator(&check.request.comparator));
    evidence.set("runtime", PROFILE);
    claimed_evidence(claim, &mut evidence);
    evidence.local =
        vec!["own_outputs", "own_stdout", "own_termination", "own_exit_code", "own_folder", "own_runs", "grade"];
    if let Some(count) = claim.instruction_count.filter(|count| *count > 0) {
        let detail = format!("claimed {count}: a container has no meter, so 0 or nothing is claimed");
        return Ok(Verdict::new(VerdictKind::Invalid, "instruction-count", detail, evidence));
    }
    let found = match inputs(check, job, &mut evidence)? {
        Ok(found) => found,
        Err(missing) => return Ok(Verdict::inconclusive("artifact-unavailable", missing, evidence)),
    };
    match run_and_judge(check, job, claim, &found, &mut evidence)? {
        Ok((verdict, code, detail)) => Ok(Verdict::new(verdict, code, detail, evidence)),
        Err(stop) => Ok(Verdict::inconclusive(stop.code, stop.detail, evidence)),
    }
}

type Judged = (VerdictKind, &'static str, String);

fn run_and_judge(
    check: &Check<'_>,
    job: &Job,
    claim: &Claim,
    inputs: &Inputs,
    evidence: &mut Evidence,
) -> Result<Result<Judged, Stop>, BadRequest> {
    let comparator = &check.request.comparator;
    let start = Instant::now();
    let mut stage = match Stage::new(&check.service.containers, job, inputs) {
        Ok(stage) => stage,
        Err(stop) => return Ok(Err(stop)),
    };
    let own = match stage.run(1, check, job, inputs, Duration::ZERO, claim) {
        Ok(own) => own,
        Err(stop) => return Ok(Err(stop)),
    };
    let digests = |(path, bytes): (&String, &Vec<u8>)| (path.clone(), Value::from(address(bytes)));
    evidence.set("own_outputs", Value::Object(own.outputs.iter().map(digests).collect()));
    evidence.set("own_stdout", address(&own.stdout));
    evidence.set("own_termination", own.termination.word());
    evidence.set("own_exit_code", own.exit_code);
    evidence.set("own_runs", 1);
    if let Some(Ok(folder)) = &own.folder {
        evidence.set("own_folder", folder.cid.to_string());
    }
    let finding = judge(check, &own, claim, comparator)?;
    if finding.verdict != VerdictKind::Invalid {
        if let Some(grade) = graded(check, &own, claim).filter(|_| finding.verdict == VerdictKind::Valid) {
            evidence.set("grade", grade);
        }
        return Ok(Ok((finding.verdict, finding.code, finding.detail)));
    }
    if finding.code == "folder-differs" {
        let detail =
            format!("{}; containers elsewhere have another root, user and limits than this profile", finding.detail);
        return Ok(Err(Stop::new("host-dependent", detail)));
    }
    let again = match stage.run(2, check, job, inputs, start.elapsed(), claim) {
        Ok(again) => again,
        Err(stop) => return Ok(Err(stop.within("the second run"))),
    };
    evidence.set("own_runs", 2);
    if let Some(difference) = difference(comparator, &own, &again, claim) {
        let detail = format!("two runs here differ from each other: {difference}");
        return Ok(Err(Stop::new("not-deterministic", detail)));
    }
    let second = judge(check, &again, claim, comparator)?;
    Ok(match second.verdict {
        VerdictKind::Invalid => Ok((finding.verdict, finding.code, finding.detail)),
        VerdictKind::Inconclusive => Err(Stop::new(second.code, second.detail)),
        // Within a tolerance two runs may agree, and only one of them with the claim.
        VerdictKind::Valid => {
            Err(Stop::new("not-deterministic", "the second run agrees with the claim, the first does not"))
        }
    })
}

fn address(bytes: &[u8]) -> String {
    ContentAddress::of(bytes).to_string()
}

/// The first thing that is claimed and in which two runs differ.
fn difference(comparator: &Comparator, first: &Run, second: &Run, claim: &Claim) -> Option<String> {
    if first.exit_code != second.exit_code {
        return Some(format!("exit codes {} and {}", first.exit_code, second.exit_code));
    }
    let folder = |run: &Run| run.folder.as_ref().map(|folder| folder.as_ref().map(|folder| folder.cid).ok());
    if folder(first) != folder(second) {
        return Some("their result folders".into());
    }
    let compare = |name: &str, a: &[u8], b: &[u8]| match comparator::compare(comparator, name, a, b) {
        Comparison::Agree => None,
        Comparison::Differ(detail) | Comparison::Between(detail) | Comparison::Unusable(detail) => {
            Some(format!("{name}: {detail}"))
        }
    };
    if claim.stdout.is_some()
        && let Some(difference) = compare("stdout", &first.stdout, &second.stdout)
    {
        return Some(difference);
    }
    claim.outputs.as_ref()?;
    let paths: std::collections::BTreeSet<_> = first.outputs.keys().chain(second.outputs.keys()).collect();
    paths.into_iter().find_map(|path| match (first.outputs.get(path), second.outputs.get(path)) {
        (Some(a), Some(b)) => compare(path, a, b),
        _ => Some(format!("{path}: only one of them made it")),
    })
}

/// An image on the disk, ready for runs of one job.
struct Stage {
    workspace: Workspace,
    runc: PathBuf,
    root: PathBuf,
    plan: Plan,
    files: Files,
}

impl Stage {
    fn new(containers: &Containers, job: &Job, inputs: &Inputs) -> Result<Self, Stop> {
        // The image first: what is wrong with it is wrong everywhere.
        let image = Image::read(&inputs.module)?;
        let runc = containers.find()?;
        let base = std::path::absolute(&containers.folder).map_err(Stop::io("the folder for containers"))?;
        let workspace = Workspace::new(&base, &runc)?;
        let mut files = Files::new(workspace.folder.join("files"))?;
        let mut tree = layers::unpack(&image.layers, &mut files)?;
        let plan = Plan::new(job, &inputs.files, &image, &mut tree, &mut files)?;
        let root = workspace.folder.join("root");
        std::fs::create_dir(&root).map_err(Stop::io("the workspace"))?;
        files.place(&tree, &root, OWNER)?;
        Ok(Self { workspace, runc, root, plan, files })
    }

    /// `spent`: time that earlier runs took of what the operator allows.
    fn run(
        &mut self,
        run: usize,
        check: &Check<'_>,
        job: &Job,
        inputs: &Inputs,
        spent: Duration,
        claim: &Claim,
    ) -> Result<Run, Stop> {
        let (limits, operator) = (&job.limits, &check.limits);
        let allowed = Duration::from_millis(operator.wall_ms_max).saturating_sub(spent);
        let processors = thread::available_parallelism().map_or(1, NonZero::get) as u64;
        let wall = Duration::from_millis(limits.wall_ms).min(allowed);
        let budget = Budget {
            limits: Limits {
                memory_bytes: limits.memory_bytes.min(operator.memory_bytes_max),
                cpu: (run > 1).then(first_processor).flatten(),
                // One is left to this engine, where there are several.
                cpus: processors.saturating_sub(1).max(1),
                wall_s: wall.as_secs(),
            },
            output_bytes: limits.output_bytes.min(operator.output_bytes_max),
            wall,
        };
        let scene = Scene {
            workspace: &self.workspace,
            runc: &self.runc,
            root: &self.root,
            job,
            plan: &self.plan,
            stdin: inputs.stdin.as_deref(),
        };
        let ran = scene.run(run, &budget, &mut self.files).map_err(|stop| {
            // Where the operator allows less than the deal, it was the operator who stopped it.
            let own = match stop.code {
                "memory-limit" => operator.memory_bytes_max < limits.memory_bytes,
                "output-limit" => operator.output_bytes_max < limits.output_bytes,
                "wall-time" => allowed < Duration::from_millis(limits.wall_ms),
                _ => false,
            };
            if own { Stop::operator(format!("{}, which this operator allows", stop.detail)) } else { stop }
        })?;
        Ok(run_of(ran, job, claim))
    }
}

fn run_of(ran: Ran, job: &Job, claim: &Claim) -> Run {
    let Ran { exit_code, stdout, stderr, collected } = ran;
    let folder = claim.folder.map(|_| {
        if collected.others {
            return Err("an output has a link or another thing that is no file".to_owned());
        }
        result_folder::of_files(&job.outputs, &collected.files, &collected.folders, &stdout, &stderr, exit_code)
    });
    Run {
        termination: Termination::Exit,
        exit_code,
        trap: None,
        fuel_used: 0,
        stdout,
        outputs: collected.files,
        // Every container may; the second run is what is done about it.
        asked_the_host: false,
        refused: None,
        folder,
    }
}

/// The lowest processor that this process may use, where control groups can keep a job on it.
fn first_processor() -> Option<u32> {
    if !cgroup::controllers().contains("cpuset") {
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    list.split([',', '-']).next()?.parse().ok()
}
