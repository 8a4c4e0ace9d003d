use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How to install nats-server.
pub const NATS_SERVER_INSTALL: &str = "apt-get install nats-server";

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A private nats-server could not be run.
#[derive(Debug, thiserror::Error)]
pub enum NatsServerFault {
    /// Not installed.
    #[error("nats-server is not installed: {NATS_SERVER_INSTALL}")]
    NotInstalled,
    /// The directory cannot be used.
    #[error("nats-server in {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It ended at once, or did not answer.
    #[error("nats-server does not start: {0}")]
    NotStarted(String),
}

/// How a private nats-server differs from the usual one.
#[derive(Clone, Debug)]
pub struct NatsServerOptions {
    /// The program.
    pub program: PathBuf,
    /// More configuration, in the server's own language: a cluster, TLS, accounts.
    pub config: String,
    /// Bytes of a message at most.
    pub payload_bytes_max: usize,
}

impl Default for NatsServerOptions {
    /// The installed one, alone, open to whoever is on this machine, messages up to 1 MiB.
    fn default() -> Self {
        Self { program: "nats-server".into(), config: String::new(), payload_bytes_max: 1 << 20 }
    }
}

/// A nats-server with JetStream of our own, on a free port of the loopback interface; stopped when dropped.
pub struct NatsServer {
    child: Child,
    store_dir: PathBuf,
    port: u16,
    options: NatsServerOptions,
}

impl NatsServer {
    /// Starts one that keeps its files in a directory, and waits until it answers.
    ///
    /// # Errors
    /// [`NatsServerFault`].
    pub fn start(store_dir: impl AsRef<Path>) -> Result<Self, NatsServerFault> {
        Self::start_with(store_dir, NatsServerOptions::default())
    }

    /// [`NatsServer::start`] with other options.
    ///
    /// # Errors
    /// [`NatsServerFault`].
    pub fn start_with(store_dir: impl AsRef<Path>, options: NatsServerOptions) -> Result<Self, NatsServerFault> {
        Self::start_on(store_dir.as_ref(), None, options)
    }

    fn start_on(store_dir: &Path, port: Option<u16>, options: NatsServerOptions) -> Result<Self, NatsServerFault> {
        let fault = |source| NatsServerFault::Io { path: store_dir.to_path_buf(), source };
        std::fs::create_dir_all(store_dir).map_err(fault)?;
        let store_dir = store_dir.canonicalize().map_err(fault)?;
        let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
        let config = format!(
            "host: 127.0.0.1\nport: {}\nports_file_dir: {}\nmax_payload: {}\njetstream {{ store_dir: {} }}\n{}\n",
            port.map_or("-1".into(), |port| port.to_string()),
            quoted(&store_dir),
            options.payload_bytes_max,
            quoted(&store_dir.join("jetstream")),
            options.config,
        );
        let config_file = store_dir.join("nats-server.conf");
        std::fs::write(&config_file, config).map_err(fault)?;
        let log = File::create(store_dir.join("nats-server.log")).map_err(fault)?;
        let child = Command::new(&options.program)
            .arg("-c")
            .arg(&config_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(fault)?)
            .stderr(log)
            .spawn();
        let child = child.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => NatsServerFault::NotInstalled,
            _ => fault(error),
        })?;
        // From here on dropping ends the child.
        let mut server = Self { child, store_dir, port: port.unwrap_or(0), options };
        let deadline = Instant::now() + START_TIMEOUT;
        while !server.answers() {
            let ended = server.child.try_wait().map_err(|source| server.io(source))?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(server.store_dir.join("nats-server.log")).unwrap_or_default();
                let last = log.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>();
                let what = ended.map_or("no answer".into(), |status| status.to_string());
                return Err(NatsServerFault::NotStarted(format!("{what}: {}", last.join(" / "))));
            }
            std::thread::sleep(POLL);
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Stops it and starts it again on the same port with the same files.
    ///
    /// # Errors
    /// [`NatsServerFault`].
    pub fn restart(&mut self) -> Result<(), NatsServerFault> {
        self.stop();
        *self = Self::start_on(&self.store_dir, Some(self.port), self.options.clone())?;
        Ok(())
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.ports_file());
    }

    /// The port that clients connect to.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Stops it in order, so that what it acknowledged is in its files; kills it where it does not stop.
    pub fn stop(&mut self) {
        let pid = self.child.id();
        if matches!(self.child.try_wait(), Ok(None)) {
            let signal = Command::new(&self.options.program)
                .arg("--signal")
                .arg(format!("quit={pid}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let deadline = Instant::now() + STOP_TIMEOUT;
            while signal.as_ref().is_ok_and(|status| status.success())
                && matches!(self.child.try_wait(), Ok(None))
                && Instant::now() < deadline
            {
                std::thread::sleep(POLL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(self.ports_file());
    }

    fn ports_file(&self) -> PathBuf {
        self.store_dir.join(format!("nats-server_{}.ports", self.child.id()))
    }

    /// Whether it says INFO with JetStream; finds the port first where the server chose it.
    fn answers(&mut self) -> bool {
        if self.port == 0 {
            let ports = std::fs::read(self.ports_file()).ok();
            let ports: Option<serde_json::Value> = ports.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let url = ports.as_ref().and_then(|ports| ports["nats"][0].as_str());
            match url.and_then(|url| url.rsplit(':').next()?.parse().ok()) {
                Some(port) => self.port = port,
                None => return false,
            }
        }
        let hello = || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            Some(line.starts_with("INFO ") && line.contains("\"jetstream\":true"))
        };
        hello().unwrap_or(false)
    }

    fn io(&self, source: std::io::Error) -> NatsServerFault {
        NatsServerFault::Io { path: self.store_dir.clone(), source }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.stop();
    }
}
