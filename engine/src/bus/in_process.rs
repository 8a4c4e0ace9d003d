use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use prost::bytes::Bytes;
use tokio::{
    sync::{Notify, broadcast},
    time::Instant,
};
use tribunal_events::Timestamp;

use super::{
    BatchLimits, Bus, BusFault, ConsumeStart, Consumer, Cursor, DEALS, DUPLICATE_WINDOW, FENCES, HEADER_RECORDED_AT,
    Message, Notice, Outgoing, RECEIPTS, REFUSED, VERDICTS,
    message::{self, message_hash},
    subject,
};

/// How much an in-process bus holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InProcessLimits {
    /// Events that were published and not consumed yet; publishing waits beyond it.
    pub backlog_max: usize,
    /// Messages that each stream keeps; the oldest go first, events only once consumed.
    pub retained_max: usize,
    /// Bytes of a payload, as a broker's `max_payload`.
    pub payload_bytes_max: usize,
}

impl Default for InProcessLimits {
    /// 65,536 events, 262,144 messages, 1 MiB.
    fn default() -> Self {
        Self { backlog_max: 1 << 16, retained_max: 1 << 18, payload_bytes_max: 1 << 20 }
    }
}

/// A bus within this process, in memory; gone with it.
#[derive(Clone)]
pub struct InProcessBus(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// What holds each slot.
    claims: Mutex<BTreeMap<String, Bytes>>,
    /// An event was published.
    published: Notify,
    /// Events were consumed.
    consumed: Notify,
    notices: broadcast::Sender<Notice>,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    limits: InProcessLimits,
    created_us: u64,
}

struct State {
    streams: [Stream; 5],
    /// Sequence of the last event consumed.
    consumed: u64,
}

struct Stream {
    name: &'static str,
    filter: &'static str,
    first: u64,
    messages: VecDeque<Message>,
    by_subject: BTreeMap<String, u64>,
    by_id: BTreeMap<String, u64>,
    /// Ids by age, to forget them after [`DUPLICATE_WINDOW`].
    ids: VecDeque<(Timestamp, String)>,
}

impl Stream {
    fn new(name: &'static str, filter: &'static str) -> Self {
        let (messages, by_subject, by_id, ids) = Default::default();
        Self { name, filter, first: 1, messages, by_subject, by_id, ids }
    }

    fn last(&self) -> u64 {
        self.first + self.messages.len() as u64 - 1
    }

    fn get(&self, sequence: u64) -> Option<&Message> {
        self.messages.get(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }

    fn forget_ids(&mut self, now: Timestamp) {
        let window_us = DUPLICATE_WINDOW.as_micros() as u64;
        while let Some((_, id)) = self.ids.pop_front_if(|(at, _)| now.us().saturating_sub(at.us()) > window_us) {
            self.by_id.remove(&id);
        }
    }

    fn trim(&mut self, retained_max: usize, consumed: u64) {
        while self.messages.len() > retained_max && self.first <= consumed {
            let Some(message) = self.messages.pop_front() else { break };
            if self.by_subject.get(&message.subject) == Some(&message.stream_sequence) {
                self.by_subject.remove(&message.subject);
            }
            self.first += 1;
        }
    }
}

impl InProcessBus {
    /// An empty bus whose time is `clock`'s.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static, limits: InProcessLimits) -> Self {
        let streams = [
            (DEALS, "deals.>"),
            (VERDICTS, "verdicts.>"),
            (RECEIPTS, "receipts.>"),
            (REFUSED, "refused.>"),
            (FENCES, "fences.>"),
        ];
        let state = State { streams: streams.map(|(name, filter)| Stream::new(name, filter)), consumed: 0 };
        let created_us = clock().us();
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            claims: Mutex::default(),
            published: Notify::new(),
            consumed: Notify::new(),
            notices: broadcast::channel(4096).0,
            clock: Box::new(clock),
            limits,
            created_us,
        }))
    }

    async fn publish_message(&self, out: Outgoing) -> Result<u64, BusFault> {
        let shared = &*self.0;
        if !subject::is_publishable(&out.subject) {
            return Err(BusFault::Subject(out.subject));
        }
        if out.payload.len() > shared.limits.payload_bytes_max {
            let (bytes, bytes_max) = (out.payload.len(), shared.limits.payload_bytes_max);
            return Err(BusFault::Oversized { bytes, bytes_max });
        }
        loop {
            let room = shared.consumed.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Some(result) = shared.try_publish(&out, None) {
                return result;
            }
            room.await;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, subject: &str, bytes: Bytes) -> Result<Bytes, BusFault> {
        if !subject::is_publishable(subject) {
            return Err(BusFault::Subject(subject.into()));
        }
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(claims.entry(subject.to_owned()).or_insert(bytes).clone())
    }

    /// Nothing where the backlog is full, or another message than `after` is the last on this subject.
    fn try_publish(&self, out: &Outgoing, after: Option<u64>) -> Option<Result<u64, BusFault>> {
        let now = (self.clock)();
        let mut state = self.state();
        let consumed = state.consumed;
        let Some(stream) = state.streams.iter_mut().find(|stream| subject::matches(stream.filter, &out.subject)) else {
            return Some(Err(BusFault::NoStream(out.subject.clone())));
        };
        if after.is_some_and(|after| stream.by_subject.get(&out.subject).copied().unwrap_or(0) != after) {
            return None;
        }
        stream.forget_ids(now);
        if let Some(id) = &out.message_id
            && let Some(sequence) = stream.by_id.get(id)
        {
            return Some(Ok(*sequence));
        }
        let events = stream.name == DEALS;
        let sequence = stream.last() + 1;
        if events && sequence.saturating_sub(consumed) > self.limits.backlog_max as u64 {
            return None;
        }
        let recorded_at = out.headers.iter().find(|(name, _)| name == HEADER_RECORDED_AT);
        stream.messages.push_back(Message {
            stream_sequence: sequence,
            subject: out.subject.clone(),
            payload: out.payload.clone(),
            at: now,
            recorded_at: message::recorded_at(recorded_at.map(|(_, value)| value.as_str())),
            message_id: out.message_id.clone(),
            stream_created_us: self.created_us,
            incarnation: 0,
        });
        stream.by_subject.insert(out.subject.clone(), sequence);
        if let Some(id) = &out.message_id {
            stream.by_id.insert(id.clone(), sequence);
            stream.ids.push_back((now, id.clone()));
        }
        stream.trim(self.limits.retained_max, if events { consumed } else { u64::MAX });
        drop(state);
        if events {
            self.published.notify_waiters();
        }
        // Nobody watching is no fault.
        let _ = self.notices.send(Notice { subject: out.subject.clone(), payload: out.payload.clone() });
        Some(Ok(sequence))
    }

    /// Events after a sequence, as far as the limits allow.
    fn take(&self, after: u64, incarnation: u32, limits: &BatchLimits) -> Vec<Message> {
        let state = self.state();
        let stream = &state.streams[0];
        let from = (after + 1).max(stream.first);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for message in stream.messages.iter().skip((from - stream.first) as usize).take(limits.messages_max.max(1)) {
            bytes += message.payload.len();
            if bytes > limits.bytes_max && !taken.is_empty() {
                break;
            }
            taken.push(Message { incarnation, ..message.clone() });
        }
        taken
    }
}

impl Bus for InProcessBus {
    fn publish(&self, out: Outgoing) -> BoxFuture<'_, Result<u64, BusFault>> {
        self.publish_message(out).boxed()
    }

    fn consume(&self, after: Option<Cursor>) -> BoxFuture<'_, Result<Box<dyn Consumer>, BusFault>> {
        let shared = Arc::clone(&self.0);
        let (start, after, incarnation) = match after {
            None => (ConsumeStart::Fresh, 0, 0),
            Some(cursor) => {
                let state = shared.state();
                let reason = if cursor.stream_created_us != shared.created_us {
                    Some("the in-process bus is another one: it starts empty with each process")
                } else if cursor.sequence > state.streams[0].last() {
                    Some("the stream ends before the cursor")
                } else if state.streams[0]
                    .get(cursor.sequence)
                    .is_some_and(|message| message_hash(&message.subject, &message.payload) != cursor.message_hash)
                {
                    Some("the message at the cursor is another one")
                } else {
                    None
                };
                match reason {
                    None => (ConsumeStart::Resumed { after: cursor.sequence }, cursor.sequence, cursor.incarnation),
                    Some(reason) => {
                        let incarnation = cursor.incarnation.saturating_add(1);
                        tracing::info!(reason, incarnation, "the bus is read from its beginning");
                        (ConsumeStart::Restarted { reason: reason.into(), incarnation }, 0, incarnation)
                    }
                }
            }
        };
        let consumer: Box<dyn Consumer> = Box::new(InProcessConsumer { shared, after, incarnation, start });
        std::future::ready(Ok(consumer)).boxed()
    }

    fn last(&self) -> BoxFuture<'_, Result<u64, BusFault>> {
        let last = self.0.state().streams[0].last();
        std::future::ready(Ok(last)).boxed()
    }

    fn find<'a>(&'a self, stream: &'a str, subject: &'a str) -> BoxFuture<'a, Result<Option<Message>, BusFault>> {
        let state = self.0.state();
        let stream = state.streams.iter().find(|candidate| candidate.name == stream);
        let found = stream.and_then(|stream| stream.get(*stream.by_subject.get(subject)?)).cloned();
        std::future::ready(Ok(found)).boxed()
    }

    fn claim<'a>(
        &'a self,
        subject: &'a str,
        bytes: Bytes,
        _valid: &'a (dyn Fn(&[u8]) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<Bytes, BusFault>> {
        // Nothing gets in but by this very call, from this process.
        let claimed = self.0.claim(subject, bytes);
        std::future::ready(claimed).boxed()
    }

    fn publish_after<'a>(
        &'a self,
        _stream: &'a str,
        subject: &'a str,
        after: u64,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Option<u64>, BusFault>> {
        let taken = self.0.try_publish(&Outgoing::new(subject, bytes), Some(after)).transpose();
        std::future::ready(taken).boxed()
    }

    fn watch<'a>(&'a self, filter: &'a str) -> BoxFuture<'a, Result<BoxStream<'static, Notice>, BusFault>> {
        let (notices, filter) = (self.0.notices.subscribe(), filter.to_owned());
        let watched = futures::stream::unfold((notices, filter), |(mut notices, filter)| async move {
            loop {
                match notices.recv().await {
                    Ok(notice) if subject::matches(&filter, &notice.subject) => {
                        return Some((notice, (notices, filter)));
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, filter, "a watcher of the bus was too slow");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        std::future::ready(Ok(watched.boxed())).boxed()
    }

    fn describe(&self) -> String {
        "in process".into()
    }

    fn stream(&self) -> &str {
        DEALS
    }

    fn connected(&self) -> bool {
        true
    }
}

struct InProcessConsumer {
    shared: Arc<Shared>,
    after: u64,
    incarnation: u32,
    start: ConsumeStart,
}

impl InProcessConsumer {
    async fn batch(&mut self, limits: BatchLimits) -> Result<Vec<Message>, BusFault> {
        let mut until = None;
        loop {
            let published = self.shared.published.notified();
            tokio::pin!(published);
            published.as_mut().enable();
            let waiting = self.shared.state().streams[0].last().saturating_sub(self.after);
            if waiting == 0 {
                published.await;
                continue;
            }
            let now = Instant::now();
            let until = *until.get_or_insert(now + limits.linger);
            if waiting < limits.messages_max as u64 && now < until {
                let _ = tokio::time::timeout_at(until, published).await;
                continue;
            }
            // No await from here on: what is taken is handed out.
            let taken = self.shared.take(self.after, self.incarnation, &limits);
            self.after = taken.last().map_or(self.after, |message| message.stream_sequence);
            let mut state = self.shared.state();
            state.consumed = state.consumed.max(self.after);
            drop(state);
            self.shared.consumed.notify_waiters();
            return Ok(taken);
        }
    }
}

impl Consumer for InProcessConsumer {
    fn next_batch(&mut self, limits: BatchLimits) -> BoxFuture<'_, Result<Vec<Message>, BusFault>> {
        self.batch(limits).boxed()
    }

    fn start(&self) -> &ConsumeStart {
        &self.start
    }
}
