//! Which peers this gateway carries, when each may have sessions with several gateways: what they ask, what they are
//! answered, and what they are told when this gateway is about to end.
//!
//! ```text
//!              asks "active", or sends a packet without ever asking
//!   unknown ─────────────────────────────────────────────────────▶ active
//!      ▲ asks "standby"                                              │
//!      └─────── asks "standby", or its session, lease or entry ends ─┘
//! ```

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{EdgeEvent, EdgeTunnel};
use crate::health::{self, Answer, Ask, Intent, Service};
use crate::packet::Header;
use crate::policy::Slot;
use crate::share::WORKER_BITS;
use crate::wg::Wg;

/// Peers looked at in one call while draining, and those told: packets come first.
const PLACES_PER_CALL: u32 = 4_096;
const NOTICES_PER_CALL: usize = 128;
/// Between two such calls: 12,800 peers a second move on, which the other gateways can take.
const NOTICE_GAP: Duration = Duration::from_millis(10);
/// IPv6 inside needs it (RFC 8200 section 5); a path that takes less cuts datagrams.
const LEAST_MTU: usize = 1_280;
/// Who has not moved on is told again.
const NOTICE_AGAIN: Duration = Duration::from_secs(1);

/// What a peer wants of this gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What it asked last; none of a peer that does not ask.
    intent: Option<Intent>,
    moves: u32,
    is_active: bool,
}

impl Standing {
    pub(crate) fn is_active(self) -> bool {
        self.is_active
    }

    /// Whether it has somewhere else to go.
    fn can_move(self) -> bool {
        self.is_active && self.intent == Some(Intent::Active)
    }
}

/// How this gateway is, and who is still to be told.
#[derive(Debug)]
pub(super) struct Duty {
    inner: Vec<IpAddr>,
    service: Service,
    notice_at: Option<Instant>,
    next_place: u32,
}

impl Duty {
    pub(super) const SERVING: Self = Self {
        inner: Vec::new(),
        service: Service::Serving,
        notice_at: None,
        next_place: 0,
    };

    /// Whether the gateway itself has this address.
    pub(super) fn serves(&self, address: IpAddr) -> bool {
        self.inner.contains(&address)
    }

    pub(super) fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        self.notice_at.map(|at| (at, "drain notices"))
    }
}

/// How many peers a gateway carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// All whose packets come and go by it.
    pub active: usize,
    /// Those of them that have another gateway to go to.
    pub movable: usize,
}

impl Carried {
    /// One peer stands otherwise than before.
    pub(crate) fn note(&mut self, before: Standing, after: Standing) {
        let moved = |count, before, after| count + usize::from(after) - usize::from(before);
        self.active = moved(self.active, before.is_active, after.is_active);
        self.movable = moved(self.movable, before.can_move(), after.can_move());
    }
}

impl EdgeTunnel {
    /// Answers asks at these inner addresses.
    pub fn set_inner(&mut self, addresses: Vec<IpAddr>) {
        self.duty.inner = addresses;
    }

    /// Tells every peer that can move that it should, now and until it has.
    pub fn drain(&mut self, now: Instant) {
        self.duty.service = Service::Draining;
        self.duty.next_place = 0;
        self.duty.notice_at = Some(now);
    }

    /// How many peers are carried.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.peers.carried
    }

    /// The addresses of the peers that are carried.
    pub fn carried_addresses(&self) -> impl Iterator<Item = &[IpNet]> {
        self.peers
            .iter()
            .filter(|peer| peer.standing.is_active)
            .map(|peer| &*peer.allowed)
    }

    /// Takes a packet from a peer that may be an ask; whether it was one, and was answered as long as it was with its
    /// padding: that is what probes for the path's length want to see.
    pub(super) fn take_ask(
        &mut self,
        slot: Slot,
        (packet, padded): (&[u8], usize),
        header: &Header,
        now: Instant,
    ) -> bool {
        let ask = if self.duty.inner.contains(&header.destination) {
            health::decode_ask(packet)
        } else {
            None
        };
        match ask {
            Some(ask) => {
                self.ledger.answered.count_received(header.len);
                if !self.on_ask(slot, ask, now) {
                    return true;
                }
                let answer = Answer {
                    service: self.duty.service,
                    sequence: ask.sequence,
                };
                let ends = (header.destination, header.source);
                self.send_answer(slot, ends, (answer, padded), now);
                true
            }
            None => {
                self.on_packet(slot);
                false
            }
        }
    }

    /// Does as an ask wants; whether it is to be answered.
    fn on_ask(&mut self, slot: Slot, ask: Ask, now: Instant) -> bool {
        let is_active = ask.intent != Intent::Standby;
        let standing = Standing {
            intent: Some(ask.intent),
            moves: ask.moves,
            is_active,
        };
        let Some(peer) = self.peers.get_mut(slot) else {
            return true;
        };
        let before = peer.standing;
        let comes = is_active && !(before.is_active && before.moves == ask.moves);
        let leaves = before.is_active && !is_active;
        let is_hasty = |wg: &mut Wg| !wg.may_stand(now);
        if (comes || leaves) && peer.awake.as_deref_mut().is_some_and(is_hasty) {
            return false;
        }
        self.peers.stand(slot, standing);
        self.narrow(slot, ask.mtu);
        if comes {
            self.tell_carried(slot);
        } else if leaves {
            self.tell_left(slot);
        }
        true
    }

    /// Sends the peer nothing that is longer than what it says its path takes.
    fn narrow(&mut self, slot: Slot, told: u16) {
        let most = self.shape.mtu;
        let mtu = match usize::from(told) {
            0 => most,
            told => told.clamp(LEAST_MTU, most.max(LEAST_MTU)),
        };
        let peer = self.peers.get_mut(slot);
        if let Some(wg) = peer.and_then(|peer| peer.awake.as_mut()) {
            wg.set_mtu(mtu);
        }
    }

    /// A peer that never asked is one of another hand, and is carried as soon as it sends.
    fn on_packet(&mut self, slot: Slot) {
        let standing = self.peers.get(slot).map(|peer| peer.standing);
        if let Some(standing) = standing
            && !standing.is_active
            && standing.intent.is_none()
        {
            let is_active = true;
            self.peers.stand(
                slot,
                Standing {
                    is_active,
                    ..standing
                },
            );
            self.tell_carried(slot);
        }
    }

    /// The peer's session is over. One of another hand is still found where it was.
    pub(super) fn on_asleep(&mut self, slot: Slot) {
        let asks = |peer: &crate::peers::Peer| peer.standing.intent.is_some();
        if self.peers.get(slot).is_some_and(asks) {
            self.stand_down(slot);
        }
    }

    /// The peer is not carried any more.
    pub(super) fn stand_down(&mut self, slot: Slot) {
        let before = self.peers.stand(slot, Standing::default());
        if before.is_some_and(|before| before.is_active) {
            self.tell_left(slot);
        }
    }

    fn tell_carried(&mut self, slot: Slot) {
        if let Some(addresses) = self.peers.get(slot).map(|peer| peer.allowed.to_vec()) {
            self.tell(EdgeEvent::Carried { addresses });
        }
    }

    fn tell_left(&mut self, slot: Slot) {
        if let Some(addresses) = self.peers.get(slot).map(|peer| peer.allowed.to_vec()) {
            self.tell(EdgeEvent::Left { addresses });
        }
    }

    fn send_answer(
        &mut self,
        slot: Slot,
        (from, to): (IpAddr, IpAddr),
        (answer, padded): (Answer, usize),
        now: Instant,
    ) {
        let Some(packet) = health::encode_answer(from, to, answer) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if let (Some(wg), Some(endpoint)) = (&mut peer.awake, peer.endpoint) {
            // One that does not leave is asked for again.
            let sealed = wg.seal_padded(packet.as_bytes(), padded, endpoint, &mut self.outbox, now);
            if sealed.is_ok() {
                self.ledger.answered.count_sent(packet.as_bytes().len());
            }
        }
    }

    /// Tells some of the peers that this gateway is about to end.
    pub(super) fn give_notice(&mut self, now: Instant) {
        if self.duty.notice_at.is_none_or(|at| now < at) {
            return;
        }
        let first = self.duty.next_place;
        let places = first
            ..first
                .saturating_add(PLACES_PER_CALL)
                .min(self.peers.places().end);
        let end = places.end;
        let movable = self.peers.in_places(places);
        let movable = movable.filter(|(_, peer)| peer.standing.can_move() && peer.awake.is_some());
        let told: Vec<_> = movable
            .filter_map(|(slot, peer)| Some((slot, ends(&self.duty.inner, &peer.allowed)?)))
            .take(NOTICES_PER_CALL)
            .collect();
        let next = match told.last() {
            Some((slot, _)) if told.len() == NOTICES_PER_CALL => (slot >> WORKER_BITS) + 1,
            _ => end,
        };
        let is_sweep_over = next >= self.peers.places().end;
        self.duty.next_place = if is_sweep_over { 0 } else { next };
        let pause = if is_sweep_over {
            NOTICE_AGAIN
        } else {
            NOTICE_GAP
        };
        self.duty.notice_at = Some(now + pause);
        for (slot, ends) in told {
            let answer = Answer {
                service: Service::Draining,
                sequence: 0,
            };
            self.send_answer(slot, ends, (answer, 0), now);
        }
    }
}

/// Our address and the peer's in a family that both have.
fn ends(inner: &[IpAddr], allowed: &[IpNet]) -> Option<(IpAddr, IpAddr)> {
    inner.iter().find_map(|from| {
        let theirs = allowed
            .iter()
            .find(|net| net.addr().is_ipv4() == from.is_ipv4())?;
        Some((*from, theirs.hosts().next().unwrap_or(theirs.addr())))
    })
}
