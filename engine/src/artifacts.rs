//! Where this engine finds artifacts: the places that its operator lists, asked in turn, with a cache before those that are not
//! on this machine.
//!
//! A request names content addresses and never a place: it cannot have anything fetched from where the operator did not say. A
//! redirect stays with the host that was listed, or below it. Whatever comes is checked against its address before it is kept
//! or used (`tribunal_verifiers`), so a place that lies is only passed over.
//!
//! Sources are called from threads that wait; what waits for the network is run by one thread of its own (`artifacts/fetcher`).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tribunal_verifiers::{ArtifactSource, Cache, Cached, Chain, FolderSource};

use crate::{config::Config, failure::Failure};

mod bucket;
mod fetcher;
mod files;
mod gateway;
mod place;

use bucket::Bucket;
use fetcher::Fetcher;
use files::Files;
use gateway::Gateway;
pub use place::Place;

/// A source over these folders, asked in turn.
///
/// # Errors
/// Where a folder cannot be read.
pub fn folders(folders: &[PathBuf]) -> Result<Arc<dyn ArtifactSource>, Failure> {
    let sources = folders.iter().map(|path| folder(path)).collect::<Result<_, _>>()?;
    Ok(Arc::new(Chain(sources)))
}

fn folder(folder: &Path) -> Result<Arc<dyn ArtifactSource>, Failure> {
    let source = FolderSource::open(folder)
        .map_err(|error| Failure::config(format!("the artifacts folder {}: {error}", folder.display())))?;
    Ok(Arc::new(source))
}

/// A source over these places, asked in turn; the cache, the bus of buckets are those of the configuration.
///
/// # Errors
/// Where a folder or the cache cannot be read, or a bucket is named and no bus.
pub fn open(places: &[Place], config: &Config) -> Result<Arc<dyn ArtifactSource>, Failure> {
    let mut sources: Vec<Arc<dyn ArtifactSource>> = Vec::new();
    let mut remote = None;
    for place in places {
        if let Place::Folder(path) = place {
            sources.push(folder(path)?);
            continue;
        }
        let (fetcher, cache) = match &remote {
            Some(remote) => remote,
            None => remote.insert((Arc::new(Fetcher::start()?), cache(config)?)),
        };
        let (fetcher, cache) = (Arc::clone(fetcher), Arc::clone(cache));
        let source: Arc<dyn ArtifactSource> = match place {
            Place::Folder(_) => continue,
            Place::Gateway(url) => Arc::new(Gateway::new(fetcher, url.clone())),
            Place::Files(template) => Arc::new(Files::new(fetcher, template.clone(), Arc::clone(&cache))),
            Place::Bucket(name) => {
                let Some(url) = &config.bus.url else {
                    return Err(Failure::config(format!(
                        "verifiers.artifacts: {place} is on the bus, and bus.url is not set"
                    )));
                };
                Arc::new(Bucket::new(fetcher, name.clone(), url.clone(), config.bus.credentials.clone()))
            }
        };
        sources.push(Arc::new(Cached::new(cache, source)));
    }
    Ok(Arc::new(Chain(sources)))
}

fn cache(config: &Config) -> Result<Arc<Cache>, Failure> {
    let (path, bytes_max) = config.artifact_cache();
    let cache = Cache::open(&path, bytes_max)
        .map_err(|error| Failure::config(format!("verifiers.artifact_cache {}: {error}", path.display())))?;
    Ok(Arc::new(cache))
}
