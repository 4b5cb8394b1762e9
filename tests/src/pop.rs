//! The gateway's site: an edge gateway with its keys and its entry in provisioning.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::Netns;
use crate::office::Office;
use crate::process::Running;
use crate::programs::Programs;
use crate::relay::{Relay, RelaySite};
use crate::topology::{GATEWAY, GATEWAY_2, GATEWAY_2_V6, GATEWAY_V6, Lab, ROOT_SERVER};
use crate::zones::Zones;

/// The gateway's own address inside the tunnel.
pub const GATEWAY_INNER: &str = "10.64.0.1";
/// The gateway's own IPv6 address inside the tunnel.
pub const GATEWAY_INNER_V6: &str = "fd64::1";
/// The name under which the gateway's DNSCrypt certificates are asked for.
pub(crate) const PROVIDER_NAME: &str = "2.dnscrypt-cert.pop1.example";
/// The lab's resolvers of others listen on more ports than one.
const DNS_RELAY: &str = "[dns.relay]\nports = [443, 8443]\n";
const START: Duration = Duration::from_secs(15);

/// A gateway that provisioning knows; it runs while the value of [`Pop::start`] lives.
#[derive(Debug, Clone)]
pub struct Pop {
    netns: Netns,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    place: Place,
    /// The gateway's DNSCrypt server as a stamp.
    pub stamp: String,
    /// The gateway's WireGuard key, in base64.
    pub wireguard: String,
    identity: String,
    relay_arguments: Vec<String>,
}

/// What differs between two gateways.
#[derive(Debug, Clone, Copy)]
struct Place {
    name: &'static str,
    /// The folder of its keys, and the stem of its other files' names.
    folder: &'static str,
    outer: [&'static str; 2],
    inner: [&'static str; 2],
    relay: Relay,
}

const FIRST: Place = Place {
    name: "gw1",
    folder: "gateway",
    outer: [GATEWAY, GATEWAY_V6],
    inner: [GATEWAY_INNER, GATEWAY_INNER_V6],
    relay: Relay::Without,
};
const SECOND: Place = Place {
    name: "gw2",
    folder: "gateway2",
    outer: [GATEWAY_2, GATEWAY_2_V6],
    inner: ["10.64.0.2", "fd64::2"],
    relay: Relay::Without,
};

impl Pop {
    /// Makes the gateway's keys and configuration and adds it to provisioning.
    pub fn install(lab: &Lab, programs: &Programs, office: &Office, zones: &Zones) -> Result<Self> {
        Self::install_as(lab, programs, office, zones, Relay::Without)
    }

    /// The same, with or without a relay.
    pub fn install_as(
        lab: &Lab,
        programs: &Programs,
        office: &Office,
        zones: &Zones,
        relay: Relay,
    ) -> Result<Self> {
        let place = Place { relay, ..FIRST };
        Self::install_at(place, lab, &lab.pop, (programs, office, zones))
    }

    /// The same, whose homes are to ask a resolver of another operator (its stamp), through the relay of this gateway.
    pub fn install_forwarding(
        lab: &Lab,
        programs: &Programs,
        office: &Office,
        zones: &Zones,
        resolver: &str,
    ) -> Result<Self> {
        let pop = Self::make_at(FIRST, lab, &lab.pop, (programs, office, zones))?;
        pop.edit_config(|text| text.replace("\n[metrics]", &format!("\n{DNS_RELAY}\n[metrics]")))?;
        let relay = pop.print_stamps(&["--relay"])?;
        let stamp = format!("{relay},{resolver}");
        pop.add_to(office, &stamp, &[])?;
        Ok(pop)
    }

    /// The same for the second site of a lab that has one.
    pub fn install_second(
        lab: &Lab,
        programs: &Programs,
        office: &Office,
        zones: &Zones,
    ) -> Result<Self> {
        Self::install_at(SECOND, lab, &lab.pop2, (programs, office, zones))
    }

    fn install_at(
        place: Place,
        lab: &Lab,
        netns: &Netns,
        (programs, office, zones): (&Programs, &Office, &Zones),
    ) -> Result<Self> {
        let pop = Self::make_at(place, lab, netns, (programs, office, zones))?;
        let more = pop.relay_arguments.clone();
        pop.add_to(office, &pop.stamp, &more)?;
        Ok(pop)
    }

    /// Keys and configuration; provisioning does not know of it yet.
    fn make_at(
        place: Place,
        lab: &Lab,
        netns: &Netns,
        (programs, office, zones): (&Programs, &Office, &Zones),
    ) -> Result<Self> {
        let site = match place.relay {
            Relay::Without => None,
            Relay::On443 | Relay::SecondOfTwo | Relay::Foreign => Some(RelaySite::make(lab)?),
        };
        stay_silent(netns)?;
        let state = lab.folder(place.folder)?;
        let state_arg = state.to_string_lossy();
        let gateway = programs.gateway();
        let dns = programs.dns();
        let program = gateway.to_string_lossy();
        let made = netns.run(&[
            program.as_ref(),
            "init",
            "--state-dir",
            state_arg.as_ref(),
            "--json",
        ])?;
        let keys: Value = serde_json::from_str(&made)
            .with_context(|| format!("`edge-gateway init` printed: {made}"))?;
        let key_file = state.join("provider.key");
        netns.run(&[
            dns.to_string_lossy().as_ref(),
            "provider-key",
            "new",
            key_file.to_string_lossy().as_ref(),
        ])?;
        let config = lab.work().join(format!("{}.toml", place.folder));
        let socket = lab.work().join(format!("{}.sock", place.folder));
        let pop = Self {
            netns: netns.clone(),
            program: gateway.clone(),
            config: config.clone(),
            socket,
            place,
            stamp: String::new(),
            wireguard: text(&keys, "wg")?,
            identity: text(&keys, "ed25519")?,
            relay_arguments: site
                .as_ref()
                .map_or(Vec::new(), |site| site.arguments(place.relay).to_vec()),
        };
        let relay = site.as_ref();
        let relay = relay.map(|site| site.configuration_for(place.relay));
        let written = pop.configuration(&state_arg, office, zones)? + &relay.unwrap_or_default();
        fs::write(&config, written).context("writing the gateway's configuration")?;
        Ok(Self {
            stamp: pop.print_stamps(&[])?,
            ..pop
        })
    }

    /// What `edge-gateway dns-stamp` prints.
    pub fn print_stamps(&self, more: &[&str]) -> Result<String> {
        let program = self.program.to_string_lossy();
        let config = self.config.to_string_lossy();
        let command = [program.as_ref(), "dns-stamp", "--config", config.as_ref()];
        let stamps = self.netns.run(&[&command[..], more].concat())?;
        Ok(stamps.trim().to_owned())
    }

    /// Starts the gateway and waits until it answers.
    pub fn start(&self) -> Result<Running> {
        let args = ["run".as_ref(), "--config".as_ref(), self.config.as_os_str()];
        let mut gateway = self.netns.spawn(self.place.folder, &self.program, &args)?;
        gateway.wait_ready("answers", START, || self.status().map(Some))?;
        Ok(gateway)
    }

    /// The command line of `run`, for a shell that prepares something first.
    pub fn run_line(&self) -> String {
        format!(
            "{} run --config {}",
            self.program.display(),
            self.config.display()
        )
    }

    /// Where the gateway keeps its keys and what it heard.
    pub fn state_dir(&self) -> PathBuf {
        self.config.with_file_name(self.place.folder)
    }

    /// Changes the gateway's configuration.
    pub fn edit_config(&self, edit: impl FnOnce(String) -> String) -> Result<()> {
        let text =
            fs::read_to_string(&self.config).context("reading the gateway's configuration")?;
        fs::write(&self.config, edit(text)).context("writing the gateway's configuration")
    }

    /// What `edge-gateway status --json` says.
    pub fn status(&self) -> Result<Value> {
        self.status_with(&[])
    }

    /// The same with the bytes of every lease.
    pub fn status_and_leases(&self) -> Result<Value> {
        self.status_with(&["--leases"])
    }

    fn status_with(&self, more: &[&str]) -> Result<Value> {
        let program = self.program.to_string_lossy();
        let socket = self.socket.to_string_lossy();
        let status = [
            program.as_ref(),
            "status",
            "--json",
            "--socket",
            socket.as_ref(),
        ];
        let said = self.netns.run(&[&status[..], more].concat())?;
        serde_json::from_str(&said)
            .with_context(|| format!("`edge-gateway status --json` printed: {said}"))
    }

    /// `edge-gateway drain --json`: returns when the gateway has ended.
    pub fn drain(&self) -> Result<Value> {
        let program = self.program.to_string_lossy();
        let socket = self.socket.to_string_lossy();
        let said = self.netns.run(&[
            program.as_ref(),
            "drain",
            "--json",
            "--socket",
            socket.as_ref(),
        ])?;
        serde_json::from_str(&said)
            .with_context(|| format!("`edge-gateway drain --json` printed: {said}"))
    }

    fn add_to(&self, office: &Office, stamps: &str, more: &[String]) -> Result<()> {
        let [outer, outer_v6] = self.place.outer;
        let place = [
            "--ed25519",
            &self.identity,
            "--wg",
            &self.wireguard,
            "--endpoint",
            &format!("{outer}:51820,[{outer_v6}]:51820"),
            "--pop",
            "pop1",
            "--shard",
            "1",
            "--inner",
            &self.place.inner.join(","),
            "--dns",
            stamps,
        ];
        let more = more.iter().map(String::as_str);
        let record: Vec<&str> = place.into_iter().chain(more).collect();
        office.add_record(self.place.name, &record)
    }

    fn configuration(&self, state: &str, office: &Office, zones: &Zones) -> Result<String> {
        let [inner, inner_v6] = self.place.inner;
        Ok(format!(
            r#"state-dir = "{state}"
trust-policy = "{image}/trust.policy"
status-socket = "{socket}"

[provisioning]
url = "{url}"
spki-sha256 = ["{spki}"]
shards = [1]

[tunnel]
listen = ["0.0.0.0:51820", "[::]:51820"]
interface = "culvert0"
addresses = ["{inner}/16", "{inner_v6}/48"]
mtu = 1420

[nat]
interface = "inet0"
ipv4 = true

[dns]
listen = ["{inner}:443", "[{inner_v6}]:443"]
provider-name = "{PROVIDER_NAME}"
provider-key-file = "{state}/provider.key"
mode = "recurse"
roots = ["{ROOT_SERVER}"]
trust-anchor-file = "{anchor}"
dnssec = true

[metrics]
listen = "127.0.0.1:9101"
"#,
            image = office.image().display(),
            socket = self.socket.display(),
            url = office.url(),
            spki = office.spki()?,
            anchor = zones.trust_anchor.display(),
        ))
    }
}

/// The gateway's site as other people's programs alone make it: an inner address and the kernel's NAT.
pub fn foreign_site(lab: &Lab) -> Result<()> {
    let inner = format!("{GATEWAY_INNER}/32");
    lab.pop.run(&["ip", "addr", "add", &inner, "dev", "lo"])?;
    lab.pop.run(&[
        "nft",
        "table ip nat {\nchain post {\ntype nat hook postrouting priority 100\noifname inet0 masquerade\n}\n}\n",
    ])?;
    Ok(())
}

/// A site's firewall does not tell the world which of its ports are closed while a gateway restarts.
fn stay_silent(pop: &Netns) -> Result<()> {
    pop.run(&[
        "nft",
        "table inet site {\nchain output {\ntype filter hook output priority 0\n\
         icmp type destination-unreachable icmp code port-unreachable drop\n\
         icmpv6 type destination-unreachable icmpv6 code port-unreachable drop\n}\n}\n",
    ])?;
    Ok(())
}

fn text(value: &Value, key: &str) -> Result<String> {
    value[key]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("no `{key}` in {value}"))
}
