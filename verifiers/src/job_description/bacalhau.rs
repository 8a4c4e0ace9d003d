//! Bacalhau's jobs: `Spec` of the versions v1beta, `Tasks` of those after.

use tribunal_events::Limits;

use super::{
    Choices, Described,
    fields::{At, Fields},
};
use crate::{AnyCid, BadRequest, Job, JobInput, Reference, json::Json};

/// Publishers whose results are a folder with a CID, or are fetched as one.
const PUBLISHERS: [&str; 5] = ["", "noop", "ipfs", "estuary", "local"];

/// A job's parts, whichever form they came in.
struct Parts {
    runtime: &'static str,
    module: Reference,
    args: Vec<String>,
    env: Vec<(String, String)>,
    notes: Vec<String>,
}

/// Reads a job; all its fields.
pub(super) fn read(mut fields: Fields<'_>, choices: &Choices) -> Result<Described, BadRequest> {
    let described = if let Some(at) = fields.optional("Spec") {
        if let Some(at) = fields.optional("APIVersion") {
            let version = at.text()?;
            if !["v1beta1", "v1beta2"].iter().any(|known| version.eq_ignore_ascii_case(known)) {
                return at.wrong(format!("V1beta1 or V1beta2 is read here, not {version:?}"));
            }
        }
        fields.pass_over(&["Metadata", "Status"]);
        spec(Fields::of(&at.path, at.value)?, choices)?
    } else {
        let at = fields.required("Tasks")?;
        if let Some(at) = fields.optional("Type") {
            let kind = at.text()?;
            if !["batch", "ops"].iter().any(|known| kind.eq_ignore_ascii_case(known)) {
                return at.wrong(format!("a job that ends is needed, batch or ops, not {kind:?}"));
            }
        }
        if let Some(at) = fields.optional("Constraints") {
            at.none("a choice of machines")?;
        }
        fields.pass_over(&["ID", "Name", "Namespace", "Priority", "Count", "Meta", "Labels", "State", "Version"]);
        fields.pass_over(&["Revision", "CreateTime", "ModifyTime"]);
        match &at.list()?[..] {
            [only] => task(Fields::of(&only.path, only.value)?, choices)?,
            tasks => return at.wrong(format!("one task is one job; there are {}", tasks.len())),
        }
    };
    fields.finish()?;
    Ok(described)
}

fn spec(mut fields: Fields<'_>, choices: &Choices) -> Result<Described, BadRequest> {
    let engine_at = fields.optional("EngineSpec");
    let named = fields.optional("Engine");
    let docker = fields.optional("Docker");
    let wasm = fields.optional("Wasm");
    let mut parts = if let Some(at) = engine_at {
        engine(Fields::of(&at.path, at.value)?, choices)?
    } else {
        let at = named.ok_or_else(|| BadRequest::new("Spec.Engine", "is missing"))?;
        let (kind, inside) = match at.value {
            Json::Text(kind) => {
                (kind.to_ascii_lowercase(), if kind.eq_ignore_ascii_case("wasm") { &wasm } else { &docker })
            }
            other => return at.wrong(format!("docker or wasm is needed, not {}", other.kind())),
        };
        let inside = match inside {
            Some(inside) => Fields::of(&inside.path, inside.value)?,
            None => return at.wrong(format!("is {kind}, and the job has no part of that name")),
        };
        engine_of(&at, &kind, inside, choices)?
    };
    network(&mut fields, &mut parts)?;
    publisher(&mut fields)?;
    if let Some(at) = fields.optional("Publisher") {
        known_publisher(&at)?;
    }
    if let Some(at) = fields.optional("NodeSelectors") {
        at.none("a choice of machines")?;
    }
    let mut limits = resources(&mut fields, choices.limits)?;
    if let Some(at) = fields.optional("Timeout") {
        seconds(&at, &mut limits)?;
    }
    let inputs = inputs(&mut fields, "Inputs", &|at| {
        let mut fields = Fields::of(&at.path, at.value)?;
        let path = fields.required("Path")?.text()?.to_owned();
        Ok((path, storage(fields, choices)?))
    })?;
    let outputs = outputs(&mut fields, "Outputs")?;
    // Who checks it, how often it runs, what it is called.
    fields.pass_over(&["Deal", "Verifier", "VerifierSpec", "Annotations", "DoNotTrack", "ExecutionPlan"]);
    for name in ["Language", "Contexts", "Sharding"] {
        if let Some(at) = fields.optional(name) {
            unused(&at)?;
        }
    }
    fields.finish()?;
    Ok(described(parts, inputs, outputs, limits))
}

/// A part of a job that must be empty, though it may have empty parts itself.
fn unused(at: &At<'_>) -> Result<(), BadRequest> {
    match at.value {
        Json::Object(_) => Fields::of(&at.path, at.value)?.rest().iter().try_for_each(|(_, at)| unused(at)),
        _ => at.none("this part"),
    }
}

fn task(mut fields: Fields<'_>, choices: &Choices) -> Result<Described, BadRequest> {
    let at = fields.required("Engine")?;
    let mut parts = engine(Fields::of(&at.path, at.value)?, choices)?;
    environment(&mut fields, "Env", &mut parts.env)?;
    network(&mut fields, &mut parts)?;
    if let Some(at) = fields.optional("Publisher") {
        let mut fields = Fields::of(&at.path, at.value)?;
        if let Some(at) = fields.optional("Type") {
            known_publisher(&at)?;
        }
        fields.pass_over(&["Params"]);
        fields.finish()?;
    }
    let mut limits = resources(&mut fields, choices.limits)?;
    let mut timeouts = fields.inside("Timeouts")?;
    if let Some(at) = timeouts.optional("ExecutionTimeout") {
        seconds(&at, &mut limits)?;
    }
    timeouts.pass_over(&["QueueTimeout", "TotalTimeout"]);
    timeouts.finish()?;
    let inputs = inputs(&mut fields, "InputSources", &|at| {
        let mut fields = Fields::of(&at.path, at.value)?;
        let path = fields.required("Target")?.text()?.to_owned();
        Ok((path, source(fields, choices)?))
    })?;
    let outputs = outputs(&mut fields, "ResultPaths")?;
    fields.pass_over(&["Name", "Meta"]);
    fields.finish()?;
    Ok(described(parts, inputs, outputs, limits))
}

fn described(parts: Parts, inputs: Vec<JobInput>, outputs: Vec<String>, limits: Limits) -> Described {
    let Parts { runtime, module, args, mut env, notes } = parts;
    env.sort();
    let runtime = runtime.to_owned();
    Described { job: Job { runtime, module, args, env, stdin: None, inputs, outputs, limits }, notes }
}

/// `{"Type": "wasm", "Params": {…}}`.
fn engine(mut fields: Fields<'_>, choices: &Choices) -> Result<Parts, BadRequest> {
    let at = fields.required("Type")?;
    let params = fields.inside("Params")?;
    fields.finish()?;
    engine_of(&at, &at.text()?.to_ascii_lowercase(), params, choices)
}

fn engine_of(at: &At<'_>, kind: &str, fields: Fields<'_>, choices: &Choices) -> Result<Parts, BadRequest> {
    match kind {
        "wasm" => wasm(fields, choices),
        "docker" => docker(fields, choices),
        other => at.wrong(format!("docker or wasm is needed, not {other:?}")),
    }
}

fn wasm(mut fields: Fields<'_>, choices: &Choices) -> Result<Parts, BadRequest> {
    let at = fields.required("EntryModule")?;
    let mut module = Fields::of(&at.path, at.value)?;
    let module = match module.optional("Source") {
        // An input source, whose target says nothing here.
        Some(source) => {
            module.pass_over(&["Target", "Alias"]);
            module.finish()?;
            spec_source(Fields::of(&source.path, source.value)?, choices)?
        }
        None => {
            module.pass_over(&["Path"]);
            storage(module, choices)?
        }
    };
    if let Some(at) = fields.optional("EntryPoint") {
        let name = at.text()?;
        if !matches!(name, "" | "_start") {
            return at.wrong(format!("a job here begins at _start, not {name:?}"));
        }
    }
    if let Some(at) = fields.optional("ImportModules") {
        at.none("modules that the module imports")?;
    }
    // Bacalhau passes an empty name.
    let mut args = vec![String::new()];
    args.extend(fields.texts("Parameters")?);
    let mut env = Vec::new();
    environment(&mut fields, "EnvironmentVariables", &mut env)?;
    fields.finish()?;
    Ok(Parts { runtime: "wasm-1", module, args, env, notes: Vec::new() })
}

fn docker(mut fields: Fields<'_>, choices: &Choices) -> Result<Parts, BadRequest> {
    let at = fields.required("Image")?;
    let image = at.text()?;
    let Some(module) = choices.artifacts.get(image) else {
        return at.wrong(format!("no artifact is given for the image {image:?}: a tar of its OCI layout is needed"));
    };
    let mut notes = Vec::new();
    if !image.contains("@sha256:") {
        notes.push(format!("the image {image} is named without a digest: others may have run another one"));
    }
    let mut args = fields.texts("Entrypoint")?;
    if !args.is_empty() {
        notes.push(
            "Docker's entrypoint is replaced, as Bacalhau 1.1 and later do; earlier ones kept the image's".into(),
        );
    }
    if let Some(at) = fields.optional("Parameters") {
        let parameters = at.list()?;
        if args.is_empty() && !parameters.is_empty() {
            return at.wrong("stand behind the image's own entrypoint, which the description does not say");
        }
        for at in parameters {
            args.push(at.text()?.to_owned());
        }
    }
    let mut env = Vec::new();
    if let Some(at) = fields.optional("EnvironmentVariables") {
        for at in at.list()? {
            match at.text()?.split_once('=') {
                Some((name, value)) => put_variable(&at, name, value, &mut env)?,
                None => return at.wrong("a name and = are needed"),
            }
        }
    }
    if let Some(at) = fields.optional("WorkingDirectory") {
        at.none("a working directory other than the image's")?;
    }
    fields.finish()?;
    Ok(Parts { runtime: "oci-1", module: module.clone(), args, env, notes })
}

fn environment(fields: &mut Fields<'_>, name: &str, env: &mut Vec<(String, String)>) -> Result<(), BadRequest> {
    for (name, at) in fields.inside(name)?.rest() {
        let value = at.text()?;
        if value.starts_with("env:") {
            return at.wrong("is taken from the environment of the machine that runs it");
        }
        put_variable(&at, name, value, env)?;
    }
    Ok(())
}

fn put_variable(at: &At<'_>, name: &str, value: &str, env: &mut Vec<(String, String)>) -> Result<(), BadRequest> {
    if env.iter().any(|(known, _)| known == name) {
        return at.wrong(format!("the variable {name:?} is given twice"));
    }
    env.push((name.to_owned(), value.to_owned()));
    Ok(())
}

fn network(fields: &mut Fields<'_>, parts: &mut Parts) -> Result<(), BadRequest> {
    let Some(at) = fields.optional("Network") else {
        parts.notes.push("the description says nothing of the network; the job runs without".into());
        return Ok(());
    };
    let mut network = Fields::of(&at.path, at.value)?;
    for name in ["Type", "Domains", "Ports"] {
        if let Some(at) = network.optional(name) {
            at.none("a network")?;
        }
    }
    network.finish()
}

fn publisher(fields: &mut Fields<'_>) -> Result<(), BadRequest> {
    let mut publisher = fields.inside("PublisherSpec")?;
    if let Some(at) = publisher.optional("Type") {
        known_publisher(&at)?;
    }
    publisher.pass_over(&["Params"]);
    publisher.finish()
}

fn known_publisher(at: &At<'_>) -> Result<(), BadRequest> {
    let kind = at.text()?;
    match PUBLISHERS.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        true => Ok(()),
        false => at.wrong(format!("the publisher {kind:?} gives no folder that is judged here, as ipfs and local do")),
    }
}

fn resources(fields: &mut Fields<'_>, mut limits: Limits) -> Result<Limits, BadRequest> {
    let mut resources = fields.inside("Resources")?;
    for name in ["GPU", "GPUs"] {
        if let Some(at) = resources.optional(name) {
            at.none("a GPU")?;
        }
    }
    for (name, limit) in [("Memory", &mut limits.memory_bytes), ("Disk", &mut limits.output_bytes)] {
        if let Some(at) = resources.optional(name)
            && let Some(bytes) = size(&at)?
        {
            *limit = bytes;
        }
    }
    resources.pass_over(&["CPU"]);
    resources.finish()?;
    Ok(limits)
}

/// Bytes like "16Gb", "100 MiB", "1.5g"; nothing for "" and "0".
fn size(at: &At<'_>) -> Result<Option<u64>, BadRequest> {
    let text = at.text()?.to_ascii_lowercase().replace(' ', "");
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return at.wrong(format!("bytes like 512Mb are needed, not {text:?}")),
    };
    if number.is_empty() && unit.is_empty() {
        return Ok(None);
    }
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let bytes = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(1 << shift));
    // Thousandths are enough of a part.
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    let part = part.parse::<u64>().ok().map(|part| (part << shift) / 1000);
    match bytes.zip(part).and_then(|(whole, part)| whole.checked_add(part)) {
        Some(0) => Ok(None),
        Some(bytes) => Ok(Some(bytes)),
        None => at.wrong(format!("bytes like 512Mb are needed, not {text:?}")),
    }
}

fn seconds(at: &At<'_>, limits: &mut Limits) -> Result<(), BadRequest> {
    if let Some(seconds) = at.count()? {
        match seconds.checked_mul(1000) {
            Some(wall_ms) => limits.wall_ms = wall_ms,
            None => return at.wrong(format!("seconds are needed, not {seconds}")),
        }
    }
    Ok(())
}

/// A path and where its bytes are, from one entry of a list.
type ReadInput<'a> = &'a dyn Fn(&At<'_>) -> Result<(String, Reference), BadRequest>;

fn inputs(fields: &mut Fields<'_>, name: &str, read: ReadInput<'_>) -> Result<Vec<JobInput>, BadRequest> {
    let Some(at) = fields.optional(name) else { return Ok(Vec::new()) };
    let read = |at: &At<'_>| read(at).map(|(path, artifact)| JobInput { path, artifact });
    at.list()?.iter().map(read).collect()
}

fn outputs(fields: &mut Fields<'_>, name: &str) -> Result<Vec<String>, BadRequest> {
    let Some(at) = fields.optional(name) else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for at in at.list()? {
        let mut fields = Fields::of(&at.path, at.value)?;
        let path = fields.required("Path")?.text()?.to_owned();
        if let Some(at) = fields.optional("Name") {
            let (name, last) = (at.text()?, path.rsplit('/').next().unwrap_or_default());
            if !name.is_empty() && name != last {
                return at.wrong(format!("a result folder calls it {name:?}, and one that is made here {last:?}"));
            }
        }
        fields.pass_over(&["StorageSource"]);
        fields.finish()?;
        paths.push(path);
    }
    Ok(paths)
}

/// `{"StorageSource": "IPFS", "CID": "…"}`, without its path.
fn storage(mut fields: Fields<'_>, choices: &Choices) -> Result<Reference, BadRequest> {
    let kind = fields.required("StorageSource")?;
    fields.pass_over(&["Name", "Metadata"]);
    named(&kind, fields, choices)
}

/// `{"Source": {"Type": "ipfs", "Params": {"CID": "…"}}}`, without its target.
fn source(mut fields: Fields<'_>, choices: &Choices) -> Result<Reference, BadRequest> {
    let at = fields.required("Source")?;
    fields.pass_over(&["Alias"]);
    fields.finish()?;
    spec_source(Fields::of(&at.path, at.value)?, choices)
}

fn spec_source(mut fields: Fields<'_>, choices: &Choices) -> Result<Reference, BadRequest> {
    let kind = fields.required("Type")?;
    let params = fields.inside("Params")?;
    fields.finish()?;
    named(&kind, params, choices)
}

/// The artifact of a source of some kind.
fn named(kind: &At<'_>, mut fields: Fields<'_>, choices: &Choices) -> Result<Reference, BadRequest> {
    let name = kind.text()?.to_ascii_lowercase();
    let reference = match &*name {
        "ipfs" | "estuary" => {
            let at = fields.required("CID")?;
            let text = at.text()?;
            let cid = text.parse::<AnyCid>().map(Reference::Cid);
            cid.or_else(|error| at.wrong(error.to_string()))?
        }
        "urldownload" | "url" => {
            let at = fields.required("URL")?;
            let url = at.text()?;
            match choices.artifacts.get(url) {
                Some(reference) => reference.clone(),
                None => {
                    return at.wrong(format!("no artifact is given for {url:?}: what lies there now may be another"));
                }
            }
        }
        _ => return kind.wrong(format!("files from {name:?} have no address here; ipfs and urlDownload have")),
    };
    // Of other kinds, and read-only here whatever they say.
    for name in ["URL", "CID", "S3", "Repo", "SourcePath", "ReadWrite"] {
        if let Some(at) = fields.optional(name) {
            at.none("a second source of the same files")?;
        }
    }
    fields.finish()?;
    Ok(reference)
}
