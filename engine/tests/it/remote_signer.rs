//! A remote signer that speaks Web3Signer's HTTP API, and those that only pretend to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy_primitives::keccak256;
use tribunal_engine::{config::MediatorConfig, failure::Failure, keystore, remote_signer::RemoteSigner};
use tribunal_events::{Address, B256, Domain, Envelope, SignedVerdict, Signer, SignerFault, SigningKey, VerdictKind};
use tribunal_fixtures::keys;

/// How long the tests wait for a signer that says nothing.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

/// What a signer does.
#[derive(Clone, Debug)]
pub enum Conduct {
    Honest,
    /// Lists the key of the one and signs with another.
    SignsAs(&'static str),
    /// Answers this to a request to sign.
    Says(u16, String),
    /// Takes the request and says nothing more.
    Stalls,
    /// Honest, with v counted from 0.
    CountsFromZero,
    /// Lists this.
    Lists(String),
}

/// A small Web3Signer with the development key of `name`.
pub struct Web3Signer {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// The key that `name` has in every test.
fn key(name: &str) -> SigningKey {
    keys::key(name)
}

/// Uncompressed, without its 04.
fn public_key(name: &str) -> String {
    let signer = alloy::signers::local::PrivateKeySigner::from_slice(&**key(name).secret()).unwrap();
    format!("0x{}", hex::encode(signer.public_key()))
}

impl Web3Signer {
    pub fn start(name: &'static str, conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // Ends with the test's process, as does every connection.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (conduct, log) = (conduct.clone(), Arc::clone(&log));
                std::thread::spawn(move || while serve(&stream, name, &conduct, &log).is_some() {});
            }
        });
        Self { address, asked }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connect(&self, name: &str, timeout: Duration) -> Result<RemoteSigner, SignerFault> {
        RemoteSigner::connect(&self.url(), keys::address(name), timeout)
    }
}

/// Answers one request; nothing when the connection has ended.
fn serve(mut stream: &TcpStream, name: &str, conduct: &Conduct, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    if reader.read_line(&mut request).ok()? == 0 {
        return None;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = request.split(' ').take(2).collect::<Vec<_>>().join(" ");
    log.lock().unwrap().push(request.clone());
    let known = public_key(name);
    let (status, text) = match request.as_str() {
        "GET /upcheck" => (200, "OK".into()),
        "GET /api/v1/eth1/publicKeys" => match conduct {
            Conduct::Lists(text) => (200, text.clone()),
            _ => (200, serde_json::json!([public_key("m5"), known]).to_string()),
        },
        request if *request == format!("POST /api/v1/eth1/sign/{known}") => {
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let data = hex::decode(json["data"].as_str().unwrap().strip_prefix("0x").unwrap()).unwrap();
            let sign = |key: SigningKey| *key.sign(keccak256(&data)).bytes();
            match conduct {
                Conduct::SignsAs(other) => (200, format!("0x{}", hex::encode(sign(key(other))))),
                Conduct::Says(status, text) => (*status, text.clone()),
                Conduct::Stalls => {
                    let _ = stream.read(&mut [0]);
                    return None;
                }
                Conduct::CountsFromZero => {
                    let mut bytes = sign(key(name));
                    bytes[64] -= 27;
                    (200, format!("0x{}\n", hex::encode(bytes)))
                }
                Conduct::Honest | Conduct::Lists(_) => (200, format!("0x{}", hex::encode(sign(key(name))))),
            }
        }
        _ => (404, "not found".into()),
    };
    let head = format!("HTTP/1.1 {status} -\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(text.as_bytes()).ok()
}

fn fault(conduct: Conduct) -> SignerFault {
    let server = Web3Signer::start("m1", conduct);
    let signer = server.connect("m1", SHORT).unwrap();
    signer.sign_preimage(b"something").unwrap_err()
}

#[test]
fn a_remote_signer_signs_what_a_local_key_signs() {
    for conduct in [Conduct::Honest, Conduct::CountsFromZero] {
        let server = Web3Signer::start("m1", conduct);
        let signer: Arc<dyn Signer> = Arc::new(server.connect("m1", LONG).unwrap());
        assert_eq!(signer.address(), keys::address("m1"));
        let (domain, hash, digest) = (Domain::new(1, Address::ZERO), B256::repeat_byte(1), B256::repeat_byte(2));
        let local = SignedVerdict::sign(&key("m1"), &domain, hash, 0, VerdictKind::Valid, 7, digest);
        let remote = SignedVerdict::sign_with(&signer, &domain, hash, 0, VerdictKind::Valid, 7, digest);
        assert_eq!(remote.unwrap(), local);
        let event = tribunal_events::proto::Event { schema_version: 1, deal_id: vec![6; 32], ..Default::default() };
        let remote = Envelope::sign_with(&event, &domain, &signer).unwrap();
        assert_eq!(remote, Envelope::sign(&event, &domain, &key("m1")).unwrap());
        assert_eq!(server.asked.lock().unwrap()[..2], ["GET /upcheck", "GET /api/v1/eth1/publicKeys"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_sign_at_once_from_blocking_threads() {
    let server = Web3Signer::start("m1", Conduct::Honest);
    let signer = Arc::new(server.connect("m1", LONG).unwrap());
    let all = (0..40u8).map(|number| {
        let signer = Arc::clone(&signer);
        tokio::task::spawn_blocking(move || (number, signer.sign_preimage(&[number]).unwrap()))
    });
    for signed in futures::future::join_all(all).await {
        let (number, signature) = signed.unwrap();
        assert_eq!(signature.recover(keccak256([number])), Ok(keys::address("m1")));
    }
}

#[test]
fn another_accounts_signature_is_not_taken() {
    let fault = fault(Conduct::SignsAs("m2"));
    assert!(!fault.retry_helps());
    let (expected, found) = (keys::address("m1"), keys::address("m2"));
    assert!(
        matches!(fault, SignerFault::WrongKey { expected: it, found: other, .. } if (it, other) == (expected, found))
    );
}

#[test]
fn garbage_is_not_taken_and_not_asked_for_again() {
    let high_s = format!("0x{}{}1b", "11".repeat(32), "ff".repeat(32));
    for text in ["", "0x", "no", "0xzz", "0x1234", "<html>", &high_s, &"0".repeat(1 << 20)] {
        let fault = fault(Conduct::Says(200, text.to_owned()));
        assert!(matches!(fault, SignerFault::Answer { .. }) && !fault.retry_helps(), "{text:.80}: {fault}");
    }
}

#[test]
fn a_refusal_is_final_and_an_overload_is_not() {
    for (status, again) in
        [(400, false), (403, false), (404, false), (412, false), (429, true), (500, true), (503, true)]
    {
        let fault = fault(Conduct::Says(status, "because".into()));
        assert_eq!(fault.retry_helps(), again, "{status}: {fault}");
        assert!(fault.to_string().contains("because") && fault.to_string().contains(&status.to_string()), "{fault}");
    }
}

#[test]
fn a_signer_that_stalls_is_given_up_in_time() {
    let fault = fault(Conduct::Stalls);
    assert!(matches!(fault, SignerFault::Unreachable { .. }) && fault.retry_helps(), "{fault}");
}

#[test]
fn a_signer_without_the_key_says_so_at_the_start() {
    let server = Web3Signer::start("m1", Conduct::Honest);
    let fault = server.connect("m2", LONG).unwrap_err();
    assert!(matches!(fault, SignerFault::UnknownKey { known: 2, .. }) && !fault.retry_helps(), "{fault}");
    for list in ["", "{}", "[1]", "[\"0x12\"]"] {
        let server = Web3Signer::start("m1", Conduct::Lists(list.to_owned()));
        let fault = server.connect("m1", LONG).unwrap_err();
        assert!(matches!(fault, SignerFault::Answer { .. }), "{list}: {fault}");
    }
}

#[test]
fn settings_name_one_place_of_the_key() {
    let server = Web3Signer::start("m1", Conduct::Honest);
    let (url, address) = (Some(server.url()), Some(keys::address("m1")));
    let good = MediatorConfig { signer_url: url.clone(), address, ..Default::default() };
    let signer = keystore::mediator_signer(&good).unwrap().expect("a signer");
    assert_eq!(signer.address(), keys::address("m1"));
    assert!(!format!("{signer:?}").contains("http"), "{signer:?}");
    assert!(keystore::mediator_signer(&MediatorConfig::default()).unwrap().is_none());

    let code = |config: MediatorConfig| -> Failure { keystore::mediator_signer(&config).unwrap_err() };
    let keystore = Some("key.json".into());
    for wrong in [
        MediatorConfig { keystore: keystore.clone(), ..good.clone() },
        MediatorConfig { address: None, ..good.clone() },
        MediatorConfig { password_file: Some("password".into()), ..good.clone() },
        MediatorConfig { keystore, address, ..Default::default() },
        MediatorConfig { address: Some(keys::address("m2")), ..good.clone() },
        MediatorConfig { signer_url: Some("ftp://somewhere".into()), ..good.clone() },
        MediatorConfig { signer_url: Some("somewhere".into()), ..good.clone() },
    ] {
        let failure = code(wrong.clone());
        assert_eq!(failure.code, 78, "{wrong:?}: {failure}");
    }
    let away = MediatorConfig { signer_url: Some("http://user:secret@127.0.0.1:1/path".into()), ..good };
    let failure = code(away);
    assert_eq!(failure.code, 69, "{failure}");
    assert!(!failure.to_string().contains("secret") && !failure.to_string().contains("path"), "{failure}");
}
