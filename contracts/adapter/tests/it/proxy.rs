use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What goes wrong with a request that a node is sent.
#[derive(Clone, Copy)]
pub enum Trouble {
    /// The node never sees it: 503.
    Turned,
    /// The node does it, and nobody hears of it.
    Unheard,
}

/// Method, how often more, and what happens to it.
type Planned = Mutex<Vec<(&'static str, usize, Trouble)>>;

/// A door before a node that lets some requests fail.
pub struct Proxy {
    pub url: String,
    troubles: Arc<Planned>,
}

impl Proxy {
    /// Before the node at `url`; runs as long as the process.
    pub fn before(url: &str) -> Self {
        let node = url.strip_prefix("http://").expect("a development node").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let troubles = Arc::<Planned>::default();
        let shared = Arc::clone(&troubles);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (node, troubles) = (node.clone(), Arc::clone(&shared));
                std::thread::spawn(move || pass(stream, &node, &troubles));
            }
        });
        Self { url, troubles }
    }

    /// The next `count` calls of `method` go wrong.
    pub fn fail(&self, method: &'static str, count: usize, trouble: Trouble) {
        self.troubles.lock().unwrap().push((method, count, trouble));
    }

    /// How many failures are left.
    pub fn left(&self) -> usize {
        self.troubles.lock().unwrap().iter().map(|(_, count, _)| count).sum()
    }
}

/// One request a connection.
fn pass(mut client: TcpStream, node: &str, troubles: &Planned) -> Option<()> {
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
    let trouble = troubles.lock().unwrap().iter_mut().find_map(|(method, left, trouble)| {
        let hit = *left > 0 && text.contains(&format!("\"{method}\""));
        hit.then(|| {
            *left -= 1;
            *trouble
        })
    });
    let mut answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
    if !matches!(trouble, Some(Trouble::Turned)) {
        let mut upstream = TcpStream::connect(node).ok()?;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {node}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        upstream.write_all(head.as_bytes()).ok()?;
        upstream.write_all(&body).ok()?;
        let mut heard = Vec::new();
        upstream.read_to_end(&mut heard).ok()?;
        if trouble.is_none() {
            answer = heard;
        }
    }
    client.write_all(&answer).ok()
}
