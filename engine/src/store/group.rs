use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rocksdb::DB;

/// Writes wait this long at most for their sync.
const INTERVAL: Duration = Duration::from_millis(20);

#[derive(Default)]
struct State {
    dirty: bool,
    stop: bool,
}

/// A thread that syncs the write-ahead log soon after a write; joined when dropped, after a last sync.
pub(super) struct GroupSync {
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl GroupSync {
    pub(super) fn start(db: Arc<DB>, poisoned: Arc<AtomicBool>) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let ours = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("store-sync".into()).spawn(move || run(&ours, &db, &poisoned))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Something was written that is not synced yet.
    pub(super) fn written(&self) {
        let (state, changed) = &*self.shared;
        state.lock().unwrap_or_else(PoisonError::into_inner).dirty = true;
        changed.notify_one();
    }
}

fn run(shared: &(Mutex<State>, Condvar), db: &DB, poisoned: &AtomicBool) {
    let (state, changed) = shared;
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let held = changed.wait_while(lock(), |state| !state.dirty && !state.stop);
        let held = held.unwrap_or_else(PoisonError::into_inner);
        let held = changed.wait_timeout_while(held, INTERVAL, |state| !state.stop);
        let mut held = held.unwrap_or_else(PoisonError::into_inner).0;
        let (dirty, stop) = (std::mem::take(&mut held.dirty), held.stop);
        drop(held);
        if dirty && let Err(error) = db.flush_wal(true) {
            poisoned.store(true, Ordering::Release);
            tracing::error!(%error, "the store failed to sync and stops");
            return;
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
