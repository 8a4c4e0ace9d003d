//! `tribunal keys new, show`.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use crate::{failure::Failure, keystore};

/// Operator keys.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tribunal keys new mediator.json --password-file password.txt\n  tribunal keys show mediator.json"
)]
pub struct Args {
    #[command(subcommand)]
    command: Keys,
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Make a new random key in an encrypted Web3 keystore.
    New {
        /// The file to make.
        file: PathBuf,
        /// Where the password is; else the terminal is asked.
        #[arg(long)]
        password_file: Option<PathBuf>,
        /// Write the key unencrypted. For development only.
        #[arg(long)]
        insecure_dev_key: bool,
    },
    /// Show the account of a key file.
    Show {
        /// The file.
        file: PathBuf,
        /// Where the password is, for keystores that do not tell their account.
        #[arg(long)]
        password_file: Option<PathBuf>,
    },
}

/// Runs the command.
///
/// # Errors
/// A sentence and an exit code.
pub fn run(args: Args, json: bool) -> Result<ExitCode, Failure> {
    let (file, address) = match args.command {
        Keys::New { file, password_file, insecure_dev_key } => {
            let address = keystore::create(&file, password_file.as_deref(), insecure_dev_key)?;
            (file, address)
        }
        Keys::Show { file, password_file } => {
            let address = match keystore::address(&file)? {
                Some(address) => address,
                None => keystore::load(&file, password_file.as_deref())?.address(),
            };
            (file, address)
        }
    };
    if json {
        println!("{}", serde_json::json!({ "address": format!("{address:#x}"), "file": file }));
    } else {
        println!("{address:#x}  {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
