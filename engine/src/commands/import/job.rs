//! `tribunal import job`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use tribunal_verifiers::{
    BadRequest, Reference,
    job_description::{Choices, DESCRIPTION_BYTES_MAX, offer, read},
};

use super::EXIT_REFUSED;
use crate::{failure::Failure, whole_file::read_at_most};

/// A Bacalhau job, or the template of a Lilypad or CoopHive module, as a verification request with an empty claim.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What a job needs and no job here has is refused by the name of its field.\n\nExit codes: 0 printed, 65 a description that cannot be carried over, 69 a file that cannot be read.\n\nExample:\n  tribunal import job job.json > request.json\n  tribunal import job lilypad_module.json.tmpl --input Message=moo --artifact example/say:1=say.tar\n  tribunal import job lilypad_module.json.tmpl --offer offer.json"
)]
pub(super) struct Args {
    /// Bacalhau job JSON, or a module's template.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// An input of the template; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    input: Vec<(String, String)>,
    /// A job offer or a deal's document, for its inputs. --input goes before.
    #[arg(long, value_name = "FILE")]
    offer: Option<PathBuf>,
    /// What an image or a URL of the description stands for: a file name, a content address or a CID; may be given more than
    /// once.
    #[arg(long, value_name = "TEXT=ARTIFACT", value_parser = last_pair)]
    artifact: Vec<(String, String)>,
    /// The job's fuel, which no description has.
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
    /// Memory where the description says none.
    #[arg(long, value_name = "BYTES")]
    memory_bytes: Option<u64>,
    /// Output where the description says no disk.
    #[arg(long, value_name = "BYTES")]
    output_bytes: Option<u64>,
    /// Time where the description says none.
    #[arg(long, value_name = "MS")]
    wall_ms: Option<u64>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a name, = and a value are needed")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A URL has = itself, an artifact has none.
fn last_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.rsplit_once('=').ok_or("a text, = and an artifact are needed")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn text(path: &Path) -> Result<String, Failure> {
    let bytes = read_at_most(path, DESCRIPTION_BYTES_MAX as u64)
        .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))?;
    String::from_utf8(bytes).map_err(|_| Failure::new(EXIT_REFUSED, format!("{} is no text", path.display())))
}

/// Runs the command.
///
/// # Errors
/// See the exit codes in the help.
pub(super) fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let refused =
        |path: &Path, problem: BadRequest| Failure::new(EXIT_REFUSED, format!("{}: {problem}", path.display()));
    let mut choices = Choices::default();
    if let Some(path) = &args.offer {
        let (module, inputs) = offer(&text(path)?).map_err(|problem| refused(path, problem))?;
        eprintln!("the offer's module: {} of {} at {}", module.path, module.repository, module.hash);
        choices.inputs = inputs;
    }
    choices.inputs.extend(args.input);
    let artifacts = args.artifact.into_iter().map(|(name, artifact)| {
        let artifact: Reference =
            artifact.parse().map_err(|problem| Failure::usage(format!("--artifact {name}: {problem}")))?;
        Ok((name, artifact))
    });
    choices.artifacts = artifacts.collect::<Result<BTreeMap<_, _>, Failure>>()?;
    let limits = &mut choices.limits;
    limits.fuel = args.fuel.unwrap_or(limits.fuel);
    limits.memory_bytes = args.memory_bytes.unwrap_or(limits.memory_bytes);
    limits.output_bytes = args.output_bytes.unwrap_or(limits.output_bytes);
    limits.wall_ms = args.wall_ms.unwrap_or(limits.wall_ms);
    let described = read(&text(&args.file)?, &choices).map_err(|problem| refused(&args.file, problem))?;
    for note in &described.notes {
        eprintln!("note: {note}");
    }
    let request = described.request();
    if json {
        println!("{request}");
    } else {
        println!("{request:#}");
    }
    Ok(ExitCode::SUCCESS)
}
