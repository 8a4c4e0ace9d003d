//! PostgreSQL with Message DB, the default of most teams, driven over its own protocol (version 3.0) with one prepared
//! statement a connection: less work for the client than any library does.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    Server, free_port, on_path,
    workload::{Client, PAYLOAD_BYTES, Peer, Subscriber},
};

/// Message DB takes a lock a category, the part of a stream's name before the first dash, until the transaction is on the
/// disk: streams of one category are written one after the other, those of different ones at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    OneCategory,
    CategoryEach,
}

pub const LAYOUTS: [Layout; 2] = [Layout::OneCategory, Layout::CategoryEach];

impl Layout {
    const fn database(self) -> &'static str {
        match self {
            Self::OneCategory => "one_category",
            Self::CategoryEach => "category_each",
        }
    }
}

/// Both layouts are in one server, which ends with the last of them.
static RUNNING: Mutex<(Weak<Server>, u16)> = Mutex::new((Weak::new(), 0));

pub struct Postgres {
    name: String,
    port: u16,
    layout: Layout,
    _server: Arc<Server>,
}

impl Postgres {
    pub fn start(folder: &Path, layout: Layout) -> Result<Self, String> {
        let programs = programs().ok_or("not installed (Debian: postgresql-15)")?;
        let sql = std::env::var_os("TRIBUNAL_MESSAGE_DB").map(PathBuf::from);
        let sql = sql.filter(|path| path.join("install.sh").is_file());
        let sql = sql.ok_or("Message DB is not installed (make bench-peers does)")?;
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let server = match running.0.upgrade() {
            Some(server) => server,
            None => {
                let port = free_port();
                let server = Arc::new(serve(&programs, folder, port)?);
                *running = (Arc::downgrade(&server), port);
                server
            }
        };
        let port = running.1;
        drop(running);
        let installed = Command::new("bash")
            .arg(sql.join("install.sh"))
            .env("PATH", with_first(&programs))
            .envs([("PGHOST", "127.0.0.1"), ("PGUSER", "bench"), ("DATABASE_NAME", layout.database())])
            .env("PGPORT", port.to_string())
            .output()
            .map_err(|error| error.to_string())?;
        if !installed.status.success() {
            return Err(format!("Message DB: {}", String::from_utf8_lossy(&installed.stderr)));
        }
        let mut connection = Connection::open(port, layout);
        let version = connection.setting("server_version");
        let name = match layout {
            Layout::OneCategory => format!("PostgreSQL {version}, Message DB, one category"),
            Layout::CategoryEach => format!("PostgreSQL {version}, Message DB, a category each"),
        };
        for durable in ["fsync", "synchronous_commit", "full_page_writes"] {
            assert_eq!(connection.setting(durable), "on", "{durable}");
        }
        Ok(Self { name, port, layout, _server: server })
    }
}

/// The folder of the server's programs.
fn programs() -> Option<PathBuf> {
    let debian = Path::new("/usr/lib/postgresql/15/bin");
    if debian.join("initdb").is_file() {
        return Some(debian.to_owned());
    }
    on_path("initdb")?.parent().map(Path::to_owned)
}

fn with_first(folder: &Path) -> std::ffi::OsString {
    let mut path = folder.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

fn serve(programs: &Path, folder: &Path, port: u16) -> Result<Server, String> {
    let data = folder.join("postgres");
    std::fs::create_dir(&data).map_err(|error| error.to_string())?;
    let mut initdb = Command::new(programs.join("initdb"));
    let mut postgres = Command::new(programs.join("postgres"));
    // It refuses to run as root.
    if std::fs::metadata(&data).is_ok_and(|it| it.uid() == 0) {
        let owned = Command::new("chown").arg("postgres:").arg(&data).status();
        let open = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755));
        if !owned.is_ok_and(|status| status.success()) || open.is_err() {
            return Err("does not run as root, and there is no account postgres".into());
        }
        for command in [&mut initdb, &mut postgres] {
            let program = command.get_program().to_owned();
            *command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/");
        }
    }
    let made = initdb
        .args(["--auth=trust", "--username=bench", "--no-locale", "--encoding=UTF8", "-D"])
        .arg(&data)
        .output()
        .map_err(|error| error.to_string())?;
    if !made.status.success() {
        return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
    }
    postgres.arg("-D").arg(&data).args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
    postgres.args(["-c", "max_connections=200", "-p", &port.to_string()]);
    Server::start(postgres, port)
}

impl Peer for Postgres {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self) -> Box<dyn Client> {
        let mut connection = Connection::open(self.port, self.layout);
        connection.prepare(
            "SELECT message_store.write_message($1::varchar, $2::varchar, 'Event'::varchar, $3::jsonb, NULL::jsonb, $4::bigint)",
        );
        Box::new(connection)
    }

    fn subscribe(&self) -> Box<dyn Subscriber> {
        let mut connection = Connection::open(self.port, self.layout);
        connection.prepare(
            "SELECT global_position FROM message_store.messages WHERE global_position > $1::bigint \
             ORDER BY global_position LIMIT 1000",
        );
        Box::new(connection)
    }

    fn kept(&self) -> u64 {
        let mut connection = Connection::open(self.port, self.layout);
        connection.prepare("SELECT count(*) FROM message_store.messages");
        connection.execute(&[]).expect("counts").first().and_then(|text| text.parse().ok()).expect("a number")
    }
}

struct Connection {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    layout: Layout,
}

impl Connection {
    fn open(port: u16, layout: Layout) -> Self {
        let writer = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        writer.set_nodelay(true).expect("sets");
        let reader = BufReader::new(writer.try_clone().expect("clones"));
        let mut connection = Self { reader, writer, layout };
        let words = ["user", "bench", "database", layout.database(), "options", "-c search_path=message_store,public"];
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for word in words {
            startup.extend_from_slice(word.as_bytes());
            startup.push(0);
        }
        startup.push(0);
        let length = (startup.len() as u32 + 4).to_be_bytes();
        connection.writer.write_all(&[&length[..], &startup].concat()).expect("sends");
        connection.answer().expect("lets in");
        connection
    }

    /// What the next [`Connection::execute`] does.
    fn prepare(&mut self, query: &str) {
        let parse = [&b"\0"[..], query.as_bytes(), b"\0", &[0, 0]].concat();
        self.send(&[(b'P', &parse), (b'S', &[])]);
        self.answer().expect("prepares");
    }

    /// The first column of each row; the code of an error.
    fn execute(&mut self, parameters: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut bind = vec![0, 0, 0, 0];
        bind.extend_from_slice(&(parameters.len() as u16).to_be_bytes());
        for parameter in parameters {
            bind.extend_from_slice(&(parameter.len() as u32).to_be_bytes());
            bind.extend_from_slice(parameter);
        }
        bind.extend_from_slice(&[0, 0]);
        self.send(&[(b'B', &bind), (b'E', &[0; 5]), (b'S', &[])]);
        self.answer()
    }

    fn setting(&mut self, name: &str) -> String {
        self.prepare(&format!("SHOW {name}"));
        let text = self.execute(&[]).expect("shows").remove(0);
        text.split(' ').next().unwrap_or_default().to_owned()
    }

    fn send(&mut self, messages: &[(u8, &[u8])]) {
        let mut bytes = Vec::new();
        for (kind, body) in messages {
            bytes.push(*kind);
            bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        self.writer.write_all(&bytes).expect("sends");
    }

    /// Everything up to `ReadyForQuery`.
    fn answer(&mut self) -> Result<Vec<String>, String> {
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let mut head = [0; 5];
            self.reader.read_exact(&mut head).expect("an answer");
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut body = vec![0; length as usize - 4];
            self.reader.read_exact(&mut body).expect("an answer");
            match head[0] {
                b'Z' => return error.map_or(Ok(rows), Err),
                // Columns, then the first one's length and text.
                b'D' => rows.push(String::from_utf8_lossy(&body[6..]).into_owned()),
                b'E' => {
                    let code = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"));
                    error = Some(String::from_utf8_lossy(code.unwrap_or_default()).into_owned());
                }
                _ => {}
            }
        }
    }
}

impl Client for Connection {
    /// A JSON document of the size, since that is what Message DB stores. Its nonce makes the message's id too.
    fn payload(&self, _stream: usize, nonce: u128) -> Vec<u8> {
        let start = format!("{{\"event\":\"{nonce:032x}");
        format!("{start}{}\"}}", "7".repeat(PAYLOAD_BYTES - start.len() - 2)).into_bytes()
    }

    fn append(&mut self, stream: usize, head: u64, payload: &[u8]) -> Option<u64> {
        let id = &payload[10..42];
        let name = match self.layout {
            Layout::OneCategory => format!("deal-{stream}"),
            Layout::CategoryEach => format!("deal{stream}-1"),
        };
        let expected = (i128::from(head) - 1).to_string();
        match self.execute(&[id, name.as_bytes(), payload, expected.as_bytes()]) {
            Ok(_) => Some(head + 1),
            // What Message DB raises for another version.
            Err(code) if code == "P0001" => None,
            Err(code) => panic!("PostgreSQL answers {code}"),
        }
    }
}

impl Subscriber for Connection {
    fn after(&mut self, position: u64) -> Vec<u64> {
        let rows = self.execute(&[position.to_string().as_bytes()]).expect("reads");
        rows.iter().map(|text| text.parse().expect("a number")).collect()
    }
}
