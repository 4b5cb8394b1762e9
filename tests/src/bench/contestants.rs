//! Tunnels side by side in one lab, from the router to the gateway's site: ours as a home has it, and those of other hands.

use std::path::Path;

use anyhow::{Context, Result};

use super::stage::{Pool, Stage};
use crate::iperf::IperfServer;
use crate::peers::{Peers, Suite};
use crate::pop::GATEWAY_INNER;
use crate::programs::Programs;
use crate::topology::{GATEWAY, Lab};
use crate::wireguard_go::{Userspace, WgKey, WgPeer, WireGuardGo};

const FIRST_PORT: u16 = 51900;

/// One tunnel with both of its ends on this machine.
pub(super) struct Contestant {
    /// As the rows name it.
    pub(super) name: &'static str,
    /// Which program it is, with its version.
    pub(super) version: String,
    /// The far end's address inside.
    pub(super) inside: String,
    /// The daemons of both ends.
    pub(super) pids: [u32; 2],
    _iperf: IperfServer,
    _alive: Alive,
}

/// What ends when it is dropped.
enum Alive {
    Ours { _stage: Box<Stage> },
    Theirs { _ends: Box<[WireGuardGo; 2]> },
}

/// The name under which our own tunnel goes.
pub(super) const OURS: &str = "culvert";
/// wireguard-go of Debian trixie.
pub(super) const GO_2025: &str = "wireguard-go 2025";
/// wireguard-go of Debian forky.
pub(super) const GO_2026: &str = "wireguard-go 2026";
/// wireguard-go of Debian bookworm.
pub(super) const GO_2022: &str = "wireguard-go 2022";
/// boringtun-cli.
pub(super) const BORINGTUN: &str = "boringtun";

/// Ours: an office, a gateway, and an enrolled agent.
pub(super) fn ours(lab: &Lab, programs: &Programs) -> Result<Contestant> {
    let stage = Stage::set(lab, programs, Pool::Usual)?;
    Ok(Contestant {
        name: OURS,
        version: "this build".to_owned(),
        inside: GATEWAY_INNER.to_owned(),
        pids: [stage.agent.pid(), stage.gateway_pid()?],
        _iperf: IperfServer::start(&lab.pop, GATEWAY_INNER)?,
        _alive: Alive::Ours {
            _stage: Box::new(stage),
        },
    })
}

/// Those of other hands, in the order of the rows.
pub(super) fn theirs(lab: &Lab, peers: &Peers) -> Result<Vec<Contestant>> {
    let go = |suite: Suite| -> Result<_> {
        let program = Userspace::wireguard_go(peers.wireguard_go(suite)?);
        Ok((program, format!("wireguard-go {}", suite.wireguard_go())))
    };
    let go_2022 = Userspace::wireguard_go(Path::new("/usr/bin/wireguard-go"));
    let programs = [
        (GO_2025, go(Suite::Trixie)?),
        (GO_2026, go(Suite::Forky)?),
        (GO_2022, (go_2022, "wireguard-go 0.0.20220316".to_owned())),
        (
            BORINGTUN,
            (
                Userspace::boringtun(peers.boringtun()?),
                "boringtun-cli 0.7.1".to_owned(),
            ),
        ),
    ];
    programs
        .into_iter()
        .zip(0..)
        .map(|((name, program), n)| {
            foreign(lab, name, program, n).with_context(|| format!("setting {name} up"))
        })
        .collect()
}

fn foreign(
    lab: &Lab,
    name: &'static str,
    (program, version): (Userspace, String),
    n: u16,
) -> Result<Contestant> {
    let port = FIRST_PORT + n;
    let (router_key, pop_key) = (WgKey::generate()?, WgKey::generate()?);
    let net = format!("10.99.{n}");
    let to_router = WgPeer {
        public: router_key.public.clone(),
        endpoint: None,
        allowed: vec![format!("{net}.2/32")],
    };
    let to_pop = WgPeer {
        public: pop_key.public.clone(),
        endpoint: Some(format!("{GATEWAY}:{port}")),
        allowed: vec![format!("{net}.1/32")],
    };
    let end = |netns, key, host: u8, peer| {
        let address = format!("{net}.{host}/24");
        WireGuardGo::start_of(&program, lab, netns, key, port, &[&address], &[peer])
    };
    let pop = end(&lab.pop, &pop_key, 1, to_router)?;
    let router = end(&lab.router, &router_key, 2, to_pop)?;
    let inside = format!("{net}.1");
    Ok(Contestant {
        name,
        version,
        pids: [router.pid(), pop.pid()],
        _iperf: IperfServer::start(&lab.pop, &inside)?,
        inside,
        _alive: Alive::Theirs {
            _ends: Box::new([router, pop]),
        },
    })
}
