//! UmaDB, an event store with conditions on what was appended since (DCB), driven over gRPC by as much of HTTP/2 as one
//! call after the other on a connection of its own needs: less work for the client than any library does.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
};

use super::{
    Server, free_port, program,
    workload::{Client, Peer, Subscriber},
};

pub struct UmaDb {
    name: String,
    port: u16,
    _server: Server,
}

impl UmaDb {
    pub fn start(folder: &Path) -> Result<Self, String> {
        let server = program("TRIBUNAL_UMADB", "umadb").ok_or("not installed (make bench-peers does)")?;
        let version = Command::new(&server).arg("--version").output().map_err(|error| error.to_string())?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let port = free_port();
        let mut command = Command::new(server);
        command.arg("--listen").arg(format!("127.0.0.1:{port}")).arg("--db-path").arg(folder);
        Ok(Self { name: format!("UmaDB {version}"), port, _server: Server::start(command, port)? })
    }
}

impl Peer for UmaDb {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self) -> Box<dyn Client> {
        Box::new(Connection::open(self.port))
    }

    fn subscribe(&self) -> Box<dyn Subscriber> {
        Box::new(Connection::open(self.port))
    }

    fn kept(&self) -> u64 {
        let answers = Connection::open(self.port).call("Head", &[]).expect("a head");
        answers.first().map_or(0, |answer| number(answer))
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const WINDOW_MAX: u32 = 0x7fff_ffff;

struct Connection {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    stream: u32,
    /// Bytes received that the server does not know to be read.
    unread: u32,
}

impl Connection {
    fn open(port: u16) -> Self {
        let writer = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        writer.set_nodelay(true).expect("sets");
        let reader = BufReader::new(writer.try_clone().expect("clones"));
        let mut connection = Self { reader, writer, stream: 1, unread: 0 };
        let window = [&4_u16.to_be_bytes()[..], &WINDOW_MAX.to_be_bytes()].concat();
        let settings = frame(SETTINGS, 0, 0, &window);
        let larger = frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - 65_535).to_be_bytes());
        connection.send(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &larger].concat());
        connection
    }

    fn send(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).expect("sends");
    }

    /// The messages of the answer; nothing where the server says an error instead.
    fn call(&mut self, method: &str, request: &[u8]) -> Option<Vec<Vec<u8>>> {
        let path = format!("/umadb.v1.DCB/{method}");
        let headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", &path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        // RFC 7541, section 6.2.2: literals that enter no table.
        let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
        let block: Vec<u8> =
            headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect();
        let message = [&[0][..], &(request.len() as u32).to_be_bytes(), request].concat();
        let asked = [frame(HEADERS, END_HEADERS, self.stream, &block), frame(DATA, END_STREAM, self.stream, &message)];
        self.send(&asked.concat());
        let body = self.answer();
        self.stream += 2;
        (!body.is_empty()).then(|| messages(&body))
    }

    /// The body of the answer to the call that is open.
    fn answer(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut head = [0; 9];
            self.reader.read_exact(&mut head).expect("an answer");
            let (kind, flags) = (head[3], head[4]);
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.reader.read_exact(&mut payload).expect("an answer");
            match kind {
                DATA => {
                    self.unread += payload.len() as u32;
                    body.append(&mut payload);
                }
                SETTINGS if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, &payload)),
                RESET | GO_AWAY => panic!("UmaDB ends the call: {payload:?}"),
                _ => {}
            }
            if self.unread > WINDOW_MAX / 2 {
                self.send(&frame(WINDOW_UPDATE, 0, 0, &self.unread.to_be_bytes()));
                self.unread = 0;
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return body;
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// gRPC: a byte that says uncompressed, 4 bytes of length, the message.
fn messages(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        messages.push(rest[..length].to_vec());
        body = &rest[length..];
    }
    messages
}

// Protobuf, as much of it as these messages need: fields below 16, none of fixed width.

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2][..], &varint(value.len() as u64), value].concat()
}

fn integer(field: u8, value: u64) -> Vec<u8> {
    [&[field << 3][..], &varint(value)].concat()
}

fn take_varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = message.split_first() else { break };
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// Each field of the message: its number, and its integer or bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, u64, &[u8])> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = take_varint(&mut message);
        let value = take_varint(&mut message);
        let text = if key & 7 == 2 { message.split_off(..value as usize).expect("a field") } else { &[] };
        found.push((key >> 3, value, text));
    }
    found
}

/// Field 1, an integer.
fn number(message: &[u8]) -> u64 {
    fields(message).into_iter().find(|(field, ..)| *field == 1).map_or(0, |(_, value, _)| value)
}

impl Client for Connection {
    /// A head is the position of the stream's last event; the condition is that none came after it.
    fn append(&mut self, stream: usize, head: u64, payload: &[u8]) -> Option<u64> {
        let tag = format!("deal-{stream}");
        let event = [bytes(1, b"Event"), bytes(2, tag.as_bytes()), bytes(3, payload)].concat();
        let matching = bytes(1, &bytes(1, &bytes(2, tag.as_bytes())));
        let after = if head == 0 { Vec::new() } else { integer(2, head) };
        let request = [bytes(1, &event), bytes(2, &[matching, after].concat())].concat();
        let answers = self.call("Append", &request)?;
        Some(number(&answers[0]))
    }
}

impl Subscriber for Connection {
    fn after(&mut self, position: u64) -> Vec<u64> {
        let request = [integer(2, position + 1), integer(4, 1_000)].concat();
        let answers = self.call("Read", &request).unwrap_or_default();
        let events = answers.iter().flat_map(|answer| fields(answer)).filter(|(field, ..)| *field == 1);
        events.map(|(_, _, event)| number(event)).collect()
    }
}
