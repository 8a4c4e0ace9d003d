//! Prometheus metrics, made when they are asked for.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use tribunal_events::{Address, Timestamp};

use super::HttpState;
use crate::{
    accounts::MediatorRecord,
    equivocation::{self, Outcome},
    market::{Counts, Market, book::Stage},
    moment,
    policy::REJECTION_CODE,
    store::{Store, StoreFault},
};

/// Refused messages that are looked at to count their reasons, at most; older ones count as `older`.
const REFUSED_READ_MAX: u64 = 10_000;

/// What would take long to count anew each time.
#[derive(Default)]
pub(super) struct Cache(Mutex<Counted>);

#[derive(Clone, Default)]
struct Counted {
    refused: u64,
    refused_by: BTreeMap<String, u64>,
    /// Log position at which the deals were counted.
    position: u64,
    open: u64,
    settled: u64,
    /// Equivocations of keys that judge here, as of this position and so many refusals: a vote that was refused counts, too.
    own_equivocations: u64,
    equivocations_at: Option<(u64, u64)>,
}

impl Cache {
    fn count(&self, store: &Store, judges: &[Address]) -> Result<Counted, StoreFault> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = store.refused_count()?;
        let new = refused.saturating_sub(counted.refused);
        let looked_at = new.min(REFUSED_READ_MAX);
        for message in store.refused(usize::try_from(looked_at).unwrap_or(0))? {
            *counted.refused_by.entry(message.reason_code).or_default() += 1;
        }
        if new > looked_at {
            *counted.refused_by.entry("older".into()).or_default() += new - looked_at;
        }
        counted.refused = refused;
        let position = store.last_position();
        if position != counted.position {
            (counted.open, counted.settled) = (0, 0);
            for entry in store.deals() {
                if entry?.1.open { counted.open += 1 } else { counted.settled += 1 }
            }
            counted.position = position;
        }
        if counted.equivocations_at != Some((position, refused)) {
            let found = equivocation::found(store)?;
            let own =
                found.iter().filter(|it| it.outcome == Some(Outcome::OwnKey) || judges.contains(&it.first.mediator));
            counted.own_equivocations = own.count() as u64;
            // What the contract was not told yet is looked at again: its outcome is no record of the log.
            counted.equivocations_at = found.iter().all(|it| it.outcome.is_some()).then_some((position, refused));
        }
        Ok(counted.clone())
    }
}

pub(super) async fn metrics(State(state): State<HttpState>) -> Response {
    let shared = std::sync::Arc::clone(&state.0);
    let counted = state.read(move |store| shared.metrics.count(store, &shared.mediators)).await;
    let last = tokio::time::timeout(Duration::from_secs(1), state.0.bus.last()).await;
    let mut text = Text::default();
    let position = state.store().last_position();
    text.metric("tribunal_events_recorded_total", "counter", "Events in the log.", &[("", position)]);
    text.metric("tribunal_log_position", "gauge", "Position of the last record.", &[("", position)]);
    let activity = state.0.activity.as_ref();
    let signed = activity.signed.load(Ordering::Relaxed);
    text.metric("tribunal_log_signed_position", "gauge", "Records covered by the newest checkpoint.", &[("", signed)]);
    let help = "Whether the log cannot be signed: it contradicts what was signed before.";
    let unsigned = u64::from(activity.unsigned.load(Ordering::Relaxed));
    text.metric("tribunal_log_unsigned", "gauge", help, &[("", unsigned)]);
    if let Ok(counted) = counted {
        let labelled = |name: &str, value: &str| format!("{name}=\"{}\"", escape(value));
        let refused: Vec<_> = counted.refused_by.iter().map(|(code, n)| (labelled("reason", code), *n)).collect();
        text.metric("tribunal_events_refused_total", "counter", "Messages not admitted, by reason.", &refused);
        let unwanted = counted.refused_by.get(REJECTION_CODE).copied().unwrap_or_default();
        let help = "Proposals refused because a mediator run here would not judge them.";
        text.metric("tribunal_policy_refused_total", "counter", help, &[("", unwanted)]);
        let deals = [("state=\"open\"", counted.open), ("state=\"settled\"", counted.settled)];
        text.metric("tribunal_deals", "gauge", "Deals that may still move, and that are over.", &deals);
        let help = "Rounds in which a key that judges here signed two different verdicts.";
        text.metric("tribunal_own_key_equivocations", "gauge", help, &[("", counted.own_equivocations)]);
    }
    let judges = state.0.mediators.clone();
    let books = state.accounts(move |accounts| {
        judges.iter().map(|mediator| accounts.record(*mediator, Timestamp::default())).collect::<Vec<_>>()
    });
    if let Ok(books) = books.await {
        mediators(&mut text, &books);
    }
    desks(&mut text, &state).await;
    markets(&mut text, &state.0.markets);
    let activity = &state.0.activity;
    let effects = activity.effects.load(Ordering::SeqCst) + activity.waiting.load(Ordering::SeqCst);
    text.metric("tribunal_outbox_effects", "gauge", "Effects that are not done yet.", &[("", effects as u64)]);
    let waiting = activity.waiting.load(Ordering::SeqCst) as u64;
    text.metric(
        "tribunal_outbox_waiting_effects",
        "gauge",
        "Of these, failed and to be tried again.",
        &[("", waiting)],
    );
    let chain = &activity.chain;
    let read = |count: &std::sync::atomic::AtomicU64| [("", count.load(Ordering::Relaxed))];
    let help = "The last block of the chain whose events of our contracts are known; 0 where none is followed.";
    text.metric("tribunal_chain_followed_block", "gauge", help, &read(&chain.block));
    let help = "Recorded steps that a reorganisation of the chain undid; each is taken again.";
    text.metric("tribunal_chain_steps_undone_total", "counter", help, &read(&chain.undone));
    let help = "Times that our contracts could not be followed for a while.";
    text.metric("tribunal_chain_faults_total", "counter", help, &read(&chain.faults));
    if let Ok(Ok(last)) = last {
        let lag = last.saturating_sub(activity.sequence.load(Ordering::SeqCst));
        text.metric(
            "tribunal_bus_lag_messages",
            "gauge",
            "Messages on the bus that are not recorded yet.",
            &[("", lag)],
        );
    }
    bus(&mut text, &state);
    let ready = u64::from((state.0.ready)());
    text.metric("tribunal_ready", "gauge", "Whether events are read and written.", &[("", ready)]);
    let counts = state.reporter().counts();
    let verdicts: Vec<_> = ["valid", "invalid", "inconclusive"]
        .iter()
        .zip(&counts.verdicts)
        .map(|(word, count)| (format!("verdict=\"{word}\""), count.load(Ordering::Relaxed)))
        .collect();
    text.metric("tribunal_verifications_total", "counter", "Verification requests answered.", &verdicts);
    let failed = [
        ("reason=\"bad-request\"", counts.bad_requests.load(Ordering::Relaxed)),
        ("reason=\"busy\"", counts.busy.load(Ordering::Relaxed)),
    ];
    text.metric("tribunal_verifications_refused_total", "counter", "Verification requests turned away.", &failed);
    work(&mut text, &state);
    let answers: Vec<_> = state
        .0
        .answers
        .iter()
        .enumerate()
        .map(|(class, count)| (format!("class=\"{}xx\"", class + 1), count.load(Ordering::Relaxed)))
        .collect();
    text.metric("tribunal_http_answers_total", "counter", "HTTP answers by class of status.", &answers);
    let streams = (super::STREAMS_MAX - state.0.streams.available_permits()) as u64;
    text.metric("tribunal_http_streams", "gauge", "Open streams of events.", &[("", streams)]);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0).into_response()
}

/// How the bus stands, and what happened to it since the start.
fn bus(text: &mut Text, state: &HttpState) {
    let (bus, activity) = (&state.0.bus, &state.0.activity);
    let connected = u64::from(bus.connected());
    text.metric("tribunal_bus_connected", "gauge", "Whether the bus can be reached.", &[("", connected)]);
    let counts = bus.counts();
    let read = |count: &std::sync::atomic::AtomicU64| [("", count.load(Ordering::Relaxed))];
    let reconnects = counts.connections.load(Ordering::Relaxed).saturating_sub(1);
    text.metric(
        "tribunal_bus_reconnects_total",
        "counter",
        "Times that a connection was made anew.",
        &[("", reconnects)],
    );
    let help = "Consumers that the broker lost, or that lost a message on the way; made anew after what was read.";
    text.metric("tribunal_bus_consumers_lost_total", "counter", help, &read(&counts.consumers_lost));
    let help = "Times that the stream was another one than was read before, and was read from its beginning.";
    text.metric("tribunal_bus_restarts_total", "counter", help, &read(&counts.restarts));
    let help = "Messages that were removed from the stream before they were read.";
    text.metric("tribunal_bus_lost_messages_total", "counter", help, &read(&counts.lost));
    let help = "Messages taken from the bus that are on their way to the record.";
    let in_flight = activity.jobs.load(Ordering::SeqCst) as u64;
    text.metric("tribunal_bus_in_flight_messages", "gauge", help, &[("", in_flight)]);
    let help = "Messages whose event was recorded before: asked again by their sender, or read again from the bus.";
    text.metric("tribunal_bus_redeliveries_total", "counter", help, &read(&activity.duplicates));
    let help = "Whether nothing is recorded because the bus's clock is more than a minute ahead of this machine's.";
    let differ = u64::from(activity.clocks_differ.load(Ordering::Relaxed));
    text.metric("tribunal_bus_clocks_differ", "gauge", help, &[("", differ)]);
}

/// What became of work for other machines; without samples where there is no queue.
fn work(text: &mut Text, state: &HttpState) {
    let (mut became, mut waiting, mut forged) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(queue) = state.reporter().queue() {
        let counts = queue.counts();
        let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let (answered, failed) = (read(&counts.answered), read(&counts.failed));
        became = vec![("outcome=\"answered\"", answered), ("outcome=\"failed\"", failed)];
        waiting = vec![("", read(&counts.offered).saturating_sub(answered + failed))];
        forged = vec![("", read(&counts.forged))];
    }
    text.metric("tribunal_work_total", "counter", "Verifications given to the work queue, ended.", &became);
    text.metric("tribunal_work_waiting", "gauge", "Verifications that wait for a worker.", &waiting);
    let help = "Results that no listed worker signed; they count for nothing.";
    text.metric("tribunal_work_forged_total", "counter", help, &forged);
}

/// How the desks stand, and what happened there since the start.
async fn desks(text: &mut Text, state: &HttpState) {
    // All desks of a process share their counts.
    let Some(counts) = state.0.desks.first().map(|desk| Arc::clone(desk.counts())) else { return };
    let reader = state.clone();
    let cases = tokio::task::spawn_blocking(move || reader.cases()).await.unwrap_or_default();
    let mut stages = BTreeMap::<&str, u64>::new();
    for case in &cases {
        *stages.entry(case.stage.word()).or_default() += 1;
    }
    let stages: Vec<_> = stages.into_iter().map(|(stage, count)| (format!("stage=\"{stage}\""), count)).collect();
    let help = "Cases in which a mediator run here sits on the panel, by what they ask.";
    text.metric("tribunal_mediator_cases", "gauge", help, &stages);
    let now = crate::engine::now();
    let ours = cases.iter().filter(|case| case.stage.is_our_turn());
    let slack = ours.filter_map(|case| case.deadline).map(|at| at.s().saturating_sub(now.s())).min();
    let help = "Shortest time left of any case that asks something of a mediator run here; absent where none does.";
    let slack: Vec<_> = slack.into_iter().map(|slack| ("", slack)).collect();
    text.metric("tribunal_mediator_deadline_slack_seconds", "gauge", help, &slack);
    let waiting = state.0.desks.first().map_or(0, |desk| desk.waiting());
    text.metric("tribunal_mediator_waiting_cases", "gauge", "Cases that wait for a worker.", &[("", waiting)]);
    let faults = counts.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // The sum is there from the start: a reason's own count begins at 1, of which increase() sees nothing.
    let any = ("reason=\"any\"".to_owned(), faults.values().sum());
    let each = faults.iter().map(|(code, count)| (format!("reason=\"{}\"", escape(code)), *count));
    let faults: Vec<_> = std::iter::once(any).chain(each).collect();
    let help = "Faults of this machine while it judged, by reason; \"any\" is all of them.";
    text.metric("tribunal_mediator_faults_total", "counter", help, &faults);
    let read = |count: &std::sync::atomic::AtomicU64| [("", count.load(Ordering::Relaxed))];
    let help = "Rounds in which nothing is signed because something else was, or may have been.";
    text.metric("tribunal_mediator_signing_refused_total", "counter", help, &read(&counts.signing_refused));
    let help = "Records of others that are not followed any more.";
    text.metric("tribunal_mediator_following_stopped_total", "counter", help, &read(&counts.following_stopped));
    let help = "Cases whose time to vote was over before anything was said.";
    text.metric("tribunal_mediator_deadlines_missed_total", "counter", help, &read(&counts.deadlines_missed));
    let help = "Cases given up early because there was no time left for them.";
    text.metric("tribunal_mediator_given_up_total", "counter", help, &read(&counts.given_up));
    let help = "Cases that name a mediator run here, disputed on the chain and not in the record.";
    text.metric("tribunal_mediator_chain_only_disputes", "gauge", help, &read(&counts.only_on_chain));
    let help = "Alarms about finished cases of others, where mediator.watch is on.";
    text.metric("tribunal_mediator_divergences_total", "counter", help, &read(&counts.divergences));
}

/// Marketplaces that are judged for.
fn markets(text: &mut Text, markets: &[Arc<Market>]) {
    let mut cases = Vec::new();
    for market in markets {
        let stages = market.stages();
        cases.extend(Stage::ALL.map(|stage| {
            let labels = format!("market=\"{}\",stage=\"{}\"", market.name(), stage.word());
            (labels, stages.get(&stage).copied().unwrap_or_default())
        }));
    }
    text.metric("tribunal_market_cases", "gauge", "Cases of marketplaces, by how they stand.", &cases);
    let each = |value: fn(&Counts) -> u64| -> Vec<_> {
        markets.iter().map(|it| (format!("market=\"{}\"", it.name()), value(it.counts()))).collect()
    };
    let help = "Faults of node, journal and signer.";
    text.metric("tribunal_market_faults_total", "counter", help, &each(|it| it.faults.load(Ordering::Relaxed)));
    let help = "Reorganisations that took something back.";
    let count = each(|it| it.reorganisations.load(Ordering::Relaxed));
    text.metric("tribunal_market_reorganisations_total", "counter", help, &count);
    let help = "Verifications for marketplaces.";
    text.metric(
        "tribunal_market_verifications_total",
        "counter",
        help,
        &each(|it| it.verified.load(Ordering::Relaxed)),
    );
    let help = "Answers sent to marketplaces.";
    text.metric("tribunal_market_answers_total", "counter", help, &each(|it| it.sent.load(Ordering::Relaxed)));
    let help = "The last block that was read.";
    text.metric("tribunal_market_block", "gauge", help, &each(|it| it.block.load(Ordering::Relaxed)));
    let help = "Whether a marketplace's chain is read to its head.";
    let count = each(|it| it.caught_up.load(Ordering::Relaxed).into());
    text.metric("tribunal_market_caught_up", "gauge", help, &count);
}

/// What the mediators run here did, as the log tells it.
fn mediators(text: &mut Text, books: &[MediatorRecord]) {
    let each = |value: fn(&MediatorRecord) -> usize| -> Vec<_> {
        books.iter().map(|book| (format!("mediator=\"{}\"", book.mediator), value(book))).collect()
    };
    let help = "Cases of a mediator run here that are not decided.";
    text.metric("tribunal_mediator_cases_open", "gauge", help, &each(|book| book.open));
    let help = "Votes given or revealed in time.";
    text.metric("tribunal_mediator_votes_total", "counter", help, &each(|book| book.voted));
    let help = "Votes that agreed with the outcome.";
    text.metric("tribunal_mediator_agreed_total", "counter", help, &each(|book| book.agreed));
    let help = "Votes against the outcome.";
    text.metric("tribunal_mediator_disagreed_total", "counter", help, &each(|book| book.disagreed));
    let help = "Inconclusive votes.";
    text.metric("tribunal_mediator_inconclusive_total", "counter", help, &each(|book| book.inconclusive));
    let help = "Cases without a vote in time.";
    text.metric("tribunal_mediator_silences_total", "counter", help, &each(|book| book.silent));
    let earned: Vec<_> = books
        .iter()
        .flat_map(|book| {
            book.earned
                .iter()
                .map(|(token, earned)| (format!("mediator=\"{}\",token=\"{}\"", book.mediator, escape(token)), *earned))
        })
        .collect();
    text.metric("tribunal_mediator_earned_base_units_total", "counter", "Fees paid, by token.", &earned);
    let slashed: Vec<_> = books.iter().map(|book| (format!("mediator=\"{}\"", book.mediator), book.slashed)).collect();
    let help = "What silence cost at most.";
    text.metric("tribunal_mediator_slashed_base_units_total", "counter", help, &slashed);
    let last: Vec<_> = books
        .iter()
        .map(|book| {
            let at = book.last_vote_at.as_deref().and_then(moment::parse);
            (format!("mediator=\"{}\"", book.mediator), at.map_or(0, |at| at.s()))
        })
        .collect();
    let help = "Unix time of the last vote, 0 before the first.";
    text.metric("tribunal_mediator_last_vote_timestamp_seconds", "gauge", help, &last);
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn metric<L: AsRef<str>, V: Display>(&mut self, name: &str, kind: &str, help: &str, samples: &[(L, V)]) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = match labels.as_ref() {
                "" => writeln!(self.0, "{name} {value}"),
                labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
            };
        }
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
