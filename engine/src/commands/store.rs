//! `tribunal store checkpoint`, `tribunal store check`, `tribunal store backup [DIR]` and `tribunal store restore DIR --store NEW`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{audit::open, log, progress::Progress};
use crate::{
    config::{self, Config},
    failure::{Failure, with_causes},
    store::{
        CheckPhase, CheckReport, Place, Store, StoreFault,
        backup::{self, Backup, BackupFault},
    },
};

/// Damage was found.
const EXIT_DAMAGE: u8 = 1;

/// Check, back up and restore the store.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tribunal store check\n  tribunal store backup /var/backups/tribunal\n  tribunal store restore /var/backups/tribunal --store restored"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read every byte and every row of the store, and say what is damaged.
    Check(CheckArgs),
    /// Copy the store into a folder of backups; works while an engine writes to it.
    Backup(BackupArgs),
    /// Print a signed checkpoint of the log as it stands now, signing one if need be; as `tribunal log checkpoint`.
    Checkpoint(CheckpointArgs),
    /// Make a store from a backup.
    Restore(RestoreArgs),
}

#[derive(Debug, clap::Args)]
struct CheckpointArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    checkpoint: log::CheckpointArgs,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The configuration of the engine; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The store; default: store.path of the configuration.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
}

impl Which {
    fn load(&self) -> Result<(Config, PathBuf), Failure> {
        log::settings(self.config.as_ref(), self.store.clone())
    }
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 clean, 1 damage found, 69 no store, or one that cannot be read.\n\nExample:\n  tribunal store check --store tribunal-data"
)]
struct CheckArgs {
    #[command(flatten)]
    which: Which,
    /// Check a backup instead: every byte against its list.
    #[arg(long, value_name = "DIR", conflicts_with = "store")]
    backup: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 written, 1 the store is damaged, 69 no store, or a disk that fails.\n\nExample:\n  tribunal store backup /var/backups/tribunal --store tribunal-data"
)]
struct BackupArgs {
    /// Folder of backups, to which a numbered one is added; default: store.backup of the configuration.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 restored, 1 the backup is damaged, 69 no backup, something is in the way, or a disk that fails.\n\nExample:\n  tribunal store restore /var/backups/tribunal --store restored\n  tribunal store restore /var/backups/tribunal/000003 --store restored"
)]
struct RestoreArgs {
    /// Folder of backups, of which the newest is taken, or one of the numbered folders in it.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The store to make; must not exist.
    #[arg(long, value_name = "NEW")]
    store: PathBuf,
    /// The configuration of the engine, whose store the backup is compared with; default: tribunal.toml if it is there.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// 69 without a store or where a disk fails, 78 for settings.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let work = tokio::task::spawn_blocking(move || match args.command {
        Command::Checkpoint(args) => {
            log::checkpoint(args.which.config.as_ref(), args.which.store, &args.checkpoint, json)
        }
        Command::Check(args) => check(&args, json),
        Command::Backup(args) => back_up(&args, json),
        Command::Restore(args) => restore(&args, json),
    });
    work.await.map_err(|error| Failure::unavailable(error.to_string()))?
}

fn check(args: &CheckArgs, json: bool) -> Result<ExitCode, Failure> {
    let (_, path) = args.which.load()?;
    if let Some(folder) = &args.backup {
        return check_backup(folder, json);
    }
    let report = with_bars(|tell| Store::check_path(&path, tell)).map_err(|fault| unreadable(&path, &fault))?;
    if json {
        println!("{}", report_json(&report));
    } else {
        print(&report);
    }
    Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGE) })
}

fn check_backup(folder: &Path, json: bool) -> Result<ExitCode, Failure> {
    let progress = Progress::new("reading the backup {bar:40} {bytes}/{total_bytes} {eta}");
    let found = backup::newest(folder)
        .and_then(|generation| backup::verify(&generation, |done, total| progress.tell(done, total)));
    progress.end();
    match found {
        Ok(found) if json => println!("{}", json!({ "clean": true, "backup": backup_json(&found) })),
        Ok(found) => println!("backup {} up to position {}: clean", found.generation, found.position),
        Err(BackupFault::Damaged { path, what }) => {
            if json {
                let damage = json!([{ "file": path, "what": what }]);
                println!("{}", json!({ "clean": false, "damage": damage }));
            } else {
                println!("{}\n  {what}\n1 finding", path.display());
            }
            return Ok(ExitCode::from(EXIT_DAMAGE));
        }
        Err(fault) => return Err(failure(&fault)),
    }
    Ok(ExitCode::SUCCESS)
}

fn with_bars<T>(work: impl FnOnce(&mut dyn FnMut(CheckPhase, u64, u64)) -> T) -> T {
    let files = Progress::new("reading files {bar:40} {bytes}/{total_bytes} {eta}");
    let records = Progress::new("checking records {bar:40} {pos}/{len} {eta}");
    let outcome = work(&mut |phase, done, total| match phase {
        CheckPhase::Files => files.tell(done, total),
        CheckPhase::Records => {
            files.end();
            records.tell(done, total);
        }
    });
    files.end();
    records.end();
    outcome
}

fn back_up(args: &BackupArgs, json: bool) -> Result<ExitCode, Failure> {
    let (config, path) = args.which.load()?;
    let Some(folder) = args.folder.as_ref().or(config.store.backup.as_ref()) else {
        return Err(Failure::usage("name the folder of backups, or set store.backup"));
    };
    let store = open(&path)?;
    let bar = super::spinner("copying the store");
    let made = backup::back_up(&store, folder, &beside(&config)?);
    bar.finish_and_clear();
    let made = made.map_err(|fault| failure(&fault))?;
    if json {
        println!("{}", backup_json(&made));
    } else {
        println!(
            "backup {} in {}: positions 1 to {}, {} files, {} bytes",
            made.generation,
            folder.join(format!("{:06}", made.generation)).display(),
            made.position,
            made.files.len(),
            made.bytes()
        );
        println!("not in it: keys, the signing history, journals of transactions; see \"Operating the store\"");
    }
    Ok(ExitCode::SUCCESS)
}

/// What lies beside the store and is evidence: what markets were told.
fn beside(config: &Config) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut found = Vec::new();
    let folder = config.markets_folder();
    if folder.is_dir() {
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(|error| Failure::unavailable(format!("{}: {error}", folder.display())))?;
        let names = entries.into_iter().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
        found.extend(names.filter(|(name, path)| name.ends_with(".cases.jsonl") && path.is_file()));
    }
    found.sort();
    Ok(found)
}

fn restore(args: &RestoreArgs, json: bool) -> Result<ExitCode, Failure> {
    let (config, _) = config::load(args.config.as_ref(), &[])?;
    let progress = Progress::new("restoring {bar:40} {percent}% {eta}");
    let made = backup::newest(&args.folder)
        .and_then(|generation| backup::restore(&generation, &args.store, |done, total| progress.tell(done, total)));
    progress.end();
    let (made, report) = made.map_err(|fault| failure(&fault))?;
    let store = open(&args.store)?;
    let cursor = store.cursor(&config.bus.stream).map_err(Failure::unavailable)?;
    // What there is still of the store that the backup was made of tells how much is missing.
    let newer = Store::open_read_only(&config.store.path).ok().map(|store| store.last_position());
    let newer = newer.filter(|position| *position > made.position);
    if json {
        let answer = json!({
            "restored": args.store, "backup": backup_json(&made), "records": report.records, "deals": report.deals,
            "bus": { "stream": config.bus.stream, "sequence": cursor.map(|cursor| cursor.sequence) },
            "behind": newer.map(|position| position - made.position),
        });
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{}: {} records of {} deals from backup {}, checked: clean",
        args.store.display(),
        report.records,
        report.deals,
        made.generation
    );
    println!("It ends at position {}. What was acknowledged after that is not in it.", made.position);
    if let Some(position) = newer {
        let behind = position - made.position;
        println!("{} is at position {position}: {behind} records are behind.", config.store.path.display());
    }
    let stream = &config.bus.stream;
    match cursor {
        Some(cursor) => println!(
            "At the next start the bus is read again from message {} of {stream}: what it still holds is recorded again, at \
             positions and times that may differ.",
            cursor.sequence + 1
        ),
        None => println!("It has read nothing from {stream}: at the next start the bus is read from its beginning."),
    }
    println!(
        "The signing history, journals and keys beside the old store stay as they are: move this one to the old place, and \
         never put back an old copy of them."
    );
    for file in made.files.iter().filter(|file| file.name.starts_with("beside/")) {
        println!("kept in the backup to be read, not put back: {}", file.name);
    }
    Ok(ExitCode::SUCCESS)
}

fn unreadable(path: &Path, fault: &StoreFault) -> Failure {
    match fault {
        StoreFault::Missing { .. } => Failure::unavailable(format!("{fault}; name one with --store DIR")),
        _ => Failure::unavailable(format!("{}: {}", path.display(), with_causes(fault))),
    }
}

fn failure(fault: &BackupFault) -> Failure {
    match fault {
        BackupFault::Damaged { .. } | BackupFault::Unsound { .. } | BackupFault::Store(StoreFault::Damaged { .. }) => {
            Failure::new(EXIT_DAMAGE, with_causes(fault))
        }
        _ => Failure::unavailable(with_causes(fault)),
    }
}

fn print(report: &CheckReport) {
    println!("{} records of {} deals, {} files, {} bytes", report.records, report.deals, report.files, report.bytes);
    for fault in &report.damage {
        match fault {
            StoreFault::Damaged { place, what } => println!("{place}\n  {what}"),
            other => println!("{other}"),
        }
    }
    for note in &report.notes {
        println!("note: {note}");
    }
    match report.damage.len() as u64 + report.damage_left_out {
        0 => println!("clean"),
        1 => println!("1 finding"),
        count if report.damage_left_out > 0 => {
            println!("{count} findings, the first {} above", report.damage.len());
        }
        count => println!("{count} findings"),
    }
}

fn report_json(report: &CheckReport) -> Value {
    let finding = |fault: &StoreFault| {
        let StoreFault::Damaged { place, what } = fault else { return json!({ "what": fault.to_string() }) };
        let mut finding = match place {
            Place::Files => json!({}),
            Place::File { name, offset } => json!({ "file": name, "byte": offset }),
            Place::Position(position) => json!({ "position": position }),
            Place::Record { position, deal_id, version } => {
                json!({ "position": position, "deal_id": deal_id, "version": version })
            }
            Place::Deal(deal_id) => json!({ "deal_id": deal_id }),
            Place::Row(family, key) => json!({ "family": family, "key": key }),
        };
        finding["what"] = what.clone().into();
        finding
    };
    json!({
        "clean": report.damage.is_empty(),
        "records": report.records,
        "deals": report.deals,
        "files": report.files,
        "bytes": report.bytes,
        "damage_count": report.damage.len() as u64 + report.damage_left_out,
        "damage": report.damage.iter().map(finding).collect::<Vec<_>>(),
        "notes": report.notes,
    })
}

fn backup_json(backup: &Backup) -> Value {
    serde_json::to_value(backup).expect("a backup's list has a JSON form")
}
