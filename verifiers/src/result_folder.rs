//! The folder that Bacalhau makes of a run: `stdout`, `stderr` and `exitCode` beside one folder for every output.
//!
//! An output's folder is named by the last segment of its path, so `/outputs` gives `outputs`; it is there though nothing was
//! written into it. `exitCode` is the exit code as an unsigned decimal number of at most four digits, without a line end. A
//! module that returned without an exit code has none: Bacalhau's WASM executor then writes -1, its Docker executor would
//! write 0, so such a run makes two folders.
//!
//! Source: bacalhau-project/bacalhau, `WriteJobResults` in pkg/executor/results.go, `run` in pkg/executor/wasm/handler.go,
//! `Put` in pkg/ipfs/client.go (`ipfs add -r`, hidden files left out).

use std::collections::BTreeMap;

use tribunal_events::{ContentAddress, Digest};

use crate::{
    Cid, Job,
    cid::Folder,
    filesystem::{FileSystem, Node, NodeId},
    request::write::canonical_text,
};

/// Names that no output may have.
const RESERVED: [&str; 3] = ["stdout", "stderr", "exitCode"];
/// Bytes of `exitCode` that Bacalhau writes.
const EXIT_CODE_BYTES_MAX: usize = 4;
/// Folders inside an output.
const DEPTH_MAX: usize = 60;

/// What a run makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnFolder {
    /// With the exit code that it ended with.
    pub(crate) cid: Cid,
    /// With -1 for none, where the module returned.
    pub(crate) returned: Option<Cid>,
}

/// Whether a job's outputs have places in such a folder; the field and what is wrong with it.
pub(crate) fn check(job: &Job) -> Result<(), (&'static str, String)> {
    let mut names = std::collections::BTreeSet::new();
    for output in &job.outputs {
        let name = name(output);
        if RESERVED.contains(&name) || name.contains('.') || !names.insert(name) {
            let problem = "a result folder needs outputs whose last segments have no dot, differ, and are not";
            return Err(("job.outputs", format!("{output}: {problem} {}", RESERVED.join(", "))));
        }
        let inside = |path: &str| path.strip_prefix(output.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if let Some(other) = job.outputs.iter().find(|other| inside(other)) {
            return Err(("job.outputs", format!("{other} lies inside {output}: a result folder has each apart")));
        }
        if let Some(input) = job.inputs.iter().find(|input| input.path == *output || inside(&input.path)) {
            return Err(("job.inputs", format!("{} lies inside the output {output}", input.path)));
        }
    }
    Ok(())
}

fn name(output: &str) -> &str {
    output.rsplit_once('/').map_or(output, |(_, name)| name)
}

/// The CIDs of what a run left; else why there are none.
pub(crate) fn own(fs: &FileSystem, outputs: &[String], exit_code: i32, returned: bool) -> Result<OwnFolder, String> {
    let code = exit_code.cast_unsigned().to_string();
    let code = &code.as_bytes()[..code.len().min(EXIT_CODE_BYTES_MAX)];
    let of = |code: &[u8]| {
        let mut folder = Folder::new();
        let mut add = |path: &str, bytes| folder.add_file(path, bytes).map_err(|problem| problem.to_string());
        add("stdout", &fs.stdout)?;
        add("stderr", &fs.stderr)?;
        add("exitCode", code)?;
        for output in outputs {
            let root = fs.find(output).ok_or_else(|| format!("{output} is gone"))?;
            if !matches!(fs.node(root), Node::Folder { .. }) {
                return Err(format!("{output} is no folder"));
            }
            fill(fs, root, name(output), &mut folder)?;
        }
        folder.cid().map_err(|problem| problem.to_string())
    };
    Ok(OwnFolder { cid: of(code)?, returned: returned.then(|| of(b"-1")).transpose()? })
}

/// [`own`] of a container, which always has an exit code. `folders` are those that are there, outputs and below.
pub(crate) fn of_files(
    outputs: &[String],
    files: &BTreeMap<String, Vec<u8>>,
    folders: &[String],
    stdout: &[u8],
    stderr: &[u8],
    exit_code: i32,
) -> Result<OwnFolder, String> {
    let code = exit_code.cast_unsigned().to_string();
    let mut folder = Folder::new();
    let say = |problem: crate::FolderProblem| problem.to_string();
    folder.add_file("stdout", stdout).map_err(say)?;
    folder.add_file("stderr", stderr).map_err(say)?;
    folder.add_file("exitCode", &code.as_bytes()[..code.len().min(EXIT_CODE_BYTES_MAX)]).map_err(say)?;
    for output in outputs {
        if !folders.contains(output) {
            return Err(format!("{output} is no folder"));
        }
        let placed = |path: &str| path.strip_prefix(output.as_str()).map(|rest| format!("{}{rest}", name(output)));
        for path in folders.iter().filter_map(|path| placed(path)) {
            folder.add_folder(&path).map_err(say)?;
        }
        for (path, bytes) in files.iter().filter_map(|(path, bytes)| Some((placed(path)?, bytes))) {
            folder.add_file(&path, bytes).map_err(say)?;
        }
    }
    let cid = folder.cid().map_err(say)?;
    Ok(OwnFolder { cid, returned: None })
}

/// The canonical digest of a job's results: BLAKE3 `derive_key("tribunal.v1 result folder", listing)`, where the listing is the
/// RFC 8785 text of one object, from the path of each file as the job saw it to `blake3:` and the digest of its bytes in hex:
/// what `own_outputs` is in evidence. Folders without files, permissions, times and links are no part of it.
pub fn results_digest(files: &BTreeMap<String, Digest>) -> Digest {
    let address = |(path, digest): (&String, &Digest)| {
        (path.clone(), serde_json::Value::from(ContentAddress::Blake3(*digest.bytes()).to_string()))
    };
    let listing = canonical_text(&serde_json::Value::Object(files.iter().map(address).collect()));
    Digest::new(blake3::derive_key("tribunal.v1 result folder", listing.as_bytes()))
}

/// Puts everything below a folder of the job into a folder.
fn fill<'a>(fs: &'a FileSystem, root: NodeId, path: &str, into: &mut Folder<'a>) -> Result<(), String> {
    let mut left = vec![(path.to_owned(), root, 0)];
    while let Some((path, id, depth)) = left.pop() {
        match fs.node(id) {
            Node::File(bytes) => into.add_file(&path, bytes).map_err(|problem| problem.to_string())?,
            Node::Folder { .. } if depth > DEPTH_MAX => return Err("folders lie too deep in an output".into()),
            Node::Folder { entries, .. } => {
                into.add_folder(&path).map_err(|problem| problem.to_string())?;
                left.extend(entries.iter().map(|(name, id)| (format!("{path}/{name}"), *id, depth + 1)));
            }
            Node::Input(_) | Node::Link(_) => return Err(format!("{path} is a link")),
        }
    }
    Ok(())
}
