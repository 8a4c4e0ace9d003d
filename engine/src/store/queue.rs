//! Group commit: appends that come while another is being written wait together and share the next write, so that many
//! callers cost one sync. The first of them to find nobody writing writes for all.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use super::{Append, Record, Store, StoreFault, draft::Draft};

/// Appends that share a write at most, and about how many bytes of events.
const APPENDS_MAX: usize = 1024;
const BYTES_MAX: usize = 8 << 20;

type Outcome = Result<Vec<Record>, StoreFault>;

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next_ticket: u64,
    waiting: VecDeque<(u64, Append)>,
    /// Of callers that have not come for it yet.
    done: BTreeMap<u64, Outcome>,
    /// Whether somebody writes.
    led: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next appends to write together, in the order they came.
    fn group(&mut self) -> Vec<(u64, Append)> {
        let (mut count, mut bytes) = (0, 0);
        for (_, append) in self.waiting.iter().take(APPENDS_MAX) {
            let records = append.streams.iter().flat_map(|stream| &stream.records);
            bytes += records.map(|record| record.envelope.event().len()).sum::<usize>();
            if count > 0 && bytes > BYTES_MAX {
                break;
            }
            count += 1;
        }
        self.waiting.drain(..count).collect()
    }
}

/// Whoever writes for all; however that ends, the others go on.
struct Lead<'a>(&'a Store);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Appends that were taken have no outcome: what became of them is known once the store is opened again.
            self.0.0.poison();
        }
        let queue = &self.0.0.queue;
        queue.lock().led = false;
        queue.changed.notify_all();
    }
}

impl Store {
    /// Writes everything or nothing. Under [`Fsync::Always`](super::Fsync::Always) it is on the disk when this returns.
    /// Callers on other threads share a write; each append is decided on alone, in the order they came.
    ///
    /// # Errors
    /// [`StoreFault::Conflict`], [`StoreFault::Duplicate`] and [`StoreFault::CursorBack`]: nothing was written. Any fault
    /// of the write itself: unknown what was written, and the store is poisoned.
    pub fn append(&self, append: Append) -> Outcome {
        self.writable()?;
        let queue = &self.0.queue;
        let mut state = queue.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back((ticket, append));
        loop {
            if let Some(outcome) = state.done.remove(&ticket) {
                return outcome;
            }
            if state.led {
                state = queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.led = true;
            drop(state);
            let led = self.lead();
            state = queue.lock();
            if let Err(fault) = led {
                state.waiting.retain(|(other, _)| *other != ticket);
                return Err(fault);
            }
        }
    }

    /// Writes for all who wait.
    fn lead(&self) -> Result<(), StoreFault> {
        let _lead = Lead(self);
        let mut writer = self.writer()?;
        let group = self.0.queue.lock().group();
        let mut draft = Draft::new(self, &writer);
        let decided = group.into_iter().map(|(ticket, append)| (ticket, draft.take(append)));
        let mut outcomes: Vec<(u64, Outcome)> = decided.collect();
        if let Err(fault) = draft.write(&mut writer) {
            // A refusal may rest on what was not written, so nobody is told one.
            let text = fault.to_string();
            for (_, outcome) in &mut outcomes {
                *outcome = Err(StoreFault::io("writing together with others", text.clone()));
            }
            if let Some((_, first)) = outcomes.first_mut() {
                *first = Err(fault);
            }
        }
        self.0.queue.lock().done.extend(outcomes);
        Ok(())
    }
}
