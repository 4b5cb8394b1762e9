//! Our own programs on a stage: office, gateway's site, and an enrolled router that is joined to it by a wire.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fleet;
use crate::netns::Netns;
use crate::office::Office;
use crate::pop::Pop;
use crate::process::Running;
use crate::programs::Programs;
use crate::router::{Image, Router};
use crate::topology::{GATEWAY, Lab, ROUTER_WAN};
use crate::wait::wait_until;
use crate::zones::Zones;

const WIRE: &str = "wire0";
/// WireGuard's port at the gateway.
const PORT: u16 = 51820;

/// Everything of ours that runs.
pub(super) struct Stage {
    pub(super) office: Office,
    pub(super) pop: Pop,
    pub(super) agent: Running,
    gateway: Option<Running>,
    provisioning: Option<Running>,
}

/// How many inner addresses there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    /// The lab's own.
    Usual,
    /// Enough for a hundred thousand routers.
    Wide,
}

impl Stage {
    /// Starts all of it, and returns once the router is protected.
    pub(super) fn set(lab: &Lab, programs: &Programs, pool: Pool) -> Result<Self> {
        let office = Office::init(lab, programs)?;
        if pool == Pool::Wide {
            office.edit_config(fleet::widen)?;
        }
        let provisioning = office.start()?;
        let zones = Zones::make(&lab.folder("zones")?)?;
        let pop = Pop::install(lab, programs, &office, &zones)?;
        if pool == Pool::Wide {
            pop.edit_config(|text| format!("drain-timeout-s = 0\n{}", fleet::widen(text)))?;
        }
        let gateway = pop.start()?;
        // The kill-switch would stop other programs' datagrams.
        let image = Image {
            open: true,
            ..Image::default()
        };
        let router = Router::flash_as(lab, programs, &office, "router", &image)?;
        let agent = router.start()?;
        router.enrol(&office.claim()?)?;
        router.wait_protected(Duration::from_secs(30))?;
        Ok(Self {
            office,
            pop,
            agent,
            gateway: Some(gateway),
            provisioning: Some(provisioning),
        })
    }

    /// Ends provisioning: from here on everybody lives from what is known.
    pub(super) fn close_office(&mut self) -> Result<()> {
        let server = self.provisioning.take();
        server.map_or(Ok(()), |server| server.terminate().map(drop))
    }

    /// Ends the gateway; its ports are free then.
    pub(super) fn stop_gateway(&mut self) -> Result<()> {
        let gateway = self.gateway.take();
        gateway.map_or(Ok(()), |gateway| gateway.terminate().map(drop))
    }

    /// Starts the gateway again.
    pub(super) fn start_gateway(&mut self) -> Result<()> {
        self.gateway = Some(self.pop.start()?);
        Ok(())
    }

    /// The gateway's process.
    pub(super) fn gateway_pid(&self) -> Result<u32> {
        let gateway = self.gateway.as_ref().context("the gateway was stopped")?;
        Ok(gateway.pid())
    }

    /// The gateway's WireGuard key.
    pub(super) fn gateway_key(&self) -> Result<[u8; 32]> {
        let key = STANDARD
            .decode(&self.pop.wireguard)
            .context("reading the gateway's key")?;
        key.try_into().ok().context("a key has 32 bytes")
    }

    /// The gateway's id, by which leases name it.
    pub(super) fn gateway_id(&self) -> Result<[u8; 32]> {
        let status = self.pop.status()?;
        let id = status["id"].as_str().context("a gateway without an id")?;
        fleet::unhex(id)?
            .try_into()
            .ok()
            .context("an id has 32 bytes")
    }

    /// How many routers hold a lease, as the gateway says.
    pub(super) fn wait_leased(&self, count: u64, within: Duration) -> Result<()> {
        wait_until(
            &format!("the gateway knows {count} routers"),
            within,
            || {
                let status = self.pop.status()?;
                Ok((status["peers"]["leased"].as_u64() == Some(count)).then_some(()))
            },
        )
    }
}

/// Where the gateway listens.
pub(super) fn gateway_address() -> Result<SocketAddr> {
    format!("{GATEWAY}:{PORT}")
        .parse()
        .context("reading the gateway's address")
}

/// Bytes that the router has sent over the wire of [`join`].
pub(super) fn bytes_on_the_wire(lab: &Lab) -> Result<f64> {
    let file = format!("/sys/class/net/{WIRE}/statistics/tx_bytes");
    let bytes = lab.router.run(&["cat", &file])?;
    bytes.trim().parse().context("reading a counter of bytes")
}

/// Joins the router and the gateway's site by a wire of their own: two namespaces and one veth pair, for everybody.
pub(super) fn join(lab: &Lab) -> Result<()> {
    let pop = lab.pop.name();
    lab.router.run(&[
        "ip", "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", pop,
    ])?;
    let ends: [(&Netns, _, _); 2] = [
        (&lab.router, ROUTER_WAN, GATEWAY),
        (&lab.pop, GATEWAY, ROUTER_WAN),
    ];
    for (netns, _, _) in ends {
        netns.run(&["ip", "link", "set", WIRE, "mtu", "1500", "up"])?;
    }
    for (netns, own, other) in ends {
        let other = format!("{other}/32");
        netns.run(&["ip", "route", "add", &other, "dev", WIRE, "src", own])?;
    }
    lab.router
        .run(&["ping", "-n", "-c", "1", "-W", "2", GATEWAY])
        .context("reaching the gateway's site over a wire of its own")?;
    Ok(())
}
