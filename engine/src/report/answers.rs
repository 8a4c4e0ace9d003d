//! Answers by request id: asked again, a request gets the answer that was given.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::OnceCell;
use tribunal_events::Digest;

use super::ReportFault;

/// Answers kept for their request ids at most.
const ANSWERS_MAX: usize = 1024;
/// Bytes of those answers at most.
const ANSWERS_BYTES_MAX: usize = 64 << 20;

pub(super) type Cell = Arc<OnceCell<Arc<Value>>>;

/// Answers by request id, the oldest forgotten first.
#[derive(Default)]
pub(super) struct Answers {
    by_id: BTreeMap<String, Answer>,
    order: VecDeque<String>,
    bytes: usize,
}

struct Answer {
    digest: Digest,
    cell: Cell,
    bytes: usize,
}

impl Answers {
    /// Where the answer to this request is, or will be.
    pub(super) fn cell(&mut self, id: &str, digest: Digest) -> Result<Cell, ReportFault> {
        if let Some(known) = self.by_id.get(id) {
            if known.digest != digest {
                return Err(ReportFault::RequestIdReused(id.to_owned()));
            }
            return Ok(Arc::clone(&known.cell));
        }
        let cell = Cell::default();
        self.by_id.insert(id.to_owned(), Answer { digest, cell: Arc::clone(&cell), bytes: 0 });
        self.order.push_back(id.to_owned());
        self.trim();
        Ok(cell)
    }

    /// Counts the bytes of an answer once it is known.
    pub(super) fn keep(&mut self, id: &str, cell: &Cell, answer: &Value) {
        if let Some(known) = self.by_id.get_mut(id)
            && Arc::ptr_eq(&known.cell, cell)
            && known.bytes == 0
        {
            known.bytes = answer.to_string().len();
            self.bytes += known.bytes;
            self.trim();
        }
    }

    fn trim(&mut self) {
        while self.order.len() > ANSWERS_MAX || (self.bytes > ANSWERS_BYTES_MAX && self.order.len() > 1) {
            let Some(oldest) = self.order.pop_front() else { return };
            let forgotten = self.by_id.remove(&oldest).map_or(0, |answer| answer.bytes);
            self.bytes -= forgotten;
        }
    }
}
