//! `cargo xtask`: everything that is done to this repository by a machine, in one place.

mod cli;
mod commands;
mod steps;
mod workspace;

mod bench;
mod build;
mod ci;
mod demo;
mod deny;
mod dist;
mod hostile;
mod outage;
mod setup;
mod soak;
mod test;

mod cross;
mod docs_check;
mod source;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
