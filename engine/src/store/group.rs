use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rocksdb::DB;

use super::mark::{Mark, MarkFile};

/// Writes wait this long at most for their sync.
const INTERVAL: Duration = Duration::from_millis(20);

#[derive(Default)]
struct State {
    /// How far was written what is not synced yet.
    dirty: Option<Mark>,
    stop: bool,
}

/// A thread that syncs the write-ahead log soon after a write; joined when dropped, after a last sync.
pub(super) struct GroupSync {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl GroupSync {
    pub(super) fn start(db: Arc<DB>, poisoned: Arc<AtomicBool>, mark: Arc<MarkFile>) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let ours = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("store-sync".into()).spawn(move || run(&ours, &db, &poisoned, &mark))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Something was written that is not synced yet.
    pub(super) fn written(&self, mark: Mark) {
        let (state, changed) = &*self.shared;
        state.lock().unwrap_or_else(PoisonError::into_inner).dirty = Some(mark);
        changed.notify_one();
    }
}

fn run(shared: &(Mutex<State>, Condvar), db: &DB, poisoned: &AtomicBool, file: &MarkFile) {
    let (state, changed) = shared;
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let held = changed.wait_while(lock(), |state| state.dirty.is_none() && !state.stop);
        let held = held.unwrap_or_else(PoisonError::into_inner);
        let held = changed.wait_timeout_while(held, INTERVAL, |state| !state.stop);
        let mut held = held.unwrap_or_else(PoisonError::into_inner).0;
        let (dirty, stop) = (std::mem::take(&mut held.dirty), held.stop);
        drop(held);
        if let Some(mark) = dirty {
            if let Err(error) = db.flush_wal(true) {
                poisoned.store(true, Ordering::Release);
                tracing::error!(%error, "the store failed to sync and stops");
                return;
            }
            if let Err(error) = file.set(mark) {
                tracing::warn!(%error, "the store's mark could not be written");
            }
        }
        if stop {
            return;
        }
    }
}

impl Drop for GroupSync {
    fn drop(&mut self) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.1.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
