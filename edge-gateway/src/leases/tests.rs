use ed25519_dalek::SigningKey;
use rand_core::OsRng;
use trust::{LoggedAt, Revocation};

use super::*;

const ME: [u8; 32] = [9; 32];

fn table() -> Leases {
    let inner = ["10.64.0.1/16", "fd64::1/48"]
        .map(|net| net.parse().unwrap())
        .to_vec();
    Leases::new(Scope {
        gateway: ME,
        wg_pub: [8; 32],
        inner,
    })
}

fn lease(device: u8, epoch: u64, key: u8) -> Lease {
    Lease {
        v: 1,
        devid_hash: [device; 32],
        epoch,
        wg_pub: [key; 32],
        pop: "pop1".to_owned(),
        shard: 1,
        gateways: vec![ME],
        addresses: vec![format!("10.64.0.{device}/32").parse().unwrap()],
        dns: Vec::new(),
        not_before: 100,
        not_after: 200,
        limits: Limits::default(),
    }
}

fn logged() -> LoggedAt {
    LoggedAt {
        index: 0,
        size: 1,
        root: [0; 32],
        sworn: trust::Sworn {
            since: 100,
            reached: 100,
        },
    }
}

fn admit(leases: &mut Leases, lease: Lease) -> (Outcome, Vec<Change>) {
    leases.apply(
        &ShardChange::Admit {
            lease,
            logged: logged(),
        },
        1,
    )
}

fn revoke(leases: &mut Leases, device: u8, epoch: u64) -> Vec<Change> {
    let revocation = Revocation {
        v: 1,
        devid_hash: [device; 32],
        epoch,
        reason: 0,
        at: 150,
    };
    leases
        .apply(
            &ShardChange::Revoke {
                revocation,
                logged: logged(),
            },
            1,
        )
        .1
}

fn removed(key: u8) -> Change {
    Change::Remove {
        device: [2; 32],
        wg_pub: [key; 32],
        addresses: ["10.64.0.2/32".parse().unwrap()].into(),
    }
}

#[test]
fn a_lease_for_others_is_not_admitted() {
    let mut leases = table();
    let other_gateway = Lease {
        gateways: vec![[8; 32]],
        ..lease(2, 1, 1)
    };
    let other_shard = Lease {
        shard: 2,
        ..lease(2, 1, 1)
    };

    assert_eq!(
        admit(&mut leases, other_gateway),
        (Outcome::Elsewhere, Vec::new())
    );
    assert_eq!(
        admit(&mut leases, other_shard),
        (Outcome::Elsewhere, Vec::new())
    );
    assert!(leases.is_empty());
}

#[test]
fn a_lease_cannot_claim_addresses_that_are_not_ours_to_give() {
    for claimed in [
        "0.0.0.0/0",
        "10.64.0.0/15",
        "10.65.0.2/32",
        "10.64.0.1/32",
        "fd64::/64",
        "::/0",
    ] {
        let wide = Lease {
            addresses: vec![claimed.parse().unwrap()],
            ..lease(2, 1, 1)
        };
        assert_eq!(
            admit(&mut table(), wide),
            (Outcome::ForeignAddress, Vec::new()),
            "{claimed}"
        );
    }
    let none = Lease {
        addresses: Vec::new(),
        ..lease(2, 1, 1)
    };
    assert_eq!(admit(&mut table(), none).0, Outcome::ForeignAddress);
}

#[test]
fn a_revoked_lease_is_removed_and_stays_out_however_often_it_is_repeated() {
    let mut leases = table();
    admit(&mut leases, lease(2, 3, 1));

    assert_eq!(revoke(&mut leases, 2, 3), [removed(1)]);
    assert_eq!(
        admit(&mut leases, lease(2, 3, 1)),
        (Outcome::Dead, Vec::new())
    );
    assert_eq!(revoke(&mut leases, 2, 3), []);
    assert_eq!(leases.len(), 0);
}

#[test]
fn a_revocation_before_its_lease_counts_and_a_later_epoch_is_admitted() {
    let mut leases = table();

    assert_eq!(revoke(&mut leases, 2, 3), []);
    assert_eq!(admit(&mut leases, lease(2, 2, 1)).0, Outcome::Dead);
    assert_eq!(admit(&mut leases, lease(2, 4, 1)).0, Outcome::Admitted);
    assert_eq!(leases.len(), 1);
}

#[test]
fn a_new_tunnel_key_replaces_the_old_one_first() {
    let mut leases = table();
    admit(&mut leases, lease(2, 1, 1));

    let (outcome, changes) = admit(&mut leases, lease(2, 2, 5));

    assert_eq!(outcome, Outcome::Admitted);
    assert_eq!(changes.first(), Some(&removed(1)));
    assert!(matches!(changes.get(1), Some(Change::Admit(a)) if a.wg_pub == [5; 32]));
    assert_eq!(admit(&mut leases, lease(2, 1, 1)).0, Outcome::Old);
    assert_eq!(leases.len(), 1);
}

#[test]
fn a_renewal_with_the_same_key_changes_terms_without_removing_the_peer() {
    let mut leases = table();
    admit(&mut leases, lease(2, 1, 1));

    let (_, changes) = admit(
        &mut leases,
        Lease {
            not_after: 900,
            ..lease(2, 2, 1)
        },
    );

    assert!(matches!(changes.as_slice(), [Change::Admit(a)] if a.not_after == 900));
    assert_eq!(leases.expire(201), []);
}

#[test]
fn a_lease_ends_after_its_last_second() {
    let mut leases = table();
    admit(&mut leases, lease(2, 1, 1));

    assert_eq!(leases.expire(200), []);
    assert_eq!(leases.expire(201), [removed(1)]);
    assert!(leases.is_empty());
}

/// A gateway that agrees pre-shared keys, with what a router has to know of it.
struct Agreeing {
    leases: Leases,
    statement: trust::Verified<trust::KemStatement>,
    gateway: [u8; 32],
    _dir: tempfile::TempDir,
}

fn router() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

impl Agreeing {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = SigningKey::from_bytes(&[9; 32]);
        let gateway = trust::key_id(identity.verifying_key().as_bytes());
        let keyring = Keyring::load(dir.path(), 100).unwrap();
        let statement = keyring.statement(&identity).unwrap();
        let scope = Scope {
            gateway,
            ..table().scope
        };
        Self {
            leases: Leases::new(scope).with_keyring(Some(keyring)),
            statement: trust::KemStatement::verify(&statement, &gateway, 100).unwrap(),
            gateway,
            _dir: dir,
        }
    }

    fn lease(&self, epoch: u64, key: u8) -> Lease {
        Lease {
            devid_hash: trust::key_id(router().verifying_key().as_bytes()),
            gateways: vec![self.gateway],
            ..lease(3, epoch, key)
        }
    }

    fn offer(&self, lease: &Lease) -> (Psk, PskOffer) {
        let pair = Pair {
            devid_hash: lease.devid_hash,
            wg_pub: lease.wg_pub,
            gateway: self.gateway,
            gateway_wg_pub: self.leases.scope.wg_pub,
        };
        let agreed = PskOffer::make(&router(), &pair, &self.statement, &mut OsRng).unwrap();
        let offer = PskOffer::verify(&agreed.offer).unwrap().into_inner();
        (agreed.psk, offer)
    }

    fn admit(&mut self, lease: Lease) -> (Outcome, Vec<Change>) {
        admit(&mut self.leases, lease)
    }

    fn take(&mut self, offer: &PskOffer) -> (Outcome, Vec<Change>) {
        self.leases
            .apply(&ShardChange::Offer(Box::new(offer.clone())), 1)
    }
}

#[test]
fn a_renewed_lease_with_other_limits_keeps_its_peer_and_a_later_offer_keeps_the_limits() {
    let mut gateway = Agreeing::new();
    gateway.admit(gateway.lease(1, 1));
    let limits = Limits {
        down: trust::BitRate::new(50_000_000),
        up: None,
    };
    let renewed = Lease {
        limits,
        ..gateway.lease(2, 1)
    };
    let (_, offer) = gateway.offer(&renewed);

    let (_, changes) = gateway.admit(renewed);
    let (_, agreed) = gateway.take(&offer);

    for changes in [changes, agreed, gateway.leases.admitted().collect()] {
        let [Change::Admit(admitted)] = &changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!(admitted.limits, limits);
    }
}

fn psks(changes: &[Change]) -> Vec<Option<Psk>> {
    let admitted = changes.iter().filter_map(|change| match change {
        Change::Admit(admitted) => Some(admitted.psk.clone()),
        Change::Remove { .. } | Change::Readdress { .. } => None,
    });
    admitted.collect()
}

#[test]
fn an_offer_without_a_lease_for_its_tunnel_key_changes_nothing() {
    let mut gateway = Agreeing::new();
    let first = gateway.lease(1, 1);
    let (_, early) = gateway.offer(&first);
    let before = gateway.take(&early);
    {
        let next = gateway.lease(2, 2);
        gateway.admit(next)
    };

    let (outcome, changes) = gateway.take(&early);

    assert_eq!(before.0, Outcome::Old);
    assert_eq!((outcome, changes.len()), (Outcome::Old, 0));
    assert_eq!(gateway.leases.agreed(), 0);
}

#[test]
fn an_offer_that_does_not_hold_is_counted_and_leaves_the_peer_as_it_is() {
    let mut gateway = Agreeing::new();
    let lease = gateway.lease(1, 1);
    gateway.admit(lease.clone());
    let (_, offer) = gateway.offer(&lease);
    let mut garbled = offer.clone();
    garbled.ciphertext[7] ^= 1;
    let mut unknown = offer.clone();
    unknown.kem = [0; 32];
    let mut elsewhere = offer;
    elsewhere.gateway = ME;

    for (wrong, outcome) in [
        (garbled, Outcome::NotAgreed),
        (unknown, Outcome::NotAgreed),
        (elsewhere, Outcome::Elsewhere),
    ] {
        let (seen, changes) = gateway.take(&wrong);
        assert_eq!((seen, changes.len()), (outcome, 0));
    }
}

#[test]
fn an_agreed_key_goes_to_the_engine_and_stays_with_its_tunnel_key_alone() {
    let mut gateway = Agreeing::new();
    let lease = gateway.lease(1, 1);
    let (_, changes) = gateway.admit(lease.clone());
    assert_eq!(psks(&changes), [None]);
    let (psk, offer) = gateway.offer(&lease);

    let (outcome, changes) = gateway.take(&offer);

    assert_eq!(
        (outcome, psks(&changes)),
        (Outcome::Agreed, vec![Some(psk.clone())])
    );
    assert_eq!(gateway.take(&offer), (Outcome::Old, Vec::new()));
    assert!(gateway.leases.is_agreed(&offer));
    let all: Vec<_> = gateway.leases.admitted().collect();
    assert_eq!(psks(&all), [Some(psk.clone())]);
    let (_, changes) = {
        let next = gateway.lease(2, 1);
        gateway.admit(next)
    };
    assert_eq!(psks(&changes), [Some(psk)], "the same tunnel key");
    let (_, changes) = {
        let next = gateway.lease(3, 2);
        gateway.admit(next)
    };
    assert_eq!(psks(&changes), [None], "another tunnel key");
    assert_eq!(gateway.leases.agreed(), 0);
}

#[test]
fn a_revoked_or_ended_lease_leaves_no_key_behind() {
    for ends in [false, true] {
        let mut gateway = Agreeing::new();
        let lease = gateway.lease(1, 1);
        gateway.admit(lease.clone());
        let (_, offer) = gateway.offer(&lease);
        gateway.take(&offer);
        assert_eq!(gateway.leases.agreed(), 1);

        if ends {
            gateway.leases.expire(lease.not_after + 1);
        } else {
            gateway.leases.revoke(lease.devid_hash, 1);
        }

        assert_eq!(gateway.leases.agreed(), 0);
    }
}

#[test]
fn a_gateway_that_agrees_none_leaves_offers_alone() {
    let mut gateway = Agreeing::new();
    let lease = gateway.lease(1, 1);
    let (_, offer) = gateway.offer(&lease);
    gateway.leases.keyring = None;
    gateway.admit(lease);

    assert_eq!(gateway.take(&offer), (Outcome::Elsewhere, Vec::new()));
}
