//! The command line of `culvert-dns`. What a command prints goes to stdout, everything else to stderr.

mod agent;
mod bench;
mod cert;
mod check;
mod config;
mod exit;
mod moment;
mod policy;
mod query;
mod run;
mod stamp;
mod status;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgGroup, Args, Parser, Subcommand};
use ed25519_dalek::VerifyingKey;

use crate::proto::cert::{Legacy, Policy, PostQuantum};
use crate::proto::stamp::{DnsCryptStamp, Stamp};
use crate::upstream::{Prefer, Route};
use exit::{Failure, USAGE};

const EXAMPLES: &str = "\
Examples:
  culvert-dns check sdns://AQ…                       is this resolver any good?
  culvert-dns query example.com AAAA --stamp sdns://AQ…
  culvert-dns run --listen 127.0.0.1:53 --stamp sdns://AQ…   then point resolv.conf to 127.0.0.1

A stamp (sdns://…) holds everything needed to reach a resolver: address, provider name, provider key.
Exit codes: 0 done, 1 failed, 64 wrong usage, 69 resolver or ssh agent unavailable, 74 input/output, 77 no permission, 78 wrong configuration.";

/// Sends this machine's DNS lookups encrypted (DNSCrypt version 2). Never falls back to clear DNS.
#[derive(Parser)]
#[command(name = "culvert-dns", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer DNS on this machine, asking encrypted resolvers
    #[command(
        after_help = "Port 53 needs root or the capability CAP_NET_BIND_SERVICE.
Blocklists, names of your own and protection from rebinding are set in a configuration file, section [policy]: see docs/config/culvert-dns.toml."
    )]
    Run(RunArgs),
    /// Say how a running `culvert-dns run` is doing; never with a name that was looked up
    Status(StatusArgs),
    /// Ask one question and print the answer
    Query(QueryArgs),
    /// Load a resolver of your own with lookups, and say how fast it answers
    #[command(
        after_help = "Without --saturate or a higher --rate this is what a small office sends. Ends with 69 when nothing was answered."
    )]
    Bench(Box<BenchArgs>),
    /// Test a resolver: its certificates, and a lookup over UDP and over TCP
    Check(CheckArgs),
    /// Make a stamp, or show what is in one
    #[command(subcommand)]
    Stamp(StampCommand),
    /// Make or show the key that signs a server's certificates
    #[command(subcommand)]
    ProviderKey(ProviderKeyCommand),
    /// Sign certificates for a server that must not hold the provider key
    #[command(subcommand)]
    Cert(CertCommand),
    /// Check a configuration file, reporting every mistake at once
    CheckConfig(CheckConfigArgs),
}

#[derive(Args)]
struct RunArgs {
    /// Configuration file (see `check-config`)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "stamp", "relay"])]
    config: Option<PathBuf>,
    /// Address to answer on, over UDP and TCP; may be repeated. Needless where systemd hands sockets over
    #[arg(long, value_name = "IP:PORT")]
    listen: Vec<SocketAddr>,
    /// Resolver to ask; may be repeated, in order of preference
    #[arg(long, value_name = "STAMP", value_parser = dnscrypt_stamp)]
    stamp: Vec<DnsCryptStamp>,
    #[command(flatten)]
    route: RouteArgs,
    /// Whom to ask first, of those that are well: the first of them (`order`) or the fastest (`latency`)
    #[arg(long, value_name = "HOW", default_value = "order", value_parser = prefer)]
    prefer: Prefer,
    /// Use a new key for every query, so that a resolver cannot link them by the key
    #[arg(long)]
    ephemeral_keys: bool,
    /// Bound of the cache in KiB; 0 switches it off
    #[arg(long, value_name = "KIB", default_value_t = config::DEFAULT_CACHE_KIB)]
    cache_kib: usize,
    /// Unix socket on which `culvert-dns status` is answered; none if not given
    #[arg(long, value_name = "PATH")]
    status_socket: Option<PathBuf>,
    #[command(flatten)]
    policy: PolicyArgs,
}

#[derive(Args)]
struct StatusArgs {
    /// The running program's `status-socket`
    #[arg(long, value_name = "PATH", default_value = status::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Every second, with the rates of the last minute
    #[arg(long)]
    watch: bool,
}

/// How resolvers are reached.
#[derive(Args)]
struct RouteArgs {
    /// Relay (a stamp sdns://gQ…) to ask through, so that the resolver does not learn who asks; may be repeated. With
    /// relays a resolver is never asked without one
    #[arg(long, value_name = "STAMP", value_parser = relay_stamp)]
    relay: Vec<SocketAddr>,
}

impl RouteArgs {
    fn route(&self) -> Route {
        if self.relay.is_empty() {
            Route::Direct
        } else {
            Route::Relays(self.relay.clone())
        }
    }
}

/// Which certificates of a resolver are taken.
#[derive(Args)]
struct PolicyArgs {
    /// Post-quantum certificates: `preferred`, `required` (no lookup without one), or `off`
    #[arg(long, value_name = "HOW", default_value = "preferred", value_parser = post_quantum)]
    post_quantum: PostQuantum,
    /// Take a certificate of the first system (es 1, withdrawn from the protocol) where there is no other
    #[arg(long)]
    legacy_certificates: bool,
}

impl PolicyArgs {
    fn policy(&self) -> Policy {
        Policy {
            post_quantum: self.post_quantum,
            legacy: legacy(self.legacy_certificates),
        }
    }
}

#[derive(Args)]
struct QueryArgs {
    /// Name to look up
    name: String,
    /// Record type
    #[arg(default_value = "A")]
    rtype: String,
    /// Resolver to ask
    #[arg(long, value_name = "STAMP", value_parser = dnscrypt_stamp)]
    stamp: DnsCryptStamp,
    /// Ask over TCP at once
    #[arg(long)]
    tcp: bool,
    #[command(flatten)]
    route: RouteArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct BenchArgs {
    /// Resolver to load: IP:PORT for plain DNS, or a DNSCrypt stamp
    #[arg(value_parser = target)]
    target: Target,
    /// Lookups a second, evenly spaced
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// As many lookups as are answered, in place of a rate
    #[arg(long, conflicts_with = "rate")]
    saturate: bool,
    /// Lookups under way with --saturate, and connections with --tcp
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    in_flight: u16,
    /// How long
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    duration_s: u32,
    /// Over TCP, a connection for each lookup
    #[arg(long)]
    tcp: bool,
    /// Name to look up; may be repeated
    #[arg(long, value_name = "NAME", default_value = "example.com")]
    name: Vec<String>,
    /// File with a name on each line, its type behind it if it is not --type
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    names: Option<PathBuf>,
    /// Names below this zone that were never asked for: no cache has them
    #[arg(long, value_name = "ZONE", conflicts_with_all = ["name", "names"])]
    random_under: Option<String>,
    /// Record type
    #[arg(long = "type", value_name = "TYPE", default_value = "A")]
    rtype: String,
    /// The server is yours, or its owner agreed: needed for more than 1000 lookups a second to a server that is not on a
    /// network of your own
    #[arg(long)]
    own_server: bool,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Who is loaded.
#[derive(Clone)]
enum Target {
    Plain(SocketAddr),
    Sealed(Box<DnsCryptStamp>),
}

impl Target {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Plain(address) => *address,
            Self::Sealed(stamp) => stamp.addr,
        }
    }
}

#[derive(Args)]
struct CheckArgs {
    /// The resolver's stamp
    #[arg(value_parser = dnscrypt_stamp)]
    stamp: DnsCryptStamp,
    /// Name to look up as a test
    #[arg(long, default_value = "example.com")]
    name: String,
    #[command(flatten)]
    route: RouteArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum StampCommand {
    /// Make the stamp of a DNSCrypt resolver
    Make(MakeArgs),
    /// Make the stamp of a relay
    MakeRelay {
        /// Where the relay listens
        #[arg(long, value_name = "IP:PORT")]
        addr: SocketAddr,
    },
    /// Show what is in a stamp of any kind
    Show {
        /// The stamp
        #[arg(value_parser = any_stamp)]
        stamp: Box<Stamp>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct MakeArgs {
    /// Where the resolver listens
    #[arg(long, value_name = "IP:PORT")]
    addr: SocketAddr,
    /// The provider's public key: 64 hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    provider_key: [u8; 32],
    /// The provider's name, beginning with `2.dnscrypt-cert.`
    #[arg(long, value_name = "NAME", value_parser = provider_name)]
    provider_name: String,
    /// It validates DNSSEC
    #[arg(long)]
    dnssec: bool,
    /// It keeps no log
    #[arg(long)]
    no_log: bool,
    /// It blocks nothing
    #[arg(long)]
    no_filter: bool,
}

#[derive(Subcommand)]
enum ProviderKeyCommand {
    /// Make a key file, readable by its owner only, and print the public key
    New {
        /// File to create; an existing one is never overwritten
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the public key of a key file
    Show {
        /// The key file
        file: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the public keys of the Ed25519 keys that an ssh agent has, each with its comment
    #[command(after_help = AGENT)]
    Agent {
        #[command(flatten)]
        agent: AgentArgs,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

const AGENT: &str = "\
A provider key on a token, or in a key file of OpenSSH's, is used through an ssh agent; culvert-dns sees neither secret nor PIN:
  ssh-keygen -t ed25519 -f provider && ssh-add provider        a key without a token, to try it
  ssh-add -s /usr/lib/MODULE.so                                a PKCS#11 token (OpenSSH 10.1 and later take its Ed25519 keys)
  culvert-dns provider-key agent                               prints HEX and comment of each key
  culvert-dns cert sign --agent-key HEX --out DIR
The token must sign messages of 1,248 bytes (a post-quantum certificate) with Ed25519 itself. FIDO keys (ssh-keygen -t ed25519-sk) sign
something else. Use a provider key for nothing but this: not to log in anywhere.";

/// Where an agent is, and how patient we are with whoever has to touch its token.
#[derive(Args)]
struct AgentArgs {
    /// The agent's socket; the one that SSH_AUTH_SOCK names if not given
    #[arg(long, value_name = "PATH")]
    agent_socket: Option<PathBuf>,
    /// How long the agent may take for each signature, for a touch or a PIN: 1 to 600
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=600))]
    agent_wait_s: u16,
}

#[derive(Subcommand)]
enum CertCommand {
    /// Make a series of short-term keys with certificates, each taking over from the one before
    #[command(
        after_help = "Move the directory to the server over a channel you trust: it holds secret keys. \
The server erases each one when its time is over. Servers that get the same directory take one another's clients over \
without a new key agreement: it has ticket keys, too. To change the provider's key, sign with both into one directory, \
the new key last.

The provider's key need not be in a file: with --agent-key an ssh agent signs, with a token or with what ssh-add gave it; see
`culvert-dns provider-key agent --help`. A token that wants a touch wants one for each certificate, two each time: --count 1 tries it."
    )]
    Sign(Box<SignArgs>),
}

#[derive(Args)]
#[command(group = ArgGroup::new("key").required(true).args(["provider_key", "agent_key"]))]
struct SignArgs {
    /// The provider's key file
    #[arg(long, value_name = "FILE", conflicts_with = "agent_socket")]
    provider_key: Option<PathBuf>,
    /// In place of a file: the provider's public key, 64 hexadecimal digits, whose secret an ssh agent has
    #[arg(long, value_name = "HEX", value_parser = agent_key)]
    agent_key: Option<VerifyingKey>,
    #[command(flatten)]
    agent: AgentArgs,
    /// Directory to write into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many times a certificate is replaced; each begins when half of the one before is over, and there is a classical and a
    /// post-quantum one of each
    #[arg(long, value_name = "N", default_value_t = 15)]
    count: usize,
    /// How long each is valid, in hours: 1 to 24
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    lifetime_h: u32,
    /// When the first one begins, in unix seconds; now if not given
    #[arg(long, value_name = "UNIX")]
    start: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct CheckConfigArgs {
    /// The configuration file
    file: PathBuf,
    /// Print one JSON object: `ok`, and the list of `mistakes`
    #[arg(long)]
    json: bool,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match dispatch(cli.command) {
        Ok(output) => {
            // A reader that went away is no failure of ours.
            let _ = std::io::stdout().write_all(output.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = std::io::stdout().write_all(failure.output.as_bytes());
            let _ = writeln!(std::io::stderr(), "error: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(command: Command) -> Result<String, Failure> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Status(args) => status::status(&args),
        Command::Query(args) => query::query(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Check(args) => check::check(&args),
        Command::Stamp(StampCommand::Make(args)) => Ok(stamp::make(args)),
        Command::Stamp(StampCommand::MakeRelay { addr }) => {
            Ok(format!("{}\n", Stamp::DnsCryptRelay { addr }))
        }
        Command::Stamp(StampCommand::Show { stamp, json }) => Ok(stamp::show(&stamp, json)),
        Command::ProviderKey(ProviderKeyCommand::New { file, json }) => cert::new_key(&file, json),
        Command::ProviderKey(ProviderKeyCommand::Show { file, json }) => {
            cert::show_key(&file, json)
        }
        Command::ProviderKey(ProviderKeyCommand::Agent { agent, json }) => {
            cert::show_agent(&agent, json)
        }
        Command::Cert(CertCommand::Sign(args)) => cert::sign(&args),
        Command::CheckConfig(args) => config::check(&args),
    }
}

/// Help goes to stdout, mistakes to stderr; both as clap words them.
fn usage(error: &clap::Error) -> ExitCode {
    let asked = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    let _ = error.print();
    if asked {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(USAGE)
    }
}

fn dnscrypt_stamp(text: &str) -> Result<DnsCryptStamp, String> {
    text.parse()
        .map_err(|error: crate::proto::stamp::NotDnsCrypt| error.to_string())
}

fn target(text: &str) -> Result<Target, String> {
    if text.starts_with("sdns:") {
        return dnscrypt_stamp(text).map(|stamp| Target::Sealed(Box::new(stamp)));
    }
    let address = text.parse().map(Target::Plain);
    address.map_err(|_| "neither IP:PORT nor a DNSCrypt stamp".to_owned())
}

fn relay_stamp(text: &str) -> Result<SocketAddr, String> {
    match text.parse() {
        Ok(Stamp::DnsCryptRelay { addr }) => Ok(addr),
        Ok(other) => Err(format!(
            "this is a stamp for {}; a DNSCrypt relay's is needed",
            other.kind_name()
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn prefer(text: &str) -> Result<Prefer, String> {
    text.parse()
}

fn post_quantum(text: &str) -> Result<PostQuantum, String> {
    text.parse()
}

fn legacy(is_taken: bool) -> Legacy {
    if is_taken {
        Legacy::LastResort
    } else {
        Legacy::Refused
    }
}

fn any_stamp(text: &str) -> Result<Box<Stamp>, String> {
    text.parse()
        .map(Box::new)
        .map_err(|error: crate::proto::stamp::StampError| error.to_string())
}

fn public_key(text: &str) -> Result<[u8; 32], String> {
    crate::certs::unhex(text.as_bytes())
        .ok_or_else(|| "a public key is 64 hexadecimal digits".to_owned())
}

fn agent_key(text: &str) -> Result<VerifyingKey, String> {
    let key = VerifyingKey::from_bytes(&public_key(text)?).ok();
    key.filter(|key| !key.is_weak())
        .ok_or_else(|| "no Ed25519 key has these digits; `culvert-dns provider-key agent` prints those of an agent".to_owned())
}

fn provider_name(text: &str) -> Result<String, String> {
    let name = crate::proto::stamp::provider_name(text).map_err(|error| error.to_string())?;
    if name.starts_with(crate::proto::stamp::PROVIDER_PREFIX) {
        Ok(name)
    } else {
        Err(format!(
            "a provider name begins with {}",
            crate::proto::stamp::PROVIDER_PREFIX
        ))
    }
}
