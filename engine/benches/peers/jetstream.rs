//! NATS JetStream as an event store: a subject a stream of events, `Nats-Expected-Last-Subject-Sequence` for its version,
//! every message synced before it is acknowledged.

use std::{path::Path, process::Command, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        consumer::{DeliverPolicy, pull},
        context::PublishErrorKind,
        stream::{Config, StorageType},
    },
};
use futures::StreamExt;
use tokio::runtime::{Handle, Runtime};

use super::{
    Server, free_port, program,
    workload::{Client, Peer, Subscriber},
};

const STREAM: &str = "DEALS";
const READ_MAX: usize = 1_000;

pub struct JetStream {
    name: String,
    url: String,
    runtime: Runtime,
    _server: Server,
}

impl JetStream {
    pub fn start(folder: &Path) -> Result<Self, String> {
        let missing = "nats-server is not installed (make bench-peers does)";
        let server = program("TRIBUNAL_NATS_SERVER", "nats-server").ok_or(missing)?;
        let version = Command::new(&server).arg("--version").output().map_err(|error| error.to_string())?;
        let version = String::from_utf8_lossy(&version.stdout);
        let version = version.trim().rsplit(['v', ' ']).next().unwrap_or_default().to_owned();
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let (port, config) = (free_port(), folder.join("nats.conf"));
        let text = format!(
            "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
            folder.join("store")
        );
        std::fs::write(&config, text).map_err(|error| error.to_string())?;
        let mut command = Command::new(server);
        command.arg("-c").arg(config);
        let server = Server::start(command, port)?;
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let url = format!("127.0.0.1:{port}");
        runtime.block_on(async {
            let config = Config {
                name: STREAM.into(),
                subjects: vec!["deals.*".into()],
                storage: StorageType::File,
                ..Config::default()
            };
            context(&url).await.create_stream(config).await.map_err(|error| error.to_string())
        })?;
        Ok(Self { name: format!("JetStream {version}, sync always"), url, runtime, _server: server })
    }
}

async fn context(url: &str) -> jetstream::Context {
    jetstream::new(async_nats::connect(url).await.expect("connects"))
}

impl Peer for JetStream {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self) -> Box<dyn Client> {
        let context = self.runtime.block_on(context(&self.url));
        Box::new(Connection { context, runtime: self.runtime.handle().clone() })
    }

    fn subscribe(&self) -> Box<dyn Subscriber> {
        let messages = self.runtime.block_on(async {
            let stream = context(&self.url).await.get_stream(STREAM).await.expect("the stream");
            let config = pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..pull::OrderedConfig::default() };
            stream.create_consumer(config).await.expect("a consumer").messages().await.expect("messages")
        });
        Box::new(Reader { messages, runtime: self.runtime.handle().clone() })
    }

    fn kept(&self) -> u64 {
        self.runtime.block_on(async {
            let stream = context(&self.url).await.get_stream(STREAM).await.expect("the stream");
            stream.get_info().await.expect("its state").state.messages
        })
    }
}

struct Connection {
    context: jetstream::Context,
    runtime: Handle,
}

impl Client for Connection {
    fn append(&mut self, stream: usize, head: u64, payload: &[u8]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, head.to_string().as_str());
        let payload = payload.to_vec().into();
        let published = self.runtime.block_on(async {
            self.context.publish_with_headers(format!("deals.{stream}"), headers, payload).await?.await
        });
        match published {
            Ok(ack) => Some(ack.sequence),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => None,
            Err(error) => panic!("JetStream answers {error}"),
        }
    }
}

struct Reader {
    messages: pull::Ordered,
    runtime: Handle,
}

impl Subscriber for Reader {
    /// What the ordered consumer gives next: it knows where it is.
    fn after(&mut self, _position: u64) -> Vec<u64> {
        let mut found = Vec::new();
        self.runtime.block_on(async {
            while found.len() < READ_MAX {
                // A message that is there comes at once; one that is not there yet is not waited for long.
                let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(50), self.messages.next()).await
                else {
                    break;
                };
                found.push(message.expect("reads").info().expect("a sequence").stream_sequence);
            }
        });
        found
    }
}
