//! The command line: what may be typed, and how it ends.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::exit::Exit;
use crate::{commands, run};

/// The version with the commit it was built from, when the build says so.
pub const VERSION: &str = match option_env!("CULVERT_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Encrypts a home's packets and lookups from this router to the provider's edge.
#[derive(Debug, Parser)]
#[command(name = "cpe-agent", version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until it is stopped.
    Run(AtConfig),
    /// Enrol this router with the claim code from the provider's letter.
    Enrol(Enrol),
    /// Say whether the home is protected, and why not.
    Status(Status),
    /// Let one device of the home reach the access network's login page, for some minutes.
    Portal {
        #[command(subcommand)]
        verb: Portal,
    },
    /// Shut the router now, as if the agent had been stopped: for a boot script that runs before the WAN is up.
    Lock(Json),
    /// Print the rules that `lock` sets, for a file that nft reads at boot.
    Ruleset(AtConfig),
    /// Check a configuration file.
    CheckConfig(CheckConfig),
    /// Forget lease and tunnel keys, and open the network; the agent must be stopped.
    Reset(Reset),
}

#[derive(Debug, Args)]
pub(crate) struct AtConfig {
    /// Configuration file.
    #[arg(long, default_value = "/etc/culvert/cpe-agent.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Enrol {
    #[command(flatten)]
    pub(crate) at: AtConfig,
    /// Read the code from this file.
    #[arg(long, conflicts_with = "code")]
    pub(crate) claim_file: Option<PathBuf>,
    /// The code. Others on this machine can see what is typed here; left out, it is read from standard input.
    pub(crate) code: Option<String>,
    /// One JSON object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Portal {
    /// Open the window; it shuts by itself.
    Open(OpenPortal),
    /// Shut it.
    Close(Json),
}

#[derive(Debug, Args)]
pub(crate) struct OpenPortal {
    #[command(flatten)]
    pub(crate) with: Json,
    /// The device with the browser, by its IPv4 address at home.
    #[arg(long)]
    pub(crate) device: std::net::Ipv4Addr,
    /// 1 to 15; the configuration says how long otherwise.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=15))]
    pub(crate) minutes: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct Json {
    #[command(flatten)]
    pub(crate) at: AtConfig,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) at: AtConfig,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Every second, with the rates of the last minute.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckConfig {
    /// Configuration file.
    #[arg(default_value = "/etc/culvert/cpe-agent.toml")]
    pub(crate) file: PathBuf,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    pub(crate) at: AtConfig,
    /// Keep the device's identity, so that the same owner needs no new code (the default).
    #[arg(long, conflicts_with = "forget_identity")]
    pub(crate) keep_identity: bool,
    /// Become a new device, which needs a new claim code.
    #[arg(long)]
    pub(crate) forget_identity: bool,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs what was typed.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Run(at) => run::run(&at.config),
        Command::Enrol(enrol) => commands::enrol(&enrol),
        Command::Status(status) => commands::status(&status),
        Command::Portal { verb } => commands::portal(&verb),
        Command::Lock(lock) => commands::lock(&lock),
        Command::Ruleset(at) => commands::ruleset(&at),
        Command::CheckConfig(check) => commands::check_config(&check),
        Command::Reset(reset) => commands::reset(&reset),
    };
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit.into()
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell if stdout and stderr are closed.
    let _ = error.print();
    let was_asked_for = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if was_asked_for {
        Exit::Ok.into()
    } else {
        Exit::Usage.into()
    }
}
