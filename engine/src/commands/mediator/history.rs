//! `tribunal mediator history`.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use crate::{
    config::{self, Config},
    failure::Failure,
    mediator::history::{EXCHANGE_BYTES_MAX, Exchange, History, when},
};

/// What this machine's keys signed or mean to sign: never lose it, never run it twice.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Moving a mediator to another machine: stop the engine, export, import there, and never start the old one again.\n\nExample:\n  tribunal mediator history export --config tribunal.toml > history.json\n  tribunal mediator history import history.json --config tribunal.toml"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// The history's file; default: mediator.history, else the one beside the store.
    #[arg(long, global = true)]
    history: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every slot that is taken.
    List,
    /// Print all of it in the exchange format; works while an engine runs, though then it may be outdated at once.
    Export,
    /// Take in an exported history. A slot in which both differ is blocked: nothing is ever signed in it.
    Import {
        /// What `export` printed.
        file: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// 78 for a file that is no history, 69 for a history in use.
pub fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let (config, _): (Config, _) = config::load(args.config.as_ref(), &[])?;
    let path = args.history.unwrap_or_else(|| config.signing_history());
    match args.command {
        Command::List => {
            let entries = History::read(&path).map_err(Failure::unavailable)?;
            for entry in entries {
                if json {
                    println!("{}", serde_json::to_string(&entry).expect("an entry has a JSON form"));
                } else {
                    let blocked = if entry.blocked { "  blocked: nothing is signed here" } else { "" };
                    println!(
                        "{}  {:#x}  {}  round {}  {} ({}){blocked}",
                        when(&entry),
                        entry.mediator,
                        entry.deal_id,
                        entry.round,
                        entry.verdict.word(),
                        entry.reason_code
                    );
                }
            }
        }
        Command::Export => {
            let entries = History::read(&path).map_err(Failure::unavailable)?;
            let exchange = Exchange::new(entries);
            println!("{}", serde_json::to_string_pretty(&exchange).expect("a history has a JSON form"));
        }
        Command::Import { file } => {
            let shown = file.display();
            let bytes = std::fs::metadata(&file).map_err(|error| Failure::config(format!("{shown}: {error}")))?.len();
            if bytes > EXCHANGE_BYTES_MAX {
                return Err(Failure::config(format!("{shown} has {bytes} bytes, more than {EXCHANGE_BYTES_MAX}")));
            }
            let bytes = std::fs::read(&file).map_err(|error| Failure::config(format!("{shown}: {error}")))?;
            let exchange = Exchange::parse(&bytes).map_err(|fault| Failure::config(format!("{shown}: {fault}")))?;
            let history = History::open(&path).map_err(Failure::unavailable)?;
            let imported = history.import(exchange.entries()).map_err(Failure::unavailable)?;
            if json {
                println!("{}", serde_json::to_string(&imported).expect("plain data"));
            } else {
                println!("{} new, {} known, {} blocked", imported.added, imported.known, imported.blocked);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
