//! The command line. stdout is data, stderr is talk; exit codes are those of [`crate::exit::Exit`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use telemetry::watch::{self, Meter};

use crate::config::{Config, ConfigError, DEFAULT_STATUS_SOCKET};
use crate::exit::{Exit, Fault};
use crate::keys::Keys;
use crate::status::{self, Status};
use crate::{certificate, control, dns};

/// How often `status --watch` looks.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(
    name = "edge-gateway",
    version,
    about = "Culvert's edge: ends the routers' tunnels, resolves for them, forwards"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the gateway's keys and prints the public halves.
    Init {
        /// Where the keys go.
        #[arg(long, value_name = "DIR")]
        state_dir: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs the gateway until SIGTERM or `drain`.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Tells how the running gateway is.
    Status {
        #[command(flatten)]
        socket: Socket,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
        /// Adds the bytes of each device.
        #[arg(long)]
        leases: bool,
        /// Every second, with the rates of the last minute.
        #[arg(long)]
        watch: bool,
    },
    /// Checks a configuration file and reports every mistake.
    CheckConfig {
        /// The configuration file.
        file: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Sends the routers to their other gateways, waits for it and for silence, and ends the gateway.
    ///
    /// It cannot be taken back: ending this command leaves the gateway draining. Start the gateway again to have its routers back.
    Drain {
        #[command(flatten)]
        socket: Socket,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints the SHA-256 of the relay's public key, for `provisioning propose gateway --relay-spki`.
    RelayPin {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints the sdns:// stamp of the first DNSCrypt address, or of all.
    DnsStamp(StampArgs),
}

#[derive(Args)]
struct StampArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Prints one line for each address.
    #[arg(long)]
    all: bool,
    /// Prints the stamp of the relay there ([dns.relay]), for lookups that go on to the resolver of another operator.
    #[arg(long)]
    relay: bool,
    /// Prints JSON: a list of address and stamp.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Socket {
    /// The gateway's status socket.
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// Takes the socket from this configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the program with its command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where it cannot be printed there is nobody to tell.
            let _printed = error.print();
            return if error.use_stderr() {
                ExitCode::from(Exit::Usage as u8)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            for line in fault.sentence.lines() {
                say(format_args!("error: {line}"));
            }
            ExitCode::from(fault.exit as u8)
        }
    }
}

impl Command {
    fn run(self) -> Result<(), Fault> {
        match self {
            Self::Init { state_dir, json } => init(&state_dir, json),
            Self::Run { config } => {
                let config = load(&config)?;
                telemetry::init(telemetry::Format::detect(), config.log_level);
                control::run(&config)
            }
            Self::Status {
                socket,
                json,
                leases,
                watch,
            } if watch => watch_status(&socket.path()?, json, leases),
            Self::Status {
                socket,
                json,
                leases,
                ..
            } => show_status(&socket.path()?, json, leases),
            Self::CheckConfig { file, json } => check_config(&file, json),
            Self::Drain { socket, json } => drain(&socket.path()?, json),
            Self::RelayPin { config, json } => relay_pin(&load(&config)?, json),
            Self::DnsStamp(args) => dns_stamp(&load(&args.config)?, &args),
        }
    }
}

impl Socket {
    fn path(self) -> Result<PathBuf, Fault> {
        match (self.socket, self.config) {
            (Some(socket), _) => Ok(socket),
            (None, Some(config)) => Ok(load(&config)?.status_socket),
            (None, None) => Ok(DEFAULT_STATUS_SOCKET.into()),
        }
    }
}

fn load(file: &std::path::Path) -> Result<Config, Fault> {
    Config::load(file).map_err(|error| Fault::new(Exit::Config, error.to_string()))
}

fn init(state_dir: &std::path::Path, json: bool) -> Result<(), Fault> {
    let public = Keys::create(state_dir)?.public();
    if json {
        return print_json(&public);
    }
    print(&format!(
        "id       {}\ned25519  {} (base64 {})\nwg       {} (hex {})\n\
         Propose it with: provisioning propose gateway --ed25519 {} --wg {} …",
        public.id,
        public.ed25519,
        public.ed25519_base64,
        public.wg,
        public.wg_hex,
        public.ed25519,
        public.wg
    ))
}

fn drain(socket: &std::path::Path, json: bool) -> Result<(), Fault> {
    let last = status::drain(socket, |progress| {
        say(format_args!(
            "draining: {} routers here, {} of them on the move, {} s left",
            progress.active, progress.movable, progress.left_s
        ));
    })?;
    if json {
        return print_json(&serde_json::json!({ "state": "stopped", "left_behind": last.active }));
    }
    match last.active {
        0 => print("drained and stopped"),
        left => print(&format!(
            "drained and stopped; {left} routers have no other gateway, or did not go there"
        )),
    }
}

fn show_status(socket: &std::path::Path, json: bool, leases: bool) -> Result<(), Fault> {
    let (line, status) = ask_status(socket, leases)?;
    if json {
        print(&line)
    } else {
        print(&status.in_words())
    }
}

/// Shows the status again and again, with rates, until it is interrupted or nobody reads it any more.
fn watch_status(socket: &std::path::Path, json: bool, leases: bool) -> Result<(), Fault> {
    let mut meters = [Meter::new("from routers"), Meter::new("to routers")];
    loop {
        let (_, mut status) = ask_status(socket, leases)?;
        let now = Instant::now();
        let counts = [status.tunnel.rx_bytes, status.tunnel.tx_bytes];
        let [from, to] = &mut meters;
        status.tunnel.rx_bits_per_s = Some(from.count(counts[0], now));
        status.tunnel.tx_bits_per_s = Some(to.count(counts[1], now));
        let text = if json {
            serde_json::to_string(&status).unwrap_or_default()
        } else {
            let words = status.in_words();
            format!("{}{words}\n{}\n{}", watch::CLEAR, from.line(), to.line())
        };
        use std::io::Write;
        if writeln!(std::io::stdout(), "{text}").is_err() {
            return Ok(());
        }
        std::thread::sleep(WATCH_PERIOD);
    }
}

fn ask_status(socket: &std::path::Path, leases: bool) -> Result<(String, Status), Fault> {
    let line = status::ask(socket, if leases { "leases" } else { "status" })?;
    let status = serde_json::from_str(&line).map_err(|_| {
        Fault::new(
            Exit::Unavailable,
            "the gateway's answer cannot be read; is it of another version?",
        )
    })?;
    Ok((line, status))
}

fn check_config(file: &std::path::Path, json: bool) -> Result<(), Fault> {
    let checked = Config::load(file);
    if json {
        let mistakes: Vec<String> = match &checked {
            Ok(_) => Vec::new(),
            Err(ConfigError::Mistakes(mistakes)) => {
                mistakes.iter().map(ToString::to_string).collect()
            }
            Err(error @ (ConfigError::Read { .. } | ConfigError::Syntax { .. })) => {
                vec![error.to_string()]
            }
        };
        print_json(&serde_json::json!({ "ok": checked.is_ok(), "mistakes": mistakes }))?;
    }
    checked.map_err(|error| Fault::new(Exit::Config, error.to_string()))?;
    if json {
        Ok(())
    } else {
        print(&format!("{} is in order", file.display()))
    }
}

fn dns_stamp(config: &Config, args: &StampArgs) -> Result<(), Fault> {
    let Some(dns) = &config.dns else {
        return Err(Fault::new(
            Exit::Config,
            "the configuration has no [dns] table, so there is no stamp",
        ));
    };
    if args.relay && config.dns_relay.is_none() {
        return Err(Fault::new(
            Exit::Config,
            "the configuration has no [dns.relay] table, so there is no relay",
        ));
    }
    let every = args.all || args.json;
    let count = if every { dns.listen.len() } else { 1 };
    let stamps = dns.listen.iter().take(count).map(|address| {
        let stamp = if args.relay {
            dns::relay_stamp(*address)
        } else {
            dns::stamp(dns, *address)?
        };
        Ok((*address, stamp))
    });
    let stamps = stamps.collect::<Result<Vec<_>, Fault>>()?;
    if args.json {
        let rows = stamps
            .iter()
            .map(|(address, stamp)| serde_json::json!({ "address": address, "stamp": stamp }));
        return print_json(&rows.collect::<Vec<_>>());
    }
    stamps.iter().try_for_each(|(_, stamp)| print(stamp))
}

fn relay_pin(config: &Config, json: bool) -> Result<(), Fault> {
    let Some(relay) = &config.relay else {
        return Err(Fault::new(
            Exit::Config,
            "the configuration has no [relay] table, so there is no key",
        ));
    };
    let pin = hex::encode(certificate::pin(&relay.certificate_file)?);
    if json {
        return print_json(&serde_json::json!({ "spki_sha256": pin }));
    }
    print(&pin)
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Fault> {
    match serde_json::to_string(value) {
        Ok(text) => print(&text),
        Err(error) => Err(Fault::new(
            Exit::Bug,
            format!("the answer cannot be written as JSON: {error}"),
        )),
    }
}

fn print(text: &str) -> Result<(), Fault> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A reader such as `head` that has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(|error| Fault::io("write the answer", &error)),
    }
}

fn say(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    // Where stderr is gone there is nobody to tell.
    let _written = writeln!(std::io::stderr().lock(), "{line}");
}
