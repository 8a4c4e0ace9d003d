//! A job's input may be the CID of a folder: then its path is a folder with those files, read-only as any input.
//!
//! Its files stand in the job as inputs of their own, by the digests of their bytes, so that every runtime lays them out as it
//! does others. Whoever ran the job elsewhere saw empty folders too; a job has no way to say so, and a run without them would
//! judge somebody by another job. So a folder that has any is `job-malformed`.

use std::collections::BTreeSet;

use crate::{
    ArtifactSource, Content, Job, JobInput, MemorySource, Method, Reference, Request, Tree,
    artifacts::{ARTIFACT_BYTES_MAX, fetch_content},
};

/// The job as it runs: with the files of folders in the place of these. What was fetched is added to `named`; what cannot be had
/// stays as it is, for whoever fetches inputs to say so.
///
/// # Errors
/// The field and what is wrong with a folder.
pub(crate) fn expand(
    request: &Request,
    source: &dyn ArtifactSource,
    named: &mut MemorySource,
) -> Result<Option<Job>, String> {
    let Some(job) = request.job.as_ref().filter(|_| runs(&request.method)) else { return Ok(None) };
    let mut inputs = Vec::new();
    let mut bytes_left = ARTIFACT_BYTES_MAX;
    for input in &job.inputs {
        let content = match &input.artifact {
            Reference::Cid(cid) => fetch_content(source, cid, bytes_left).ok().flatten(),
            _ => None,
        };
        match content {
            None => inputs.push(input.clone()),
            Some(Content::File(bytes)) => {
                bytes_left = bytes_left.saturating_sub(bytes.len() as u64);
                let artifact = Reference::Address(named.add(bytes));
                inputs.push(JobInput { path: input.path.clone(), artifact });
            }
            Some(Content::Folder(tree)) => {
                check(&tree).map_err(|problem| format!("job.inputs: {}: {problem}", input.path))?;
                for (path, bytes) in tree.files {
                    bytes_left = bytes_left.saturating_sub(bytes.len() as u64);
                    let artifact = Reference::Address(named.add(bytes));
                    inputs.push(JobInput { path: format!("{}/{path}", input.path), artifact });
                }
            }
        }
    }
    inputs.sort_by(|a, b| a.path.cmp(&b.path));
    if let Some(pair) = inputs.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(format!("job.inputs: {} is there twice", pair[0].path));
    }
    Ok(Some(Job { inputs, ..job.clone() }))
}

/// Whether a method runs the job here.
fn runs(method: &Method) -> bool {
    matches!(method, Method::Reexecution) || method.parts().iter().any(runs)
}

fn check(tree: &Tree) -> Result<(), String> {
    let mut full = BTreeSet::new();
    for path in tree.files.keys().chain(&tree.folders) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            full.insert(folder);
        }
    }
    if tree.files.is_empty() && tree.folders.is_empty() {
        return Err("the folder is empty, and a job has no empty folders as inputs".into());
    }
    match tree.folders.iter().find(|folder| !full.contains(folder.as_str())) {
        Some(folder) => Err(format!("its folder {folder} is empty, and a job has no empty folders as inputs")),
        None => Ok(()),
    }
}
