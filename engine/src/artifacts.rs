//! Where this engine finds artifacts: folders that hold them, by content address.

use std::{path::PathBuf, sync::Arc};

use tribunal_verifiers::{ArtifactSource, Chain, FolderSource};

use crate::failure::Failure;

/// A source over these folders, asked in turn.
///
/// # Errors
/// Where a folder cannot be read.
pub fn folders(folders: &[PathBuf]) -> Result<Arc<dyn ArtifactSource>, Failure> {
    let mut sources: Vec<Arc<dyn ArtifactSource>> = Vec::new();
    for folder in folders {
        let source = FolderSource::open(folder)
            .map_err(|error| Failure::config(format!("the artifacts folder {}: {error}", folder.display())))?;
        sources.push(Arc::new(source));
    }
    Ok(Arc::new(Chain(sources)))
}
