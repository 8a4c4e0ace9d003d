//! The binary `tribunal`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tribunal_engine::commands::run(std::env::args_os())
}
