//! `tribunal worker`.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use tokio_util::sync::CancellationToken;
use tribunal_events::SigningKey;

use crate::{bus::NatsConfig, config, external::Callbacks, failure::Failure, keystore, worker::Worker};

/// Does verifications for engines of the same operator, from the work queue on the bus.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A worker keeps nothing: start and stop as many as there are machines. An engine believes those that it lists in verifiers.queue, by the accounts that their keys have.\n\nExample:\n  tribunal keys new worker.json\n  tribunal worker --bus-url nats://127.0.0.1:4222 --key worker.json"
)]
pub struct Args {
    /// The configuration; default: tribunal.toml if it is there. Of it `[bus]`, `[verifiers]` and `[worker]` count.
    #[arg(long)]
    config: Option<PathBuf>,
    /// `nats://…`; overrides bus.url.
    #[arg(long)]
    bus_url: Option<String>,
    /// Overrides worker.keystore.
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// Overrides worker.password_file.
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// Verifications side by side; overrides verifiers.workers.
    #[arg(long)]
    places: Option<String>,
}

/// Runs until it is asked to stop, and finishes what is under way.
///
/// # Errors
/// 78 for settings, 69 where there is no bus.
pub async fn run(args: Args, _json: bool) -> Result<ExitCode, Failure> {
    let flags = [
        ("bus.url", args.bus_url),
        ("worker.keystore", args.key),
        ("worker.password_file", args.password_file),
        ("verifiers.workers", args.places),
    ];
    let (config, _) = config::load(args.config.as_ref(), &flags)?;
    crate::commands::logs("info");
    // A worker may have no rights but its own: it looks at no stream but the queue.
    let Some(settings) = config.bus.nats().map(|settings| NatsConfig { sender_only: true, ..settings }) else {
        return Err(Failure::config("a worker takes work from a NATS server: bus.url is missing"));
    };
    let Some(keystore) = &config.worker.keystore else {
        return Err(Failure::config("worker.keystore names the key that signs results; it is missing"));
    };
    let key: SigningKey = keystore::load(keystore, config.worker.password_file.as_deref())?;
    let bus = super::serve::connect(settings).await?;
    let artifacts = crate::artifacts::open(&config.verifiers.artifacts, &config)?;
    let service = super::serve::verifier(&config.verifiers, &artifacts, Some(&bus), &Callbacks::at(None))?;
    let worker = Worker::new(bus, service, key, config.verifiers.workers);
    let cancel = CancellationToken::new();
    let stopping = cancel.clone();
    let stopped = tokio::spawn(async move {
        crate::commands::stopped().await;
        stopping.cancel();
    });
    let ran = Arc::clone(&worker).run(cancel).await.map_err(Failure::unavailable);
    stopped.abort();
    ran.map(|()| ExitCode::SUCCESS)
}
