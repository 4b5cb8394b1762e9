//! The command line. Data goes to stdout, talk to stderr; every failure is one sentence and an exit code.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use trust::{BitRate, GatewayRecord, NotARate, RelayRecord};

use crate::config::{ConfigErrors, DEFAULT_DATA_DIR};
use crate::datadir::{DataDir, ServerUrl};
use crate::failure::{self, Blame, Failure};
use crate::revoke::Reason;
use crate::store::Id;

mod answers;
mod cosigned;
mod entries;
mod monitor;
mod operators;
mod people;
mod server;
mod witness;

/// Enrols routers, leases them addresses and gateways, and keeps the logs that everybody can check.
#[derive(Debug, Parser)]
#[command(name = "provisioning", version)]
struct Cli {
    /// Keys, database and logs; for `serve`, in place of the configuration's data-dir
    /// [default: /var/lib/culvert-provisioning]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Serve {
        /// See docs/config/provisioning.toml.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// error, warn, info, debug or trace.
        #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
        log_level: telemetry::Level,
    },
    /// Reports every mistake in a configuration.
    CheckConfig {
        /// The file that `serve` would read.
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Prints the OpenAPI document of the API.
    Openapi,
    #[command(flatten)]
    People(people::People),
    #[command(subcommand)]
    Witness(witness::Witness),
    Monitor(monitor::Watch),
    #[command(flatten)]
    Operator(Operator),
}

/// What works on the data directory, whether a server runs on it or not.
#[derive(Debug, Subcommand)]
enum Operator {
    /// Makes keys, database and the files that images carry.
    Init(Init),
    /// Claim codes.
    #[command(subcommand)]
    Claim(Claim),
    /// Enrolled routers.
    #[command(subcommand)]
    Device(Device),
    /// Gateways.
    #[command(subcommand)]
    Gateway(Gateway),
    /// The people who together decide.
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// What an operator should look at.
    #[command(subcommand)]
    Alerts(Alerts),
    /// The logs of leases and of authority.
    #[command(subcommand)]
    Log(Logs),
    /// Says what the data directory holds.
    Status(Output),
}

#[derive(Debug, Args)]
struct Output {
    /// One JSON object for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Init {
    /// What logs and cosignatures are named after: letters, digits, - and _.
    #[arg(long, value_parser = word::<32>)]
    name: String,
    /// Where routers find the server.
    #[arg(long, value_name = "https://IP:PORT")]
    listen_url: ServerUrl,
    /// The first state of the authority, as `activate --genesis` writes it: whose word routers will take; see docs/people.md.
    #[arg(long, value_name = "FILE")]
    genesis: PathBuf,
    /// Who else cosigns the logs: the lines `witness NAME KEY URL`, `group` and `quorum` of a policy (C2SP tlog-policy), in
    /// which the server is a witness by its own name. Without it the server's own cosignature is enough.
    #[arg(long, value_name = "FILE")]
    witnesses: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Claim {
    /// Makes a code, prints it once, keeps its public key only.
    New(NewClaim),
    /// Lists claims, without their codes, which nobody has.
    List(Output),
}

#[derive(Debug, Args)]
struct NewClaim {
    /// Your own opaque word for the line: letters, digits, - and _.
    #[arg(long, value_parser = word::<64>)]
    slot: Option<String>,
    /// How long an unused code is good.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u64).range(1..=365))]
    days: u64,
    /// The point of presence where the device will be homed.
    #[arg(long, default_value = "pop1", value_parser = word::<32>)]
    pop: String,
    /// What the device may receive, in bits a second such as 50M; without it as much as there is.
    #[arg(long, value_name = "RATE")]
    down: Option<BitRate>,
    /// What it may send.
    #[arg(long, value_name = "RATE")]
    up: Option<BitRate>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Device {
    /// Lists devices.
    List(Output),
    /// Shows one device and its lease.
    Show {
        /// Its id, or the beginning of it.
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Changes what a device may carry; its gateways follow within seconds, and no connection ends.
    Limit {
        /// Its id, or the beginning of it.
        id: String,
        /// What it may receive: bits a second such as 50M, or none for as much as there is. Without it: as before.
        #[arg(long, value_name = "RATE", value_parser = limit, required_unless_present = "up")]
        down: Option<Limit>,
        /// What it may send.
        #[arg(long, value_name = "RATE", value_parser = limit)]
        up: Option<Limit>,
        #[command(flatten)]
        output: Output,
    },
    /// Ends a device's leases; its gateways drop it within seconds.
    Revoke {
        /// Its id, or the beginning of it.
        id: String,
        #[arg(long)]
        reason: Reason,
        #[command(flatten)]
        output: Output,
    },
}

/// A rate, or the word that there is none.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<BitRate>);

#[derive(Debug, Subcommand)]
enum Gateway {
    /// Takes a gateway that enough people have approved, so that leases can name it.
    Add(AddGateway),
    /// Lists gateways.
    List(Output),
}

#[derive(Debug, Args)]
struct AddGateway {
    /// What `activate` wrote of its proposal; docs/people.md says how to come by it.
    #[arg(value_name = "ACTIVATION")]
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// What a gateway's record says.
#[derive(Debug, Args)]
struct RecordFlags {
    #[arg(long, value_parser = word::<32>)]
    name: String,
    /// Its Ed25519 public key, as `edge-gateway init` prints it.
    #[arg(long, value_name = "HEX", value_parser = hex_key)]
    ed25519: Id,
    /// Its WireGuard public key.
    #[arg(long, value_name = "BASE64", value_parser = base64_key)]
    wg: Id,
    /// Where it listens for WireGuard.
    #[arg(long, value_name = "IP:PORT", required = true, value_delimiter = ',', value_parser = endpoint)]
    endpoint: Vec<SocketAddr>,
    #[arg(long, value_parser = word::<32>)]
    pop: String,
    #[arg(long, required = true, value_delimiter = ',')]
    shard: Vec<u32>,
    /// Its own addresses inside the tunnel.
    #[arg(long, value_name = "IP", required = true, value_delimiter = ',')]
    inner: Vec<IpAddr>,
    /// The stamp of its resolver inside the tunnel.
    #[arg(long, value_name = "sdns://…", required = true, value_delimiter = ',', value_parser = stamp)]
    dns: Vec<String>,
    /// Where it listens for UDP inside HTTP, for routers whose network lets no other UDP through.
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',', value_parser = endpoint, requires_all = ["relay_name", "relay_spki"])]
    relay: Vec<SocketAddr>,
    /// The name in the relay's certificate.
    #[arg(long, value_name = "NAME", value_parser = host_name, requires = "relay")]
    relay_name: Option<String>,
    /// SHA-256 of the relay's public key, as `edge-gateway relay-pin` prints it.
    #[arg(long, value_name = "HEX", value_delimiter = ',', value_parser = hex_key, requires = "relay")]
    relay_spki: Vec<Id>,
    /// Routers are to use it with a post-quantum pre-shared key alone, from the first time on.
    #[arg(long)]
    post_quantum: bool,
}

impl RecordFlags {
    fn into_record(self) -> anyhow::Result<GatewayRecord> {
        let record = GatewayRecord {
            v: trust::VERSION,
            name: self.name,
            ed25519_pub: self.ed25519,
            wg_pub: self.wg,
            endpoints: self.endpoint,
            pop: self.pop,
            shards: self.shard,
            inner: self.inner,
            dns: self.dns,
            relay: self.relay_name.map(|server_name| RelayRecord {
                endpoints: self.relay,
                server_name,
                spki_sha256: self.relay_spki,
            }),
            post_quantum: self.post_quantum,
        };
        GatewayRecord::from_bytes(&record.to_bytes())
            .map_err(|error| Failure::new(Blame::Usage, format!("not a gateway: {error}")))?;
        Ok(record)
    }
}

const STATE_ADDED: &str = "\
Routers fetch it when they next ask for a lease, and judge it by the state that they have; images made from now on carry it. Gateways that too few of its people
have approved would be refused by routers from then on: the command names them and adds nothing, unless it is told --lose-gateways. To keep one, have it
approved by enough who stay, and activate and add it before.";

#[derive(Debug, Subcommand)]
enum AuthorityCommand {
    /// Takes a new state of the authority that enough people have signed.
    #[command(after_help = STATE_ADDED)]
    Add {
        /// What `activate` wrote of its proposal.
        #[arg(value_name = "ACTIVATION")]
        file: PathBuf,
        /// Add it, though routers will then refuse some gateways.
        #[arg(long)]
        lose_gateways: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum Alerts {
    /// Lists alerts.
    List(Output),
}

const LOGGED: &str = "\
Logging decides nothing: others see what is proposed, and its delay begins. Whoever proposes has signed it; the others may
approve before or after. `activate` with the folder's proof makes what machines are shown once all of it is there.";

#[derive(Debug, Args)]
struct LogProposal {
    /// The folder, as `propose` makes it.
    folder: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Logs {
    /// Puts the proposal of a folder into the authority log, and the log's proof of that into the folder.
    #[command(after_help = LOGGED)]
    Add(LogProposal),
    /// Lists the entries of the authority log: proposals, with who is named as their proposer.
    List(Output),
    /// Prints the verifier keys of both logs, a line each, as a witness takes them.
    Keys(Output),
    /// Builds both logs again from their entries and holds everything against them.
    Verify(Output),
}

/// Runs a command line and says how it went.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() {
                Blame::Usage.into()
            } else {
                ExitCode::SUCCESS
            };
            // Nobody is left to tell when this cannot be printed.
            let _unheard = error.print();
            return code;
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(mistakes) = error.downcast_ref::<ConfigErrors>() {
        answers::talk(&mistakes.to_string());
        return Blame::Config.into();
    }
    let blame = failure::blame(error);
    let advice = match blame {
        Blame::CannotWrite => {
            "; make room on the disk of the data directory (or make it writable) and try again"
        }
        Blame::Failed
        | Blame::Short
        | Blame::NotYet
        | Blame::Usage
        | Blame::Unavailable
        | Blame::Io
        | Blame::Permission
        | Blame::Config => "",
    };
    answers::talk(&format!("error: {}{advice}", failure::sentence(error)));
    blame.into()
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Openapi => answers::say(&crate::api::openapi_json()?),
        Command::CheckConfig { file, output } => server::check_config(&file, &output),
        Command::Serve { config, log_level } => server::serve(&config, cli.data_dir, log_level),
        Command::People(command) => people::execute(command),
        Command::Witness(command) => witness::execute(command),
        Command::Monitor(watch) => monitor::execute(&watch),
        Command::Operator(command) => {
            let dir = DataDir::new(cli.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(operators::execute(&dir, command))
        }
    }
}

fn level(text: &str) -> Result<telemetry::Level, telemetry::UnknownLevel> {
    telemetry::parse_level(text)
}

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        rate => rate
            .parse()
            .map(|rate| Limit(Some(rate)))
            .map_err(|error: NotARate| format!("{error}, or none")),
    }
}

fn word<const MAX: usize>(text: &str) -> Result<String, String> {
    match crate::store::is_word(text, MAX) {
        true => Ok(text.to_owned()),
        false => Err(format!("accepted: 1 to {MAX} letters, digits, - or _")),
    }
}

/// Where a router can send to.
fn endpoint(text: &str) -> Result<SocketAddr, &'static str> {
    let address: Option<SocketAddr> = text.parse().ok();
    let is_one = |address: &SocketAddr| {
        let ip = address.ip().to_canonical();
        let is_broadcast = ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
        address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
    };
    let accepted =
        "accepted: ADDRESS:PORT of one machine, such as 198.51.100.1:51820 or [2001:db8::1]:51820";
    address.filter(is_one).ok_or(accepted)
}

/// A name as certificates have it (RFC 1123 section 2.1).
fn host_name(text: &str) -> Result<String, &'static str> {
    let is_label = |label: &str| {
        let inner = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= 64 && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err("accepted: a host name of 1 to 64 characters, such as www.example.net")
    }
}

fn hex_key(text: &str) -> Result<Id, &'static str> {
    let mut key = Id::default();
    match hex::decode_to_slice(text, &mut key) {
        Ok(()) => Ok(key),
        Err(_) => Err("accepted: 64 hexadecimal digits"),
    }
}

fn base64_key(text: &str) -> Result<Id, &'static str> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or("accepted: 32 bytes in base64")
}

fn stamp(text: &str) -> Result<String, &'static str> {
    match text.starts_with("sdns://") && text.len() <= 512 {
        true => Ok(text.to_owned()),
        false => Err("accepted: sdns://… of at most 512 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn an_endpoint_is_where_one_machine_can_be_sent_to() {
        for wrong in [
            "198.51.100.1",
            "198.51.100.1:0",
            "0.0.0.0:51820",
            "[::]:51820",
            "255.255.255.255:51820",
            "224.0.0.1:51820",
            "[ff02::1]:51820",
            "[::ffff:0.0.0.0]:51820",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
        for right in ["198.51.100.1:51820", "[2001:db8::1]:443"] {
            assert!(endpoint(right).is_ok(), "{right}");
        }
    }
}
