//! The command line and what each command calls.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::workspace::Workspace;
use crate::{
    bench, ci, cross, demo, deny, dist, docs_check, hostile, outage, setup, soak, test, tidy,
};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks and shows Culvert")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job on real programs in network namespaces
    Demo {
        /// Leave the lab up and say what to type in it
        #[arg(long)]
        keep: bool,
        /// End with one JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Runs every test: unit, property, lab and interop
    Test {
        /// Packages, test files or parts of test names; none runs all
        filters: Vec<String>,
    },
    /// Runs a bench beside a program of another hand
    Bench {
        /// The bench's name: smoke, tunnel, peers, handshakes, dns
        name: String,
        /// How often each of the compared programs has its turn
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// Measure briefly, to see that all of it works
        #[arg(long)]
        quick: bool,
        /// Send small packets each in a system call of its own, in place of bursts with UDP_SEGMENT
        #[arg(long)]
        single: bool,
        /// End with one JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// A home under load on a bad line, its daemons killed at random; ends with a verdict
    Soak {
        /// How long
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
        minutes: u32,
        /// Per cent of frames that are lost, each way
        #[arg(long, default_value_t = 2.0, value_parser = per_cent)]
        loss: f64,
        /// Milliseconds that a frame is under way, each way
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(..=1_000))]
        delay: u64,
        /// Per cent of frames that others overtake, each way
        #[arg(long, default_value_t = 5.0, value_parser = per_cent)]
        reorder: f64,
        /// Kill gateways and agent at random; `--kill=false` lets them live
        #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        kill: bool,
        /// What loss and the moments of the kills are drawn from
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// End with one JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// The edge away for ten minutes: what the home's lookups get meanwhile, and how soon they are fresh again
    DnsOutage {
        /// What is away: `resolver`, the tunnel stays, or `gateway`, tunnel and all
        #[arg(long, default_value = "gateway")]
        away: lab::outage::Away,
        /// How long
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..))]
        seconds: u64,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Spoiled packets and lying servers for gateway and stub, through real sockets; ends with a verdict
    Hostile(HostileArgs),
    /// Runs what .ci/run runs: fmt, clippy, doc, deny, tidy, docs-check, test, cross
    Ci,
    /// Installs the Debian packages that are missing, and says why
    Setup,
    /// Holds the habits that a program can hold
    Tidy,
    /// Resolves the documents' anchors and links and checks the sample configurations
    DocsCheck,
    /// Checks the dependencies' licences, sources and bans
    Deny,
    /// Builds the agent for a router's processor, weighs it and runs it under emulation
    Cross {
        /// A target of cross/targets.toml
        target: String,
        /// End with one JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Makes a tarball of each server's binary in dist/
    Dist,
}

#[derive(Args)]
struct HostileArgs {
    /// Packets that are sent
    #[arg(long, default_value_t = 10_000_000)]
    packets: u64,
    /// Answers that are lies
    #[arg(long, default_value_t = 1_000_000)]
    lies: u64,
    /// What chance is drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Attack a gateway that forwards to a liar, too
    #[arg(long)]
    forwarding: bool,
    /// End with one JSON object on stdout
    #[arg(long)]
    json: bool,
}

impl HostileArgs {
    fn options(&self) -> lab::hostile::Options {
        lab::hostile::Options {
            packets: self.packets,
            lies: self.lies,
            seed: self.seed,
            forwarding: self.forwarding,
            json: self.json,
        }
    }
}

fn per_cent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let is_share = (0.0..=100.0).contains(&number);
    is_share
        .then_some(number)
        .ok_or_else(|| "not from 0 to 100".to_owned())
}

/// Runs the command that was asked for.
pub(crate) fn run() -> Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            error.print()?;
            let usage = if error.use_stderr() { 64 } else { 0 };
            return Ok(ExitCode::from(usage));
        }
    };
    let workspace = Workspace::find()?;
    match cli.command {
        Command::Demo { keep, json } => {
            return demo::run(&workspace, lab::demo::Options { keep, json });
        }
        Command::Test { filters } => test::run(&workspace, &filters)?,
        Command::Bench {
            name,
            rounds,
            quick,
            single,
            json,
        } => {
            let options = lab::bench::Options {
                rounds: rounds.into(),
                quick,
                single,
                json,
            };
            bench::run(&workspace, &name, options)?;
        }
        Command::Soak {
            minutes,
            loss,
            delay,
            reorder,
            kill,
            seed,
            json,
        } => {
            let options = lab::soak::Options {
                minutes,
                loss,
                delay_ms: delay,
                reorder,
                kill,
                seed,
                json,
            };
            return soak::run(&workspace, options);
        }
        Command::DnsOutage {
            away,
            seconds,
            json,
        } => {
            let options = lab::outage::Options { away, seconds };
            return outage::run(&workspace, options, json);
        }
        Command::Hostile(args) => return hostile::run(&workspace, args.options()),
        Command::Ci => ci::run(&workspace)?,
        Command::Setup => setup::everything()?,
        Command::Tidy => tidy::run(&workspace)?,
        Command::DocsCheck => docs_check::run(&workspace)?,
        Command::Deny => deny::run(&workspace)?,
        Command::Cross { target, json } => cross::run(&workspace, &target, json)?,
        Command::Dist => dist::run(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}
