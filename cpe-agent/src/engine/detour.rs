//! Which way a gateway's datagrams take: to its endpoint, or through a relay that stands for it as a loopback address.
//!
//! Pure. The tunnel knows endpoints only; what it sends to one is mapped here on its way out, and what a relay brings
//! is mapped back, so that a change of the way is no roaming and no handshake to it.
//!
//! ```text
//!   Direct ── silent, and a relay is there ──▶ Relayed
//!     ▲                                          │ now and then one small datagram goes to the endpoint itself;
//!     └────────── the endpoint answers ──────────┘ an acknowledgement or a question, whose loss nobody notices
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tunnel::KEEPALIVE_BYTES;

/// Something was sent and nothing came back for so long: a relay is looked for, and used if there is one. Longer than a
/// round trip over a satellite.
const SILENCE: Duration = Duration::from_millis(900);
/// Between two probes of the endpoint; doubles up to the second.
const PROBE_PAUSE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(32)];
/// An answer to a probe comes within this time.
const PROBE_ANSWER: Duration = Duration::from_millis(1_500);
/// The longest datagram that is small enough to be lost: an acknowledgement of TCP with all its options, sealed, or a
/// handshake's initiation (148 bytes).
const SMALL_BYTES: usize = 148;
/// A lease names a handful of gateways.
const MAX_WAYS: usize = 16;

/// What the control loop should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WayEvent {
    /// The gateway with this key does not answer at its endpoint; told again as long as that is so.
    Silent([u8; 32]),
    /// Its datagrams go through the relay.
    Relayed([u8; 32]),
    /// Its endpoint answers again.
    Home([u8; 32]),
}

/// The ways to all gateways.
#[derive(Debug, Default)]
pub(super) struct Detour {
    ways: Vec<Way>,
}

#[derive(Debug)]
struct Way {
    gateway: [u8; 32],
    endpoints: Vec<SocketAddr>,
    /// The endpoint that the tunnel uses.
    endpoint: Option<SocketAddr>,
    relay: Option<SocketAddr>,
    is_relayed: bool,
    /// When the first datagram was sent that nothing has answered yet.
    unanswered: Option<Instant>,
    told: Option<Instant>,
    probed: Option<Instant>,
    probe_due: Instant,
    pause: Duration,
}

impl Detour {
    /// Takes over the gateways of a lease; ways that stay keep their relay.
    pub(super) fn set_gateways<'g>(
        &mut self,
        gateways: impl Iterator<Item = ([u8; 32], &'g [SocketAddr])>,
        now: Instant,
    ) {
        let mut old = std::mem::take(&mut self.ways);
        for (gateway, endpoints) in gateways.take(MAX_WAYS) {
            let kept = old.iter().position(|way| way.gateway == gateway);
            let mut way = kept.map_or_else(|| Way::new(gateway, now), |at| old.swap_remove(at));
            way.endpoints = endpoints.to_vec();
            self.ways.push(way);
        }
    }

    /// A relay has come or gone.
    pub(super) fn set_relay(
        &mut self,
        gateway: &[u8; 32],
        relay: Option<SocketAddr>,
        now: Instant,
    ) -> Option<WayEvent> {
        let way = self.ways.iter_mut().find(|way| way.gateway == *gateway)?;
        way.relay = relay;
        if relay.is_none() {
            way.is_relayed = false;
            (way.unanswered, way.told) = (None, None);
        }
        way.check(now)
    }

    /// Where `datagram`, which the tunnel sends to `to`, is to go.
    pub(super) fn way_out(&mut self, to: SocketAddr, length: usize, now: Instant) -> SocketAddr {
        let Some(way) = self.way_mut(&to) else {
            return to;
        };
        way.endpoint = Some(to);
        // Nobody answers an empty packet, so that its silence says nothing.
        let wants_answer = length > KEEPALIVE_BYTES;
        if wants_answer {
            way.unanswered.get_or_insert(now);
        }
        let Some(relay) = way.relay.filter(|_| way.is_relayed) else {
            return to;
        };
        if wants_answer && length <= SMALL_BYTES && now >= way.probe_due {
            way.probed = Some(now);
            way.probe_due = now + way.pause;
            way.pause = (way.pause * 2).min(PROBE_PAUSE[1]);
            return to;
        }
        relay
    }

    /// Whether a relay is there now.
    pub(super) fn has_relay(&self, at: SocketAddr) -> bool {
        self.ways.iter().any(|way| way.relay == Some(at))
    }

    /// Whom the tunnel is to take for the sender of what came from `from`.
    pub(super) fn origin(&self, from: SocketAddr) -> SocketAddr {
        let relayed = self.ways.iter().find(|way| way.relay == Some(from));
        relayed.and_then(|way| way.endpoint).unwrap_or(from)
    }

    /// What it means that `from` sent something the tunnel could open. What anybody may send means nothing: who blocks
    /// WireGuard could feign a gateway that answers.
    pub(super) fn on_heard(&mut self, from: SocketAddr, now: Instant) -> Option<WayEvent> {
        let is_theirs = |way: &&mut Way| way.relay == Some(from) || way.endpoints.contains(&from);
        let way = self.ways.iter_mut().find(is_theirs)?;
        (way.unanswered, way.told) = (None, None);
        let is_answer = way
            .probed
            .is_some_and(|probed| now.saturating_duration_since(probed) <= PROBE_ANSWER);
        // Without a probe it is the end of what the gateway sent before it heard from the relay.
        if way.relay == Some(from) || !way.is_relayed || !is_answer {
            return None;
        }
        way.is_relayed = false;
        (way.probed, way.pause) = (None, PROBE_PAUSE[0]);
        Some(WayEvent::Home(way.gateway))
    }

    /// Finds who has fallen silent.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<WayEvent> {
        self.ways.iter_mut().find_map(|way| way.check(now))
    }

    /// When that is to be looked at.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ways.iter().filter_map(Way::silent_at).min()
    }

    fn way_mut(&mut self, endpoint: &SocketAddr) -> Option<&mut Way> {
        self.ways
            .iter_mut()
            .find(|way| way.endpoints.contains(endpoint))
    }
}

impl Way {
    fn new(gateway: [u8; 32], now: Instant) -> Self {
        Self {
            gateway,
            endpoints: Vec::new(),
            endpoint: None,
            relay: None,
            is_relayed: false,
            unanswered: None,
            told: None,
            probed: None,
            probe_due: now,
            pause: PROBE_PAUSE[0],
        }
    }

    fn silent_at(&self) -> Option<Instant> {
        let since = self.unanswered.filter(|_| !self.is_relayed)?;
        Some(self.told.unwrap_or(since) + SILENCE)
    }

    fn check(&mut self, now: Instant) -> Option<WayEvent> {
        let since = self.unanswered.filter(|_| !self.is_relayed)?;
        if now < since + SILENCE {
            return None;
        }
        if self.relay.is_some() {
            self.is_relayed = true;
            (self.probed, self.pause) = (None, PROBE_PAUSE[0]);
            self.probe_due = now + self.pause;
            return Some(WayEvent::Relayed(self.gateway));
        }
        if self.silent_at().is_some_and(|at| at <= now) {
            self.told = Some(now);
            return Some(WayEvent::Silent(self.gateway));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const LARGE: usize = 1452;
    const SMALL: usize = 96;

    struct Rig {
        detour: Detour,
        now: Instant,
        endpoint: SocketAddr,
        relay: SocketAddr,
    }

    fn rig() -> Rig {
        let endpoint: SocketAddr = "198.18.1.2:51820".parse().unwrap();
        let mut detour = Detour::default();
        let now = Instant::now();
        detour.set_gateways([(KEY, &[endpoint][..])].into_iter(), now);
        Rig {
            detour,
            now,
            endpoint,
            relay: "127.0.0.1:4000".parse().unwrap(),
        }
    }

    impl Rig {
        fn send(&mut self, length: usize) -> SocketAddr {
            self.detour.way_out(self.endpoint, length, self.now)
        }

        fn wait(&mut self, ms: u64) -> Option<WayEvent> {
            self.now += Duration::from_millis(ms);
            self.detour.handle_timeout(self.now)
        }

        fn hear(&mut self, from: SocketAddr) -> (SocketAddr, Option<WayEvent>) {
            (
                self.detour.origin(from),
                self.detour.on_heard(from, self.now),
            )
        }

        /// Silent, and then relayed.
        fn fall(&mut self) {
            self.send(LARGE);
            assert_eq!(self.wait(900), Some(WayEvent::Silent(KEY)));
            let relay = Some(self.relay);
            let event = self.detour.set_relay(&KEY, relay, self.now);
            assert_eq!(event, Some(WayEvent::Relayed(KEY)));
        }
    }

    #[test]
    fn a_gateway_that_answers_is_never_called_silent_even_with_a_relay_at_hand() {
        let mut rig = rig();
        rig.detour.set_relay(&KEY, Some(rig.relay), rig.now);

        for _ in 0..100 {
            assert_eq!(rig.send(LARGE), rig.endpoint);
            assert_eq!(rig.wait(800), None);
            assert_eq!(rig.hear(rig.endpoint), (rig.endpoint, None));
        }
    }

    #[test]
    fn one_who_is_asked_nothing_is_not_silent() {
        let mut rig = rig();

        assert_eq!(rig.detour.poll_timeout(), None);
        assert_eq!(rig.wait(60_000), None);
    }

    #[test]
    fn keepalives_which_nobody_answers_make_no_silence() {
        let mut rig = rig();
        rig.detour.set_relay(&KEY, Some(rig.relay), rig.now);

        for _ in 0..144 {
            assert_eq!(rig.send(KEEPALIVE_BYTES), rig.endpoint);
            assert_eq!(rig.wait(25_000), None);
        }
        assert_eq!(rig.send(KEEPALIVE_BYTES + 16), rig.endpoint);
        assert_eq!(rig.wait(900), Some(WayEvent::Relayed(KEY)));
    }

    #[test]
    fn no_keepalive_is_spent_as_a_probe() {
        let mut rig = rig();
        rig.fall();
        rig.now += Duration::from_secs(2);

        assert_eq!(rig.send(KEEPALIVE_BYTES), rig.relay);
        assert_eq!(rig.send(SMALL), rig.endpoint);
    }

    #[test]
    fn silence_is_told_again_until_a_relay_is_there() {
        let mut rig = rig();
        rig.send(LARGE);

        assert_eq!(rig.wait(899), None);
        assert_eq!(rig.wait(1), Some(WayEvent::Silent(KEY)));
        assert_eq!(rig.wait(500), None);
        assert_eq!(rig.wait(400), Some(WayEvent::Silent(KEY)));
        assert_eq!(rig.send(LARGE), rig.endpoint);
    }

    #[test]
    fn what_a_relay_carries_looks_to_the_tunnel_as_if_the_endpoint_had_sent_it() {
        let mut rig = rig();
        rig.fall();

        assert_eq!(rig.send(LARGE), rig.relay);
        assert_eq!(rig.hear(rig.relay), (rig.endpoint, None));
    }

    #[test]
    fn a_late_datagram_of_the_endpoint_does_not_end_the_detour() {
        let mut rig = rig();
        rig.fall();

        assert_eq!(rig.hear(rig.endpoint), (rig.endpoint, None));
        assert_eq!(rig.send(LARGE), rig.relay);
    }

    #[test]
    fn what_anybody_could_have_sent_leads_neither_home_nor_away() {
        let mut rig = rig();
        rig.send(LARGE);
        assert_eq!(rig.detour.origin(rig.endpoint), rig.endpoint);
        assert_eq!(rig.wait(900), Some(WayEvent::Silent(KEY)));
        rig.detour.set_relay(&KEY, Some(rig.relay), rig.now);
        assert_eq!(rig.wait(2_000), None);
        assert_eq!(rig.send(SMALL), rig.endpoint);

        rig.detour.origin(rig.endpoint);

        assert_eq!(rig.send(LARGE), rig.relay);
        assert_eq!(rig.detour.origin(rig.relay), rig.endpoint);
    }

    #[test]
    fn only_small_datagrams_are_risked_as_probes_and_ever_more_rarely() {
        let mut rig = rig();
        rig.fall();
        rig.now += Duration::from_secs(2);

        assert_eq!(rig.send(LARGE), rig.relay);
        assert_eq!(rig.send(SMALL), rig.endpoint);
        assert_eq!(rig.send(SMALL), rig.relay);
        let mut probes = 0;
        for _ in 0..600 {
            rig.now += Duration::from_millis(100);
            probes += u32::from(rig.send(SMALL) == rig.endpoint);
        }
        assert_eq!(probes, 4);
    }

    #[test]
    fn an_answered_probe_leads_home_and_the_next_silence_away_again() {
        let mut rig = rig();
        rig.fall();
        rig.now += Duration::from_secs(2);
        rig.send(SMALL);
        rig.now += Duration::from_millis(30);

        let (from, event) = rig.hear(rig.endpoint);

        assert_eq!((from, event), (rig.endpoint, Some(WayEvent::Home(KEY))));
        assert_eq!(rig.send(LARGE), rig.endpoint);
        assert_eq!(rig.wait(900), Some(WayEvent::Relayed(KEY)));
    }

    #[test]
    fn a_relay_that_is_gone_leaves_the_direct_way() {
        let mut rig = rig();
        rig.fall();

        assert!(rig.detour.has_relay(rig.relay));
        rig.detour.set_relay(&KEY, None, rig.now);

        assert!(!rig.detour.has_relay(rig.relay));
        assert_eq!(rig.send(LARGE), rig.endpoint);
        assert_eq!(rig.wait(900), Some(WayEvent::Silent(KEY)));
    }

    #[test]
    fn a_gateway_that_a_renewed_lease_keeps_keeps_its_relay() {
        let mut rig = rig();
        rig.fall();
        let endpoint = rig.endpoint;

        rig.detour.set_gateways(
            [([8; 32], &[][..]), (KEY, &[endpoint][..])].into_iter(),
            rig.now,
        );

        assert_eq!(rig.send(LARGE), rig.relay);
    }
}
