//! Settings of `tribunal serve`: flags beat environment (`TRIBUNAL_SECTION__KEY`) beat file beat defaults.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use figment::{
    Figment,
    providers::{Env, Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tribunal_events::Address;

use crate::{
    artifacts::Place, failure::Failure, market::settings::MarketConfig, mediator::history::History, policy::Share,
};

/// All settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[bus]`
    pub bus: BusConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[chain]`
    pub chain: ChainConfig,
    /// `[verifiers]`
    pub verifiers: VerifiersConfig,
    /// `[mediator]`
    pub mediator: MediatorConfig,
    /// `[operator]`
    pub operator: OperatorConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[policy]`
    pub policy: PolicyConfig,
    /// `[markets.NAME]`
    pub markets: BTreeMap<String, MarketConfig>,
}

/// Where events come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusConfig {
    /// `nats://…` or `tls://…`; absent: in process.
    pub url: Option<String>,
    /// NATS credentials file.
    pub credentials: Option<PathBuf>,
    /// Stream of events.
    pub stream: String,
}

/// Where they are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Folder of the store.
    pub path: PathBuf,
    /// `always`, `group` or `never`.
    pub fsync: FsyncConfig,
    /// Folder of backups, for `tribunal store backup`.
    pub backup: Option<PathBuf>,
}

/// When a write counts as durable.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum FsyncConfig {
    Always,
    Group,
    Never,
}

/// Where money is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainConfig {
    /// JSON-RPC of a node; absent: in-process EVM.
    pub rpc_url: Option<String>,
    /// More nodes, asked in turn when the ones before fail.
    pub rpc_urls: Vec<String>,
    /// Its chain id; checked.
    pub chain_id: Option<u64>,
    /// Blocks, the transaction's own included, that must stand before a step counts.
    pub confirmations: u64,
    /// Events are looked for from this block on: that of the deployment.
    pub first_block: u64,
    /// At most this is paid for a unit of gas.
    pub fee_gwei_max: u64,
    /// Where the contracts are.
    pub contracts: Contracts,
    /// The account that pays for transactions.
    pub keystore: Option<PathBuf>,
    /// Its password.
    pub password_file: Option<PathBuf>,
    /// Instead of a keystore: a signer that speaks Web3Signer's HTTP API.
    pub signer_url: Option<String>,
    /// With `signer_url`: the account of the key.
    pub address: Option<Address>,
}

/// Addresses of the contracts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Contracts {
    pub escrow: Option<Address>,
    pub registry: Option<Address>,
    pub token: Option<Address>,
    /// `CheckpointRegistry`, where the log is anchored.
    pub checkpoints: Option<Address>,
}

/// How claims are checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerifiersConfig {
    /// Verifications side by side.
    pub workers: usize,
    /// This operator's limits; a deal that needs more is inconclusive here.
    pub fuel_max: u64,
    /// See `fuel_max`. Default: half of the machine's memory, as `/proc/meminfo` tells it, divided by the workers, at most
    /// 4 GiB.
    pub memory_bytes_max: u64,
    /// See `fuel_max`.
    pub output_bytes_max: u64,
    /// See `fuel_max`.
    pub wall_ms_max: u64,
    /// Where modules and data are, asked in turn: folders, `https://gateway.example/ipfs/`, `https://files.example/{blake3}` (or
    /// `{sha256}`, `{address}`), `nats:BUCKET`.
    pub artifacts: Vec<Place>,
    /// Where those are kept that came from elsewhere than a folder.
    pub artifact_cache: ArtifactCacheConfig,
}

/// Artifacts that were fetched.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArtifactCacheConfig {
    /// Its folder; absent: beside the store, `<store.path>.artifacts`. Several engines may share one.
    pub path: Option<PathBuf>,
    /// Bytes that it holds; what was longest not used goes.
    pub bytes_max: u64,
}

impl Default for ArtifactCacheConfig {
    fn default() -> Self {
        Self { path: None, bytes_max: 4 << 30 }
    }
}

/// How the record is made a transparency log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The key of the checkpoints is derived from this keystore's; absent: from the operator's.
    pub keystore: Option<PathBuf>,
    /// Its password.
    pub password_file: Option<PathBuf>,
    /// The log's name, unique for ever, like `example.org/tribunal`; absent: `tribunal/` and the operator's account.
    pub origin: Option<String>,
    /// A log that grew is signed this often, in seconds.
    pub checkpoint_s: u64,
    /// And whenever it grew by so many records.
    pub checkpoint_records: u64,
    /// With `chain.contracts.checkpoints`: a log that grew is anchored on the chain this often, in seconds.
    pub anchor_s: u64,
}

/// The key that judges.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MediatorConfig {
    /// Its keystore; absent, and no signer either: this engine judges nothing.
    pub keystore: Option<PathBuf>,
    /// Its password.
    pub password_file: Option<PathBuf>,
    /// Instead of a keystore: a signer that speaks Web3Signer's HTTP API and holds the key.
    pub signer_url: Option<String>,
    /// With `signer_url`: the account of the key.
    pub address: Option<Address>,
    /// What it means to sign; absent: beside the store, `<store.path>.history.jsonl`. Never inside of it, so that a restored
    /// store does not bring back an old history.
    pub history: Option<PathBuf>,
    /// Engines of others whose record is followed: their cases that name or draw this key are judged too.
    pub follow: Vec<FollowConfig>,
    /// Whether every finished case of followed records is checked again, whoever judged it.
    pub watch: bool,
    /// Seconds that a shutdown gives to cases at work; the rest is resumed at the next start.
    pub grace_s: u64,
}

/// Somebody's engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowConfig {
    /// `http://host:port`.
    pub url: String,
    /// Its operator: deals that name another one are not its to tell about.
    pub operator: Address,
    /// Bearer token for speaking to it, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// The key that signs receipts and the engine's events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorConfig {
    /// Its keystore; absent: a development key beside the store, made when needed.
    pub keystore: Option<PathBuf>,
    /// Its password.
    pub password_file: Option<PathBuf>,
}

/// Where it listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Bearer token that writing needs; absent: none.
    pub token: Option<String>,
}

impl Config {
    /// Where the copies of followed records are: beside the store, `<store.path>.followed`.
    pub fn followed(&self) -> PathBuf {
        self.beside_the_store(".followed")
    }

    /// Where the journals of marketplaces are: beside the store, `<store.path>.markets`.
    pub fn markets_folder(&self) -> PathBuf {
        self.beside_the_store(".markets")
    }

    /// Where artifacts are kept that were fetched, and how many bytes.
    pub fn artifact_cache(&self) -> (PathBuf, u64) {
        let ArtifactCacheConfig { path, bytes_max } = &self.verifiers.artifact_cache;
        (path.clone().unwrap_or_else(|| self.beside_the_store(".artifacts")), *bytes_max)
    }

    /// What must not go away with the store, nor come back with an old copy of it.
    pub fn beside_the_store(&self, suffix: &str) -> PathBuf {
        let mut name = self.store.path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.store.path.with_file_name(name)
    }

    /// Where the signing history is.
    pub fn signing_history(&self) -> PathBuf {
        self.mediator.history.clone().unwrap_or_else(|| History::default_path(&self.store.path))
    }
}

impl Default for MediatorConfig {
    fn default() -> Self {
        Self {
            keystore: None,
            password_file: None,
            signer_url: None,
            address: None,
            history: None,
            follow: Vec::new(),
            watch: false,
            grace_s: 20,
        }
    }
}

/// Which deals this operator agrees to judge; see [`crate::policy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Whether a proposal that names a mediator run here is refused where the policy says so.
    pub enforce: bool,
    /// Fuel that this machine burns in a second; a verification of its own jobs tells.
    pub fuel_per_s: u64,
    /// Share of the time to judge that stays free.
    pub margin: Share,
    /// Seconds until a transaction is in a block.
    pub block_time_s: u64,
    /// Seconds until an event is recorded.
    pub bus_latency_s: u64,
    /// d: how often a check finds a cheat. Absent: 1 where results are compared byte for byte or proven, else 0.95.
    pub detection: Option<Share>,
    /// r: share of mediators that collude with the provider.
    pub colluding: Share,
    /// C as a share of the price: what a cheat saves and gains.
    pub gain: Share,
    /// p: how often a result is disputed. 1 asks of the collateral only that a cheat who is always checked loses.
    pub check_probability: Share,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            enforce: true,
            fuel_per_s: 300_000_000,
            margin: Share::from_ppm(250_000),
            block_time_s: 12,
            bus_latency_s: 2,
            detection: None,
            colluding: Share::from_ppm(0),
            gain: Share::ONE,
            check_probability: Share::ONE,
        }
    }
}

impl Default for BusConfig {
    fn default() -> Self {
        Self { url: None, credentials: None, stream: crate::bus::DEALS.into() }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { path: "tribunal-data".into(), fsync: FsyncConfig::Always, backup: None }
    }
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            rpc_url: None,
            rpc_urls: Vec::new(),
            chain_id: None,
            confirmations: 1,
            first_block: 0,
            fee_gwei_max: 500,
            contracts: Contracts::default(),
            keystore: None,
            password_file: None,
            signer_url: None,
            address: None,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            keystore: None,
            password_file: None,
            origin: None,
            checkpoint_s: 10,
            checkpoint_records: 10_000,
            anchor_s: 3600,
        }
    }
}

impl Default for VerifiersConfig {
    fn default() -> Self {
        let limits = tribunal_verifiers::OperatorLimits::default();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers,
            fuel_max: limits.fuel_max,
            memory_bytes_max: memory_bytes_max(workers),
            output_bytes_max: limits.output_bytes_max,
            wall_ms_max: limits.wall_ms_max,
            artifacts: Vec::new(),
            artifact_cache: ArtifactCacheConfig::default(),
        }
    }
}

impl VerifiersConfig {
    /// This operator's limits.
    pub const fn limits(&self) -> tribunal_verifiers::OperatorLimits {
        tribunal_verifiers::OperatorLimits {
            fuel_max: self.fuel_max,
            memory_bytes_max: self.memory_bytes_max,
            output_bytes_max: self.output_bytes_max,
            wall_ms_max: self.wall_ms_max,
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), token: None }
    }
}

impl From<FsyncConfig> for crate::store::Fsync {
    fn from(config: FsyncConfig) -> Self {
        match config {
            FsyncConfig::Always => Self::Always,
            FsyncConfig::Group => Self::Group,
            FsyncConfig::Never => Self::Never,
        }
    }
}

/// What a job may use where the settings say nothing: all workers together at most half of the machine.
fn memory_bytes_max(workers: usize) -> u64 {
    let most = tribunal_verifiers::OperatorLimits::default().memory_bytes_max;
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_bytes(&text));
    machine.map_or(most, |bytes| most.min(bytes / 2 / workers.max(1) as u64))
}

/// `MemTotal` of a `/proc/meminfo`.
fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"))?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Reads the settings: `file`, or the one that the environment's `TRIBUNAL_CONFIG` names, must exist; with neither
/// `tribunal.toml` is read if it is there.
///
/// # Errors
/// Exit 78 with the key and the place that is wrong.
pub fn load(file: Option<&PathBuf>, flags: &[(&'static str, Option<String>)]) -> Result<(Config, Figment), Failure> {
    let named = file.cloned().or_else(|| std::env::var_os("TRIBUNAL_CONFIG").map(PathBuf::from));
    if let Some(file) = &named
        && !file.is_file()
    {
        return Err(Failure::config(format!("there is no configuration file {}", file.display())));
    }
    let path = named.unwrap_or_else(|| "tribunal.toml".into());
    let mut figment = Figment::from(Serialized::defaults(Config::default()))
        .merge(Toml::file(path))
        .merge(Env::prefixed("TRIBUNAL_").filter(|key| key.as_str().contains("__")).split("__"));
    for (key, value) in flags {
        if let Some(value) = value {
            figment = figment.merge(Serialized::default(key, value.clone()));
        }
    }
    let mut config: Config =
        figment.extract().map_err(|error| Failure::config(format!("the configuration: {error}")))?;
    if is_default(&figment, "verifiers.memory_bytes_max") {
        config.verifiers.memory_bytes_max = memory_bytes_max(config.verifiers.workers);
    }
    let policy = &config.policy;
    let shares = [
        ("margin", Some(policy.margin)),
        ("detection", policy.detection),
        ("colluding", Some(policy.colluding)),
        ("check_probability", Some(policy.check_probability)),
    ];
    for (name, share) in shares {
        if let Some(share) = share.filter(|share| *share > Share::ONE) {
            return Err(Failure::config(format!("policy.{name} is a share of a whole, at most 1, not {share}")));
        }
    }
    Ok((config, figment))
}

/// Whether nobody set this key: defaults come from this program's own code.
pub fn is_default(figment: &Figment, key: &str) -> bool {
    let metadata = figment.find_metadata(key);
    matches!(metadata, Some(figment::Metadata { source: Some(figment::Source::Code(_)), .. }) | None)
}

/// Settings for people to see: no tokens, and of URLs only where they lead to. `key` is the last part of the name.
pub fn shown(key: &str, value: &Value) -> Value {
    match value {
        Value::Null => Value::Null,
        // Addresses, one of which is of a token.
        Value::Object(_) if key == "contracts" => value.clone(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), shown(key, value))).collect(),
        Value::String(text) if key == "artifacts" && text.contains("://") => place(text).into(),
        Value::Array(entries) => entries.iter().map(|value| shown(key, value)).collect(),
        _ if key.ends_with("token") => "…".into(),
        Value::String(text) if key == "url" || key.ends_with("_url") || key.ends_with("_urls") => {
            text.split(',').map(|url| place(url.trim())).collect::<Vec<_>>().join(",").into()
        }
        other => other.clone(),
    }
}

/// Scheme, host and port of a URL; "…" stands for a user, a path and a query, which may be secrets.
pub fn place(url: &str) -> String {
    let Ok(parsed) = url.parse::<reqwest::Url>() else { return "…".into() };
    let Some(host) = parsed.host_str() else { return "…".into() };
    let user = if parsed.username().is_empty() && parsed.password().is_none() { "" } else { "…@" };
    let port = parsed.port().map_or_else(String::new, |port| format!(":{port}"));
    let bare = matches!(parsed.path(), "" | "/") && parsed.query().is_none() && parsed.fragment().is_none();
    format!("{}://{user}{host}{port}{}", parsed.scheme(), if bare { "" } else { "/…" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_show_where_they_lead_and_nothing_else() {
        for (url, expected) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("https://node.example/", "https://node.example"),
            ("https://node.example/v3/secret", "https://node.example/…"),
            ("https://node.example:8545?key=secret", "https://node.example:8545/…"),
            ("tls://me:secret@bus.example:4222", "tls://…@bus.example:4222"),
            ("https://me:se/cret@node.example", "…"),
            ("secret", "…"),
        ] {
            assert_eq!(place(url), expected);
        }
        let follow = serde_json::json!([{ "url": "https://a.example/secret", "token": "secret" }]);
        let expected = serde_json::json!([{ "url": "https://a.example/…", "token": "…" }]);
        assert_eq!(shown("follow", &follow), expected);
        assert_eq!(shown("follow_token", &Value::Null), Value::Null);
        let artifacts = serde_json::json!(["fixtures", "https://files.example/secret/{blake3}", "nats:artifacts"]);
        let expected = serde_json::json!(["fixtures", "https://files.example/…", "nats:artifacts"]);
        assert_eq!(shown("artifacts", &artifacts), expected);
        let market = serde_json::json!({ "rpc_urls": ["https://a.example/secret"] });
        assert_eq!(shown("base", &market), serde_json::json!({ "rpc_urls": ["https://a.example/…"] }));
    }

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(memory_bytes("MemTotal:       16384000 kB\nMemFree: 1 kB\n"), Some(16_384_000 * 1024));
        assert_eq!(memory_bytes("MemFree: 1 kB\n"), None);
        assert!(memory_bytes_max(1) <= 1 << 32 && memory_bytes_max(64) <= memory_bytes_max(1));
    }
}
