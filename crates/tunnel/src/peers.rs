//! The gateway's table of leased peers: bounded, found by key, by device, by receiver index and by inner address.
//!
//! A sleeping peer is its lease and a few numbers; an awake one has a [`Wg`] besides. Each has one timer: its next tick
//! or the end of its lease, whatever comes first. Keys are found in trees, since a hash table of a hundred thousand would
//! stop the packets for milliseconds each time it grows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use ipnet::IpNet;

use crate::edge::{Carried, Standing};
use crate::offload::segment::Segments;
use crate::policy::Slot;
use crate::psk::Psk;
use crate::rate::{Meter, Rates};
use crate::routes::{Holder, Routes};
use crate::share::{WORKER_BITS, WORKER_MASK};
use crate::stats::{PeerStats, Traffic};
use crate::wg::Wg;
use crate::wheel::Wheel;

/// A slot is the upper 24 bits of a receiver index, of which the lower ones are the worker's number.
const MAX_PLACES: usize = 1 << (24 - WORKER_BITS);

/// What a sleeping peer may cost in the table, its addresses and index entries (about 200 bytes) not counted.
const SLEEPING_BYTES: usize = 192;
const _: () = assert!(size_of::<Option<Peer>>() <= SLEEPING_BYTES);

/// A lease as the tunnel needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// The device: `trust`'s key id.
    pub id: [u8; 32],
    /// Its WireGuard key.
    pub public: [u8; 32],
    /// The pre-shared key with it; another one ends its session.
    pub psk: Option<Psk>,
    /// Its inner addresses.
    pub allowed: Vec<IpNet>,
    /// When the lease ends.
    pub not_after: Instant,
    /// What it may carry; other rates end no session.
    pub rates: Rates,
}

/// What came of [`crate::edge::EdgeTunnel::upsert_peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upserted {
    /// A device that was not there.
    Added,
    /// The same key; its session goes on.
    Updated,
    /// The device has a new key; the old key's session is gone.
    Rekeyed,
}

/// Why a lease is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpsertError {
    /// No room, and no expired lease to make some.
    #[error("the table of peers is full at {max}; raise its limit or add a gateway")]
    Full {
        /// The limit.
        max: usize,
    },
    /// Another device's lease has that address.
    #[error("{net} is leased to another device")]
    AddressTaken {
        /// The address.
        net: IpNet,
        /// The device that holds it, if it is one of this worker's.
        by: Option<[u8; 32]>,
    },
    /// Another device has that key.
    #[error("the WireGuard key belongs to another device")]
    KeyTaken {
        /// The device that holds it.
        by: [u8; 32],
    },
}

/// One leased peer.
pub(crate) struct Peer {
    pub(crate) id: [u8; 32],
    pub(crate) public: [u8; 32],
    pub(crate) psk: Option<Box<Psk>>,
    pub(crate) allowed: Box<[IpNet]>,
    pub(crate) not_after: Instant,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) awake: Option<Box<Wg>>,
    pub(crate) standing: Standing,
    pub(crate) meter: Option<Box<Meter>>,
    traffic: Traffic,
}

impl Peer {
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.not_after <= now
    }

    /// How many packets of a frame, its last ones, are more than the lease's rate admits.
    pub(crate) fn over_limit(&mut self, packets: &Segments<'_>, now: Instant) -> usize {
        let count = packets.count();
        let within = |meter: &mut Box<Meter>| meter.take_to_router(packets, now);
        count - self.meter.as_mut().map_or(count, within)
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let awake = self.awake.as_ref().map(|wg| wg.traffic);
        self.traffic.plus(awake.unwrap_or_default())
    }

    pub(crate) fn stats(&self, now: Instant) -> PeerStats {
        let since = self
            .awake
            .as_ref()
            .and_then(|wg| wg.timers.session_since(now));
        PeerStats {
            traffic: self.traffic(),
            endpoint: self.endpoint,
            session_age: since.map(|since| now.saturating_duration_since(since)),
        }
    }
}

/// What is due at a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Its lease has ended: reported once. It is kept, so that its packets are known for what they are.
    Expired(Slot),
    /// Its tick.
    Tick(Slot),
}

/// The table.
pub(crate) struct Peers {
    worker: u8,
    places: Vec<Option<Peer>>,
    free: Vec<Slot>,
    by_public: BTreeMap<[u8; 32], Slot>,
    by_id: BTreeMap<[u8; 32], Slot>,
    pub(crate) routes: Routes,
    expired: BTreeSet<Slot>,
    timers: Wheel,
    awake: usize,
    pub(crate) carried: Carried,
    max: usize,
    /// Bytes of packets that waited for the session of a peer that fell asleep.
    pub(crate) abandoned: u64,
    /// Counters of peers that had to make room for others, for the owner to tell.
    pub(crate) displaced: Vec<([u8; 32], Traffic)>,
    /// Addresses of peers that were carried when they were removed, for the owner to tell.
    pub(crate) removed: Vec<Vec<IpNet>>,
}

impl Peers {
    pub(crate) fn new(max: usize, worker: u8, now: Instant) -> Self {
        Self {
            worker,
            places: Vec::new(),
            free: Vec::new(),
            by_public: BTreeMap::new(),
            by_id: BTreeMap::new(),
            routes: Routes::default(),
            expired: BTreeSet::new(),
            timers: Wheel::new(now),
            awake: 0,
            carried: Carried::default(),
            abandoned: 0,
            displaced: Vec::new(),
            removed: Vec::new(),
            max: max.min(MAX_PLACES),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_public.len()
    }

    pub(crate) fn awake(&self) -> usize {
        self.awake
    }

    /// The worker that has the peer of a receiver index, this one or another.
    pub(crate) fn worker_of(slot: Slot) -> u8 {
        slot as u8 & WORKER_MASK
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Peer> {
        self.places.get(self.place(slot)?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Peer> {
        let place = self.place(slot)?;
        self.places.get_mut(place)?.as_mut()
    }

    fn place(&self, slot: Slot) -> Option<usize> {
        let ours = Self::worker_of(slot) == self.worker;
        ours.then_some((slot >> WORKER_BITS) as usize)
    }

    fn slot_at(&self, place: usize) -> Option<Slot> {
        let place = Slot::try_from(place).ok()?;
        Some(place << WORKER_BITS | Slot::from(self.worker))
    }

    pub(crate) fn slot_of(&self, public: &[u8; 32]) -> Option<Slot> {
        self.by_public.get(public).copied()
    }

    /// The peers at these places of the table, with their slots.
    pub(crate) fn in_places(&self, places: Range<u32>) -> impl Iterator<Item = (Slot, &Peer)> {
        let slots = places.filter_map(|place| self.slot_at(place as usize));
        slots.filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// All places, free ones among them.
    pub(crate) fn places(&self) -> Range<u32> {
        0..u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.places.iter().flatten()
    }

    /// Admits a lease, or changes the one that its device has.
    pub(crate) fn upsert(
        &mut self,
        config: PeerConfig,
        now: Instant,
    ) -> Result<Upserted, UpsertError> {
        self.check_claims(&config, now)?;
        let before = self.by_id.get(&config.id).copied();
        let same_key = self.slot_of(&config.public);
        match (before, same_key) {
            (Some(slot), Some(same)) if slot == same => {
                self.update(slot, config, now);
                Ok(Upserted::Updated)
            }
            (Some(slot), _) => {
                self.make_room(slot);
                self.add(config, now).map(|()| Upserted::Rekeyed)
            }
            (None, _) => self.add(config, now).map(|()| Upserted::Added),
        }
    }

    /// Neither key nor address may be another device's, unless that one's lease is over.
    fn check_claims(&mut self, config: &PeerConfig, now: Instant) -> Result<(), UpsertError> {
        if let Some(slot) = self.slot_of(&config.public) {
            self.displace(slot, config, now)
                .map_err(|by| UpsertError::KeyTaken { by })?;
        }
        for net in &config.allowed {
            match self.routes.holder(*net) {
                Some(Holder::Here(slot)) => {
                    self.displace(slot, config, now).map_err(|by| {
                        let by = Some(by);
                        UpsertError::AddressTaken { net: *net, by }
                    })?;
                }
                // The other worker's lease may be over, but then we are about to be told.
                Some(Holder::Elsewhere { .. }) => {
                    return Err(UpsertError::AddressTaken {
                        net: *net,
                        by: None,
                    });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Removes `slot` if it is another device's and expired; fails with that device if it is not.
    fn displace(&mut self, slot: Slot, config: &PeerConfig, now: Instant) -> Result<(), [u8; 32]> {
        match self.get(slot) {
            Some(holder) if holder.id != config.id && !holder.is_expired(now) => Err(holder.id),
            Some(holder) if holder.id != config.id => {
                self.make_room(slot);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn update(&mut self, slot: Slot, config: PeerConfig, now: Instant) {
        let Some(peer) = self.get_mut(slot) else {
            return;
        };
        let has_other_psk = peer.psk.as_deref() != config.psk.as_ref();
        if has_other_psk {
            peer.psk = config.psk.map(Box::new);
        }
        let allowed = std::mem::replace(&mut peer.allowed, config.allowed.clone().into());
        let not_after = config.not_after;
        peer.not_after = not_after;
        let rates = peer
            .meter
            .as_ref()
            .map_or(Rates::default(), |meter| meter.rates());
        if rates != config.rates {
            peer.meter = Meter::renewed(peer.meter.as_deref(), config.rates, now).map(Box::new);
        }
        for net in allowed {
            self.routes.remove(net, Holder::Here(slot));
        }
        for net in config.allowed {
            self.routes.insert(net, Holder::Here(slot));
        }
        self.expired.remove(&slot);
        if has_other_psk {
            self.sleep(slot);
        }
        // The tick of one that is awake is not known here; an early one does nothing but find the next.
        let is_awake = self.get(slot).is_some_and(|peer| peer.awake.is_some());
        let at = if is_awake { now } else { not_after };
        self.timers.arm(slot >> WORKER_BITS, Some(at));
    }

    fn add(&mut self, config: PeerConfig, now: Instant) -> Result<(), UpsertError> {
        if self.len() >= self.max {
            let Some(slot) = self.expired.first().copied() else {
                return Err(UpsertError::Full { max: self.max });
            };
            self.make_room(slot);
        }
        let slot = self.free.pop().or_else(|| self.slot_at(self.places.len()));
        let slot = slot.ok_or(UpsertError::Full { max: self.max })?;
        let peer = Peer {
            id: config.id,
            public: config.public,
            psk: None,
            allowed: Box::default(),
            not_after: config.not_after,
            endpoint: None,
            awake: None,
            standing: Standing::default(),
            meter: None,
            traffic: Traffic::default(),
        };
        self.by_public.insert(config.public, slot);
        self.by_id.insert(config.id, slot);
        match self.places.get_mut((slot >> WORKER_BITS) as usize) {
            Some(place) => *place = Some(peer),
            None => self.places.push(Some(peer)),
        }
        self.update(slot, config, now);
        Ok(())
    }

    /// Removes a peer for another, and keeps what it carried.
    fn make_room(&mut self, slot: Slot) {
        if let Some(peer) = self.remove(slot) {
            self.displaced.push((peer.id, peer.traffic));
        }
    }

    /// Takes the peer out of every index and returns it.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Peer> {
        self.sleep(slot);
        let place = self.place(slot)?;
        let peer = self.places.get_mut(place)?.take()?;
        self.timers.arm(slot >> WORKER_BITS, None);
        self.carried.note(peer.standing, Standing::default());
        self.free.push(slot);
        self.by_public.remove(&peer.public);
        self.by_id.remove(&peer.id);
        self.expired.remove(&slot);
        for net in &peer.allowed {
            self.routes.remove(*net, Holder::Here(slot));
        }
        if peer.standing.is_active() {
            self.removed.push(peer.allowed.to_vec());
        }
        Some(peer)
    }

    /// Sets how the peer stands and returns how it did.
    pub(crate) fn stand(&mut self, slot: Slot, standing: Standing) -> Option<Standing> {
        let peer = self.get_mut(slot)?;
        let before = std::mem::replace(&mut peer.standing, standing);
        self.carried.note(before, standing);
        Some(before)
    }

    /// Gives a sleeping peer its state machine.
    pub(crate) fn wake(&mut self, slot: Slot, wg: Wg) {
        if let Some(peer) = self.get_mut(slot).filter(|peer| peer.awake.is_none()) {
            peer.awake = Some(Box::new(wg));
            self.awake += 1;
        }
    }

    /// Takes it away again, sessions and all; whether it was awake.
    pub(crate) fn sleep(&mut self, slot: Slot) -> bool {
        self.arm(slot, None);
        let Some(peer) = self.get_mut(slot) else {
            return false;
        };
        let Some(wg) = peer.awake.take() else {
            return false;
        };
        peer.traffic = peer.traffic.plus(wg.traffic);
        self.abandoned += wg.waiting_bytes();
        self.awake -= 1;
        true
    }

    /// Sets when the peer is to be ticked; its lease ends nevertheless.
    pub(crate) fn arm(&mut self, slot: Slot, at: Option<Instant>) {
        let Some(peer) = self.get(slot) else {
            return;
        };
        // What has expired and was reported has no end to wait for.
        let end = Some(peer.not_after).filter(|_| !self.expired.contains(&slot));
        let at = [at, end].into_iter().flatten().min();
        self.timers.arm(slot >> WORKER_BITS, at);
    }

    /// Something that is due; nothing does not mean that nothing is left, see [`Peers::next_deadline`].
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let place = self.timers.take_due(now)?;
        let slot = self.slot_at(place as usize)?;
        if self.get(slot)?.is_expired(now) && self.expired.insert(slot) {
            return Some(Due::Expired(slot));
        }
        Some(Due::Tick(slot))
    }

    /// When something is due, and why.
    pub(crate) fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        Some((self.timers.next_deadline()?, "peer"))
    }
}
