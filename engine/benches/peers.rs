//! `make bench-peers`: durable appends beside what a team would otherwise use, on this machine in the same run.
//!
//! Every peer is a server behind a TCP socket on this host, on the same disk, told to have each append on the disk before
//! it answers. Every client has one append outstanding, of the same size, to a random one of the streams that are its own,
//! and says the version it expects; one append in twenty says an old one on purpose and must be refused. Runs are
//! interleaved, there and back again, so that what else the machine does falls on all alike. A peer that is not installed
//! is named as such.

#[path = "peers/front.rs"]
mod front;
#[path = "peers/jetstream.rs"]
mod jetstream;
#[path = "peers/postgres.rs"]
mod postgres;
#[path = "peers/umadb.rs"]
mod umadb;
#[path = "peers/workload.rs"]
mod workload;

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use workload::{Figures, PAYLOAD_BYTES, Peer, Seen, Streams};

const CLIENTS: [usize; 3] = [1, 16, 64];
/// Each is there and back again.
const ROUNDS: usize = 3;
const RUN: Duration = Duration::from_secs(2);
const WATCHED_WRITERS: usize = 16;

fn main() {
    // `cargo test --all-targets` runs benches too; servers there are only noise.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::Builder::new().prefix("tribunal-peers").tempdir().expect("a folder");
    let kind = file_system(folder.path());
    assert!(kind != "tmpfs", "{} is in memory, where a sync costs nothing: set TMPDIR", folder.path().display());
    println!("load before: {}", load());

    let mut peers: Vec<Contender> = Vec::new();
    for checked in [false, true] {
        peers.push(Contender::new(front::Front::start(&folder.path().join(format!("front-{checked}")), checked)));
    }
    for layout in postgres::LAYOUTS {
        match postgres::Postgres::start(folder.path(), layout) {
            Ok(peer) => peers.push(Contender::new(peer)),
            Err(missing) => println!("PostgreSQL with Message DB: {missing}"),
        }
    }
    match jetstream::JetStream::start(&folder.path().join("jetstream")) {
        Ok(peer) => peers.push(Contender::new(peer)),
        Err(missing) => println!("JetStream: {missing}"),
    }
    match umadb::UmaDb::start(&folder.path().join("umadb")) {
        Ok(peer) => peers.push(Contender::new(peer)),
        Err(missing) => println!("UmaDB: {missing}"),
    }
    let disk = measure(&mut peers, folder.path());
    report(&peers, &disk, &kind);
    watched(&mut peers);
    println!("\nload after: {}", load());
}

struct Contender {
    peer: Box<dyn Peer>,
    streams: Streams,
    /// By index into [`CLIENTS`].
    figures: [Vec<Figures>; CLIENTS.len()],
}

impl Contender {
    fn new(peer: impl Peer + 'static) -> Self {
        Self { peer: Box::new(peer), streams: Streams::new(), figures: Default::default() }
    }

    fn median(&self, clients: usize, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(self.figures[clients].iter().map(figure).collect())
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Fills in the figures; returns how often a second the disk syncs, of each round.
fn measure(peers: &mut [Contender], folder: &Path) -> Vec<f64> {
    for contender in &mut *peers {
        workload::run(contender.peer.as_ref(), &mut contender.streams, 4, RUN / 4);
    }
    let mut disk = Vec::new();
    for _ in 0..ROUNDS {
        for (index, clients) in CLIENTS.into_iter().enumerate() {
            disk.push(syncs(folder));
            let there_and_back: Vec<_> = (0..peers.len()).chain((0..peers.len()).rev()).collect();
            for at in there_and_back {
                let contender = &mut peers[at];
                let figures = workload::run(contender.peer.as_ref(), &mut contender.streams, clients, RUN);
                assert_eq!(figures.wrong, 0, "{}: conflicts that are none, or the reverse", contender.peer.name());
                contender.figures[index].push(figures);
            }
        }
    }
    for contender in peers {
        let (counted, kept) = (contender.streams.appended(), contender.peer.kept());
        assert_eq!(counted, kept, "{}: what was acknowledged, and what is there", contender.peer.name());
    }
    disk
}

/// Times a second that an append of the payload's size is on the disk, nothing else done.
fn syncs(folder: &Path) -> f64 {
    let mut file = File::create(folder.join("disk")).expect("a file");
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < RUN / 4 {
        file.write_all(&[7; PAYLOAD_BYTES]).and_then(|()| file.sync_data()).expect("syncs");
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn report(peers: &[Contender], disk: &[f64], kind: &str) {
    let (runs, bytes, streams) = (2 * ROUNDS, PAYLOAD_BYTES, workload::STREAMS);
    println!("\nDurable appends a second of {bytes} bytes to {streams} streams, on {kind}; medians of {runs} runs.");
    println!(
        "The disk alone: {:.0} syncs a second ({:.0} to {:.0}).\n",
        median(disk.to_vec()),
        least(disk),
        most(disk)
    );
    let head: String = CLIENTS.iter().map(|clients| format!("{clients:>9}")).collect();
    println!("{:<48}{head}   p50, p99 ms at {}", "clients", CLIENTS[CLIENTS.len() - 1]);
    for contender in peers {
        let rates: String =
            (0..CLIENTS.len()).map(|at| format!("{:>9.0}", contender.median(at, Figures::rate))).collect();
        let last = CLIENTS.len() - 1;
        let (p50, p99) = (contender.median(last, |it| it.p50_ms), contender.median(last, |it| it.p99_ms));
        println!("{:<48}{rates}   {p50:>6.2} {p99:>7.2}", contender.peer.name());
    }
    let Some((ours, others)) = peers.split_first() else { return };
    println!("\nratios: {} / peer", ours.peer.name());
    for other in others {
        let ratio = |at| ours.median(at, Figures::rate) / other.median(at, Figures::rate);
        let ratios: String = (0..CLIENTS.len()).map(|at| format!("{:>9.2}", ratio(at))).collect();
        println!("  {:<46}{ratios}", other.peer.name());
    }
    let refused: usize = peers.iter().flat_map(|it| it.figures.iter().flatten()).map(|it| it.conflicts).sum();
    println!("\n{refused} appends with an old version, every one refused; every other one acknowledged and there.");
}

fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}

fn watched(peers: &mut [Contender]) {
    println!(
        "\nWhat a subscriber that reads on from the last position it saw gets, while {WATCHED_WRITERS} clients write:"
    );
    println!("{:<48}{:>9}{:>9}{:>9}{:>9}", "", "events", "holes", "reorders", "missed");
    for contender in peers {
        let peer = contender.peer.as_ref();
        let Seen { events, holes, reorders, missed } =
            workload::watch(peer, &mut contender.streams, WATCHED_WRITERS, RUN);
        println!("{:<48}{events:>9}{holes:>9}{reorders:>9}{missed:>9}", contender.peer.name());
    }
    println!(
        "holes: positions that were not there when later ones were; missed: events that came into a hole afterwards,"
    );
    println!("where this subscriber does not look again.");
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

fn file_system(path: &Path) -> String {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(path).output().expect("stat");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A program by the variable that names it, or on the path.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| on_path(name))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A server that ends with this value.
struct Server(std::process::Child);

impl Server {
    /// Starts it and waits until it answers on the port.
    fn start(mut command: Command, port: u16) -> Result<Self, String> {
        let child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
        let mut server = Self(child.map_err(|error| format!("did not start: {error}"))?);
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = server.0.try_wait() {
                return Err(format!("did not start: {status}"));
            }
            if start.elapsed() > Duration::from_secs(30) {
                return Err("does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to end, it ends what it started.
        let stopped = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        if !stopped.is_ok_and(|status| status.success()) {
            self.0.kill().ok();
        }
        self.0.wait().ok();
    }
}
