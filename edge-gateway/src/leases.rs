//! Which device may use the tunnel now: the verified entries of the shard streams, folded. Pure; what
//! changes goes to the engine as [`Change`]s.
//!
//! A device is in one of three states: unknown; leased (one lease, the one with the highest epoch);
//! dead up to an epoch (revoked, and perhaps leased again with a higher one).

use std::collections::BTreeMap;

use ipnet::IpNet;
use trust::{Lease, Limits, Pair, Psk, PskError, PskOffer, ShardChange};

use crate::keyring::{Keyring, Rotation};

/// Devices that a gateway carries at most; the rest of the fleet belongs to others.
pub const MAX_DEVICES: usize = 262_144;

/// Who this gateway is and what it may hand out.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The id that leases name it by.
    pub gateway: [u8; 32],
    /// Its X25519 key.
    pub wg_pub: [u8; 32],
    /// The prefixes that its routers live in, with its own address in each.
    pub inner: Vec<IpNet>,
}

/// What the engine has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Admit this peer, or give a present one new terms.
    Admit(Admitted),
    /// Forget the peer with this tunnel key.
    Remove {
        /// SHA-256 of the device's key.
        device: [u8; 32],
        /// X25519 public key.
        wg_pub: [u8; 32],
        /// The addresses that it had.
        addresses: Box<[IpNet]>,
    },
    /// The peer with this tunnel key keeps its session and loses these addresses; an [`Change::Admit`] follows.
    Readdress {
        /// X25519 public key.
        wg_pub: [u8; 32],
        /// The addresses that it had.
        former: Box<[IpNet]>,
    },
}

/// A lease as far as the engine needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// SHA-256 of the device's key.
    pub device: [u8; 32],
    /// X25519 public key.
    pub wg_pub: [u8; 32],
    /// The pre-shared key that was agreed for this tunnel key.
    pub psk: Option<Psk>,
    /// Inner addresses that it may use.
    pub addresses: Vec<IpNet>,
    /// Last second of the lease.
    pub not_after: u64,
    /// What it may carry.
    pub limits: Limits,
}

/// What became of an entry; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A lease holds from now on.
    Admitted,
    /// A device's leases are dead.
    Revoked,
    /// A lease in force has a pre-shared key from now on.
    Agreed,
    /// An offer that does not lead to the key which the device has, or for an ML-KEM key that is not here.
    NotAgreed,
    /// The same or a newer lease is known.
    Old,
    /// The lease was revoked before it arrived.
    Dead,
    /// The lease is for other gateways or another shard.
    Elsewhere,
    /// The lease claims addresses that are not this gateway's to give.
    ForeignAddress,
    /// The table is full.
    Full,
    /// It does not verify.
    Refused,
    /// The lease has ended.
    Expired,
}

impl Outcome {
    /// Every outcome, for tables of counters.
    pub const ALL: [Self; 11] = [
        Self::Admitted,
        Self::Revoked,
        Self::Agreed,
        Self::NotAgreed,
        Self::Old,
        Self::Dead,
        Self::Elsewhere,
        Self::ForeignAddress,
        Self::Full,
        Self::Refused,
        Self::Expired,
    ];

    /// The label's value.
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Revoked => "revoked",
            Self::Agreed => "psk_agreed",
            Self::NotAgreed => "psk_not_agreed",
            Self::Old => "old",
            Self::Dead => "dead",
            Self::Elsewhere => "elsewhere",
            Self::ForeignAddress => "foreign_address",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

/// The table of devices.
#[derive(Debug)]
pub struct Leases {
    scope: Scope,
    devices: BTreeMap<[u8; 32], Device>,
    leased: usize,
    /// The pre-shared keys of leases in force, by device.
    psks: BTreeMap<[u8; 32], Agreed>,
    keyring: Option<Keyring>,
    /// No lease ends before this second.
    first_end: u64,
}

#[derive(Debug)]
struct Agreed {
    wg_pub: [u8; 32],
    /// The ML-KEM key with which it was.
    kem: [u8; 32],
    psk: Psk,
}

#[derive(Debug, Default)]
struct Device {
    dead_epoch: u64,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    epoch: u64,
    wg_pub: [u8; 32],
    addresses: Box<[IpNet]>,
    not_after: u64,
    /// None of a lease without limits.
    limits: Option<Box<Limits>>,
}

/// Beside it a device costs its addresses and a share of the tree's nodes, together under 120 bytes.
const DEVICE_BYTES: usize = 112;
const _: () = assert!(size_of::<([u8; 32], Device)>() <= DEVICE_BYTES);

impl Leases {
    /// An empty table.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            devices: BTreeMap::new(),
            leased: 0,
            psks: BTreeMap::new(),
            keyring: None,
            first_end: u64::MAX,
        }
    }

    /// The same for a gateway that agrees pre-shared keys.
    #[must_use]
    pub fn with_keyring(self, keyring: Option<Keyring>) -> Self {
        Self { keyring, ..self }
    }

    /// Folds one verified entry of shard `shard` in; changes are for the engine, in order.
    pub fn apply(&mut self, change: &ShardChange, shard: u32) -> (Outcome, Vec<Change>) {
        match change {
            ShardChange::Admit { lease, .. } => self.admit(lease, shard),
            ShardChange::Revoke { revocation, .. } => (
                Outcome::Revoked,
                self.revoke(revocation.devid_hash, revocation.epoch),
            ),
            ShardChange::Offer(offer) => self.agree(offer),
        }
    }

    /// Takes up the pre-shared key that a device offers for the tunnel key of its lease.
    fn agree(&mut self, offer: &PskOffer) -> (Outcome, Vec<Change>) {
        let refused = |outcome| (outcome, Vec::new());
        let Some(keyring) = self.keyring.as_ref() else {
            return refused(Outcome::Elsewhere);
        };
        if offer.gateway != self.scope.gateway {
            return refused(Outcome::Elsewhere);
        }
        let id = offer.devid_hash();
        let device = self.devices.get(&id);
        let current = device.and_then(|device| device.current.as_ref());
        let Some(current) = current.filter(|current| current.wg_pub == offer.wg_pub) else {
            return refused(Outcome::Old);
        };
        let pair = Pair {
            devid_hash: id,
            wg_pub: current.wg_pub,
            gateway: self.scope.gateway,
            gateway_wg_pub: self.scope.wg_pub,
        };
        let key = keyring.find(&offer.kem).ok_or(PskError::OtherKey);
        let psk = match key.and_then(|key| offer.accept(&pair, key)) {
            Ok(psk) => psk,
            Err(error) => {
                tracing::warn!(%error, "an offer of a pre-shared key does not hold: its router will not get through");
                return refused(Outcome::NotAgreed);
            }
        };
        if self.psk(&id, &current.wg_pub).as_ref() == Some(&psk) {
            return refused(Outcome::Old);
        }
        let admit = Change::Admit(Admitted {
            psk: Some(psk.clone()),
            ..admitted(&id, current)
        });
        let agreed = Agreed {
            wg_pub: offer.wg_pub,
            kem: offer.kem,
            psk,
        };
        self.psks.insert(id, agreed);
        (Outcome::Agreed, vec![admit])
    }

    /// The pre-shared key of a device for this tunnel key.
    fn psk(&self, device: &[u8; 32], wg_pub: &[u8; 32]) -> Option<Psk> {
        let agreed = self.psks.get(device)?;
        (agreed.wg_pub == *wg_pub).then(|| agreed.psk.clone())
    }

    fn admit(&mut self, lease: &Lease, shard: u32) -> (Outcome, Vec<Change>) {
        let refused = |outcome| (outcome, Vec::new());
        if lease.shard != shard || !lease.gateways.contains(&self.scope.gateway) {
            return refused(Outcome::Elsewhere);
        }
        if !self.scope.may_give(&lease.addresses) {
            return refused(Outcome::ForeignAddress);
        }
        let known = self.devices.get(&lease.devid_hash);
        if known.is_some_and(|device| lease.epoch <= device.dead_epoch) {
            return refused(Outcome::Dead);
        }
        let current = known.and_then(|device| device.current.as_ref());
        if current.is_some_and(|current| lease.epoch <= current.epoch) {
            return refused(Outcome::Old);
        }
        if known.is_none() && self.devices.len() >= MAX_DEVICES {
            return refused(Outcome::Full);
        }
        let device = self.devices.entry(lease.devid_hash).or_default();
        let former = device.current.replace(Current {
            epoch: lease.epoch,
            wg_pub: lease.wg_pub,
            addresses: lease.addresses.as_slice().into(),
            not_after: lease.not_after,
            limits: (lease.limits != Limits::default()).then(|| Box::new(lease.limits)),
        });
        self.first_end = self.first_end.min(lease.not_after);
        let psk = self.psk(&lease.devid_hash, &lease.wg_pub);
        if psk.is_none() {
            self.psks.remove(&lease.devid_hash);
        }
        let admitted = Change::Admit(Admitted {
            device: lease.devid_hash,
            wg_pub: lease.wg_pub,
            psk,
            addresses: lease.addresses.clone(),
            not_after: lease.not_after,
            limits: lease.limits,
        });
        // A new tunnel key takes over the addresses, so the old one goes first.
        let changes = match former {
            Some(former) if former.wg_pub != lease.wg_pub => {
                vec![
                    Change::Remove {
                        device: lease.devid_hash,
                        wg_pub: former.wg_pub,
                        addresses: former.addresses,
                    },
                    admitted,
                ]
            }
            Some(former) if *former.addresses != *lease.addresses => {
                vec![
                    Change::Readdress {
                        wg_pub: former.wg_pub,
                        former: former.addresses,
                    },
                    admitted,
                ]
            }
            Some(_) => vec![admitted],
            None => {
                self.leased += 1;
                vec![admitted]
            }
        };
        (Outcome::Admitted, changes)
    }

    fn revoke(&mut self, id: [u8; 32], epoch: u64) -> Vec<Change> {
        if !self.devices.contains_key(&id) && self.devices.len() >= MAX_DEVICES {
            // No lease of it is here, and none can come in: the table is full.
            return Vec::new();
        }
        let device = self.devices.entry(id).or_default();
        device.dead_epoch = device.dead_epoch.max(epoch);
        match device.current.take_if(|current| current.epoch <= epoch) {
            Some(dead) => {
                self.leased -= 1;
                self.psks.remove(&id);
                vec![Change::Remove {
                    device: id,
                    wg_pub: dead.wg_pub,
                    addresses: dead.addresses,
                }]
            }
            None => Vec::new(),
        }
    }

    /// Ends the leases whose time is over; until one of them is, nothing is looked at.
    pub fn expire(&mut self, now: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.first_end >= now {
            return changes;
        }
        self.first_end = u64::MAX;
        self.devices.retain(|id, device| {
            if let Some(ended) = device.current.take_if(|current| current.not_after < now) {
                self.psks.remove(id);
                changes.push(Change::Remove {
                    device: *id,
                    wg_pub: ended.wg_pub,
                    addresses: ended.addresses,
                });
            }
            if let Some(current) = &device.current {
                self.first_end = self.first_end.min(current.not_after);
            }
            device.current.is_some() || device.dead_epoch > 0
        });
        self.leased -= changes.len();
        changes
    }

    /// Every lease in force, for workers that know none yet.
    pub fn admitted(&self) -> impl Iterator<Item = Change> {
        let current = self
            .devices
            .iter()
            .filter_map(|(id, device)| Some((id, device.current.as_ref()?)));
        current.map(|(id, current)| {
            Change::Admit(Admitted {
                psk: self.psk(id, &current.wg_pub),
                ..admitted(id, current)
            })
        })
    }

    /// Whether an offer is the one that its device's lease in force goes by.
    pub fn is_agreed(&self, offer: &PskOffer) -> bool {
        let agreed = self.psks.get(&offer.devid_hash());
        agreed.is_some_and(|agreed| agreed.wg_pub == offer.wg_pub && agreed.kem == offer.kem)
    }

    /// How many leases have a pre-shared key.
    pub fn agreed(&self) -> usize {
        self.psks.len()
    }

    /// The ML-KEM keys, if pre-shared keys are agreed here.
    pub fn keyring(&self) -> Option<&Keyring> {
        self.keyring.as_ref()
    }

    /// Changes the ML-KEM key when it is time.
    pub fn rotate(&mut self, now: u64) -> std::io::Result<Rotation> {
        match &mut self.keyring {
            Some(keyring) if keyring.is_due(now) => {
                let in_use = self.psks.values().map(|agreed| agreed.kem).collect();
                keyring.rotate(now, &in_use)
            }
            _ => Ok(Rotation::NotDue),
        }
    }

    /// Whether a lease is the one in force for its device.
    pub fn is_current(&self, lease: &Lease) -> bool {
        let device = self.devices.get(&lease.devid_hash);
        device
            .and_then(|device| device.current.as_ref())
            .is_some_and(|current| current.epoch == lease.epoch && current.wg_pub == lease.wg_pub)
    }

    /// How many devices hold a lease.
    pub fn len(&self) -> usize {
        self.leased
    }

    /// Whether no device holds a lease.
    pub fn is_empty(&self) -> bool {
        self.leased == 0
    }
}

fn admitted(device: &[u8; 32], current: &Current) -> Admitted {
    Admitted {
        device: *device,
        wg_pub: current.wg_pub,
        psk: None,
        addresses: current.addresses.to_vec(),
        not_after: current.not_after,
        limits: current.limits.as_deref().copied().unwrap_or_default(),
    }
}

impl Scope {
    /// A lease may name addresses inside the gateway's prefixes, but not the gateway's own.
    fn may_give(&self, addresses: &[IpNet]) -> bool {
        !addresses.is_empty()
            && addresses.iter().all(|address| {
                self.inner
                    .iter()
                    .any(|own| own.trunc().contains(address) && !address.contains(&own.addr()))
            })
    }
}

#[cfg(test)]
mod tests;
