//! `tribunal verify REQUEST.json`.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use tribunal_events::VerdictKind;
use tribunal_verifiers::{FolderSource, OperatorLimits, REQUEST_BYTES_MAX, Request, Service};

use crate::failure::Failure;

/// Exit code of a request that cannot be checked as it stands.
const EXIT_BAD_REQUEST: u8 = 2;

/// Checks one claim.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 valid, 1 invalid, 3 inconclusive, 2 bad request.\n\nExample:\n  tribunal verify fixtures/requests/wordcount-valid.json --artifacts fixtures"
)]
pub struct Args {
    /// The request; - for standard input.
    request: PathBuf,
    /// Where the artifacts are; default: the request's own folder.
    #[arg(long)]
    artifacts: Option<PathBuf>,
    /// Sign the verdict as a report with this key.
    #[arg(long)]
    key: Option<PathBuf>,
    /// The key's password.
    #[arg(long)]
    password_file: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Exit 2 where the request is bad.
pub async fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let bad = |sentence: String| Failure::new(EXIT_BAD_REQUEST, sentence);
    let shown = args.request.display().to_string();
    let text = read(&args.request).map_err(|error| bad(format!("{shown}: {error}")))?;
    let request = Request::parse(&text).map_err(|error| bad(format!("{shown}: {error}")))?;
    let own = args.request.parent().map_or_else(PathBuf::new, PathBuf::from);
    let folder = args.artifacts.unwrap_or(if own.as_os_str().is_empty() { ".".into() } else { own });
    let source =
        FolderSource::open(&folder).map_err(|error| bad(format!("--artifacts {}: {error}", folder.display())))?;
    let key = args.key.map(|path| crate::keystore::load(&path, args.password_file.as_deref())).transpose()?;
    let service = Service::new(OperatorLimits::default(), vec![Arc::new(source)]);
    let bar = crate::commands::spinner("verifying");
    let work = tokio::task::spawn_blocking(move || {
        let verdict = service.verify(&request)?;
        let digest = service.request_digest(&request)?;
        Ok::<_, tribunal_verifiers::BadRequest>((verdict, digest))
    });
    let outcome = work.await.map_err(|error| Failure::unavailable(error.to_string()))?;
    bar.finish_and_clear();
    let (verdict, digest) = outcome.map_err(|error| bad(format!("{shown}: {error}")))?;
    let mut answer = verdict.to_json();
    if let Some(key) = key {
        crate::report::sign(&mut answer, verdict.digest, digest, tribunal_events::Domain::default(), &key)
            .expect("the key is here");
    }
    if json {
        println!("{answer}");
    } else {
        println!("{}: {} ({})", verdict.verdict.word(), verdict.reason.detail, verdict.reason.code);
        println!("digest {}", answer["digest"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::from(match verdict.verdict {
        VerdictKind::Valid => 0,
        VerdictKind::Invalid => 1,
        VerdictKind::Inconclusive => 3,
    }))
}

fn read(path: &PathBuf) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let most = REQUEST_BYTES_MAX as u64 + 1;
    if path.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_string(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(most).read_to_string(&mut text)?;
    }
    Ok(text)
}
