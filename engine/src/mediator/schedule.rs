//! Shares the machine among cases: those that pay first, then the earliest deadline, and never all of it for long ones.
//!
//! **Invariant:** a case that takes long leaves at least one worker to the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;
use tribunal_events::Timestamp;

/// Workers, and who waits for one.
#[derive(Debug)]
pub struct Schedule {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Workers that long cases may still take.
    free_long: usize,
    waiting: BTreeMap<(Urgency, u64), (bool, oneshot::Sender<Turn>)>,
    number: u64,
}

/// Who goes first: cases that pay before those that do not, then the earliest deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    /// Nobody pays for it: no contract that is served here holds its money.
    pub unpaid: bool,
    /// Until when it must be done.
    pub deadline: Timestamp,
}

impl Urgency {
    /// Whatever is left.
    pub const LEAST: Self = Self { unpaid: true, deadline: Timestamp::from_us(u64::MAX) };
}

/// A worker taken; given back when dropped.
#[derive(Debug)]
pub struct Turn {
    schedule: Arc<Schedule>,
    long: bool,
}

impl Schedule {
    /// This many cases side by side, at least 2, all but one of which may be long.
    pub fn new(workers: usize) -> Arc<Self> {
        let workers = workers.max(2);
        let state = State { free: workers, free_long: workers - 1, waiting: BTreeMap::new(), number: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Waits for a worker. Whoever is most urgent gets the next one.
    pub async fn turn(self: &Arc<Self>, urgency: Urgency, long: bool) -> Turn {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state();
            let number = state.number;
            state.number += 1;
            state.waiting.insert((urgency, number), (long, sender));
            self.hand_out(&mut state);
        }
        receiver.await.expect("a schedule never forgets who waits")
    }

    /// Cases that wait.
    pub fn waiting(&self) -> usize {
        self.state().waiting.values().filter(|(_, sender)| !sender.is_closed()).count()
    }

    fn hand_out(self: &Arc<Self>, state: &mut State) {
        // Whoever gave up leaves the queue.
        state.waiting.retain(|_, (_, sender)| !sender.is_closed());
        while state.free > 0 {
            let long_too = state.free_long > 0;
            let next = state.waiting.iter().find(|(_, (long, _))| long_too || !long).map(|(key, _)| *key);
            let Some((long, sender)) = next.and_then(|key| state.waiting.remove(&key)) else { return };
            state.free -= 1;
            state.free_long -= usize::from(long);
            if let Err(mut turn) = sender.send(Turn { schedule: Arc::clone(self), long }) {
                // Gave up at this very moment; its drop would take the lock that is held here.
                turn.give_back(state);
                std::mem::forget(turn);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn give_back(&mut self, state: &mut State) {
        state.free += 1;
        state.free_long += usize::from(self.long);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let schedule = Arc::clone(&self.schedule);
        let mut state = schedule.state();
        self.give_back(&mut state);
        schedule.hand_out(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> Urgency {
        Urgency { unpaid: false, deadline: Timestamp::from_s(second) }
    }

    #[tokio::test]
    async fn the_earliest_deadline_is_served_first_and_long_cases_leave_a_worker() {
        let schedule = Schedule::new(2);
        let long = schedule.turn(at(1), true).await;
        let waits = |deadline, long| {
            let schedule = Arc::clone(&schedule);
            tokio::spawn(async move { schedule.turn(at(deadline), long).await })
        };
        let second_long = waits(2, true);
        while schedule.waiting() < 1 {
            tokio::task::yield_now().await;
        }
        // A short one with a later deadline passes the long one that must wait.
        let short = schedule.turn(at(9), false).await;
        let (late, early) = (waits(8, false), waits(7, false));
        while schedule.waiting() < 3 {
            tokio::task::yield_now().await;
        }
        drop(short);
        let early = early.await.unwrap();
        assert!(!late.is_finished() && !second_long.is_finished());
        drop(early);
        drop(late.await.unwrap());
        drop(long);
        drop(second_long.await.unwrap());
        assert_eq!(schedule.waiting(), 0);
    }

    #[tokio::test]
    async fn whoever_gives_up_takes_no_worker() {
        let schedule = Schedule::new(2);
        let taken = (schedule.turn(at(1), false).await, schedule.turn(at(1), false).await);
        let gave_up = tokio::time::timeout(Duration::from_millis(1), schedule.turn(at(1), false)).await;
        assert!(gave_up.is_err());
        drop(taken);
        let _both = (schedule.turn(at(2), false).await, schedule.turn(at(2), false).await);
    }
}
