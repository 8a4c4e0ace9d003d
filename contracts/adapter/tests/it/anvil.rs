use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A development node of its own, ended with the value.
pub struct Anvil {
    child: Child,
    pub url: String,
}

/// The first account of development chains.
pub const DEPLOYER_KEY: [u8; 32] =
    alloy_primitives::hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");

/// Where nothing listens.
pub const NO_NODE: &str = "http://127.0.0.1:1";

impl Anvil {
    /// Starts it on a free port with its clock at `start_s`, and waits until it listens.
    pub fn start(start_s: u64) -> Self {
        Self::start_with(start_s, &["--hardfork", "prague"])
    }

    /// The same with other arguments.
    pub fn start_with(start_s: u64, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["--host", "127.0.0.1", "--port", "0", "--chain-id", "31337"])
            .args(["--timestamp", &start_s.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.trim().strip_prefix("Listening on ").map(str::to_owned))
            .expect("anvil says where it listens");
        // Its pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://{address}") }
    }
}

/// Asks again and again, for a minute at most.
pub async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !reached().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap_or_else(|_| panic!("{what} did not come"));
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node_modules/@foundry-rs");
    let packages = std::fs::read_dir(&modules).into_iter().flatten().flatten();
    let found = packages.map(|entry| entry.path().join("bin/anvil")).find(|path| path.is_file());
    found.expect("this test runs against anvil; install it with: make node")
}
