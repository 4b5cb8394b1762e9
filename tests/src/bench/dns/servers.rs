//! The DNSCrypt servers side by side in one lab, each one wire away from the same name server.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use dnscrypt_proxy::DnsCryptStamp;
use dnscrypt_proxy::proto::cert::{Certificate, Policy};

use super::processor::{self, MEASURED};
use crate::certificates::{PADDED, PLAIN, POST_QUANTUM, certificate};
use crate::dns_peers::ForeignServer;
use crate::internet::Internet;
use crate::netns::Netns;
use crate::office::Office;
use crate::peers::Peers;
use crate::pop::Pop;
use crate::process::Running;
use crate::programs::Programs;
use crate::topology::{Lab, ROOT_SERVER, ZONE_SERVER};

pub(super) const ENCRYPTED_DNS: &str = "encrypted-dns";
pub(super) const DNSDIST: &str = "dnsdist";

/// What our gateway needs around it.
pub(super) struct Site {
    pop: Pop,
    _office: Office,
    _provisioning: Running,
}

/// A DNSCrypt server that runs.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) row_end: &'static str,
    pub(super) address: SocketAddr,
    pub(super) classical: Certificate,
    /// If it has one.
    pub(super) post_quantum: Option<Certificate>,
    pub(super) pid: u32,
    /// Where it is asked from.
    pub(super) netns: Netns,
    _alive: Alive,
}

enum Alive {
    Ours { _gateway: Running },
    Theirs { _server: ForeignServer },
}

impl Site {
    pub(super) fn set(lab: &Lab, programs: &Programs, internet: &Internet) -> Result<Self> {
        let office = Office::init(lab, programs)?;
        let provisioning = office.start()?;
        let pop = Pop::install(lab, programs, &office, &internet.zones)?;
        Ok(Self {
            pop,
            _office: office,
            _provisioning: provisioning,
        })
    }

    /// Our gateway as a forwarder that does not validate, as the others are. It is asked where it is: its packet
    /// filter lets nobody else ask but tunnels.
    pub(super) fn ours(&self, lab: &Lab) -> Result<Server> {
        self.pop.edit_config(|config| {
            let recursing = format!("mode = \"recurse\"\nroots = [\"{ROOT_SERVER}\"]\n");
            let forwarding = format!("mode = \"forward\"\nforward = [\"{ZONE_SERVER}:53\"]\n");
            let config = config.replace(&recursing, &forwarding);
            let without = config
                .lines()
                .filter(|line| !line.starts_with("trust-anchor-file"));
            let config: String = without.flat_map(|line| [line, "\n"]).collect();
            config.replace("dnssec = true", "dnssec = false")
        })?;
        let gateway = processor::on(MEASURED, || self.pop.start())?;
        let (stamp, pid) = (self.pop.stamp.clone(), gateway.pid());
        let alive = Alive::Ours { _gateway: gateway };
        Server::new(["culvert", "this build", ""], &stamp, pid, &lab.pop, alive)
    }
}

impl Server {
    /// encrypted-dns and dnsdist.
    pub(super) fn theirs(lab: &Lab, peers: &Peers) -> Result<[Self; 2]> {
        let place = &lab.access;
        let encrypted_dns = processor::on(MEASURED, || {
            ForeignServer::encrypted_dns_in(lab, place, peers, "127.0.0.1:4431".parse()?)
        })?;
        let dnsdist = processor::on(MEASURED, || {
            ForeignServer::dnsdist_in(lab, place, "127.0.0.1:4432".parse()?)
        })?;
        let started = |words, server: ForeignServer| {
            let (stamp, pid) = (server.stamp.clone(), server.pid());
            Self::new(words, &stamp, pid, place, Alive::Theirs { _server: server })
        };
        Ok([
            started([ENCRYPTED_DNS, "encrypted-dns 0.9.22", ""], encrypted_dns)?,
            started([DNSDIST, "dnsdist 1.7.3", " vs dnsdist"], dnsdist)?,
        ])
    }

    fn new(
        [name, version, row_end]: [&'static str; 3],
        stamp: &str,
        pid: u32,
        netns: &Netns,
        alive: Alive,
    ) -> Result<Self> {
        let stamp: DnsCryptStamp = stamp.parse().context("reading the server's stamp")?;
        let asked = |len, policy| certificate(netns, &stamp, len, policy);
        let classical = asked(PLAIN, Policy::CLASSICAL)
            .with_context(|| format!("{name}'s certificates"))?
            .with_context(|| format!("{name} has no classical certificate"))?;
        Ok(Self {
            name,
            version,
            row_end,
            address: stamp.addr,
            classical,
            // dnsdist does not answer such a long query at all: it has none then.
            post_quantum: asked(PADDED, POST_QUANTUM).ok().flatten(),
            pid,
            netns: netns.clone(),
            _alive: alive,
        })
    }
}
