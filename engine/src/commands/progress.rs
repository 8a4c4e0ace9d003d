use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for what takes long: nothing is drawn before a second has passed.
pub(super) struct Progress {
    start: Instant,
    template: &'static str,
    bar: Mutex<Option<ProgressBar>>,
}

impl Progress {
    /// `template` is indicatif's.
    pub(super) fn new(template: &'static str) -> Self {
        Self { start: Instant::now(), template, bar: Mutex::new(None) }
    }

    pub(super) fn tell(&self, done: u64, total: u64) {
        if self.start.elapsed() < Duration::from_secs(1) {
            return;
        }
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(self.template);
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_length(total);
        bar.set_position(done);
    }

    pub(super) fn end(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}
