//! The router's network as the agent changes it: the tunnel's link and addresses, policy routing, the packet filter.
//!
//! Everything made here has a fixed name or number, so that a start after a crash finds and replaces what was left, and
//! an exit removes it; only the kill-switch outlives the agent, when it is set.

pub(crate) mod choice;
pub(crate) mod inside;
pub(crate) mod portal;
mod ruleset;
mod sysctl;
pub(crate) mod wan;

use ipnet::IpNet;
use netio::netlink::{
    self, Family, LinkIndex, Netlink, NetlinkError, Route, Rule, Select, TABLE_MAIN, Via,
};
use netio::nftables::{self, NftError, TableFamily};

use crate::config::{Config, KillSwitch};
use portal::Window;
use ruleset::Purpose;
use sysctl::SourceValidMark;

/// The mark of the agent's own packets to the access network: "CV".
pub(crate) const MARK: u32 = 0x4356;
/// The routing table of everything else.
const TABLE: u32 = 0x4356;
/// Ours are asked before `main` (32766).
const PRIORITY_LOCAL_ROUTES: u32 = 17237;
const PRIORITY_TUNNEL: u32 = 17238;
/// The tunnel's default route wins over the unreachable one while it stands.
const METRIC_TUNNEL: u32 = 100;
const METRIC_UNREACHABLE: u32 = 4096;

/// The network could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetError {
    /// By netlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// By nftables.
    #[error("the packet filter could not be set")]
    Filter(#[from] NftError),
}

impl NetError {
    /// Tells a missing right from other causes.
    pub(crate) fn is_permission(&self) -> bool {
        match self {
            Self::Netlink(error) => error.is_permission(),
            Self::Filter(NftError::Refused(reason)) => reason.contains("Operation not permitted"),
            Self::Filter(NftError::Missing | NftError::Run(_)) => false,
        }
    }
}

/// The router's network while the agent runs.
#[derive(Debug)]
pub(crate) struct Network {
    config: Config,
    netlink: Netlink,
    addresses: Vec<IpNet>,
    mtu: u16,
    window: Option<Window>,
    valid_mark: SourceValidMark,
}

impl Network {
    /// Puts the kill-switch up before anything else is done, removes what an earlier run left, and makes the rules that
    /// keep clear packets from the access network.
    pub(crate) fn prepare(config: &Config) -> Result<Self, NetError> {
        nftables::apply(&ruleset::text(config, MARK, Purpose::Running(&[], None)))?;
        let mut network = Self {
            config: config.clone(),
            netlink: Netlink::open()?,
            addresses: Vec::new(),
            mtu: config.tunnel.mtu,
            window: None,
            valid_mark: SourceValidMark::set(),
        };
        match config.kill_switch {
            KillSwitch::On => network.route_away()?,
            KillSwitch::Off => network.remove_routing()?,
        }
        sysctl::warn_unless_forwarding();
        Ok(network)
    }

    /// Brings the tunnel's link up with the lease's addresses, in the place of an earlier lease's, and sends the home's
    /// packets there.
    pub(crate) fn enter(&mut self, leased: &[IpNet]) -> Result<(), NetError> {
        let addresses: Vec<IpNet> = leased.iter().map(interface_address).collect();
        let link = self.netlink.link(self.config.tunnel.interface.as_str())?;
        sysctl::no_link_local(&self.config.tunnel.interface);
        self.netlink.bring_up(link, self.mtu)?;
        for old in self.addresses.iter().filter(|old| !addresses.contains(old)) {
            self.netlink.delete_address(link, *old)?;
        }
        for address in &addresses {
            tolerate_no_ipv6(self.netlink.add_address(link, *address))?;
        }
        self.apply(&addresses)?;
        if !self.addresses.is_empty() && self.addresses != addresses {
            netlink::forget_connections()?;
        }
        self.addresses = addresses;
        for to in everything() {
            tolerate_no_ipv6(self.netlink.add_route(&tunnel_route(to, link)))?;
        }
        self.route_away()
    }

    /// Tells the kernel how long a packet of the home may be; it tells the home, for packets that are longer.
    pub(crate) fn set_mtu(&mut self, mtu: u16) -> Result<(), NetError> {
        let link = self.netlink.link(self.config.tunnel.interface.as_str())?;
        self.netlink.set_mtu(link, mtu)?;
        self.mtu = mtu;
        Ok(())
    }

    /// The tunnel's MTU.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Takes the home's packets off the tunnel: with the kill-switch they go nowhere, without it in clear.
    pub(crate) fn leave(&mut self) -> Result<(), NetError> {
        if let Ok(link) = self.netlink.link(self.config.tunnel.interface.as_str()) {
            for to in everything() {
                tolerate_no_ipv6(self.netlink.delete_route(&tunnel_route(to, link)))?;
            }
        }
        match self.config.kill_switch {
            KillSwitch::On => Ok(()),
            KillSwitch::Off => self.remove_routing(),
        }
    }

    /// Undoes everything but a kill-switch that is set. The tunnel's link goes with its descriptor.
    pub(crate) fn undo(mut self) -> Result<(), NetError> {
        let filter = match self.config.kill_switch {
            KillSwitch::On => nftables::apply(&ruleset::text(&self.config, MARK, Purpose::Stopped)),
            KillSwitch::Off => nftables::delete_table(TableFamily::Inet, ruleset::TABLE),
        };
        let routing = self.remove_routing();
        self.valid_mark.restore();
        filter?;
        routing
    }

    /// Opens the captive-portal window, in the place of one that is open, or shuts it.
    pub(crate) fn set_window(&mut self, window: Option<Window>) -> Result<(), NetError> {
        self.window = window;
        self.apply(&self.addresses)
    }

    /// The captive-portal window, if it is open.
    pub(crate) fn window(&self) -> Option<Window> {
        self.window
    }

    fn apply(&self, addresses: &[IpNet]) -> Result<(), NetError> {
        let purpose = Purpose::Running(addresses, self.window);
        Ok(nftables::apply(&ruleset::text(
            &self.config,
            MARK,
            purpose,
        ))?)
    }

    fn route_away(&mut self) -> Result<(), NetError> {
        for to in everything() {
            tolerate_no_ipv6(self.netlink.add_route(&unreachable_route(to)))?;
        }
        for rule in rules() {
            tolerate_no_ipv6(self.netlink.add_rule(&rule))?;
        }
        Ok(())
    }

    fn remove_routing(&mut self) -> Result<(), NetError> {
        for rule in rules() {
            tolerate_no_ipv6(self.netlink.delete_rule(&rule))?;
        }
        for to in everything() {
            tolerate_no_ipv6(self.netlink.delete_route(&unreachable_route(to)))?;
        }
        Ok(())
    }
}

/// The rules that keep packets in while no agent runs; interfaces that they name need not exist yet.
pub(crate) fn locked(config: &Config) -> String {
    ruleset::text(config, MARK, Purpose::Stopped)
}

/// Sets those rules.
pub(crate) fn lock(config: &Config) -> Result<(), NetError> {
    Ok(nftables::apply(&locked(config))?)
}

/// Removes everything, the kill-switch too: what `reset` does.
pub(crate) fn remove_all() -> Result<(), NetError> {
    let mut netlink = Netlink::open()?;
    for rule in rules() {
        tolerate_no_ipv6(netlink.delete_rule(&rule))?;
    }
    for to in everything() {
        tolerate_no_ipv6(netlink.delete_route(&unreachable_route(to)))?;
    }
    nftables::delete_table(TableFamily::Inet, ruleset::TABLE)?;
    Ok(())
}

fn rules() -> impl Iterator<Item = Rule> {
    [Family::V4, Family::V6].into_iter().flat_map(|family| {
        let local_routes = Rule {
            family,
            priority: PRIORITY_LOCAL_ROUTES,
            select: Select::All,
            table: TABLE_MAIN,
            suppress_prefix_length: Some(0),
        };
        let tunnel = Rule {
            family,
            priority: PRIORITY_TUNNEL,
            select: Select::NotMarked(MARK),
            table: TABLE,
            suppress_prefix_length: None,
        };
        [local_routes, tunnel]
    })
}

fn everything() -> [IpNet; 2] {
    [
        IpNet::V4(ipnet::Ipv4Net::default()),
        IpNet::V6(ipnet::Ipv6Net::default()),
    ]
}

fn tunnel_route(to: IpNet, link: LinkIndex) -> Route {
    Route {
        to,
        via: Via::Link(link),
        table: TABLE,
        metric: Some(METRIC_TUNNEL),
    }
}

fn unreachable_route(to: IpNet) -> Route {
    Route {
        to,
        via: Via::Unreachable,
        table: TABLE,
        metric: Some(METRIC_UNREACHABLE),
    }
}

/// A leased network gives the router its first address; a leased address is the router's.
fn interface_address(leased: &IpNet) -> IpNet {
    if leased.prefix_len() == leased.max_prefix_len() {
        return *leased;
    }
    let first = leased.hosts().next().unwrap_or(leased.addr());
    IpNet::new(first, leased.prefix_len()).unwrap_or(*leased)
}

/// A router without IPv6 has nothing that could leak over it.
fn tolerate_no_ipv6(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is_unsupported_family() => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leased_network_gives_the_router_its_first_address() {
        let interface = |leased: &str| interface_address(&leased.parse().unwrap()).to_string();

        assert_eq!(interface("10.64.0.7/32"), "10.64.0.7/32");
        assert_eq!(interface("fd64::7/128"), "fd64::7/128");
        assert_eq!(interface("10.64.8.0/24"), "10.64.8.1/24");
    }
}
