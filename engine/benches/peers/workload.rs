//! What every peer is asked to do.

use std::{
    collections::BTreeSet,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub const STREAMS: usize = 10_000;
/// What an append carries.
pub const PAYLOAD_BYTES: usize = 512;
/// One append in so many expects an older head than there is, as one who read too early does.
const CONFLICT_EVERY: u64 = 20;
/// Appends a client has ready at most; more than any peer does in a run.
const PREPARED_MAX: usize = 60_000;

/// A durable store of streams behind a socket.
pub trait Peer: Sync {
    fn name(&self) -> &str;
    /// A connection of its own.
    fn connect(&self) -> Box<dyn Client>;
    /// Reads the whole log on from a position.
    fn subscribe(&self) -> Box<dyn Subscriber>;
    /// Events in the log.
    fn kept(&self) -> u64;
}

pub trait Client: Send {
    /// What [`Client::append`] carries, made before the clock starts: [`PAYLOAD_BYTES`] that no other append has.
    fn payload(&self, _stream: usize, nonce: u128) -> Vec<u8> {
        let mut payload = nonce.to_be_bytes().to_vec();
        payload.resize(PAYLOAD_BYTES, 7);
        payload
    }

    /// Appends durably if the stream's head is `head`, 0 for a stream without events; the new head, nothing on a conflict.
    fn append(&mut self, stream: usize, head: u64, payload: &[u8]) -> Option<u64>;
}

pub trait Subscriber {
    /// The positions after `position` that are there now, in the order given; a bounded number.
    fn after(&mut self, position: u64) -> Vec<u64>;
}

/// Heads of a peer's streams, as its clients know them.
pub struct Streams {
    heads: Vec<u64>,
    appended: u64,
    runs: u64,
}

impl Streams {
    pub fn new() -> Self {
        Self { heads: vec![0; STREAMS], appended: 0, runs: 0 }
    }

    pub const fn appended(&self) -> u64 {
        self.appended
    }
}

pub struct Figures {
    rate: f64,
    pub conflicts: usize,
    /// Right appends that were refused, and wrong ones that were not.
    pub wrong: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

impl Figures {
    /// Appends a second.
    pub const fn rate(&self) -> f64 {
        self.rate
    }
}

#[derive(Default)]
struct Counts {
    latencies: Vec<Duration>,
    conflicts: usize,
    wrong: usize,
    spent: Duration,
}

/// So many clients, each one append after the other, for so long.
pub fn run(peer: &dyn Peer, streams: &mut Streams, clients: usize, spent: Duration) -> Figures {
    streams.runs += 1;
    let run = streams.runs;
    let ready = Barrier::new(clients);
    let counts: Vec<Counts> = thread::scope(|scope| {
        let share = STREAMS.div_ceil(clients);
        let threads: Vec<_> = streams
            .heads
            .chunks_mut(share)
            .enumerate()
            .map(|(client, heads)| {
                let ready = &ready;
                scope.spawn(move || write(peer, (run, client as u64), client * share, heads, ready, spent, clients))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
    });
    let mut latencies: Vec<_> = counts.iter().flat_map(|counts| counts.latencies.iter().copied()).collect();
    latencies.sort_unstable();
    streams.appended += latencies.len() as u64;
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    Figures {
        rate: counts.iter().map(|counts| counts.latencies.len() as f64 / counts.spent.as_secs_f64()).sum(),
        conflicts: counts.iter().map(|counts| counts.conflicts).sum(),
        wrong: counts.iter().map(|counts| counts.wrong).sum(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
    }
}

fn write(
    peer: &dyn Peer,
    (run, number): (u64, u64),
    first: usize,
    heads: &mut [u64],
    ready: &Barrier,
    limit: Duration,
    clients: usize,
) -> Counts {
    let mut client = peer.connect();
    let mut random = Random(run << 32 | number);
    // Streams that have events by the time an append is made: only they can have another head than expected.
    let mut begun: Vec<_> = (0..heads.len()).filter(|own| heads[*own] > 0).collect();
    let prepared: Vec<_> = (0..PREPARED_MAX.div_ceil(clients + 3))
        .map(|count| {
            let wrong = random.below(CONFLICT_EVERY) == 0 && !begun.is_empty();
            let own = match wrong {
                true => begun[random.below(begun.len() as u64) as usize],
                false => random.below(heads.len() as u64) as usize,
            };
            if !wrong {
                begun.push(own);
            }
            let nonce = u128::from(run) << 96 | u128::from(number) << 64 | count as u128;
            (own, wrong, client.payload(first + own, nonce))
        })
        .collect();
    let mut counts = Counts::default();
    ready.wait();
    let start = Instant::now();
    for (own, wrong, payload) in prepared {
        let sent = Instant::now();
        if sent - start >= limit {
            break;
        }
        let head = if wrong { heads[own] - 1 } else { heads[own] };
        match (client.append(first + own, head, &payload), wrong) {
            (Some(head), false) => {
                heads[own] = head;
                counts.latencies.push(sent.elapsed());
            }
            (None, true) => counts.conflicts += 1,
            (Some(_), true) | (None, false) => counts.wrong += 1,
        }
    }
    counts.spent = start.elapsed();
    counts
}

/// SplitMix64: the same appends in every run of the bench.
struct Random(u64);

impl Random {
    const fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// What a subscriber saw.
#[derive(Default)]
pub struct Seen {
    pub events: usize,
    /// Positions passed over.
    pub holes: u64,
    /// Events at a position before one that was given earlier.
    pub reorders: usize,
    /// Events that are there in the end and that it never saw.
    pub missed: usize,
}

/// Reads on from the last position seen while clients write.
pub fn watch(peer: &dyn Peer, streams: &mut Streams, clients: usize, spent: Duration) -> Seen {
    let mut subscriber = peer.subscribe();
    let mut last = 0;
    // To the end of what is there.
    while let Some(newest) = subscriber.after(last).into_iter().max() {
        last = newest;
    }
    let (start, done) = (last, AtomicBool::new(false));
    let (mut seen, mut positions) = (Seen::default(), BTreeSet::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            run(peer, streams, clients, spent);
            done.store(true, Ordering::Release);
        });
        loop {
            let finished = done.load(Ordering::Acquire);
            let found = subscriber.after(last);
            if finished && found.is_empty() {
                break;
            }
            for position in found {
                if position > last {
                    seen.holes += position - last - 1;
                    last = position;
                } else {
                    seen.reorders += 1;
                }
                positions.insert(position);
            }
        }
    });
    seen.events = positions.len();
    let (mut again, mut from) = (peer.subscribe(), start);
    loop {
        let found = again.after(from);
        let Some(newest) = found.iter().copied().max() else { break };
        seen.missed += found.iter().filter(|position| **position > start && !positions.contains(position)).count();
        from = newest;
    }
    seen
}
