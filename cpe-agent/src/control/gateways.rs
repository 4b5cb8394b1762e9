//! The gateways of the lease: which one carries the home, what that changes, and what the status says of each.

use std::net::SocketAddr;

use tracing::info;
use trust::GatewayRecord;
use tunnel::agent::{GatewayState, GatewayStatus, MoveReason};

use super::{Control, Link};
use crate::status::{Condition, GatewayLine, GatewayWord};

impl Control {
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
        let leased = &bundle.lease.dns;
        let near: Vec<String> = carrier
            .into_iter()
            .flat_map(|gateway| &gateway.dns)
            .filter(|stamp| leased.contains(stamp))
            .cloned()
            .collect();
        self.dns
            .use_stamps(if near.is_empty() { leased } else { &near });
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

fn find<'g>(gateways: &'g [GatewayRecord], wg_pub: &[u8; 32]) -> Option<&'g GatewayRecord> {
    gateways.iter().find(|gateway| gateway.wg_pub == *wg_pub)
}
