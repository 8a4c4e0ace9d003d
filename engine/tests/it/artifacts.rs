//! Artifacts over HTTP and NATS, from servers that break off, lie and redirect.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::Value;
use tribunal_engine::{
    artifacts::{Place, open},
    bus::NatsServer,
    config::Config,
};
use tribunal_events::ContentAddress;
use tribunal_verifiers::{AnyCid, ArtifactSource, Codec, Content, Layout, Reference, address_like, fetch_content};

/// What a server does with one path.
#[derive(Clone)]
enum Does {
    /// Serves bytes with ranges and an ETag; breaks off after so many bytes of every answer.
    Serve {
        bytes: Vec<u8>,
        kind: &'static str,
        cut: usize,
    },
    Redirect(String),
    Status(u16),
}

/// A small HTTP server on the loopback address. Every request is a line in its log.
struct Server {
    url: String,
    does: Arc<Mutex<BTreeMap<String, Does>>>,
    log: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (does, log) = (Arc::<Mutex<BTreeMap<String, Does>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, written, stopped) = (Arc::clone(&does), Arc::clone(&log), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let does = shared.lock().unwrap().clone();
                // A client that goes away breaks the answer, which is its own business.
                let _ = stream.and_then(|stream| answer(stream, &does, &written));
            }
        });
        Self { url, does, log, stop, thread: Some(thread) }
    }

    fn does(&self, path: &str, does: Does) -> &Self {
        self.does.lock().unwrap().insert(path.to_owned(), does);
        self
    }

    fn serve(&self, path: &str, bytes: &[u8]) -> &Self {
        self.does(path, Does::Serve { bytes: bytes.to_vec(), kind: "application/octet-stream", cut: usize::MAX })
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        self.thread.take().map(JoinHandle::join);
    }
}

/// Answers one request and closes the connection.
fn answer(mut stream: TcpStream, does: &BTreeMap<String, Does>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
    let said = |name: &str| headers.get(name).map_or("-", String::as_str);
    log.lock().unwrap().push(format!("{target} {} {}", said("range"), said("if-range")));
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let found = does.get(&target).or_else(|| {
        let format = query.split('&').find(|part| part.starts_with("format="))?;
        does.get(&format!("{path}?{format}"))
    });
    match found.or_else(|| does.get(path)) {
        None => write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        Some(Does::Status(status)) => {
            write!(stream, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        Some(Does::Redirect(to)) => {
            write!(stream, "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        }
        Some(Does::Serve { bytes, kind, cut }) => {
            let etag = format!("\"{}\"", &blake3::hash(bytes).to_hex()[..8]);
            let range =
                headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            let from: usize = range.filter(|_| headers.get("if-range").is_none_or(|known| *known == etag)).unwrap_or(0);
            if from > bytes.len() {
                return write!(stream, "HTTP/1.1 416 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
            let (rest, total) = (&bytes[from..], bytes.len());
            let head = match from {
                0 => "200 OK\r\n".to_owned(),
                from => format!("206 Partial\r\ncontent-range: bytes {from}-{}/{total}\r\n", total - 1),
            };
            write!(
                stream,
                "HTTP/1.1 {head}etag: {etag}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                rest.len()
            )?;
            stream.write_all(&rest[..rest.len().min(*cut)])
        }
    }
}

fn config(folder: &Path) -> Config {
    let mut config = Config::default();
    config.store.path = folder.join("store");
    config
}

fn source(folder: &Path, places: &[String]) -> Arc<dyn ArtifactSource> {
    let places: Vec<Place> = places.iter().map(|place| place.parse().expect("a place")).collect();
    open(&places, &config(folder)).expect("a source")
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

fn hex_of(address: &ContentAddress) -> String {
    address.to_string().split_once(':').unwrap().1.to_owned()
}

#[test]
fn a_file_is_fetched_once_and_goes_on_where_it_broke_off() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start());
    let bytes = pattern(300_000);
    let blake3 = ContentAddress::of(&bytes);
    let sha256 = address_like(&ContentAddress::Sha256([0; 32]), &bytes);
    let path = format!("/b/{}", hex_of(&blake3));
    server.does(&path, Does::Serve { bytes: bytes.clone(), kind: "a/b", cut: 120_000 });
    server.serve(&format!("/a/{sha256}.bin"), &bytes);
    let places = [format!("{}/b/{{blake3}}", server.url), format!("{}/a/{{address}}.bin", server.url)];
    let source = source(folder.path(), &places);
    assert_eq!(source.fetch(&Reference::Address(blake3)).unwrap().as_deref(), Some(&bytes[..]));
    let etag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..8]);
    let log = [format!("{path} - -"), format!("{path} bytes=120000- {etag}"), format!("{path} bytes=240000- {etag}")];
    assert_eq!(server.log(), log);
    assert_eq!(source.fetch(&Reference::Address(blake3)).unwrap().as_deref(), Some(&bytes[..]));
    assert_eq!(server.log(), Vec::<String>::new(), "it is in the cache");
    assert_eq!(source.fetch(&Reference::Address(sha256)).unwrap().as_deref(), Some(&bytes[..]));
    assert_eq!(server.log(), [format!("/a/{sha256}.bin - -")], "the first place knows BLAKE3 only");
    assert_eq!(source.fetch(&Reference::Address(ContentAddress::Blake3([7; 32]))).unwrap(), None);
}

#[test]
fn a_place_that_lies_redirects_away_or_fails_is_passed_over() {
    let (folder, first, second) = (tempfile::tempdir().unwrap(), Server::start(), Server::start());
    let bytes = pattern(1000);
    let address = ContentAddress::of(&bytes);
    let path = format!("/{}", hex_of(&address));
    second.serve(&path, &bytes);
    let elsewhere = format!("{}{path}", second.url);
    for (does, said) in [
        (Does::Serve { bytes: b"lie".to_vec(), kind: "a/b", cut: 9 }, "the bytes that came are"),
        (Does::Redirect(elsewhere), "redirects to another host"),
        (Does::Redirect(path.clone()), "redirects too often"),
        (Does::Status(403), "answers with 403"),
    ] {
        first.does(&path, does);
        let place = |server: &Server| format!("{}/{{blake3}}", server.url);
        let alone = source(&folder.path().join("alone"), &[place(&first)]);
        let fault = alone.fetch(&Reference::Address(address)).unwrap_err().to_string();
        assert!(fault.contains(said), "{fault}");
        let both = tempfile::tempdir().unwrap();
        let both = source(both.path(), &[place(&first), place(&second)]);
        assert_eq!(both.fetch(&Reference::Address(address)).unwrap().as_deref(), Some(&bytes[..]));
    }
    // A redirect on the same host is followed.
    first.does(&path, Does::Redirect("/other".into())).serve("/other", &bytes);
    let alone = source(&folder.path().join("alone"), &[format!("{}/{{blake3}}", first.url)]);
    assert_eq!(alone.fetch(&Reference::Address(address)).unwrap().as_deref(), Some(&bytes[..]));
}

fn archive(name: &str) -> (AnyCid, Vec<u8>) {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../verifiers/tests/ipfs"));
    let vectors: Value = serde_json::from_slice(&std::fs::read(folder.join("vectors.json")).unwrap()).unwrap();
    let it = vectors["cars"].as_array().unwrap().iter().find(|it| it["file"] == name).unwrap();
    (it["root"].as_str().unwrap().parse().unwrap(), std::fs::read(folder.join(name)).unwrap())
}

/// The same blocks in the order in which a gateway sends them: what leads to others first.
fn from_the_root(archive: &[u8]) -> Vec<u8> {
    let mut reader = tribunal_verifiers::CarReader::open(archive).unwrap();
    let mut blocks = Vec::new();
    while let Some((cid, _, block)) = reader.next_block().unwrap() {
        let mut entry = Vec::new();
        let mut length = cid.to_bytes().len() + block.len();
        while length >= 0x80 {
            entry.push(length as u8 | 0x80);
            length >>= 7;
        }
        entry.push(length as u8);
        entry.extend([cid.to_bytes(), block].concat());
        blocks.push(entry);
    }
    blocks.reverse();
    [&archive[..=usize::from(archive[0])], &blocks.concat()].concat()
}

fn serve_archive(server: &Server, root: &AnyCid, bytes: &[u8]) {
    let kind = "application/vnd.ipld.car; version=1";
    let path = format!("/ipfs/{}?format=car", root.version_1());
    server.does(&path, Does::Serve { bytes: bytes.to_vec(), kind, cut: usize::MAX });
}

fn serve_blocks(server: &Server, archive: &[u8]) -> usize {
    let mut reader = tribunal_verifiers::CarReader::open(archive).unwrap();
    let mut count = 0;
    while let Some((cid, _, block)) = reader.next_block().unwrap() {
        // The archives name every block as raw; what leads to it names nodes as nodes.
        for codec in [cid.codec(), Codec::DagPb] {
            let named = AnyCid::of_block(codec, &block).version_1();
            server.serve(&format!("/ipfs/{named}?format=raw"), &block);
        }
        count += 1;
    }
    count
}

#[test]
fn a_gateway_serves_an_archive_or_blocks_and_each_is_checked() {
    let gateway = |server: &Server| [format!("{}/ipfs/", server.url)];
    let (root, bytes) = archive("deep-pb.car");
    // All at once.
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start());
    serve_archive(&server, &root, &from_the_root(&bytes));
    let found = source(folder.path(), &gateway(&server)).fetch(&Reference::Cid(root)).unwrap();
    assert_eq!(found.as_deref(), Some(&pattern(500)[..]));
    assert_eq!(server.log().len(), 1);
    // Another engine with the same cache asks nobody.
    let found = source(folder.path(), &gateway(&server)).fetch(&Reference::Cid(root)).unwrap();
    assert_eq!((found.as_deref(), server.log().len()), (Some(&pattern(500)[..]), 0));
    // An archive that is cut: the rest block by block.
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start());
    let all = serve_blocks(&server, &bytes);
    let whole = from_the_root(&bytes);
    serve_archive(&server, &root, &whole[..whole.len() / 2]);
    let found = source(folder.path(), &gateway(&server)).fetch(&Reference::Cid(root)).unwrap();
    assert_eq!(found.as_deref(), Some(&pattern(500)[..]));
    assert!((2..all).contains(&server.log().len()));
    // Block by block, with one that is wrong, and a second gateway that has it.
    let (folder, first, second) = (tempfile::tempdir().unwrap(), Server::start(), Server::start());
    let count = serve_blocks(&first, &bytes);
    assert_eq!(serve_blocks(&second, &bytes), count);
    first.serve(&format!("/ipfs/{}?format=raw", root.version_1()), b"lie");
    let alone = source(folder.path(), &gateway(&first));
    let fault = alone.fetch(&Reference::Cid(root)).unwrap_err().to_string();
    assert!(fault.contains("was asked for, the block that came is"), "{fault}");
    first.log();
    let both = source(folder.path(), &[gateway(&first), gateway(&second)].concat());
    assert_eq!(both.fetch(&Reference::Cid(root)).unwrap().as_deref(), Some(&pattern(500)[..]));
    let archives = |log: &[String]| log.iter().filter(|line| line.contains("format=car")).count();
    assert_eq!((archives(&first.log()), archives(&second.log())), (1, 1), "only the root is asked for as an archive");
    // Folders, and what a gateway does not have.
    let (root, bytes) = archive("shards.car");
    serve_blocks(&second, &bytes);
    let Some(Content::Folder(tree)) = fetch_content(&*both, &root, 1 << 20).unwrap() else { panic!("no folder") };
    assert_eq!(tree.files.len(), 400);
    assert_eq!(both.fetch(&Reference::Cid(Layout::V0.file(b"nowhere"))).unwrap(), None);
    second.does(&format!("/ipfs/{}", Layout::V1.file(b"down")), Does::Status(400));
    let fault = both.fetch(&Reference::Cid(Layout::V1.file(b"down"))).unwrap_err().to_string();
    assert!(fault.contains("answers with 400"), "{fault}");
}

#[test]
fn folders_need_no_cache_and_buckets_need_a_bus() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "hello").unwrap();
    let places = [folder.path().display().to_string()];
    let found = source(folder.path(), &places).fetch(&Reference::Address(ContentAddress::of(b"hello"))).unwrap();
    assert_eq!(found.as_deref(), Some(&b"hello"[..]));
    assert!(!folder.path().join("store.artifacts").exists());
    let problem = open(&["nats:artifacts".parse().unwrap()], &config(folder.path())).err().expect("no bus");
    assert!(problem.to_string().contains("bus.url is not set"), "{problem}");
    let missing = folder.path().join("missing").display().to_string();
    assert!(open(&[missing.parse().unwrap()], &config(folder.path())).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_serves_objects_by_address() {
    let nats = tempfile::tempdir().unwrap();
    let server = NatsServer::start(nats.path()).unwrap_or_else(|fault| panic!("{fault}"));
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let settings = async_nats::jetstream::object_store::Config { bucket: "artifacts".into(), ..Default::default() };
    let bucket = context.create_object_store(settings).await.unwrap();
    let bytes = pattern(500_000);
    let (address, lie) = (ContentAddress::of(&bytes), ContentAddress::of(b"truth"));
    let cid = Layout::V1.file(b"a block");
    for (name, bytes) in [(address.to_string(), &bytes[..]), (lie.to_string(), b"lie"), (cid.to_string(), b"a block")] {
        bucket.put(name.as_str(), &mut &bytes[..]).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.bus.url = Some(server.url());
    let source = open(&["nats:artifacts".parse().unwrap()], &config).unwrap();
    let fetched = tokio::task::spawn_blocking(move || {
        let found = source.fetch(&Reference::Address(address)).unwrap();
        assert_eq!(found.as_deref(), Some(&bytes[..]));
        assert_eq!(source.fetch(&Reference::Cid(cid)).unwrap().as_deref(), Some(&b"a block"[..]));
        assert_eq!(source.fetch(&Reference::Address(ContentAddress::of(b"nowhere"))).unwrap(), None);
        let fault = source.fetch(&Reference::Address(lie)).unwrap_err().to_string();
        assert!(fault.contains("the bytes that came are"), "{fault}");
    });
    fetched.await.unwrap();
}
