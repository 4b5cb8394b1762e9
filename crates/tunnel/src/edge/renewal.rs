//! Initiations that come inside the session that they renew. A flood before the gateway's door, where anybody may knock,
//! keeps none of these out. They wait for a moment between packets, since each costs as much as a hundred of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::EdgeTunnel;
use crate::dropped::Dropped;
use crate::noise::INITIATION_BYTES;
use crate::policy::Slot;

/// Renewals that wait: what comes in a few seconds of everybody's renewal. Who finds no room knocks at the door.
const MAX_WAITING: usize = 2_048;
/// Who waited longer has sent another meanwhile.
const LATE: Duration = Duration::from_secs(1);
/// Answered in one call, so that packets wait for no more than half a millisecond.
const AT_ONCE: usize = 2;

/// One of them.
pub(super) struct Renewal {
    slot: Slot,
    initiation: [u8; INITIATION_BYTES],
    from: SocketAddr,
    since: Instant,
}

impl Renewal {
    /// It is due as soon as it is there.
    pub(super) fn deadline(&self) -> (Instant, &'static str) {
        (self.since, "renewal")
    }
}

impl EdgeTunnel {
    /// Takes an initiation out of a packet of the peer's session.
    pub(super) fn take_renewal(
        &mut self,
        slot: Slot,
        initiation: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Result<(), Dropped> {
        let peer = self.peers.get_mut(slot).ok_or(Dropped::NoSession)?;
        let wg = peer.awake.as_mut().ok_or(Dropped::NoSession)?;
        if !wg.may_renew(now) {
            return Err(Dropped::RateLimited);
        }
        if self.renewals.len() >= MAX_WAITING {
            return Err(Dropped::QueueFull);
        }
        self.renewals.push_back(Renewal {
            slot,
            initiation: initiation.try_into().map_err(|_| Dropped::Malformed)?,
            from,
            since: now,
        });
        Ok(())
    }

    /// Answers some of those that wait.
    pub(super) fn answer_renewals(&mut self, now: Instant) {
        for _ in 0..AT_ONCE {
            let Some(renewal) = self.renewals.pop_front() else {
                return;
            };
            let answered = self.renew(&renewal, now);
            // What is refused has been counted by its reason.
            let _refused = self.count(answered);
        }
    }

    fn renew(&mut self, renewal: &Renewal, now: Instant) -> Result<(), Dropped> {
        if now.saturating_duration_since(renewal.since) >= LATE {
            return Err(Dropped::QueueFull);
        }
        let initiator = self.gate.initiator(&renewal.initiation)?;
        let peer = self
            .peers
            .get_mut(renewal.slot)
            .ok_or(Dropped::UnknownPeer)?;
        if peer.is_expired(now) {
            return Err(Dropped::LeaseExpired);
        }
        // A session renews itself and nobody else's.
        if initiator.public() != peer.public {
            return Err(Dropped::WrongRecipient);
        }
        let wg = peer.awake.as_mut().ok_or(Dropped::NoSession)?;
        wg.accept(&initiator, renewal.from, &mut self.outbox, now)?;
        self.rearm(renewal.slot, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use x25519_dalek::{PublicKey, StaticSecret};

    use super::*;
    use crate::edge::PeerConfig;
    use crate::noise::{Identity, Noise};
    use crate::offload::ecn::OuterTos;
    use crate::rate::Rates;
    use crate::timers::{Jitter, Pace};
    use crate::transmit::Outbox;
    use crate::wg::{Gate, Message, Shape, Wg};

    const HOME: &str = "192.0.2.7:7";
    const TODAY: Duration = Duration::from_secs(1_800_000_000);

    fn key(n: u8) -> StaticSecret {
        StaticSecret::from([n; 32])
    }

    fn public(n: u8) -> [u8; 32] {
        PublicKey::from(&key(n)).to_bytes()
    }

    /// A gateway with two leases, and one of the peers with a session.
    struct Line {
        edge: EdgeTunnel,
        wg: Wg,
        outbox: Outbox,
        start: Instant,
        now: Instant,
    }

    impl Line {
        fn connected() -> Self {
            let now = Instant::now();
            let mut edge = EdgeTunnel::new(key(1), TODAY, now);
            for n in [7, 8] {
                let lease = PeerConfig {
                    id: [n; 32],
                    public: public(n),
                    psk: None,
                    allowed: vec![format!("10.64.0.{n}/32").parse().unwrap()],
                    not_after: now + Duration::from_secs(3_600),
                    rates: Rates::default(),
                };
                edge.upsert_peer(lease, now).unwrap();
            }
            let shape = Shape {
                pace: Pace::EDGE,
                mtu: 1_420,
                max_waiting: 4,
                tos: OuterTos::default(),
            };
            let gate = Gate::new(key(7), 9, Arc::default(), TODAY, now);
            let wg = gate.peer(public(1), None, 5, shape, now);
            let outbox = Outbox::default();
            let mut line = Self {
                edge,
                wg,
                outbox,
                start: now,
                now,
            };
            let to = HOME.parse().unwrap();
            line.wg
                .initiate(to, &mut line.outbox, &mut Jitter(1), now)
                .unwrap();
            assert_eq!(line.up(), Ok(()));
            line.down();
            assert_eq!(line.up(), Ok(()));
            line
        }

        /// What waits to be sent to the gateway arrives.
        fn up(&mut self) -> Result<(), Dropped> {
            let datagram = self.outbox.poll().unwrap().payload.to_vec();
            let from = HOME.parse().unwrap();
            let taken = self.edge.handle_datagram(&datagram, from, 0, self.now);
            taken.map(|_| ())
        }

        /// The gateway's answer arrives, if there is one.
        fn down(&mut self) -> bool {
            let Some(answer) = self.edge.poll_transmit() else {
                return false;
            };
            let answer = answer.payload.to_vec();
            let message = Message::classify(&answer).unwrap();
            let (from, mut buf) = (HOME.parse().unwrap(), [0; 2_048]);
            self.wg
                .open(message, &answer, from, &mut buf, &mut self.outbox, self.now)
                .unwrap();
            true
        }

        /// Sends an initiation of this key inside the session.
        fn inside(&mut self, n: u8) -> Result<(), Dropped> {
            let us = Arc::new(Identity::new(key(n), TODAY, self.start));
            let initiation = Noise::new(us, public(1), [0; 32], 9).initiate(self.now);
            let to = HOME.parse().unwrap();
            self.wg
                .seal_padded(&initiation, 0, to, &mut self.outbox, self.now)
                .unwrap();
            self.up()
        }

        fn answers(&mut self) -> bool {
            self.edge.handle_timeout(self.now);
            self.edge.poll_transmit().is_some()
        }
    }

    #[test]
    fn a_session_renews_nobody_elses() {
        let mut line = Line::connected();

        assert_eq!(line.inside(8), Ok(()));

        assert!(!line.answers());
        assert_eq!(line.edge.dropped().get(Dropped::WrongRecipient), 1);
        assert_eq!(line.edge.awake_count(), 1);
    }

    #[test]
    fn a_peer_in_haste_costs_one_key_agreement_a_second() {
        let mut line = Line::connected();
        line.now += Duration::from_secs(1);

        assert_eq!(line.inside(8), Ok(()));
        for _ in 0..100 {
            assert_eq!(line.inside(7), Err(Dropped::RateLimited));
        }
        assert!(!line.answers());
        line.now += Duration::from_secs(1);
        assert_eq!(line.inside(7), Ok(()));
        assert!(line.answers());
    }

    #[test]
    fn what_waited_too_long_is_not_worth_a_key_agreement() {
        let mut line = Line::connected();
        line.now += Duration::from_secs(1);
        assert_eq!(line.inside(7), Ok(()));
        line.now += LATE;

        assert!(!line.answers());
        assert_eq!(line.edge.dropped().get(Dropped::QueueFull), 1);
    }

    #[test]
    fn a_renewal_is_due_at_once_and_the_peer_gets_its_session() {
        let mut line = Line::connected();
        line.now += Duration::from_secs(120);
        let to = HOME.parse().unwrap();
        line.wg
            .initiate_inside(to, &mut line.outbox, &mut Jitter(1), line.now)
            .unwrap();
        assert_eq!(line.up(), Ok(()));

        let due = line.edge.poll_timeout().map(|(at, _)| at);
        assert!(due.is_some_and(|due| due <= line.now));
        line.edge.handle_timeout(line.now);
        assert!(line.down());

        assert_eq!(line.wg.timers.session_since(line.now), Some(line.now));
        assert!(line.edge.poll_timeout().is_none_or(|(at, _)| at > line.now));
    }
}
