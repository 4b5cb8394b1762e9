//! The gateways of the lease: which one carries the home, what that changes, and what the status says of each.

use std::net::SocketAddr;

use tracing::{info, warn};
use trust::{Bundle, GatewayRecord};
use tunnel::agent::{GatewayConfig, GatewayState, GatewayStatus, MoveReason};

use super::{Control, Link};
use crate::dns::is_relay;
use crate::psk::Withheld;
use crate::status::{Condition, GatewayLine, GatewayWord};

impl Control {
    /// The gateways of a lease as the tunnel needs them; those that may not be used without a key that they do not have
    /// are left out, and it is an error if none is left.
    pub(super) fn peers_of(&self, bundle: &Bundle) -> Result<Vec<GatewayConfig>, Withheld> {
        let (mut peers, mut withheld) = (Vec::new(), None);
        for gateway in &bundle.gateways {
            let post_quantum = self.config.tunnel.post_quantum;
            match self.psks.rule(&bundle.lease.wg_pub, gateway, post_quantum) {
                Ok(psk) => peers.push(GatewayConfig {
                    public: gateway.wg_pub,
                    psk: psk.map(|psk| tunnel::Psk::from(*psk.as_bytes())),
                    endpoints: gateway.endpoints.clone(),
                    inner: gateway.inner.clone(),
                }),
                Err(why) => {
                    warn!(gateway = gateway.name, "left out: {why}");
                    withheld = Some(why);
                }
            }
        }
        match withheld {
            Some(why) if peers.is_empty() => Err(why),
            _ => Ok(peers),
        }
    }

    fn has_psk(&self, wg_pub: &[u8; 32]) -> bool {
        let peer = self.peers.iter().find(|peer| peer.public == *wg_pub);
        peer.is_some_and(|peer| peer.psk.is_some())
    }

    /// Whether the session that carries the home has a post-quantum key in it.
    pub(super) fn is_post_quantum(&self) -> bool {
        let carrier = self.carrier.filter(|_| self.link == Link::Up);
        carrier.is_some_and(|gateway| self.has_psk(&gateway))
    }

    /// There is a session with this gateway, and there was none with any.
    pub(super) fn on_connected(&mut self, gateway: &[u8; 32], endpoint: SocketAddr) {
        let name = self.gateway_name(gateway).unwrap_or_default();
        info!(gateway = name, "the tunnel is up");
        self.carried_by(gateway, endpoint);
    }

    /// The home is carried by another gateway than before, without a cut.
    pub(super) fn on_moved(&mut self, gateway: &[u8; 32], endpoint: SocketAddr, why: MoveReason) {
        let name = self.gateway_name(gateway).unwrap_or_default();
        let why = match why {
            MoveReason::Silent => "the one before does not answer",
            MoveReason::Draining => "the one before is about to end",
            MoveReason::Preferred => "it is preferred and well again",
        };
        info!(
            gateway = name,
            why, "the home is carried by another gateway"
        );
        self.carried_by(gateway, endpoint);
    }

    fn carried_by(&mut self, gateway: &[u8; 32], endpoint: SocketAddr) {
        self.link = Link::Up;
        self.revoked = None;
        self.silence.reset();
        self.close_portal("the tunnel is up");
        self.status.gateway = self.gateway_name(gateway);
        self.carrier = Some(*gateway);
        self.use_resolvers();
        self.dns.network_changed();
        self.turn(Condition::Protected, None);
        self.on_endpoint(endpoint);
    }

    /// A resolver is reached by its own gateway only; before there is one, by whichever it will be.
    pub(super) fn use_resolvers(&self) {
        let Some(bundle) = self.bundle.as_ref().map(trust::Verified::get) else {
            self.dns.use_stamps(&[]);
            return;
        };
        let carrier = self.carrier.filter(|_| self.link == Link::Up);
        let carrier = carrier.and_then(|wg_pub| find(&bundle.gateways, &wg_pub));
        let inner = bundle.gateways.iter().flat_map(|gateway| &gateway.inner);
        self.dns.use_gateways(inner.copied());
        self.dns.use_addresses(&bundle.lease.addresses);
        self.dns
            .use_stamps(&stamps(&bundle.lease.dns, &bundle.gateways, carrier));
    }

    pub(super) fn gateway_name(&self, wg_pub: &[u8; 32]) -> Option<String> {
        let gateways = &self.bundle.as_ref()?.get().gateways;
        find(gateways, wg_pub).map(|gateway| gateway.name.clone())
    }

    /// What the status says of each gateway.
    pub(super) fn gateway_lines(&self, gateways: &[GatewayStatus]) -> Vec<GatewayLine> {
        let line = |gateway: &GatewayStatus| {
            Some(GatewayLine {
                name: self.gateway_name(&gateway.public)?,
                active: gateway.active,
                post_quantum: self.has_psk(&gateway.public),
                state: match gateway.state {
                    GatewayState::Idle => GatewayWord::Idle,
                    GatewayState::Well => GatewayWord::Well,
                    GatewayState::Silent => GatewayWord::Silent,
                    GatewayState::Draining => GatewayWord::Draining,
                },
                rtt_ms: gateway
                    .rtt
                    .map(|rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX)),
            })
        };
        gateways.iter().filter_map(line).collect()
    }
}

/// Those of the carrier's resolvers that are leased, or all that are; and the relays of their gateways, leased or not: a lease
/// that has no room for a relay makes no straight way.
fn stamps(
    leased: &[String],
    gateways: &[GatewayRecord],
    carrier: Option<&GatewayRecord>,
) -> Vec<String> {
    let is_near = |stamp: &String| carrier.is_some_and(|gateway| gateway.dns.contains(stamp));
    let is_alone = !leased
        .iter()
        .any(|stamp| is_near(stamp) && !is_relay(stamp));
    let mut stamps = leased.to_vec();
    stamps.retain(|stamp| is_alone || is_near(stamp));
    for gateway in gateways {
        let relays = gateway.dns.iter().filter(|stamp| is_relay(stamp));
        for relay in relays.filter(|relay| is_alone || is_near(relay)) {
            if !stamps.contains(relay) {
                stamps.push(relay.clone());
            }
        }
    }
    stamps
}

fn find<'g>(gateways: &'g [GatewayRecord], wg_pub: &[u8; 32]) -> Option<&'g GatewayRecord> {
    gateways.iter().find(|gateway| gateway.wg_pub == *wg_pub)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: &str = "sdns://gQ1";

    fn gateway(n: u8, dns: &[&str]) -> GatewayRecord {
        GatewayRecord {
            v: trust::VERSION,
            name: format!("gw{n}"),
            ed25519_pub: [n; 32],
            wg_pub: [n; 32],
            endpoints: Vec::new(),
            pop: "pop1".to_owned(),
            shards: vec![1],
            inner: Vec::new(),
            dns: owned(dns),
            relay: None,
            post_quantum: false,
        }
    }

    fn owned(stamps: &[&str]) -> Vec<String> {
        stamps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_gateways_relay_that_the_lease_has_no_room_for_is_used_all_the_same() {
        let gateways = [gateway(1, &["own"]), gateway(2, &["other", RELAY])];
        let leased = owned(&["own", "other"]);
        let of =
            |carrier: Option<usize>| stamps(&leased, &gateways, carrier.map(|at| &gateways[at]));

        assert_eq!(of(Some(1)), owned(&["other", RELAY]));
        assert_eq!(of(None), owned(&["own", "other", RELAY]));
        assert_eq!(of(Some(0)), owned(&["own"]));
    }

    #[test]
    fn a_gateway_whose_resolvers_are_not_leased_leads_to_those_of_all() {
        let gateways = [gateway(1, &["own", RELAY]), gateway(2, &["other"])];

        let stamps = stamps(&owned(&[RELAY, "other"]), &gateways, Some(&gateways[0]));

        assert_eq!(stamps, owned(&[RELAY, "other"]));
    }
}
