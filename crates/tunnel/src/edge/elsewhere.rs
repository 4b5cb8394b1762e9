//! What belongs to another worker of the same gateway: whose it is can be told here, and what is to be done is done there.
//!
//! Steering brings nearly everything to its owner. What it cannot know is whose an initiation is before a key has been
//! agreed with its sender; and what was joined with another's on the way goes where its first datagram goes.

use std::net::SocketAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::EdgeTunnel;
use crate::dropped::Dropped;
use crate::peers::Peers;
use crate::policy::{Slot, SourceChecked};
use crate::routes::Holder;
use crate::wg::Initiator;

/// Whose an input was.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This worker's; it is done with.
    Here,
    /// Another's: to be handed over.
    Elsewhere(Elsewhere),
}

/// To whom an input is to be handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The worker.
    pub worker: u8,
    /// What was found out of an initiation, so that the other need not do it again
    /// ([`EdgeTunnel::handle_initiation`]).
    pub initiator: Option<Box<Initiator>>,
}

/// Where a message is to be opened.
pub(super) enum Found {
    Here(Slot),
    Elsewhere(Elsewhere),
}

/// What a datagram brought.
pub(super) enum Received<'b> {
    Nothing,
    Packet(Slot, SourceChecked<'b>),
    Elsewhere(Elsewhere),
}

impl Taken {
    pub(super) fn elsewhere(worker: u8) -> Self {
        Self::Elsewhere(Elsewhere {
            worker,
            initiator: None,
        })
    }

    /// For a caller that has no other worker.
    pub(super) fn here(self, otherwise: Dropped) -> Result<(), Dropped> {
        match self {
            Self::Here => Ok(()),
            Self::Elsewhere(_) => Err(otherwise),
        }
    }
}

impl EdgeTunnel {
    /// Takes an initiation that another worker has checked, begun to read and handed over.
    ///
    /// # Errors
    /// When it is dropped, and then counted.
    pub fn handle_initiation(
        &mut self,
        initiator: &Initiator,
        from: SocketAddr,
        now: Instant,
    ) -> Result<(), Dropped> {
        let result = self.answer(initiator, from, now);
        self.count(result)
    }

    /// Finds who an initiation is from, and answers it if that is this worker's to do.
    pub(super) fn receive_initiation<'b>(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Result<Received<'b>, Dropped> {
        let initiator = self.gate.initiator(datagram)?;
        let worker = self.share.owner(&initiator.public());
        if worker != self.share.worker() {
            let initiator = Some(Box::new(initiator));
            return Ok(Received::Elsewhere(Elsewhere { worker, initiator }));
        }
        self.answer(&initiator, from, now)
            .map(|()| Received::Nothing)
    }

    /// Answers an initiation. It moves no endpoint: it may be a replay, from anywhere.
    fn answer(
        &mut self,
        initiator: &Initiator,
        from: SocketAddr,
        now: Instant,
    ) -> Result<(), Dropped> {
        let slot = self.awake_slot_of(&initiator.public(), now)?;
        let peer = self.peers.get_mut(slot).ok_or(Dropped::UnknownPeer)?;
        let wg = peer.awake.as_mut().ok_or(Dropped::NoSession)?;
        let answered = wg.accept(initiator, from, &mut self.outbox, now);
        // What is refused changes nothing: replays must not put the peer's timers off.
        answered?;
        self.rearm(slot, now);
        self.gate.note_useful();
        Ok(())
    }

    /// Another worker admits the peer with this key: its addresses are that worker's.
    pub fn route_elsewhere(&mut self, public: &[u8; 32], nets: &[IpNet]) {
        let holder = Holder::elsewhere(self.share.owner(public), public);
        for net in nets {
            // Who has it already keeps it; the other worker refuses the lease for the same reason.
            if self.peers.routes.holder(*net).is_none() {
                self.peers.routes.insert(*net, holder);
            }
        }
    }

    /// Another worker's peer has these addresses no longer.
    pub fn unroute_elsewhere(&mut self, public: &[u8; 32], nets: &[IpNet]) {
        let holder = Holder::elsewhere(self.share.owner(public), public);
        for net in nets {
            self.peers.routes.remove(*net, holder);
        }
    }

    /// The peer that a receiver index is of.
    pub(super) fn find(&self, index: u32) -> Result<Found, Dropped> {
        let slot = index >> 8;
        match Peers::worker_of(slot) {
            worker if worker == self.share.worker() => Ok(Found::Here(slot)),
            worker if worker < self.share.workers() => Ok(Found::Elsewhere(Elsewhere {
                worker,
                initiator: None,
            })),
            _ => Err(Dropped::NoSession),
        }
    }

    /// The leased peer that an initiation claims to be, awake.
    fn awake_slot_of(&mut self, public: &[u8; 32], now: Instant) -> Result<Slot, Dropped> {
        let slot = self.peers.slot_of(public).ok_or(Dropped::UnknownPeer)?;
        let peer = self.peers.get(slot).ok_or(Dropped::UnknownPeer)?;
        if peer.is_expired(now) {
            return Err(Dropped::LeaseExpired);
        }
        if peer.awake.is_none() {
            self.wake(slot, now)?;
        }
        Ok(slot)
    }
}
