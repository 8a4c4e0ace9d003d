//! Jobs as marketplaces describe them, read into the job of a verification request.
//!
//! Three forms: a Bacalhau job with a `Spec` (v1beta1, v1beta2) or with `Tasks`, and a Lilypad or CoopHive module, a template of
//! the first kind with `machine` and `job` around it or bare (`job_description/template`). Keys are read in any case, as Go does.
//!
//! | there | here |
//! |---|---|
//! | engine `wasm`, entry module | `wasm-1`, `module`; `args` are an empty name and the parameters, as Bacalhau passes them |
//! | engine `docker`, image | `oci-1`, `module`: the archive that [`Choices::artifacts`] names for the image; `args` are entrypoint and parameters |
//! | environment, inputs, outputs | `env`, `inputs` (IPFS: a CID of a file or folder), `outputs` |
//! | memory, disk, timeout | `memory_bytes`, `output_bytes`, `wall_ms` where they are said, else [`Choices::limits`]; K, M and G are 1024-based: the larger reading harms nobody |
//!
//! **Invariant:** what a job needs and cannot have here is refused by the name of its field, never left out: network, GPUs,
//! entry points other than `_start`, modules that import others, working directories, files of other places that nobody gave an
//! address for, outputs that a result folder would name otherwise, publishers that do not publish such a folder, and every field
//! that is not known. What says only where or how often a job runs, or who checks it, is passed over: selectors of none, priority,
//! count, labels, names, times, `Deal`, `Verifier`.
//!
//! Sources: bacalhau-project/bacalhau (Apache-2.0), pkg/models/{job,task,resource,timeout,input_source}.go,
//! pkg/executor/{wasm,docker}/models/types.go, pkg/executor/wasm/handler.go; Lilypad-Tech/lilypad (Apache-2.0),
//! pkg/data/bacalhau/job.go, pkg/data/types.go, pkg/module/utils.go.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tribunal_events::Limits;

use crate::{
    BadRequest, Job, Reference, Request,
    json::{self, Json},
};

mod bacalhau;
mod fields;
mod template;

use fields::Fields;

/// Bytes of a description at most.
pub const DESCRIPTION_BYTES_MAX: usize = 1024 * 1024;

/// What a description does not say.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Inputs of a module's template.
    pub inputs: BTreeMap<String, String>,
    /// Artifacts by the text that stands in the description: an image, a URL. Content addresses and CIDs need none.
    pub artifacts: BTreeMap<String, Reference>,
    /// Limits; memory, output and time where the description has none.
    pub limits: Limits,
}

impl Default for Choices {
    /// 10^11 fuel, 1 GiB of memory, 256 MiB of output, half an hour.
    fn default() -> Self {
        let limits = Limits { fuel: 100_000_000_000, memory_bytes: 1 << 30, output_bytes: 1 << 28, wall_ms: 1_800_000 };
        Self { inputs: BTreeMap::new(), artifacts: BTreeMap::new(), limits }
    }
}

/// A job that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The job.
    pub job: Job,
    /// What whoever verifies with it should know.
    pub notes: Vec<String>,
}

impl Described {
    /// A request that runs the job again and has an empty claim, for somebody to fill in.
    pub fn request(&self) -> Value {
        let job = crate::request::write::job(&self.job);
        json!({ "method": { "kind": "reexecution" }, "job": job, "claim": {}, "comparator": { "kind": "exact" } })
    }
}

/// Where a module's template is, as an offer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// URL of the repository.
    pub repository: String,
    /// Commit or tag.
    pub hash: String,
    /// The template's path in it.
    pub path: String,
}

/// Reads a Bacalhau job or a module's template, whichever it is.
///
/// # Errors
/// The field that is wrong or that cannot be carried over, and why.
pub fn read(text: &str, choices: &Choices) -> Result<Described, BadRequest> {
    if text.len() > DESCRIPTION_BYTES_MAX {
        let problem = format!("at most {DESCRIPTION_BYTES_MAX} bytes, not {}", text.len());
        return Err(BadRequest::new("description", problem));
    }
    let rendered;
    let text = if text.contains("{{") {
        rendered = template::render(text, &choices.inputs).map_err(|problem| BadRequest::new("template", problem))?;
        &rendered
    } else {
        text
    };
    let value =
        json::parse(text).map_err(|problem| BadRequest::new("description", format!("is no JSON: {problem}")))?;
    let described = described(&value, choices)?;
    // The rules of requests hold for it too: paths, counts, sizes, a path that is a file and a folder.
    let request = Request::parse(&described.request().to_string())?;
    let job = request.job.ok_or_else(|| BadRequest::new("job", "is missing"))?;
    Ok(Described { job, ..described })
}

fn described(value: &Json, choices: &Choices) -> Result<Described, BadRequest> {
    let mut fields = Fields::of("", value)?;
    if let Some(job) = fields.optional("job") {
        machine(&mut fields)?;
        fields.finish()?;
        return bacalhau::read(Fields::of(&job.path, job.value)?, choices);
    }
    bacalhau::read(fields, choices)
}

/// What a module says of the machine: only whether it needs a GPU counts. Files that a client uploads are in no description.
fn machine(fields: &mut Fields<'_>) -> Result<(), BadRequest> {
    if let Some(at) = fields.optional("machine") {
        let mut machine = Fields::of(&at.path, at.value)?;
        for name in ["gpu", "gpus", "vram"] {
            if let Some(at) = machine.optional(name) {
                at.none("a GPU")?;
            }
        }
        machine.pass_over(&["cpu", "ram", "disk", "models"]);
        machine.finish()?;
    }
    if let Some(at) = fields.optional("inputFiles") {
        let mut files = Fields::of(&at.path, at.value)?;
        for name in ["required", "optional"] {
            if let Some(at) = files.optional(name) {
                at.none("files that the client uploads beside the description")?;
            }
        }
        files.finish()?;
    }
    Ok(())
}

/// Reads the module and the inputs of a job offer, alone or in a deal's document, as Lilypad's solver serves them.
///
/// # Errors
/// The field that is wrong.
pub fn offer(text: &str) -> Result<(Module, BTreeMap<String, String>), BadRequest> {
    if text.len() > DESCRIPTION_BYTES_MAX {
        let problem = format!("at most {DESCRIPTION_BYTES_MAX} bytes, not {}", text.len());
        return Err(BadRequest::new("offer", problem));
    }
    let value = json::parse(text).map_err(|problem| BadRequest::new("offer", format!("is no JSON: {problem}")))?;
    // {"deal": {"job_offer": {"job_offer": {…}}}}: containers as far as they go.
    let (mut at, mut path) = (&value, String::from("offer"));
    for name in ["deal", "job_offer", "job_offer"] {
        if let Some(inside) = at.get(name) {
            (at, path) = (inside, format!("{path}.{name}"));
        }
    }
    let text = |at: &Json, path: &str, name: &str| match at.get(name) {
        Some(Json::Text(text)) => Ok(text.clone()),
        _ => Err(BadRequest::new(format!("{path}.{name}"), "a string is needed")),
    };
    let module = at.get("module").ok_or_else(|| BadRequest::new(format!("{path}.module"), "is missing"))?;
    let inside = format!("{path}.module");
    let module = Module {
        repository: text(module, &inside, "repo")?,
        hash: text(module, &inside, "hash")?,
        path: text(module, &inside, "path")?,
    };
    let mut inputs = BTreeMap::new();
    match at.get("inputs") {
        None | Some(Json::Null) => {}
        Some(Json::Object(fields)) => {
            for (name, value) in fields {
                let Json::Text(value) = value else {
                    return Err(BadRequest::new(format!("{path}.inputs.{name}"), "a string is needed"));
                };
                inputs.insert(name.clone(), value.clone());
            }
        }
        Some(_) => return Err(BadRequest::new(format!("{path}.inputs"), "an object is needed")),
    }
    Ok((module, inputs))
}
