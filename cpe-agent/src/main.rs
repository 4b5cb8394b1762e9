//! The router's agent; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cpe_agent::cli::run(std::env::args_os())
}
