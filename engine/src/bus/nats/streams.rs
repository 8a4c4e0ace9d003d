//! The streams that the engine needs, made where they are missing and looked at where they are there.

use std::time::Duration;

use async_nats::jetstream::{
    context::CreateStreamErrorKind,
    stream::{self, RetentionPolicy, StorageType},
};

use super::{NatsBus, without_credentials};
use crate::bus::{BusFault, BusPartition, DUPLICATE_WINDOW, FENCES, RECEIPTS, REFUSED, RESULTS, SLOTS, VERDICTS, WORK};

/// Heads of logs that are kept for each of them.
const FENCES_KEPT: i64 = 64;
/// Finished work is kept so long: who asked and was away finds it.
const RESULTS_KEPT: Duration = Duration::from_secs(3600);
/// Work that nobody takes is forgotten after so long: who asked has gone by then.
const WORK_KEPT: Duration = Duration::from_secs(3600);
/// Bytes of work that wait at most; more is turned away.
const WORK_BYTES_MAX: i64 = 1 << 30;

impl NatsBus {
    /// Subjects of a stream.
    fn subjects(name: &str, partition: Option<u32>) -> String {
        match (name, partition) {
            (VERDICTS, _) => "verdicts.>".into(),
            (RECEIPTS, _) => "receipts.>".into(),
            (REFUSED, _) => "refused.>".into(),
            (SLOTS, _) => "slots.>".into(),
            (FENCES, _) => "fences.>".into(),
            (WORK, _) => "work.>".into(),
            (RESULTS, _) => "results.>".into(),
            (_, Some(index)) => BusPartition::subjects(index),
            _ => "deals.>".into(),
        }
    }

    /// The stream of a partition's events.
    pub(super) async fn ensure_events(&self, index: Option<u32>) -> Result<stream::Stream, BusFault> {
        let base = &self.config.stream;
        let name = index.map_or_else(|| base.clone(), |index| BusPartition::stream(base, index));
        self.ensure(&name, index).await
    }

    /// One of the other streams.
    pub(super) async fn ensure_stream(&self, name: &str) -> Result<stream::Stream, BusFault> {
        self.ensure(name, None).await
    }

    async fn ensure(&self, name: &str, partition: Option<u32>) -> Result<stream::Stream, BusFault> {
        let requested = self.requested(name, partition);
        let stream = self.context.get_or_create_stream(requested.clone()).await.map_err(|error| {
            let (doing, what) = ("creating a stream", error.to_string());
            match error.kind() {
                CreateStreamErrorKind::TimedOut => BusFault::Timeout { doing, what },
                CreateStreamErrorKind::JetStreamUnavailable if !what.contains("temporarily") => {
                    BusFault::NoJetStream { url: without_credentials(&self.config.url), what }
                }
                // A cluster that is just starting, or has lost too many of its servers.
                _ if ["temporarily", "no suitable peers", "insufficient resources"]
                    .iter()
                    .any(|it| what.contains(it)) =>
                {
                    BusFault::Timeout { doing, what: format!("{name}: {what}") }
                }
                _ => BusFault::Refused { doing, what: format!("{name}: {what}") },
            }
        })?;
        check(name, &requested, &stream.cached_info().config)?;
        Ok(stream)
    }

    fn requested(&self, name: &str, partition: Option<u32>) -> stream::Config {
        let lasting = stream::Config {
            name: name.into(),
            subjects: vec![Self::subjects(name, partition)],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            num_replicas: self.config.replicas.max(1),
            deny_delete: true,
            deny_purge: true,
            duplicate_window: DUPLICATE_WINDOW,
            ..Default::default()
        };
        match name {
            // A party finds its own receipt by its subject, and needs no right to look at others.
            RECEIPTS => stream::Config { allow_direct: true, ..lasting },
            FENCES => stream::Config { max_messages_per_subject: FENCES_KEPT, ..lasting },
            WORK => stream::Config {
                retention: RetentionPolicy::WorkQueue,
                max_age: WORK_KEPT,
                max_bytes: WORK_BYTES_MAX,
                discard: stream::DiscardPolicy::New,
                deny_delete: false,
                deny_purge: false,
                ..lasting
            },
            RESULTS => stream::Config { max_age: RESULTS_KEPT, deny_purge: false, ..lasting },
            _ => lasting,
        }
    }
}

/// Old servers drop silently what they do not know, and an existing stream keeps what it was made with.
fn check(name: &str, requested: &stream::Config, found: &stream::Config) -> Result<(), BusFault> {
    let lower = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let mut fields = vec![
        ("subjects", requested.subjects.join(", "), found.subjects.join(", ")),
        ("retention", lower(&requested.retention), lower(&found.retention)),
        ("storage", lower(&requested.storage), lower(&found.storage)),
        ("deny_delete", requested.deny_delete.to_string(), found.deny_delete.to_string()),
        ("deny_purge", requested.deny_purge.to_string(), found.deny_purge.to_string()),
        ("no_ack", "false".into(), found.no_ack.to_string()),
        ("sealed", "false".into(), found.sealed.to_string()),
        ("mirror", "false".into(), found.mirror.is_some().to_string()),
    ];
    // What is there for others to find must not push out what was there before.
    fields.push((
        "max_msgs_per_subject",
        limit(requested.max_messages_per_subject),
        limit(found.max_messages_per_subject),
    ));
    if name == RECEIPTS {
        fields.push(("allow_direct", "true".into(), found.allow_direct.to_string()));
    }
    // A claim holds for ever.
    if name == SLOTS {
        fields.push(("max_msgs", limit(0), limit(found.max_messages)));
        fields.push(("max_bytes", limit(0), limit(found.max_bytes)));
        fields.push(("max_age", "0ns".into(), lower(&found.max_age)));
    }
    // Messages of a size that we mean to look at and refuse by name are no business of the stream.
    if !super::STREAMS.contains(&name) {
        fields.push(("max_msg_size", limit(0), limit(i64::from(found.max_message_size))));
    }
    if found.num_replicas < requested.num_replicas {
        let (wanted, has) = (requested.num_replicas.to_string(), found.num_replicas.to_string());
        fields.push(("num_replicas", wanted, has));
    }
    match fields.into_iter().find(|(_, expected, found)| expected != found) {
        Some((field, expected, found)) => Err(BusFault::StreamConfig { stream: name.into(), field, expected, found }),
        None => Ok(()),
    }
}

/// Servers write "no limit" as -1 or 0.
fn limit(value: i64) -> String {
    if value <= 0 { "none".into() } else { value.to_string() }
}
