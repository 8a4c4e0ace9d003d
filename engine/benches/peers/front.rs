//! The engine's store behind a socket like those of its peers: a thread a connection around [`Store::append`].
//!
//! Frames: 4 bytes of length, big-endian, then the body. Asked: kind 1, deal id (32), expected version (8), event, signature
//! (65); or kind 2, position (8). Answered: position (8) and version (8), nothing on a conflict; or positions (8 each).

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
};

use tribunal_engine::store::{Append, Fsync, NewRecord, Store, StoreFault, StreamAppend};
use tribunal_events::{Address, DealId, Domain, Envelope, EventId, Signature, SigningKey, Timestamp};
use tribunal_fixtures::keys::key;

use super::workload::{Client, PAYLOAD_BYTES, Peer, Subscriber};

const SIGNATURE_BYTES: usize = 65;
const FRAME_BYTES_MAX: usize = 1 << 20;
const READ_MAX: usize = 1_000;
const APPEND: u8 = 1;
const READ: u8 = 2;

pub struct Front {
    name: String,
    address: SocketAddr,
    store: Store,
    /// Whether the signer is recovered before an event is recorded, as the engine does.
    checked: bool,
}

impl Front {
    pub fn start(folder: &Path, checked: bool) -> Self {
        let store = Store::open(folder, Fsync::Always).expect("opens");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = store.clone();
        // Ends with the process.
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, store) = (connection.expect("a connection"), served.clone());
                thread::spawn(move || serve(connection, &store, checked));
            }
        });
        let name = if checked { "tribunal, every signature checked" } else { "tribunal" };
        Self { name: name.into(), address, store, checked }
    }
}

impl Peer for Front {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self) -> Box<dyn Client> {
        let connection = TcpStream::connect(self.address).expect("connects");
        connection.set_nodelay(true).expect("sets");
        Box::new(Connection { connection, key: self.checked.then(|| key("client")) })
    }

    fn subscribe(&self) -> Box<dyn Subscriber> {
        let connection = TcpStream::connect(self.address).expect("connects");
        connection.set_nodelay(true).expect("sets");
        Box::new(Connection { connection, key: None })
    }

    fn kept(&self) -> u64 {
        self.store.last_position()
    }
}

fn deal_id(stream: usize) -> DealId {
    DealId::of_terms(&stream.to_be_bytes())
}

struct Connection {
    connection: TcpStream,
    key: Option<SigningKey>,
}

impl Client for Connection {
    /// Event and signature together have the size.
    fn payload(&self, stream: usize, nonce: u128) -> Vec<u8> {
        let mut payload = nonce.to_be_bytes().to_vec();
        payload.resize(PAYLOAD_BYTES - SIGNATURE_BYTES, 7);
        let signature = self.key.as_ref().map_or([7; SIGNATURE_BYTES], |key| {
            let digest = Domain::default().event_digest(&deal_id(stream), &EventId::of_event(&payload));
            *key.sign(digest).bytes()
        });
        payload.extend_from_slice(&signature);
        payload
    }

    fn append(&mut self, stream: usize, head: u64, payload: &[u8]) -> Option<u64> {
        let deal_id = deal_id(stream);
        let answer =
            ask(&mut self.connection, &[&[APPEND], deal_id.bytes(), &head.to_be_bytes(), payload]).expect("an answer");
        answer.get(8..16).map(number)
    }
}

impl Subscriber for Connection {
    fn after(&mut self, position: u64) -> Vec<u64> {
        let answer = ask(&mut self.connection, &[&[READ], &(position + 1).to_be_bytes()]).expect("an answer");
        answer.chunks_exact(8).map(number).collect()
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

fn ask(connection: &mut TcpStream, parts: &[&[u8]]) -> io::Result<Vec<u8>> {
    send(connection, parts)?;
    receive(connection)
}

fn send(connection: &mut TcpStream, parts: &[&[u8]]) -> io::Result<()> {
    let body = parts.concat();
    connection.write_all(&[&(body.len() as u32).to_be_bytes()[..], &body].concat())
}

fn receive(connection: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    connection.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("a frame that is too long"));
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(body)
}

/// Until the client leaves.
fn serve(mut connection: TcpStream, store: &Store, checked: bool) {
    connection.set_nodelay(true).expect("sets");
    while let Ok(body) = receive(&mut connection) {
        let answer = match body.split_first() {
            Some((&APPEND, rest)) => append(store, rest, checked),
            Some((&READ, rest)) => store
                .log(number(rest))
                .take(READ_MAX)
                .flat_map(|record| record.expect("reads").position.to_be_bytes())
                .collect(),
            _ => panic!("a frame of another kind"),
        };
        if send(&mut connection, &[&answer]).is_err() {
            return;
        }
    }
}

fn append(store: &Store, body: &[u8], checked: bool) -> Vec<u8> {
    let (head, payload) = body.split_at(40);
    let (event, signature) = payload.split_at(payload.len() - SIGNATURE_BYTES);
    let deal_id = DealId::from_slice(&head[..32]).expect("an id");
    let signer = if checked {
        let digest = Domain::default().event_digest(&deal_id, &EventId::of_event(event));
        Signature::from_slice(signature).and_then(|signature| signature.recover(digest)).expect("signed")
    } else {
        Address::ZERO
    };
    let record = NewRecord {
        envelope: Envelope::from_parts(event.to_vec(), signature.to_vec()),
        signer,
        recorded_at: Timestamp::from_us(1),
    };
    let expected_version = number(&head[32..]);
    let stream = StreamAppend { deal_id, expected_version, records: vec![record], open: true, snapshot: None };
    match store.append(Append { streams: vec![stream], ..Append::default() }) {
        Ok(records) => [records[0].position.to_be_bytes(), records[0].version.to_be_bytes()].concat(),
        Err(StoreFault::Conflict { .. }) => Vec::new(),
        Err(fault) => panic!("{fault}"),
    }
}
