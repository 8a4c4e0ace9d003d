//! `tribunal demo`.

use std::{
    fs,
    io::IsTerminal as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    config::Config,
    demo::{BusChoice, Played, Stage, play, read, stage},
    failure::Failure,
};

/// Plays every recorded deal through the whole engine.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all as expected, 1 not.\n\nExample:\n  tribunal demo --no-serve\n  tribunal demo --bus in-process --fixtures ./fixtures"
)]
pub struct Args {
    /// Stop after the table; do not serve the page.
    #[arg(long)]
    no_serve: bool,
    /// What to play over; default: a private nats-server where one is installed.
    #[arg(long)]
    bus: Option<BusChoice>,
    /// Where `deals/<name>/` is.
    #[arg(long, default_value = "fixtures")]
    fixtures: PathBuf,
    /// Where the store and the evidence go; what a demo left there before is replaced.
    #[arg(long, default_value = "tribunal-demo")]
    out: PathBuf,
    /// Where the page is served.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

/// Runs the command.
///
/// # Errors
/// Where a part of the world is missing.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    crate::commands::logs("warn");
    let deals = read(&args.fixtures)?;
    let stage = stage(&args.fixtures, &args.out, args.bus).await?;
    if !json {
        println!("Playing {} recorded deals over {}, contracts on an in-process EVM.\n", deals.len(), stage.bus);
    }
    let bar = if std::io::stderr().is_terminal() {
        indicatif::ProgressBar::new(0).with_message("moments")
    } else {
        indicatif::ProgressBar::hidden()
    };
    let played = play(&stage, &deals, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })
    .await?;
    bar.finish_and_clear();
    let as_expected = played.iter().all(|deal| deal.differences.is_empty());
    let evidence = evidence(&stage, &played, &args.out)?;
    if json {
        println!(
            "{}",
            serde_json::json!({ "as_expected": as_expected, "bus": stage.bus, "deals": played, "evidence": evidence.files })
        );
    } else {
        table(&played);
        println!(
            "\n{}",
            if as_expected { "All as expected." } else { "NOT as expected; see the lines marked with !." }
        );
        for line in &evidence.lines {
            println!("{line}");
        }
    }
    let sound = evidence.sound;
    if !args.no_serve {
        serve(&stage, args.listen, &args.out, json).await?;
    }
    stage.engine.shutdown(std::time::Duration::from_secs(60)).await;
    Ok(if as_expected && sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn table(played: &[Played]) {
    let colour = std::io::stdout().is_terminal();
    let width = played.iter().map(|deal| deal.name.len()).max().unwrap_or_default();
    println!(
        "  {:width$}  {:15}  {:>8}  {:>8}  {:>9}  {:>8}  transaction",
        "deal", "outcome", "client", "provider", "mediators", "treasury"
    );
    for deal in played {
        let good = deal.differences.is_empty();
        let mark = if good { " " } else { "!" };
        let (on, off) = match (colour, good) {
            (true, true) => ("\x1b[32m", "\x1b[0m"),
            (true, false) => ("\x1b[31m", "\x1b[0m"),
            (false, _) => ("", ""),
        };
        let transaction = deal.transaction.as_deref().map_or("-", |hash| &hash[..14.min(hash.len())]);
        let net = &deal.net;
        println!(
            "{mark} {:width$}  {on}{:15}{off}  {:>8}  {:>8}  {:>9}  {:>8}  {transaction}",
            deal.name, deal.outcome, net.client, net.provider, net.mediators, net.treasury
        );
        let mut notes = vec![deal.reason_code.clone()];
        let lost = |who: &str, net: &str| net.starts_with('-').then(|| format!("{who} loses {}", &net[1..]));
        if matches!(deal.outcome.as_str(), "invalid" | "submit-timeout") {
            notes.extend(lost("the provider", &net.provider));
        }
        for (mediator, amount) in &deal.slashed {
            notes.push(format!("mediator {mediator:#x} slashed {amount} for silence"));
        }
        if !deal.refused.is_empty() {
            notes.push(format!("refused: {}", deal.refused.join(", ")));
        }
        notes.retain(|note| !note.is_empty());
        println!("    {}", notes.join("; "));
        for difference in &deal.differences {
            println!("    ! {difference}");
        }
    }
}

struct Evidence {
    files: Vec<String>,
    lines: Vec<String>,
    sound: bool,
}

/// Writes one evidence file a deal, and shows that a copy with one byte changed is caught.
fn evidence(stage: &Stage, played: &[Played], out: &Path) -> Result<Evidence, Failure> {
    let folder = out.join("evidence");
    let failed = |error: &dyn std::fmt::Display| Failure::unavailable(format!("{}: {error}", folder.display()));
    fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
    let signer = super::log::signer(&Config::default(), stage.engine.store(), &stage.operator)?;
    signer.checkpoint(stage.engine.store()).map_err(|error| failed(&error))?;
    let mut files = Vec::new();
    let mut sample = None;
    for deal in played.iter().filter(|deal| deal.outcome != "refused") {
        let bytes = crate::bundle::export(stage.engine.store(), &deal.deal_id, Some(stage.artifacts.as_ref()))
            .map_err(|error| failed(&error))?;
        let path = folder.join(format!("{}.tribunal", deal.name));
        fs::write(&path, &bytes).map_err(|error| failed(&error))?;
        if sample.is_none() || deal.outcome == "invalid" && sample.as_ref().is_none_or(|(_, _, cheat)| !cheat) {
            sample = Some((path.clone(), bytes, deal.outcome == "invalid"));
        }
        files.push(path.display().to_string());
    }
    let mut lines = vec![format!("\n{} evidence files in {}.", files.len(), folder.display())];
    let mut sound = true;
    if let Some((path, mut bytes, _)) = sample {
        let whole = crate::bundle::verify(&bytes, &crate::bundle::VerifyOptions::default());
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let flipped = crate::bundle::verify(&bytes, &crate::bundle::VerifyOptions::default());
        sound = whole.is_ok_and(|report| report.is_sound()) && !flipped.as_ref().is_ok_and(|report| report.is_sound());
        let copy = path.with_extension("flipped.tribunal");
        fs::write(&copy, &bytes).map_err(|error| failed(&error))?;
        lines.push(format!(
            "A copy with one bit of byte {middle} changed is {}.",
            if sound { "caught" } else { "NOT caught" }
        ));
        lines.push("Verify them anywhere, with nothing but the file:".into());
        lines.push(format!("  tribunal bundle verify {}", path.display()));
        lines.push(format!("  tribunal bundle verify {}   # fails", copy.display()));
        lines.push(format!(
            "  tribunal audit --all --reverify --store {} --artifacts fixtures",
            out.join("store").display()
        ));
    }
    Ok(Evidence { files, lines, sound })
}

async fn serve(stage: &Stage, listen: SocketAddr, out: &Path, json: bool) -> Result<(), Failure> {
    let state =
        crate::commands::serve::http_state(&stage.engine, &stage.verifier, &stage.artifacts, &stage.operator, None)
            .with_store_hint(out.join("store").display().to_string())
            .with_mediators(stage.mediators.clone());
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| {
        Failure::unavailable(format!("cannot listen on {listen}: {error}; give --listen ADDRESS:PORT"))
    })?;
    let address = listener.local_addr().map_err(Failure::unavailable)?;
    if !json {
        println!("\nThe deals are on http://{address}/ until Ctrl-C.");
    }
    crate::http::serve(listener, state, crate::commands::stopped()).await;
    Ok(())
}
