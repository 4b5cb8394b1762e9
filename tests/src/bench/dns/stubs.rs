//! The stubs side by side: ours, as a program and as the agent has it, and dnscrypt-proxy in front of the answerer; dnsmasq
//! and unbound, which encrypt nothing, in front of the zone server.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::processor::{self, MEASURED};
use crate::dns_peers::{Asking, Caching, DnscryptProxy, DnscryptStub};
use crate::netns::{Netns, said};
use crate::peers::Peers;
use crate::process::Running;
use crate::programs::Programs;
use crate::topology::{Lab, ZONE_SERVER};
use crate::zones::PAGE_NAME;

pub(super) const DNSCRYPT_PROXY: &str = "dnscrypt-proxy";
pub(super) const DNSMASQ: &str = "dnsmasq";
/// From cargo's target folder; `cargo xtask bench dns` builds it before.
const ROUTERS: &str = "cross/x86_64-unknown-linux-musl/router/examples/router_stub";
const DNSMASQ_PORT: u16 = 5302;
const UNBOUND_PORT: u16 = 5303;
const ROUTERS_PORT: u16 = 5304;
const START: Duration = Duration::from_secs(10);

/// Which stub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `culvert-dns run`.
    Ours,
    /// The stub of the agent, built as the agent is, alone in a process.
    Routers,
    DnscryptProxy,
    Dnsmasq,
    Unbound,
}

/// In the order of the rows.
pub(super) const KINDS: [Kind; 5] = [
    Kind::Ours,
    Kind::Routers,
    Kind::DnscryptProxy,
    Kind::Dnsmasq,
    Kind::Unbound,
];

/// What starting one needs.
pub(super) struct Bench<'a> {
    pub(super) lab: &'a Lab,
    pub(super) programs: &'a Programs,
    pub(super) peers: &'a Peers,
    /// The answerer's.
    pub(super) stamp: &'a str,
}

/// A stub that runs.
pub(super) struct Stub {
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
    _alive: Alive,
}

enum Alive {
    Ours { _stub: DnscryptStub },
    Go { _proxy: DnscryptProxy },
    Plain { _process: Running },
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "culvert-dns",
            Self::Routers => "the agent's stub",
            Self::DnscryptProxy => DNSCRYPT_PROXY,
            Self::Dnsmasq => DNSMASQ,
            Self::Unbound => "unbound",
        }
    }

    pub(super) fn version(self) -> &'static str {
        match self {
            Self::Ours => "this build",
            Self::Routers => "built as for a router",
            Self::DnscryptProxy => "dnscrypt-proxy 2.1.18",
            Self::Dnsmasq => "dnsmasq 2.90, plain",
            Self::Unbound => "unbound 1.17.1, plain",
        }
    }

    pub(super) fn row_end(self) -> &'static str {
        match self {
            Self::Ours | Self::Routers => "",
            Self::DnscryptProxy => " vs dnscrypt-proxy",
            Self::Dnsmasq => " vs dnsmasq",
            Self::Unbound => " vs unbound",
        }
    }

    /// The program's size as it is installed: without symbols, as Debian's are.
    pub(super) fn disk_mb(self, bench: &Bench<'_>) -> Result<f64> {
        let path = match self {
            Self::Ours => stripped(&bench.programs.dns(), &bench.lab.folder("stripped")?)?,
            Self::Routers => routers(bench.programs)?,
            Self::DnscryptProxy => bench.peers.dnscrypt_proxy()?,
            Self::Dnsmasq => bench.peers.dnsmasq()?,
            Self::Unbound => PathBuf::from("/usr/sbin/unbound"),
        };
        let about = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(about.len() as f64 / 1e6)
    }

    /// Starts one that finds one processor.
    pub(super) fn start(self, bench: &Bench<'_>) -> Result<Stub> {
        processor::on(MEASURED, || match self {
            Self::Ours => {
                let (lab, netns) = (bench.lab, &bench.lab.internet);
                let stub = DnscryptStub::start(lab, netns, bench.programs, bench.stamp)?;
                Ok(Stub {
                    address: DnscryptStub::LISTEN.parse()?,
                    pid: stub.pid(),
                    _alive: Alive::Ours { _stub: stub },
                })
            }
            Self::Routers => plain(bench.lab, ROUTERS_PORT, "lab", |netns| {
                let listen = format!("127.0.0.1:{ROUTERS_PORT}");
                let args = [OsStr::new(&listen), OsStr::new(bench.stamp)];
                netns.spawn("router_stub", routers(bench.programs)?, &args)
            }),
            Self::DnscryptProxy => {
                let (lab, netns) = (bench.lab, &bench.lab.internet);
                let how = (Asking::Udp, Caching::AsShipped);
                let proxy =
                    DnscryptProxy::start_caching(lab, netns, bench.peers, bench.stamp, how)?;
                Ok(Stub {
                    address: DnscryptProxy::LISTEN.parse()?,
                    pid: proxy.pid(),
                    _alive: Alive::Go { _proxy: proxy },
                })
            }
            Self::Dnsmasq => plain(bench.lab, DNSMASQ_PORT, PAGE_NAME, |netns| {
                dnsmasq(netns, bench.peers)
            }),
            Self::Unbound => plain(bench.lab, UNBOUND_PORT, PAGE_NAME, |netns| {
                unbound(netns, bench.lab)
            }),
        })
    }
}

fn routers(programs: &Programs) -> Result<PathBuf> {
    let path = programs.target().join(ROUTERS);
    ensure!(
        path.exists(),
        "{} is not built: go through `cargo xtask bench dns`",
        path.display()
    );
    Ok(path)
}

/// A copy without symbols.
fn stripped(program: &Path, dir: &Path) -> Result<PathBuf> {
    let copy = dir.join("stripped");
    let output = Command::new("strip")
        .arg("-o")
        .arg(&copy)
        .arg(program)
        .output()
        .context("starting strip (Debian package binutils)")?;
    ensure!(output.status.success(), "strip: {}", said(&output));
    Ok(copy)
}

/// Starts a stub and waits until it answers for a name.
fn plain(
    lab: &Lab,
    port: u16,
    name: &str,
    start: impl FnOnce(&Netns) -> Result<Running>,
) -> Result<Stub> {
    let mut process = start(&lab.internet)?;
    let port_word = port.to_string();
    let ask = [
        "dig",
        "@127.0.0.1",
        "-p",
        &port_word,
        "+time=1",
        "+tries=1",
        name,
    ];
    process.wait_ready("answers", START, || {
        let answered = lab.internet.output(&ask)?.status.success();
        Ok(answered.then_some(()))
    })?;
    Ok(Stub {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        pid: process.pid(),
        _alive: Alive::Plain { _process: process },
    })
}

fn dnsmasq(netns: &Netns, peers: &Peers) -> Result<Running> {
    let args = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--listen-address=127.0.0.1",
        &format!("--port={DNSMASQ_PORT}"),
        &format!("--server={ZONE_SERVER}"),
        "--cache-size=10000",
        // Its default of 150 is near what the load has under way.
        "--dns-forward-max=1000",
        "--log-facility=-",
    ];
    netns.spawn("dnsmasq", peers.dnsmasq()?, &args.map(OsStr::new))
}

fn unbound(netns: &Netns, lab: &Lab) -> Result<Running> {
    let config = lab.folder("unbound")?.join("unbound.conf");
    let text = format!(
        "server:\n  interface: 127.0.0.1\n  port: {UNBOUND_PORT}\n  do-daemonize: no\n  num-threads: 1\n\
         \x20 username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  module-config: \"iterator\"\n\
         \x20 access-control: 127.0.0.0/8 allow\nremote-control:\n  control-enable: no\n\
         stub-zone:\n  name: \"lab.\"\n  stub-addr: {ZONE_SERVER}\n"
    );
    fs::write(&config, text).context("writing unbound's configuration")?;
    let args = [OsStr::new("-d"), OsStr::new("-c"), config.as_os_str()];
    netns.spawn("unbound", "/usr/sbin/unbound", &args)
}
