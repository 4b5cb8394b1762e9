//! DNSCrypt of other hands: two servers (encrypted-dns, dnsdist) and one client (dnscrypt-proxy).

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::netns::Netns;
use crate::peers::{Peers, Suite};
use crate::process::Running;
use crate::programs::Programs;
use crate::topology::{Lab, ZONE_SERVER};
use crate::zones::PAGE_NAME;

const START: Duration = Duration::from_secs(20);
const DAY_S: u64 = 86_400;
const DNSCRYPT_STAMP: u8 = 1;

/// A DNSCrypt server of another hand in `internet`, in front of the lab's zone server.
#[derive(Debug)]
pub struct ForeignServer {
    /// How a client finds it.
    pub stamp: String,
    process: Running,
}

impl ForeignServer {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// encrypted-dns: certificates over UDP and TCP, classical and post-quantum.
    pub fn encrypted_dns(lab: &Lab, peers: &Peers, listen: SocketAddr) -> Result<Self> {
        Self::encrypted_dns_in(lab, &lab.internet, peers, listen)
    }

    /// encrypted-dns in another place of the lab.
    pub fn encrypted_dns_in(
        lab: &Lab,
        netns: &Netns,
        peers: &Peers,
        listen: SocketAddr,
    ) -> Result<Self> {
        Self::encrypted_dns_as(lab, netns, peers, (listen, Relays::No))
    }

    /// encrypted-dns that also relays to port 443 of hosts of the internet, which it lets nobody widen.
    pub fn encrypted_dns_relay(
        lab: &Lab,
        netns: &Netns,
        peers: &Peers,
        listen: SocketAddr,
    ) -> Result<Self> {
        Self::encrypted_dns_as(lab, netns, peers, (listen, Relays::Yes))
    }

    fn encrypted_dns_as(
        lab: &Lab,
        netns: &Netns,
        peers: &Peers,
        (listen, relays): (SocketAddr, Relays),
    ) -> Result<Self> {
        let dir = lab.folder("encrypted-dns")?;
        let config = dir.join("encrypted-dns.toml");
        let text = format!(
            r#"listen_addrs = [{{ local = "{listen}", external = "{listen}" }}]
upstream_addrs = ["{ZONE_SERVER}:53"]
state_file = "{state}"
udp_timeout = 5
tcp_timeout = 5
udp_max_active_connections = 1000
tcp_max_active_connections = 250
cache_capacity = 100000
cache_ttl_min = 1
cache_ttl_max = 60
cache_ttl_error = 1
daemonize = false

[dnscrypt]
provider_name = "encrypted-dns.example"
pq_enabled = true
dnssec = true
no_filters = true
no_logs = true
key_cache_capacity = 10000

[tls]

[filtering]

[anonymized_dns]
enabled = {is_relay}
allowed_ports = [443]
allow_non_reserved_ports = false
blacklisted_ips = []
"#,
            state = dir.join("state").display(),
            is_relay = relays == Relays::Yes,
        );
        fs::write(&config, text).context("writing encrypted-dns's configuration")?;
        let program = peers.encrypted_dns()?;
        let mut process = netns.spawn(
            "encrypted-dns",
            &program,
            &["-c".as_ref(), config.as_os_str()],
        )?;
        let log = process.log_path().to_owned();
        let stamp = process.wait_ready("names its stamp", START, || {
            let said = fs::read_to_string(&log).context("reading its log")?;
            Ok(said
                .split_whitespace()
                .find(|word| word.starts_with("sdns://AQ"))
                .map(str::to_owned))
        })?;
        Ok(Self { stamp, process })
    }

    /// The provider name of its dnsdist.
    pub const DNSDIST_NAME: &str = "2.dnscrypt-cert.dnsdist.example";

    /// dnsdist: one classical certificate, over UDP only.
    pub fn dnsdist(lab: &Lab, listen: SocketAddr) -> Result<Self> {
        Self::dnsdist_in(lab, &lab.internet, listen)
    }

    /// dnsdist in another place of the lab.
    pub fn dnsdist_in(lab: &Lab, netns: &Netns, listen: SocketAddr) -> Result<Self> {
        const NAME: &str = ForeignServer::DNSDIST_NAME;
        let dir = lab.folder("dnsdist")?;
        let config = dir.join("dnsdist.conf");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("a clock before 1970")?
            .as_secs();
        let dir_text = dir.display();
        let text = format!(
            r#"generateDNSCryptProviderKeys("{dir_text}/provider.pub", "{dir_text}/provider.key")
generateDNSCryptCertificate("{dir_text}/provider.key", "{dir_text}/resolver.cert", "{dir_text}/resolver.key", 1, {from}, {to}, DNSCryptExchangeVersion.VERSION2)
addDNSCryptBind("{listen}", "{NAME}", "{dir_text}/resolver.cert", "{dir_text}/resolver.key")
newServer({{ address = "{ZONE_SERVER}:53", checkInterval = 60 }})
getPool(""):setCache(newPacketCache(100000))
setACL({{ "0.0.0.0/0", "::/0" }})
"#,
            from = now - 60,
            to = now + DAY_S,
        );
        fs::write(&config, text).context("writing dnsdist's configuration")?;
        let args = ["--supervised", "--disable-syslog", "-C"].map(AsRef::as_ref);
        let mut process = netns.spawn(
            "dnsdist",
            "dnsdist",
            &[&args[..], &[config.as_os_str()]].concat(),
        )?;
        let key = dir.join("provider.pub");
        let log = process.log_path().to_owned();
        process.wait_ready("listens", START, || {
            let said = fs::read_to_string(&log).context("reading its log")?;
            Ok((said.contains("Listening on") && key.exists()).then_some(()))
        })?;
        let key = fs::read(&key).context("reading dnsdist's provider key")?;
        Ok(Self {
            stamp: stamp(listen, &key, NAME)?,
            process,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relays {
    No,
    Yes,
}

/// How dnscrypt-proxy is to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Over UDP, one key pair for all queries.
    Udp,
    /// The same without post-quantum certificates.
    Classical,
    /// Over TCP only.
    Tcp,
    /// Over UDP, a key pair for every query.
    EphemeralKeys,
    /// As version 2.1.8 does, which knows of no post-quantum certificates.
    Elder,
}

impl Asking {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Udp,
        Self::Classical,
        Self::Tcp,
        Self::EphemeralKeys,
        Self::Elder,
    ];

    fn suite(self) -> Suite {
        match self {
            Self::Elder => Suite::Trixie,
            Self::Udp | Self::Classical | Self::Tcp | Self::EphemeralKeys => Suite::Forky,
        }
    }

    /// The line of the configuration, where the version has such a choice.
    fn post_quantum(self) -> &'static str {
        match self {
            Self::Udp | Self::Tcp | Self::EphemeralKeys => "pqdnscrypt = true",
            Self::Classical => "pqdnscrypt = false",
            Self::Elder => "",
        }
    }
}

/// What dnscrypt-proxy keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Nothing.
    Off,
    /// As much as its sample configuration says.
    AsShipped,
}

/// dnscrypt-proxy 2.1.18 as a stub, or 2.1.8.
#[derive(Debug)]
pub struct DnscryptProxy {
    netns: Netns,
    listen: SocketAddr,
    process: Running,
}

impl DnscryptProxy {
    /// Where it listens.
    pub const LISTEN: &str = "127.0.0.1:5300";

    /// Starts one without a cache in front of a stamp and waits until it answers.
    pub fn start(
        lab: &Lab,
        netns: &Netns,
        peers: &Peers,
        stamp: &str,
        asking: Asking,
    ) -> Result<Self> {
        Self::start_caching(lab, netns, peers, stamp, (asking, Caching::Off))
    }

    /// The same through a relay, and in no other way.
    pub fn start_through(
        lab: &Lab,
        netns: &Netns,
        peers: &Peers,
        (stamp, relay): (&str, &str),
        asking: Asking,
    ) -> Result<Self> {
        let more = format!(
            "[static.way]\nstamp = \"{relay}\"\n\n[anonymized_dns]\n\
             routes = [ {{ server_name = \"edge\", via = [\"way\"] }} ]\n\
             skip_incompatible = false\ndirect_cert_fallback = false\n"
        );
        Self::start_configured(lab, netns, peers, stamp, (asking, Caching::Off), &more)
    }

    /// The same with or without a cache.
    pub fn start_caching(
        lab: &Lab,
        netns: &Netns,
        peers: &Peers,
        stamp: &str,
        asking: (Asking, Caching),
    ) -> Result<Self> {
        Self::start_configured(lab, netns, peers, stamp, asking, "")
    }

    fn start_configured(
        lab: &Lab,
        netns: &Netns,
        peers: &Peers,
        stamp: &str,
        (asking, caching): (Asking, Caching),
        more: &str,
    ) -> Result<Self> {
        let listen: SocketAddr = Self::LISTEN.parse().context("a socket address")?;
        let label = format!("dnscrypt-proxy-{asking:?}");
        let config = lab.folder(&label)?.join("dnscrypt-proxy.toml");
        let text = format!(
            r#"listen_addresses = ["{listen}"]
server_names = ["edge"]
dnscrypt_servers = true
doh_servers = false
ipv6_servers = true
require_nolog = false
require_nofilter = false
force_tcp = {tcp}
dnscrypt_ephemeral_keys = {ephemeral}
{post_quantum}
cache = {cache}
cache_size = 4096
timeout = 5000
netprobe_timeout = 0
ignore_system_dns = true
bootstrap_resolvers = ["192.0.2.1:53"]
block_undelegated = false
block_unqualified = false
log_level = 1

[static.edge]
stamp = "{stamp}"

{more}"#,
            tcp = asking == Asking::Tcp,
            post_quantum = asking.post_quantum(),
            ephemeral = asking == Asking::EphemeralKeys,
            cache = caching == Caching::AsShipped,
        );
        fs::write(&config, text).context("writing dnscrypt-proxy's configuration")?;
        let program = peers.dnscrypt_proxy_of(asking.suite())?;
        let mut process =
            netns.spawn(&label, &program, &["-config".as_ref(), config.as_os_str()])?;
        let log = process.log_path().to_owned();
        process.wait_ready("has the server's certificate", START, || {
            let said = fs::read_to_string(&log).context("reading its log")?;
            Ok(said.contains("live servers: 1").then_some(()))
        })?;
        Ok(Self {
            netns: netns.clone(),
            listen,
            process,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks through it with dig and gives dig's output.
    pub fn dig(&self, args: &[&str]) -> Result<String> {
        let (at, port) = (
            format!("@{}", self.listen.ip()),
            self.listen.port().to_string(),
        );
        self.netns
            .run(&[&["dig", &at, "-p", &port, "+time=5", "+tries=1"], args].concat())
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Our own `culvert-dns run`, on a machine without an agent.
#[derive(Debug)]
pub struct DnscryptStub {
    netns: Netns,
    process: Running,
}

impl DnscryptStub {
    /// Where it listens.
    pub const LISTEN: &str = "127.0.0.1:5301";

    /// Starts one in front of a stamp and waits until it answers.
    pub fn start(lab: &Lab, netns: &Netns, programs: &Programs, stamp: &str) -> Result<Self> {
        Self::start_with(lab, netns, programs, stamp, &[])
    }

    /// The same with more arguments.
    pub fn start_with(
        lab: &Lab,
        netns: &Netns,
        programs: &Programs,
        stamp: &str,
        more: &[&str],
    ) -> Result<Self> {
        let log_label = format!("culvert-dns-{}", lab.prefix());
        let args = ["run", "--listen", Self::LISTEN, "--stamp", stamp];
        let args: Vec<_> = args.iter().chain(more).map(AsRef::as_ref).collect();
        let mut process = netns.spawn(&log_label, programs.dns(), &args)?;
        let ask = [
            "dig",
            "@127.0.0.1",
            "-p",
            "5301",
            "+time=2",
            "+tries=1",
            "lab",
            "SOA",
        ];
        process.wait_ready("answers", START, || {
            Ok(netns.output(&ask)?.status.success().then_some(()))
        })?;
        Ok(Self {
            netns: netns.clone(),
            process,
        })
    }

    pub(crate) fn process(&mut self) -> &mut Running {
        &mut self.process
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks through it with dig and gives dig's output.
    pub fn dig(&self, args: &[&str]) -> Result<String> {
        self.netns.run(
            &[
                &["dig", "@127.0.0.1", "-p", "5301", "+time=5", "+tries=1"],
                args,
            ]
            .concat(),
        )
    }

    /// The same with kdig.
    pub fn kdig(&self, args: &[&str]) -> Result<String> {
        let at = ["kdig", "@127.0.0.1", "-p", "5301", "+timeout=5", "+retry=0"];
        self.netns.run(&[&at, args].concat())
    }
}

/// Checks that dig's output answers the page's name without an error.
pub fn resolves(dig: &str) -> Result<()> {
    ensure!(dig.contains("status: NOERROR"), "not NOERROR: {dig}");
    ensure!(
        dig.contains(&format!("{PAGE_NAME}.")) && dig.contains(crate::topology::WEB),
        "not the page's address: {dig}"
    );
    Ok(())
}

/// Whether dig's or kdig's output has all of the big answer, whose text comes to 3,000 characters.
pub fn is_whole(dig: &str) -> bool {
    dig.matches("0123456789").count() > 200 && dig.contains("status: NOERROR")
}

/// A DNSCrypt stamp (DNS stamp specification, type 0x01).
fn stamp(address: SocketAddr, key: &[u8], name: &str) -> Result<String> {
    let mut bytes = vec![DNSCRYPT_STAMP];
    bytes.extend([0; 8]);
    for part in [address.to_string().as_bytes(), key, name.as_bytes()] {
        bytes.push(u8::try_from(part.len()).context("a stamp's part is longer than 255 bytes")?);
        bytes.extend(part);
    }
    Ok(format!("sdns://{}", URL_SAFE_NO_PAD.encode(bytes)))
}
