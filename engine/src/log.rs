//! Signs the log: what it held, at which size, so that nobody can change it afterwards unseen.
//!
//! The tree and the head map are the store's ([`Store::seal_log`]); here is the key, and the memory of what it said.
//!
//! **Invariant:** a checkpoint is signed only after its records are on the disk, and is on the disk, here and in the store,
//! before anybody sees it.
//! **Invariant:** everything signed under one name is of one growing log. What was said last is kept beside the store, so
//! that a store restored from an older copy cannot make the key say something else: until it holds the same records again
//! it signs nothing.

mod evidence;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tribunal_contracts::JsonRpcChain;
use tribunal_events::{
    Address, B256, Signer, SignerFault,
    tlog::{Checkpoint, LogCertificate, LogKey, NOTE_BYTES_MAX, SignedCheckpoint},
};

pub use self::evidence::{EvidenceFault, Wanted, evidence, signed};
use crate::{
    store::{LogState, Store, StoreFault},
    whole_file::{read_at_most, write_whole},
};

/// Where the store keeps the certificates of all keys that ever signed its log, newest last.
const CERTIFICATES: &str = "log-keys";
/// Certificates at most: a key lives for years.
const CERTIFICATES_MAX: usize = 256;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The operator's signer failed.
    #[error("the log's key could not be certified: {0}")]
    Signer(#[from] SignerFault),
    /// What was said last cannot be read or written.
    #[error("{}: {problem}; it holds what the log's key signed last and is never made anew while the log keeps its name (log.origin)", path.display())]
    Published {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Records that were signed are not here.
    #[error(
        "{published} records of the log {origin} are signed for and only {found} are here: nothing is signed until the rest came again; a log that cannot have them needs a new name (log.origin)"
    )]
    Behind {
        /// The log.
        origin: String,
        /// Records signed for.
        published: u64,
        /// Records here.
        found: u64,
    },
    /// Other records are here than were signed.
    #[error(
        "the first {published} records here are not those that were signed as the log {origin}: nothing is signed; this history needs a new name (log.origin)"
    )]
    Forked {
        /// The log.
        origin: String,
        /// Records signed for.
        published: u64,
    },
    /// The newest records may not be seen by others yet.
    #[error("the newest records are not released yet")]
    Unreleased,
    /// More keys than anybody needs.
    #[error("{CERTIFICATES_MAX} keys have signed this log; that is the limit")]
    Keys,
}

/// Signs checkpoints of one log.
pub struct LogSigner {
    key: LogKey,
    /// Keeps what was signed last.
    path: PathBuf,
    published: Mutex<Option<SignedCheckpoint>>,
}

impl LogSigner {
    /// Beside the store, never inside of it.
    pub fn default_path(store: &Path) -> PathBuf {
        let mut name = store.as_os_str().to_owned();
        name.push(".checkpoint");
        name.into()
    }

    /// A signer for the log in `store`; `operator` certifies the key, once.
    ///
    /// # Errors
    /// [`LogFault::Published`] where the file cannot be believed; where the store or the operator's signer fails.
    pub fn open(store: &Store, key: LogKey, operator: &dyn Signer, path: PathBuf) -> Result<Self, LogFault> {
        let published = read(&path)?.filter(|note| note.checkpoint().origin == key.verifier().origin());
        let mut known = certificates(store)?;
        if let Some(note) = &published {
            // Another key under the same name: what the former one said holds all the same.
            let mut vkeys = known.iter().map(|it| &it.vkey).chain([key.verifier()]);
            if !vkeys.any(|vkey| note.verify(vkey).is_ok()) {
                let problem = "the checkpoint in it is signed by no key of this log".to_owned();
                return Err(LogFault::Published { path, problem });
            }
        }
        if known.last().is_none_or(|last| last.vkey != *key.verifier() || last.operator != operator.address()) {
            if known.len() >= CERTIFICATES_MAX {
                return Err(LogFault::Keys);
            }
            known.push(LogCertificate::sign(key.verifier(), operator)?);
            store.put_meta(CERTIFICATES, &serde_json::to_vec(&known).expect("certificates have a JSON form"))?;
        }
        Ok(Self { key, path, published: Mutex::new(published) })
    }

    /// The log's key.
    pub const fn key(&self) -> &LogKey {
        &self.key
    }

    /// Signs the log as it stands, if it grew; gives the newest checkpoint, nothing for an empty log. Blocks.
    ///
    /// # Errors
    /// [`LogFault::Behind`], [`LogFault::Forked`]: this log is not the one that was signed before.
    pub fn checkpoint(&self, store: &Store) -> Result<Option<SignedCheckpoint>, LogFault> {
        self.checkpoint_released(store, &|| u64::MAX)
    }

    /// [`LogSigner::checkpoint`] where `released` tells how many records others may see.
    ///
    /// # Errors
    /// As there; [`LogFault::Unreleased`] while the log is longer.
    pub fn checkpoint_released(
        &self,
        store: &Store,
        released: &dyn Fn() -> u64,
    ) -> Result<Option<SignedCheckpoint>, LogFault> {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*published {
            self.check(store, last.checkpoint())?;
        }
        store.seal_log(|state: &LogState| {
            let LogState { size, root, heads } = *state;
            if size > released() {
                return Err(LogFault::Unreleased);
            }
            let origin = self.key.verifier().origin().to_owned();
            let note = match &*published {
                // Signed before, and lost to the store by a crash.
                Some(last) if last.checkpoint().size == size => last.clone(),
                _ => Checkpoint { origin, size, root, heads }.sign(&self.key),
            };
            write_whole(&self.path, note.note().as_bytes()).map_err(|error| self.fault(error.to_string()))?;
            *published = Some(note.clone());
            Ok(note)
        })
    }

    fn check(&self, store: &Store, last: &Checkpoint) -> Result<(), LogFault> {
        let (origin, published) = (last.origin.clone(), last.size);
        match store.tree_root(published)? {
            None => Err(LogFault::Behind { origin, published, found: store.last_position() }),
            Some(root) if root != last.root => Err(LogFault::Forked { origin, published }),
            Some(_) => Ok(()),
        }
    }

    fn fault(&self, problem: String) -> LogFault {
        LogFault::Published { path: self.path.clone(), problem }
    }
}

/// Publishes the newest checkpoint on the chain every so often, if the log grew: one transaction for any number of records.
pub async fn keep_anchored(
    store: Store,
    chain: Arc<JsonRpcChain>,
    contract: Address,
    every: Duration,
    cancel: CancellationToken,
) {
    let mut due = tokio::time::interval(every);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut anchored = 0;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = due.tick() => {}
        }
        let of = store.clone();
        let newest = match tokio::task::spawn_blocking(move || of.newest_checkpoint()).await {
            Ok(Ok(newest)) => newest,
            Ok(Err(fault)) => {
                tracing::error!(%fault, "the log is not anchored");
                continue;
            }
            Err(_) => return,
        };
        let Some(note) = newest.filter(|note| note.checkpoint().size > anchored) else { continue };
        let it = note.checkpoint();
        match chain.anchor(contract, &it.origin, it.size, B256::new(it.root)).await {
            Ok(mined) => {
                anchored = it.size;
                tracing::info!(records = it.size, transaction = %mined.transaction, "the log is anchored");
            }
            Err(fault) => tracing::error!(%fault, records = it.size, "the log is not anchored; someone must act"),
        }
    }
}

/// The operators' words on the keys that signed this store's log, newest last.
///
/// # Errors
/// [`StoreFault`] if they cannot be read.
pub fn certificates(store: &Store) -> Result<Vec<LogCertificate>, StoreFault> {
    let Some(bytes) = store.meta(CERTIFICATES)? else { return Ok(Vec::new()) };
    serde_json::from_slice(&bytes).map_err(|error| StoreFault::damaged_meta(CERTIFICATES, &error.to_string()))
}

fn read(path: &Path) -> Result<Option<SignedCheckpoint>, LogFault> {
    let fault = |problem: String| LogFault::Published { path: path.to_owned(), problem };
    let bytes = match read_at_most(path, NOTE_BYTES_MAX as u64) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| fault(error.to_string()))?,
    };
    SignedCheckpoint::parse(&bytes).map(Some).map_err(|error| fault(error.to_string()))
}
