//! What a change of the router's own network means for the tunnel: another way is used at once, another length too.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Control, Link};
use crate::engine::Order;
use crate::exit::chain;
use crate::net::choice::Answered;
use crate::net::wan::Look;

/// A data message's header and tag (WireGuard whitepaper, section 5.4.6).
const WIREGUARD_BYTES: usize = 32;
/// The least of IPv6 (RFC 8200 section 5).
const LEAST_MTU: u16 = 1280;

impl Control {
    pub(super) fn on_network(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            warn!(%error, "changes of the network are not told");
        }
        self.look_at_network();
    }

    /// The gateway is looked for elsewhere, perhaps over another family.
    pub(super) fn on_endpoint(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint.ip());
        self.look_at_network();
    }

    /// Nobody answered over the WAN in use.
    pub(super) fn on_silence(&mut self, endpoint: SocketAddr) {
        self.on_endpoint(endpoint);
        self.wan.choice.handle_silence(Instant::now());
        self.look_at_network();
    }

    /// Looks which way leads to the gateway, and adapts when it is another one.
    pub(super) fn look_at_network(&mut self) {
        let now = Instant::now();
        self.judge_trial(now);
        match self.wan.look(self.target(), now) {
            Ok(look) => self.adapt(look),
            Err(error) => warn!(error = %chain(&error), "the way to the gateway is not known"),
        }
    }

    /// Where packets must be able to go.
    fn target(&self) -> IpAddr {
        let first = || {
            let gateways = &self.bundle.as_ref()?.get().gateways;
            Some(
                gateways
                    .iter()
                    .find_map(|gateway| gateway.endpoints.first())?
                    .ip(),
            )
        };
        self.endpoint
            .filter(|_| self.bundle.is_some())
            .or_else(first)
            .unwrap_or(self.config.provisioning.server.ip())
    }

    /// A first WAN that is being tried has answered when the session is younger than the try.
    fn judge_trial(&mut self, now: Instant) {
        let since = self.wan.choice.trial_since();
        let is_answered = since.is_some_and(|since| {
            let age = self.engine.snapshot().session_age;
            age.is_some_and(|age| age <= now.saturating_duration_since(since))
        });
        let answered = if is_answered {
            Answered::Yes
        } else {
            Answered::No
        };
        self.wan.choice.handle_timeout(answered, now);
    }

    fn adapt(&mut self, look: Look) {
        let before = self.path.take();
        let Some(mut path) = look.path else {
            if before.is_some() {
                info!("no WAN has a way to the gateway");
            }
            self.explain("no WAN has a way to the gateway".to_owned());
            return;
        };
        let is_other_out = before.as_ref().map(|before| before.out) != Some(path.out);
        if is_other_out {
            self.engine.order(Order::WayOut(path.out));
        }
        if is_other_out || look.is_new {
            self.relays_go_new_way(&path);
        }
        path.fit.mtu = self.within_relay(path.fit.mtu);
        if before.is_none_or(|before| before.fit != path.fit) {
            self.engine.order(Order::Fit(path.fit));
            self.use_mtu(path.fit.mtu);
        }
        if look.is_new {
            self.go_new_way(&path.interface);
        }
        self.path = Some(path);
    }

    /// What the links say, or what probes have found where nobody says anything.
    pub(super) fn use_mtu(&mut self, mtu: u16) {
        if self.network.mtu() != mtu {
            info!(mtu, "the tunnel's MTU follows its path");
        }
        if let Err(error) = self.network.set_mtu(mtu) {
            warn!(error = %chain(&error), "the tunnel's MTU could not be set");
        }
    }

    /// A relay's datagrams are shorter than the path; what is longer goes, but slower.
    fn within_relay(&self, mtu: u16) -> u16 {
        let carrier = self.carrier.unwrap_or_default();
        let longest = self.relays.longest(&carrier);
        let inner = longest.map(|longest| longest.saturating_sub(WIREGUARD_BYTES));
        let inner = inner.and_then(|inner| u16::try_from(inner).ok());
        inner.map_or(mtu, |inner| mtu.min(inner.max(LEAST_MTU)))
    }

    fn go_new_way(&mut self, interface: &str) {
        info!(wan = interface, "the way to the gateway has changed");
        self.engine.order(Order::Probe);
        self.dns.network_changed();
        // Whoever waits for a WAN need not wait longer.
        if self.link == Link::Down && self.bundle.is_none() && self.attempt_due.is_some() {
            self.backoff.reset();
            self.ask_in(Duration::ZERO);
        }
    }
}
