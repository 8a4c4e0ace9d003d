//! `tribunal deals`.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use tribunal_events::DealId;

use crate::{
    failure::Failure,
    http::read,
    import::view::{Imported, imported},
    store::{Store, StoreFault},
    view::{self, DealSummary},
};

/// Exit code where there is no such deal.
const EXIT_NOT_FOUND: u8 = 2;
/// Hex digits that a shortened id needs at least.
const PREFIX_DIGITS_MIN: usize = 4;

/// Lists deals or shows one.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = false,
    after_help = "Works while `tribunal serve` runs.\n\nExit codes: 0, 2 not found.\n\nExample:\n  tribunal deals\n  tribunal deals show 0x5f2c --at 17 --store ./tribunal-data"
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The store.
    #[arg(long, global = true, default_value = "tribunal-data", env = "TRIBUNAL_STORE__PATH")]
    store: PathBuf,
    /// As it stood when the log had this many records.
    #[arg(long, global = true, value_name = "POSITION")]
    at: Option<u64>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// All deals, the one that changed last first.
    List,
    /// One deal with its timeline.
    Show {
        /// Its id, or the beginning of it.
        id: String,
    },
}

/// Runs the command.
///
/// # Errors
/// 2 where there is no such deal, 69 where there is no store.
pub fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let store = Store::open_read_only(&args.store).map_err(unreadable)?;
    let text = match &args.what {
        None | Some(What::List) => list(&store, args.at, json)?,
        Some(What::Show { id }) => show(&store, id, args.at, json)?,
    };
    // Whoever reads may stop reading.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn unreadable(fault: StoreFault) -> Failure {
    match fault {
        StoreFault::Missing { path } => {
            Failure::unavailable(format!("there is no store in {}; name one with --store DIR", path.display()))
        }
        fault => Failure::unavailable(fault),
    }
}

fn list(store: &Store, at: Option<u64>, json: bool) -> Result<String, Failure> {
    let page = read::deals(store, 0, usize::MAX, at).map_err(Failure::unavailable)?;
    if json {
        return Ok(format!("{}\n", serde_json::to_string(&page).map_err(Failure::unavailable)?));
    }
    if page.deals.is_empty() {
        return Ok("No deals.\n".into());
    }
    let colour = std::io::stdout().is_terminal();
    let mut rows = vec![["DEAL", "OUTCOME", "REASON", "CLIENT", "PROVIDER", "EVENTS", "LAST EVENT"].map(str::to_owned)];
    rows.extend(page.deals.iter().map(row));
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[column] - cell.chars().count());
            let (on, off) = if colour && column == 1 && index > 0 { (paint(cell), "\x1b[0m") } else { ("", "") };
            // Numbers end where they end, text begins where it begins.
            if column == 5 {
                text.push_str(&padding);
                text.push_str(cell);
            } else {
                text.push_str(&format!("{on}{cell}{off}"));
                if column < 6 {
                    text.push_str(&padding);
                }
            }
            text.push_str(if column < 6 { "  " } else { "\n" });
        }
    }
    Ok(text)
}

fn row(deal: &DealSummary) -> [String; 7] {
    let outcome = if deal.outcome == "open" { deal.state } else { deal.outcome };
    [
        short(&deal.deal_id.to_string()),
        outcome.to_owned(),
        reason(deal),
        short(&format!("{:#x}", deal.client)),
        short(&format!("{:#x}", deal.provider)),
        deal.version.to_string(),
        moment(&deal.updated_at),
    ]
}

/// Why, or where it was imported from.
fn reason(deal: &DealSummary) -> String {
    match &deal.imported {
        Some(origin) => format!("{} {}", origin.marketplace, origin.chain_id),
        None => deal.reason_code.clone().filter(|code| !code.is_empty()).unwrap_or_else(|| "-".into()),
    }
}

fn show(store: &Store, id: &str, at: Option<u64>, json: bool) -> Result<String, Failure> {
    let deal_id = find(store, id)?;
    let missing = || {
        let when = at.map_or_else(String::new, |at| format!(" up to log position {at}"));
        Failure::new(EXIT_NOT_FOUND, format!("no deal {id} is recorded here{when}"))
    };
    if json {
        let deal = read::deal(store, &deal_id, at).map_err(Failure::unavailable)?.ok_or_else(missing)?;
        return Ok(format!("{deal}\n"));
    }
    let Some((deal, last)) = view::deal_until(store, &deal_id, at).map_err(Failure::unavailable)? else {
        let imported = imported(store, &deal_id, at).map_err(Failure::unavailable)?.ok_or_else(missing)?;
        return Ok(show_imported(&imported));
    };
    let summary = view::summary(&deal, last.position, last.recorded_at);
    let colour = std::io::stdout().is_terminal();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<12}{value}\n"));
    line("deal", &deal_id.to_string());
    let outcome = if summary.outcome == "open" { summary.state } else { summary.outcome };
    let reason = summary.reason_code.as_deref().filter(|code| !code.is_empty());
    let reason = reason.map_or_else(String::new, |code| format!(" ({code})"));
    let (on, off) = if colour { (paint(outcome), "\x1b[0m") } else { ("", "") };
    line("outcome", &format!("{on}{outcome}{off}{reason}"));
    line("state", summary.state);
    line("client", &format!("{:#x}", summary.client));
    line("provider", &format!("{:#x}", summary.provider));
    if let Some(deadline) = &summary.next_deadline {
        line("until", &format!("{} ({})", moment(&deadline.at), deadline.kind));
    }
    if let Some(transaction) = &summary.transaction {
        line("transaction", transaction);
    }
    for payout in &summary.payouts {
        let account = format!("{:#x}", payout.account);
        let part = format!("{:>14}  {account}  (locked {}, out {})", payout.net, payout.locked, payout.paid);
        line(payout.role, &part);
    }
    text.push('\n');
    for entry in view::timeline(store, &deal_id, at).map_err(Failure::unavailable)? {
        let (role, _) = entry.by.split_once(' ').unwrap_or((&entry.by, ""));
        let kind = entry.kind.replace('_', " ");
        text.push_str(&format!(
            "{:>6}  {}  {kind:<18}  {role} {}\n",
            entry.position,
            moment(&entry.at),
            plain(&entry.what)
        ));
    }
    Ok(text)
}

fn show_imported(imported: &Imported) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<12}{}\n", plain(value)));
    let origin = &imported.origin;
    line("deal", &imported.last.deal_id.to_string());
    line("imported", &format!("{}, chain {}, storage {:#x}", origin.marketplace, origin.chain_id, origin.storage));
    line("there", &origin.foreign_id);
    line("state", imported.replay.state.word());
    for (account, role, it) in imported.accounts() {
        let (held, _) = it.in_escrow();
        let out = it.returned.saturating_add(it.received);
        let held = if held.is_zero() { String::new() } else { format!(", {held} still in escrow") };
        line(role, &format!("{:>22}  {account:#x}  (locked {}, out {out}{held})", it.net(), it.locked));
    }
    if !imported.replay.ledger.slashed.is_zero() {
        line("token owner", &format!("{:>22}", format!("+{}", imported.replay.ledger.slashed)));
    }
    for it in &imported.problems {
        line(it.code, &format!("position {}: expected {}, found {}", it.position, it.expected, it.found));
    }
    text.push('\n');
    for note in &imported.notes {
        text.push_str(&format!("{}: {}\n", note.code, plain(&note.text)));
    }
    text.push('\n');
    for entry in &imported.timeline {
        text.push_str(&format!("{:>6}  {}\n", entry.position, plain(&entry.what)));
    }
    text
}

/// The deal with this id, or the only one whose id begins so.
fn find(store: &Store, text: &str) -> Result<DealId, Failure> {
    if let Ok(id) = text.parse::<DealId>() {
        return Ok(id);
    }
    let digits = text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
    let hex = digits.len() <= 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || digits.len() < PREFIX_DIGITS_MIN {
        let sentence =
            format!("{text:?} is no deal id: 0x and 64 hex digits, or at least the first {PREFIX_DIGITS_MIN}");
        return Err(Failure::usage(sentence));
    }
    let mut found = Vec::new();
    for entry in store.deals() {
        let (id, _) = entry.map_err(Failure::unavailable)?;
        if id.to_string()[2..].starts_with(&digits) {
            found.push(id);
        }
    }
    match found.as_slice() {
        [id] => Ok(*id),
        [] => Err(Failure::new(EXIT_NOT_FOUND, format!("no deal 0x{digits}… is recorded here"))),
        many => Err(Failure::usage(format!("{} deals begin with 0x{digits}; give more digits", many.len()))),
    }
}

fn paint(outcome: &str) -> &'static str {
    match outcome {
        "accepted" | "valid" => "\x1b[32m",
        "invalid" => "\x1b[31m",
        "negotiating" | "agreed" | "result-submitted" => "\x1b[36m",
        _ => "\x1b[33m",
    }
}

fn short(id: &str) -> String {
    if id.len() > 18 { format!("{}…{}", &id[..10], &id[id.len() - 4..]) } else { id.to_owned() }
}

fn moment(rfc3339: &str) -> String {
    rfc3339.get(..19).unwrap_or(rfc3339).replace('T', " ")
}

/// What others wrote, without characters that move the cursor.
fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}
