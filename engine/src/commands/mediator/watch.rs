//! `tribunal mediator watch`.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use tribunal_events::DealId;
use tribunal_verifiers::Service;

use crate::{
    artifacts,
    config::{self, Config},
    failure::Failure,
    follow::Follower,
    store::Store,
    watch::{Alarm, Watcher},
};

/// Beside a copy: up to which log position its ended deals were checked.
const CHECKED: &str = "watch/checked";
/// Wait before a connection is made anew.
const AGAIN: Duration = Duration::from_secs(1);
/// Somebody must look at a case.
const EXIT_ALARM: u8 = 1;

/// Check finished cases of others again, and say what does not fit.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Follows a record until Ctrl-C and checks every case as it ends. Exit codes with --once or --store: 0 nothing to look at, 1 alarms.\n\nExample:\n  tribunal mediator watch --follow https://operator.example --artifacts data\n  tribunal mediator watch --store tribunal-data --artifacts fixtures"
)]
pub struct Args {
    /// The engine to watch, `http://host:port`.
    #[arg(long, value_name = "URL", conflicts_with = "store", required_unless_present = "store")]
    follow: Option<String>,
    /// Where the copy of its record is kept.
    #[arg(long, value_name = "DIR", default_value = "tribunal-watched")]
    copy: PathBuf,
    /// Check what is there, then stop.
    #[arg(long)]
    once: bool,
    /// A store to check, instead of somebody's record.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Where modules and data are; may be given more than once. Default: verifiers.artifacts of the configuration.
    #[arg(long, value_name = "DIR")]
    artifacts: Vec<artifacts::Place>,
    /// The configuration; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// What checking needs.
struct Watch {
    watcher: Watcher,
    json: bool,
    cases: u64,
    alarms: u64,
}

impl Watch {
    fn check(&mut self, store: &Store, deal_id: &DealId) -> Result<(), Failure> {
        let found = self.watcher.check(store, deal_id).map_err(Failure::unavailable)?;
        self.cases += 1;
        self.alarms += found.iter().filter(|alarm| alarm.is_alarm()).count() as u64;
        for alarm in &found {
            self.print(alarm);
        }
        Ok(())
    }

    fn print(&self, alarm: &Alarm) {
        if self.json {
            println!("{}", serde_json::to_string(alarm).expect("an alarm has a JSON form"));
            return;
        }
        let word = if alarm.is_alarm() { "ALARM" } else { "note" };
        let position = alarm.position.map_or_else(String::new, |position| format!(", position {position}"));
        println!("{word} {}: deal {}{position}: {}", alarm.code, alarm.deal_id, alarm.what);
    }

    fn end(&self) -> ExitCode {
        if !self.json {
            println!("{} cases checked, {} alarms", self.cases, self.alarms);
        }
        ExitCode::from(if self.alarms == 0 { 0 } else { EXIT_ALARM })
    }
}

/// Runs the command.
///
/// # Errors
/// 69 where the record cannot be read, or is told otherwise than before.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    crate::commands::logs("warn");
    let (config, _): (Config, _) = config::load(args.config.as_ref(), &[])?;
    let folders = if args.artifacts.is_empty() { &config.verifiers.artifacts } else { &args.artifacts };
    let source = artifacts::open(folders, &config)?;
    let service = Arc::new(Service::new(config.verifiers.limits(), vec![Arc::clone(&source)]));
    let mut watch = Watch { watcher: Watcher::new(&config, service, source), json, cases: 0, alarms: 0 };
    let Some(url) = &args.follow else {
        let path = args.store.unwrap_or_default();
        let store = Store::open_read_only(&path).map_err(Failure::unavailable)?;
        for entry in store.deals() {
            let (deal_id, head) = entry.map_err(Failure::unavailable)?;
            if !head.open {
                watch.check(&store, &deal_id)?;
            }
        }
        return Ok(watch.end());
    };
    let mut follower = Follower::open(url, None, &Follower::folder(&args.copy, url)).map_err(Failure::unavailable)?;
    let store = follower.store().clone();
    // What ended in an earlier run and was not checked before that was stopped.
    let checked = store.meta(CHECKED).map_err(Failure::unavailable)?;
    let checked = checked.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    let deals = store.deals().collect::<Result<Vec<_>, _>>().map_err(Failure::unavailable)?;
    for (deal_id, head) in deals {
        if !head.open && head.last_position > checked {
            watch.check(&store, &deal_id)?;
        }
    }
    let mark = |position: u64| store.put_meta(CHECKED, &position.to_be_bytes()).map_err(Failure::unavailable);
    mark(store.last_position())?;
    let once = if args.once { Some(follower.end().await.map_err(Failure::unavailable)?) } else { None };
    let following = async {
        while once.is_none_or(|end| store.last_position() < end) {
            let mut failed = None;
            let read = follower.read(|news| {
                if news.closed {
                    let checked = tokio::task::block_in_place(|| watch.check(&store, &news.record.deal_id));
                    failed = checked.and_then(|()| mark(news.record.position)).err();
                }
                failed.is_none() && once.is_none_or(|end| news.record.position < end)
            });
            let read = read.await;
            match (failed, read) {
                (Some(failure), _) => return Err(failure),
                (None, Ok(())) => {}
                (None, Err(fault)) if fault.retry_helps() && once.is_none() => {
                    eprintln!("tribunal: {fault}; asking again");
                }
                (None, Err(fault)) => return Err(Failure::unavailable(fault)),
            }
            if once.is_none_or(|end| store.last_position() < end) {
                tokio::time::sleep(AGAIN).await;
            }
        }
        Ok(())
    };
    tokio::select! {
        done = following => done?,
        () = crate::commands::stopped() => {}
    }
    Ok(watch.end())
}
