use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// As often as it is asked.
pub const ALWAYS: usize = 1_000_000;

/// What goes wrong with a request that a node is sent.
#[derive(Clone, Copy)]
pub enum Trouble {
    /// The node never sees it: 503.
    Turned,
    /// The node never sees it: 429.
    Limited,
    /// The node never sees it: an error object of a provider's limit.
    LimitedPolitely,
    /// The node does it, and nobody hears of it.
    Unheard,
    /// The node never sees it, and the connection stays open without a word.
    Stalled,
    /// The node never sees it; the answer is no JSON.
    Garbage,
    /// The node never sees it; the answer is JSON-RPC of another form than the method's.
    Nonsense,
    /// The node never sees it; the answer has no end.
    Endless,
    /// The node never sees it; the answer is this number.
    Number(u64),
    /// The node never sees it; the answer is an empty list.
    Nothing,
    /// The node never sees it; an error object that says that a search covers too many blocks.
    TooManyBlocks,
}

/// Method ("" is any), how often more, and what happens to it.
type Planned = Mutex<Vec<(&'static str, usize, Trouble)>>;

/// A door before a node that lets some requests fail.
pub struct Proxy {
    pub url: String,
    troubles: Arc<Planned>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Before the node at `url`; runs as long as the process.
    pub fn before(url: &str) -> Self {
        let node = url.strip_prefix("http://").expect("a development node").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (troubles, heard) = (Arc::<Planned>::default(), Arc::<Mutex<Vec<String>>>::default());
        let shared = (Arc::clone(&troubles), Arc::clone(&heard));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (node, (troubles, heard)) = (node.clone(), shared.clone());
                std::thread::spawn(move || pass(stream, &node, &troubles, &heard));
            }
        });
        Self { url, troubles, heard }
    }

    /// The next `count` calls of `method`, or of any where it is empty, go wrong.
    pub fn fail(&self, method: &'static str, count: usize, trouble: Trouble) {
        self.troubles.lock().unwrap().push((method, count, trouble));
    }

    /// Nothing goes wrong any more.
    pub fn mend(&self) {
        self.troubles.lock().unwrap().clear();
    }

    /// How many failures are left.
    pub fn left(&self) -> usize {
        self.troubles.lock().unwrap().iter().map(|(_, count, _)| count).sum()
    }

    /// How often a method was asked for.
    pub fn asked(&self, method: &str) -> usize {
        let name = format!("\"{method}\"");
        self.heard.lock().unwrap().iter().filter(|request| request.contains(&name)).count()
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

/// One request a connection.
fn pass(mut client: TcpStream, node: &str, troubles: &Planned, heard: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().to_ascii_lowercase().strip_prefix("content-length:") {
            Some(value) => length = value.trim().parse().ok()?,
            None if line.trim().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    heard.lock().unwrap().push(text.clone());
    let trouble = troubles.lock().unwrap().iter_mut().find_map(|(method, left, trouble)| {
        let hit = *left > 0 && (method.is_empty() || text.contains(&format!("\"{method}\"")));
        hit.then(|| {
            *left -= 1;
            *trouble
        })
    });
    let status = |line: &str| format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes();
    let said = |body: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ";
        format!("{head}{}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let request: serde_json::Value = serde_json::from_slice(&body).ok()?;
    let error = |code: i64, message: &str| {
        let error = serde_json::json!({ "code": code, "message": message });
        said(&serde_json::json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }).to_string())
    };
    let result = |result: serde_json::Value| {
        said(&serde_json::json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }).to_string())
    };
    let answer = match trouble {
        Some(Trouble::Turned) => status("503 Service Unavailable"),
        Some(Trouble::Limited) => status("429 Too Many Requests"),
        Some(Trouble::LimitedPolitely) => error(-32005, "daily request count exceeded, request rate limited"),
        Some(Trouble::TooManyBlocks) => error(-32600, "eth_getLogs is limited to a 10 block range"),
        Some(Trouble::Garbage) => said("<html>Welcome!</html>"),
        Some(Trouble::Nonsense) => result(serde_json::json!({ "hello": "there" })),
        Some(Trouble::Nothing) => result(serde_json::json!([])),
        Some(Trouble::Number(number)) => result(serde_json::json!(format!("{number:#x}"))),
        Some(Trouble::Stalled) => {
            // Until the other side has had enough.
            let _ = reader.read(&mut [0]);
            return Some(());
        }
        Some(Trouble::Endless) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\"";
            client.write_all(head.as_bytes()).ok()?;
            while client.write_all(&[b'x'; 1 << 16]).is_ok() {}
            return Some(());
        }
        Some(Trouble::Unheard) | None => {
            let mut upstream = TcpStream::connect(node).ok()?;
            let head = format!(
                "POST / HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            upstream.write_all(head.as_bytes()).ok()?;
            upstream.write_all(&body).ok()?;
            let mut heard = Vec::new();
            upstream.read_to_end(&mut heard).ok()?;
            if trouble.is_none() { heard } else { status("503 Service Unavailable") }
        }
    };
    client.write_all(&answer).ok()
}
