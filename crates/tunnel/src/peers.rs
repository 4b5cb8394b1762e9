//! The gateway's table of leased peers: bounded, found by key, by device, by receiver index and by inner address.
//!
//! A sleeping peer is its lease and a few numbers; an awake one has a [`Wg`] besides and stands in the order of deadlines.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use ipnet::IpNet;

use crate::edge::Standing;
use crate::policy::{Routes, Slot};
use crate::psk::Psk;
use crate::stats::{PeerStats, Traffic};
use crate::wg::Wg;

/// A slot is the upper 24 bits of a receiver index.
const MAX_SLOTS: usize = 1 << 24;

/// What a sleeping peer may cost in the table, its addresses and index entries (about 200 bytes) not counted.
const SLEEPING_BYTES: usize = 320;
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
        /// The device that holds it.
        by: [u8; 32],
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
    traffic: Traffic,
    tick_at: Option<Instant>,
}

impl Peer {
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.not_after <= now
    }

    pub(crate) fn stats(&self, now: Instant) -> PeerStats {
        let since = self
            .awake
            .as_ref()
            .and_then(|wg| wg.timers.session_since(now));
        let awake = self
            .awake
            .as_ref()
            .map_or(Traffic::default(), |wg| wg.traffic);
        PeerStats {
            traffic: self.traffic.plus(awake),
            endpoint: self.endpoint,
            session_age: since.map(|since| now.saturating_duration_since(since)),
        }
    }
}

/// The table.
pub(crate) struct Peers {
    slots: Vec<Option<Peer>>,
    free: Vec<Slot>,
    by_public: HashMap<[u8; 32], Slot>,
    by_id: HashMap<[u8; 32], Slot>,
    pub(crate) routes: Routes,
    ends: BTreeSet<(Instant, Slot)>,
    expired: BTreeSet<Slot>,
    ticks: BTreeSet<(Instant, Slot)>,
    awake: usize,
    max: usize,
    /// Addresses of peers that were carried when they were removed, for the owner to tell.
    pub(crate) removed: Vec<Vec<IpNet>>,
}

impl Peers {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_public: HashMap::new(),
            by_id: HashMap::new(),
            routes: Routes::default(),
            ends: BTreeSet::new(),
            expired: BTreeSet::new(),
            ticks: BTreeSet::new(),
            awake: 0,
            removed: Vec::new(),
            max: max.min(MAX_SLOTS),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_public.len()
    }

    pub(crate) fn awake(&self) -> usize {
        self.awake
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Peer> {
        self.slots.get(usize::try_from(slot).ok()?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Peer> {
        self.slots.get_mut(usize::try_from(slot).ok()?)?.as_mut()
    }

    pub(crate) fn slot_of(&self, public: &[u8; 32]) -> Option<Slot> {
        self.by_public.get(public).copied()
    }

    /// The peers in these slots, with their slots.
    pub(crate) fn in_slots(&self, slots: Range<Slot>) -> impl Iterator<Item = (Slot, &Peer)> {
        slots.filter_map(|slot| Some((slot, self.get(slot)?)))
    }

    /// All slots, free ones among them.
    pub(crate) fn slots(&self) -> Range<Slot> {
        0..Slot::try_from(self.slots.len()).unwrap_or(Slot::MAX)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().flatten()
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
                self.update(slot, config);
                Ok(Upserted::Updated)
            }
            (Some(slot), _) => {
                self.remove(slot);
                self.add(config).map(|()| Upserted::Rekeyed)
            }
            (None, _) => self.add(config).map(|()| Upserted::Added),
        }
    }

    /// Neither key nor address may be another device's, unless that one's lease is over.
    fn check_claims(&mut self, config: &PeerConfig, now: Instant) -> Result<(), UpsertError> {
        if let Some(slot) = self.slot_of(&config.public) {
            self.displace(slot, config, now)
                .map_err(|by| UpsertError::KeyTaken { by })?;
        }
        for net in &config.allowed {
            if let Some(slot) = self.routes.holder(*net) {
                self.displace(slot, config, now)
                    .map_err(|by| UpsertError::AddressTaken { net: *net, by })?;
            }
        }
        Ok(())
    }

    /// Removes `slot` if it is another device's and expired; fails with that device if it is not.
    fn displace(&mut self, slot: Slot, config: &PeerConfig, now: Instant) -> Result<(), [u8; 32]> {
        match self.get(slot) {
            Some(holder) if holder.id != config.id && !holder.is_expired(now) => Err(holder.id),
            Some(holder) if holder.id != config.id => {
                self.remove(slot);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn update(&mut self, slot: Slot, config: PeerConfig) {
        let Some(peer) = self.get_mut(slot) else {
            return;
        };
        let has_other_psk = peer.psk.as_deref() != config.psk.as_ref();
        if has_other_psk {
            peer.psk = config.psk.map(Box::new);
        }
        let allowed = std::mem::replace(&mut peer.allowed, config.allowed.clone().into());
        let not_after = std::mem::replace(&mut peer.not_after, config.not_after);
        for net in allowed {
            self.routes.remove(net, slot);
        }
        for net in config.allowed {
            self.routes.insert(net, slot);
        }
        self.ends.remove(&(not_after, slot));
        self.expired.remove(&slot);
        self.ends.insert((config.not_after, slot));
        if has_other_psk {
            self.sleep(slot);
        }
    }

    fn add(&mut self, config: PeerConfig) -> Result<(), UpsertError> {
        if self.len() >= self.max {
            let Some(slot) = self.expired.first().copied() else {
                return Err(UpsertError::Full { max: self.max });
            };
            self.remove(slot);
        }
        let slot = self
            .free
            .pop()
            .or_else(|| Slot::try_from(self.slots.len()).ok());
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
            traffic: Traffic::default(),
            tick_at: None,
        };
        self.by_public.insert(config.public, slot);
        self.by_id.insert(config.id, slot);
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = Some(peer),
            None => self.slots.push(Some(peer)),
        }
        self.update(slot, config);
        Ok(())
    }

    /// Takes the peer out of every index and returns it.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Peer> {
        self.sleep(slot);
        let peer = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.by_public.remove(&peer.public);
        self.by_id.remove(&peer.id);
        self.ends.remove(&(peer.not_after, slot));
        self.expired.remove(&slot);
        for net in &peer.allowed {
            self.routes.remove(*net, slot);
        }
        if peer.standing.is_active() {
            self.removed.push(peer.allowed.to_vec());
        }
        Some(peer)
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
        self.awake -= 1;
        true
    }

    /// Sets when the peer is to be ticked.
    pub(crate) fn arm(&mut self, slot: Slot, at: Option<Instant>) {
        let Some(peer) = self.get_mut(slot) else {
            return;
        };
        let before = std::mem::replace(&mut peer.tick_at, at);
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.ticks.remove(&(before, slot));
        }
        if let Some(at) = at {
            self.ticks.insert((at, slot));
        }
    }

    /// A peer whose tick is due.
    pub(crate) fn due(&self, now: Instant) -> Option<Slot> {
        self.ticks
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, slot)| *slot)
    }

    /// A peer whose lease has just ended; reported once, and kept so that its packets are known for what they are.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Slot> {
        let (at, slot) = *self.ends.first()?;
        if at > now {
            return None;
        }
        self.ends.pop_first();
        self.expired.insert(slot);
        Some(slot)
    }

    /// When something of the above is due, and why.
    pub(crate) fn next_deadline(&self) -> Option<(Instant, &'static str)> {
        let end = self.ends.first().map(|(at, _)| (*at, "lease end"));
        let tick = self.ticks.first().map(|(at, _)| (*at, "session"));
        [end, tick].into_iter().flatten().min()
    }
}
