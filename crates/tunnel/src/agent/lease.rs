//! The paths follow the lease: one for each of its gateways, kept where it stays.

use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::path::Path;
use super::{AgentConfigError, AgentTunnel, GatewayConfig, Link, MAX_GATEWAYS};
use crate::timers::Pace;
use crate::wg::{Shape, Wg};

/// How long a home without a gateway tries every second; it may be a router that nobody serves any more.
const EAGER_FOR: Duration = Duration::from_secs(900);

impl AgentTunnel {
    /// Takes over the gateways and addresses of a renewed lease; the session stays if its gateway does.
    ///
    /// # Errors
    /// When the lease names nowhere to go or nobody to be; the old one stays in use.
    pub fn replace_lease(
        &mut self,
        gateways: Vec<GatewayConfig>,
        addresses: Vec<IpNet>,
        now: Instant,
    ) -> Result<(), AgentConfigError> {
        let gateways = reachable(gateways)?;
        if addresses.is_empty() {
            return Err(AgentConfigError::NoAddress);
        }
        self.addresses = addresses;
        self.set_paths(gateways, now);
        Ok(())
    }

    /// One path for each gateway: those that were there stay as they are.
    pub(super) fn set_paths(&mut self, gateways: Vec<GatewayConfig>, now: Instant) {
        let current = self.gateway();
        let mut before = std::mem::take(&mut self.paths);
        self.active = gateways
            .iter()
            .position(|gateway| gateway.public == current)
            .unwrap_or(0);
        let pace = Pace::agent(self.keepalive);
        self.shape.pace = if gateways.len() > 1 {
            pace.with_others()
        } else {
            pace
        };
        for (index, gateway) in gateways.into_iter().enumerate() {
            let kept = before
                .iter()
                .position(|path| path.gateway.is_same_peer(&gateway));
            if let Some(kept) = kept {
                let mut path = before.swap_remove(kept);
                path.update(gateway, &self.addresses);
                self.paths.push(path);
            } else if let Some(endpoint) = gateway.endpoints.first().copied() {
                let session = self.session(&gateway, index, now);
                let path = Path::new(gateway, endpoint, session, &self.addresses, now);
                self.paths.push(path);
            }
        }
        for mut left in before {
            self.traffic = self.traffic.plus(left.wg.traffic);
            if left.gateway.public == current {
                self.disconnect_from(current, now);
                let waiting = left.wg.take_waiting();
                if let Some(path) = self.paths.get_mut(self.active) {
                    path.wg.set_waiting(waiting);
                }
            }
        }
        for (index, path) in self.paths.iter_mut().enumerate() {
            let is_active = index == self.active;
            path.set_pace(pace_of(self.shape, is_active));
            if is_active && path.gateway.public != current {
                path.watch.tell(now);
            }
            if is_active && !path.is_up() {
                path.wg.timers.want_handshake(now);
            }
        }
        self.planned = Some(now);
    }

    /// Begins anew with a gateway; what waits for a session goes along.
    pub(super) fn renew(&mut self, index: usize, now: Instant) {
        let Some(gateway) = self.paths.get(index).map(|path| path.gateway.clone()) else {
            return;
        };
        let session = self.session(&gateway, index, now);
        if let Some(path) = self.paths.get_mut(index) {
            self.traffic = self.traffic.plus(path.wg.traffic);
            path.renew(session, index == self.active, now);
        }
    }

    /// A session to be made, and its number: a late answer to an earlier one must not meet the index of this one.
    fn session(&mut self, gateway: &GatewayConfig, index: usize, now: Instant) -> (Wg, u32) {
        let pace = pace_of(self.shape, index == self.active);
        let number = self.next_number;
        self.next_number = (number + 1) & 0x00ff_ffff;
        let shape = Shape { pace, ..self.shape };
        let (public, psk) = (gateway.public, gateway.psk.as_ref());
        let mut wg = self.gate.peer(public, psk, number, shape, now);
        if matches!(self.link, Link::Connecting { since } if now >= since + EAGER_FOR) {
            wg.timers.be_patient();
        }
        (wg, number)
    }
}

/// How eager a path's timers are: those of one that is not in use keep nothing alive.
fn pace_of(shape: Shape, is_active: bool) -> Pace {
    if is_active {
        shape.pace
    } else {
        shape.pace.standby()
    }
}

/// Gateways without an endpoint are of no use.
pub(super) fn reachable(
    mut gateways: Vec<GatewayConfig>,
) -> Result<Vec<GatewayConfig>, AgentConfigError> {
    gateways.retain(|gateway| !gateway.endpoints.is_empty());
    gateways.truncate(MAX_GATEWAYS);
    if gateways.is_empty() {
        Err(AgentConfigError::NoEndpoint)
    } else {
        Ok(gateways)
    }
}
