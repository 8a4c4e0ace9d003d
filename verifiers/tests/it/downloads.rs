//! Artifacts from servers that break off, lie, or send too much.

use std::collections::VecDeque;

use tribunal_events::ContentAddress;
use tribunal_verifiers::{
    Answer, ArtifactFault, Download, NoAnswer, Piece, Remote, address_like, content_range, download,
};

const TEXT: &[u8] = b"twelve bytes and some more that come in parts";

/// What a server does with one request.
#[derive(Clone)]
enum Do {
    /// Sends so many bytes of the rest of a text, in chunks of 7, and breaks off.
    Send(&'static [u8], usize),
    /// Sends all of the rest.
    Finish(&'static [u8]),
    /// Sends the text from its beginning, whatever was asked.
    Restart(&'static [u8]),
    /// Sends this from another place than was asked for.
    Elsewhere(u64),
    Absent,
    NoRest,
    Fail(bool),
    /// Says that it has so many bytes, and sends for ever.
    Flood(Option<u64>),
}

struct Server {
    steps: VecDeque<Do>,
    etag: Option<&'static str>,
    log: Vec<String>,
    pauses: Vec<u32>,
}

impl Server {
    fn new(steps: &[Do]) -> Self {
        Self { steps: steps.iter().cloned().collect(), etag: None, log: Vec::new(), pauses: Vec::new() }
    }
}

fn chunks(bytes: &'static [u8], cut: bool) -> tribunal_verifiers::Body {
    let mut left = bytes.chunks(7);
    Box::new(move || match left.next() {
        Some(chunk) => Ok(Some(chunk.to_vec())),
        None if cut => Err("the connection is reset".into()),
        None => Ok(None),
    })
}

impl Remote for Server {
    fn open(&mut self, from: u64, etag: Option<&str>) -> Result<Answer, NoAnswer> {
        self.log.push(format!("{from} {}", etag.unwrap_or("-")));
        let step = self.steps.pop_front().expect("one request fewer");
        let rest = |text: &'static [u8]| match from {
            0 => Piece::Whole { bytes: Some(text.len() as u64) },
            from => Piece::Rest { from, total: Some(text.len() as u64) },
        };
        let from = from as usize;
        let (piece, body) = match step {
            Do::Send(text, count) => (rest(text), chunks(&text[from..from + count], true)),
            Do::Finish(text) => (rest(text), chunks(&text[from..], false)),
            Do::Restart(text) => (Piece::Whole { bytes: None }, chunks(text, false)),
            Do::Elsewhere(from) => (Piece::Rest { from, total: None }, chunks(TEXT, false)),
            Do::Absent => (Piece::Absent, chunks(b"not here", false)),
            Do::NoRest => (Piece::NoRest, chunks(b"", false)),
            Do::Fail(again) => return Err(NoAnswer { problem: "answers with 503".into(), again }),
            Do::Flood(bytes) => {
                let body: tribunal_verifiers::Body = Box::new(|| Ok(Some(vec![0; 1000])));
                (Piece::Whole { bytes }, body)
            }
        };
        Ok(Answer { piece, etag: self.etag.map(str::to_owned), body })
    }

    fn pause(&mut self, in_vain: u32) {
        self.pauses.push(in_vain);
    }

    fn name(&self) -> String {
        "the server".into()
    }
}

fn blake3(bytes: &[u8]) -> ContentAddress {
    ContentAddress::of(bytes)
}

/// "whole", "absent", or the fault and how much is left.
fn run(server: &mut Server, address: &ContentAddress, part: &[u8]) -> String {
    match download(address, server, 1000, part.to_vec()) {
        Download::Whole(bytes) => {
            assert_eq!(&bytes[..], TEXT);
            "whole".into()
        }
        Download::Absent => "absent".into(),
        Download::Failed { fault, part } => {
            if let ArtifactFault::Remote { name, .. } = &fault {
                assert_eq!(*name, address.to_string());
            }
            let fault = fault.to_string();
            format!("{} +{}", fault.strip_prefix(&format!("{address}: ")).unwrap_or(&fault), part.len())
        }
    }
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    for address in [blake3(TEXT), address_like(&ContentAddress::Sha256([0; 32]), TEXT)] {
        let steps = [Do::Send(TEXT, 10), Do::Fail(true), Do::Send(TEXT, 0), Do::Send(TEXT, 3), Do::Finish(TEXT)];
        let mut server = Server::new(&steps);
        server.etag = Some("\"v1\"");
        assert_eq!(run(&mut server, &address, b""), "whole");
        assert_eq!(server.log, ["0 -", "10 \"v1\"", "10 \"v1\"", "10 \"v1\"", "13 \"v1\""]);
        assert_eq!(server.pauses, [0, 1, 2, 0]);
    }
    // With what an earlier attempt left; a weak tag names no version.
    let mut server = Server::new(&[Do::Send(TEXT, 5), Do::Finish(TEXT)]);
    server.etag = Some("W/\"v1\"");
    assert_eq!(run(&mut server, &blake3(TEXT), &TEXT[..20]), "whole");
    assert_eq!(server.log, ["20 -", "25 -"]);
    // All was there already.
    let mut server = Server::new(&[Do::Finish(TEXT)]);
    assert_eq!(run(&mut server, &blake3(TEXT), TEXT), "whole");
}

#[test]
fn what_does_not_belong_together_is_fetched_in_one_piece() {
    let other = b"TWELVE BYTES of another version of the artifact";
    for (steps, part, log) in [
        (&[Do::Send(other, 10), Do::Finish(TEXT), Do::Finish(TEXT)][..], &b""[..], &["0 -", "10 -", "0 -"][..]),
        (&[Do::Finish(TEXT), Do::Finish(TEXT)], other, &["47 -", "0 -"]),
        (&[Do::Send(other, 10), Do::Restart(TEXT)], b"", &["0 -", "10 -"]),
        (&[Do::NoRest, Do::Finish(TEXT)], other, &["47 -", "0 -"]),
        (&[Do::Send(TEXT, 10), Do::Elsewhere(0), Do::Finish(TEXT)], b"", &["0 -", "10 -", "0 -"]),
        // A part above the bound is not gone on with.
        (&[Do::Finish(TEXT)], &[0; 1001], &["0 -"]),
    ] {
        // A part that is longer than the text has no rest.
        let steps: Vec<_> = match part.len() {
            47 if matches!(steps[0], Do::Finish(_)) => vec![Do::NoRest, Do::Finish(TEXT)],
            _ => steps.to_vec(),
        };
        let mut server = Server::new(&steps);
        assert_eq!(run(&mut server, &blake3(TEXT), part), "whole");
        assert_eq!(server.log, log);
    }
}

#[test]
fn a_server_is_asked_a_bounded_number_of_times() {
    let text = TEXT;
    let mut server = Server::new(&[const { Do::Fail(true) }; 4]);
    assert_eq!(run(&mut server, &blake3(text), b""), "the server answers with 503 +0");
    assert_eq!((server.log.len(), server.pauses), (4, vec![1, 2, 3]));
    // One byte at a time it may go on, but not for ever.
    let mut server = Server::new(&[const { Do::Send(TEXT, 1) }; 32]);
    assert_eq!(run(&mut server, &blake3(text), b""), "the server the connection is reset +32");
    assert_eq!(server.log.len(), 32);
    // What it says for good is not asked again, and what came is left for another time.
    let mut server = Server::new(&[Do::Send(TEXT, 5), Do::Fail(false)]);
    assert_eq!(run(&mut server, &blake3(text), b""), "the server answers with 503 +5");
    let mut server = Server::new(&[Do::Absent]);
    assert_eq!(run(&mut server, &blake3(text), &TEXT[..5]), "absent");
}

#[test]
fn other_bytes_and_too_many_are_refused() {
    let expected = blake3(b"something else");
    let mut server = Server::new(&[Do::Finish(TEXT)]);
    let said = run(&mut server, &expected, b"");
    assert_eq!(said, format!("{expected} was asked for, the bytes that came are {} +0", blake3(TEXT)));
    for (said, found) in [(None, 2000), (Some(5000), 5000), (Some(900), 2000), (Some(1000), 2000)] {
        let mut server = Server::new(&[Do::Flood(said)]);
        let expected = format!("{} has {found} bytes, more than 1000 +0", blake3(TEXT));
        assert_eq!(run(&mut server, &blake3(TEXT), b""), expected);
    }
}

#[test]
fn a_content_range_is_read_strictly() {
    assert_eq!(content_range("bytes 10-44/45"), Some((10, Some(45))));
    assert_eq!(content_range(" bytes 0-0/*"), Some((0, None)));
    for wrong in
        ["", "bytes", "bytes */45", "bytes 10-/45", "bytes 10-45/45", "bytes 9-8/45", "items 0-1/2", "bytes -1-2/3"]
    {
        assert_eq!(content_range(wrong), None, "{wrong}");
    }
}
