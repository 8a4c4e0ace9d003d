//! A NATS object store: objects named by address, and blocks by CID.

use std::{path::PathBuf, sync::Arc, time::Instant};

use async_nats::jetstream::object_store::{GetErrorKind, ObjectStore};
use tokio::{io::AsyncReadExt as _, sync::OnceCell};
use tribunal_verifiers::{
    ARTIFACT_BYTES_MAX, Answer, AnyCid, ArtifactFault, ArtifactSource, BLOCK_BYTES_MAX, Blocks, Download, NoAnswer,
    Piece, Reference, Remote, download, file_of,
};

use super::fetcher::{self, Fetcher, late, pause};
use crate::failure::with_causes;

/// Bytes that are taken at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A bucket of the bus's server.
pub(super) struct Bucket {
    fetcher: Arc<Fetcher>,
    name: String,
    url: String,
    credentials: Option<PathBuf>,
    /// Made when it is first asked.
    store: Arc<OnceCell<ObjectStore>>,
}

impl Bucket {
    pub(super) fn new(fetcher: Arc<Fetcher>, name: String, url: String, credentials: Option<PathBuf>) -> Self {
        Self { fetcher, name, url, credentials, store: Arc::default() }
    }
}

async fn connect(url: String, credentials: Option<PathBuf>, name: String) -> Result<ObjectStore, String> {
    let wrong = |error: &dyn std::error::Error| with_causes(error);
    let mut options = async_nats::ConnectOptions::new().name("tribunal artifacts");
    if let Some(path) = credentials {
        options = options.credentials_file(path).await.map_err(|error| wrong(&error))?;
    }
    let servers: Vec<&str> = url.split(',').map(str::trim).collect();
    let client = options.connect(servers).await.map_err(|error| wrong(&error))?;
    let context = async_nats::jetstream::new(client);
    context.get_object_store(&name).await.map_err(|error| wrong(&error))
}

impl ArtifactSource for Bucket {
    fn fetch(&self, reference: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        let address = match reference {
            Reference::Address(address) => address,
            Reference::Cid(cid) => return file_of(self, cid),
            Reference::File(_) => return Ok(None),
        };
        let mut object = Object { bucket: self, name: address.to_string(), since: Instant::now() };
        match download(address, &mut object, ARTIFACT_BYTES_MAX, Vec::new()) {
            Download::Whole(bytes) => Ok(Some(bytes)),
            Download::Absent => Ok(None),
            Download::Failed { fault, .. } => Err(fault),
        }
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        let mut object = Object { bucket: self, name: cid.to_string(), since: Instant::now() };
        match download(&cid.block_address(), &mut object, BLOCK_BYTES_MAX as u64, Vec::new()) {
            Download::Whole(block) => into.keep(cid, block).map(|_| ()),
            Download::Absent => Ok(()),
            Download::Failed { fault, .. } => Err(fault),
        }
    }
}

/// One object.
struct Object<'a> {
    bucket: &'a Bucket,
    name: String,
    since: Instant,
}

impl Remote for Object<'_> {
    /// Always from the beginning: an object is read whole.
    fn open(&mut self, _: u64, _: Option<&str>) -> Result<Answer, NoAnswer> {
        late(self.since)?;
        let Bucket { fetcher, name: bucket, url, credentials, store } = self.bucket;
        let (store, name) = (Arc::clone(store), self.name.clone());
        let connected = connect(url.clone(), credentials.clone(), bucket.clone());
        let (piece, body) = fetcher.run(|head, pieces| async move {
            let store = match store.get_or_try_init(|| connected).await {
                Ok(store) => store,
                Err(problem) => {
                    let _ = head.send(Err(NoAnswer { problem: format!("is not there: {problem}"), again: true }));
                    return;
                }
            };
            let mut object = match store.get(&name).await {
                Ok(object) => object,
                Err(error) => {
                    let answer = match error.kind() {
                        GetErrorKind::NotFound => Ok(Piece::Absent),
                        _ => Err(NoAnswer { problem: with_causes(&error), again: true }),
                    };
                    let _ = head.send(answer);
                    return;
                }
            };
            let bytes = u64::try_from(object.info().size).ok();
            if head.send(Ok(Piece::Whole { bytes })).is_err() {
                return;
            }
            loop {
                let mut bytes = vec![0; PIECE_BYTES];
                let piece = match object.read(&mut bytes).await {
                    Ok(0) => fetcher::Piece::End,
                    Ok(count) => {
                        bytes.truncate(count);
                        fetcher::Piece::Bytes(bytes)
                    }
                    Err(error) => fetcher::Piece::Broken(error.to_string()),
                };
                let last = !matches!(piece, fetcher::Piece::Bytes(_));
                if pieces.send(piece).await.is_err() || last {
                    return;
                }
            }
        })?;
        Ok(Answer { piece, etag: None, body })
    }

    fn pause(&mut self, in_vain: u32) {
        pause(in_vain);
    }

    fn name(&self) -> String {
        format!("the bucket {}", self.bucket.name)
    }
}
