//! `tribunal submit FILE…`.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tribunal_events::{Address, ENVELOPE_BYTES_MAX, Envelope};

use crate::{
    bus::{Bus, NatsBus, NatsConfig},
    failure::Failure,
    submit::{Answer, HttpSender, Operators, Patience, SendFault, send},
};

/// Bytes of a line at most: an envelope in base64, and some space.
const LINE_BYTES_MAX: u64 = 2 * ENVELOPE_BYTES_MAX as u64;

/// Sends signed envelopes, one a line, in order, and waits for the receipt of each.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Sending again is always safe: what is recorded already gets its first receipt again.\n\nExit codes: 0 all admitted, 1 some refused (each with its reason), 69 nobody there.\n\nExample:\n  tribunal submit events.jsonl --to nats://127.0.0.1:4222\n  tribunal sign event.json --key key.json | tribunal submit -"
)]
pub struct Args {
    /// Files of envelopes as JSON, one a line; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where to: nats://…, tls://…, http://… or https://….
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    to: String,
    /// NATS credentials file.
    #[arg(long, env = "TRIBUNAL_BUS__CREDENTIALS")]
    credentials: Option<PathBuf>,
    /// NATS nkey seed file.
    #[arg(long, env = "TRIBUNAL_BUS__NKEY", value_name = "FILE")]
    nkey: Option<PathBuf>,
    /// Certificates (PEM) that the NATS server's may come from.
    #[arg(long, env = "TRIBUNAL_BUS__TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The own certificate (PEM), where the NATS server asks for one.
    #[arg(long, env = "TRIBUNAL_BUS__TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, env = "TRIBUNAL_BUS__TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Bearer token of the HTTP service.
    #[arg(long, env = "TRIBUNAL_HTTP__TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Take receipts of this operator alone; default: the one that the terms name, where they are among what is sent.
    #[arg(long, value_name = "ADDRESS")]
    operator: Option<Address>,
    /// Seconds to wait for each receipt.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), value_name = "SECONDS")]
    timeout: u64,
}

enum Route {
    Nats(Box<NatsBus>),
    Http(HttpSender),
}

/// Runs the command.
///
/// # Errors
/// 64 for files that cannot be read, 69 where nobody answers.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let patience = Patience { total: Duration::from_secs(args.timeout), ..Patience::default() };
    // What cannot be read is found before anything is sent.
    let mut inputs = Vec::with_capacity(args.files.len());
    for path in &args.files {
        inputs.push((path.display().to_string(), open(path)?));
    }
    let route = connect(&args, patience).await?;
    let mut operators = Operators::given(args.operator);
    let mut all_admitted = true;
    for (name, mut input) in inputs {
        let mut number = 0u64;
        loop {
            number += 1;
            let Some(line) = line(input.as_mut(), &name, number)? else { break };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let place = format!("{name}:{number}");
            let outcome = match Envelope::decode(line.trim_ascii()) {
                Err(error) => Err(format!("{}: {error}", error.code())),
                Ok(envelope) => match envelope.clone().parse() {
                    Err(error) => Err(format!("{}: {error}", error.code())),
                    Ok(_) => {
                        operators.learn(&envelope);
                        let sent = match &route {
                            Route::Nats(bus) => send(bus.as_ref(), &envelope, &operators, patience).await,
                            Route::Http(sender) => sender.send(&envelope, &operators).await,
                        };
                        match sent {
                            Ok(answer) => Ok(answer),
                            Err(SendFault::Malformed(problem)) => Err(problem),
                            Err(fault) => return Err(Failure::unavailable(format!("{place}: {fault}"))),
                        }
                    }
                },
            };
            all_admitted &= outcome.as_ref().is_ok_and(Answer::is_recorded);
            println!("{}", shown(&place, &outcome, json));
        }
    }
    Ok(ExitCode::from(u8::from(!all_admitted)))
}

fn shown(place: &str, outcome: &Result<Answer, String>, json: bool) -> String {
    match outcome {
        Ok(answer) if json => {
            let mut line = answer.to_json();
            line["line"] = place.into();
            line.to_string()
        }
        Err(problem) if json => {
            serde_json::json!({ "line": place, "status": "refused", "reason_code": "malformed", "reason": problem })
                .to_string()
        }
        Ok(answer) => {
            let receipt = &answer.receipt;
            let what = if answer.is_recorded() {
                format!("version {}, position {}", receipt.stream_version, receipt.log_position)
            } else {
                format!("{}: {}", receipt.reason_code, receipt.reason)
            };
            plain(&format!("{place}  {:<9}  {}  {what}", answer.word(), receipt.event_id))
        }
        Err(problem) => plain(&format!("{place}  refused    {problem}")),
    }
}

fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

async fn connect(args: &Args, patience: Patience) -> Result<Route, Failure> {
    let scheme = args.to.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "nats" | "tls" | "ws" | "wss" => {
            let config = NatsConfig {
                credentials: args.credentials.clone(),
                nkey: args.nkey.clone(),
                tls_ca: args.tls_ca.clone(),
                tls_cert: args.tls_cert.clone(),
                tls_key: args.tls_key.clone(),
                sender_only: true,
                ..NatsConfig::new(args.to.clone())
            };
            let bus = NatsBus::connect(config).await.map_err(Failure::unavailable)?;
            tracing::debug!(bus = bus.describe(), "connected");
            Ok(Route::Nats(Box::new(bus)))
        }
        "http" | "https" => {
            HttpSender::new(&args.to, args.token.clone(), patience).map(Route::Http).map_err(Failure::usage)
        }
        _ => Err(Failure::usage(format!(
            "--to takes nats://…, tls://…, http://… or https://…, not {:?}; to write into a store, start `tribunal serve \
             --store DIR` and send to it",
            args.to
        ))),
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

/// The next line without its end; nothing at the end of the input.
fn line(input: &mut dyn BufRead, name: &str, number: u64) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let read = input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::usage(format!("{name}:{number}: {error}")))?;
    if line.len() as u64 >= LINE_BYTES_MAX {
        return Err(Failure::usage(format!("{name}:{number}: a line has less than {LINE_BYTES_MAX} bytes")));
    }
    Ok((!line.is_empty()).then_some(line))
}
