//! A device and its claim: what it gets, what it gets again, and what it is refused.

use provisioning::clock::unix_now;
use provisioning::store::{alerts, devices};
use rand_core::OsRng;
use sha2::{Digest, Sha256};
use trust::{BundleError, ClaimCode, LeaseBundle};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::rig::{Client, Device, Office};

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn an_unknown_claim_is_refused() {
    let office = Office::open().await;
    let never_issued = ClaimCode::generate(&mut OsRng);

    let answer = office
        .connect()
        .await
        .enrol(&Device::new(), Some(&never_issued))
        .await;

    assert_eq!(answer.problem(), refused(403, "claim-unknown"));
    assert_eq!(office.replay().await.fleet_entries, 0);
}

#[tokio::test]
async fn an_expired_claim_is_refused() {
    let office = Office::open().await;
    let expired = office.claim_until(unix_now()).await;

    let answer = office
        .connect()
        .await
        .enrol(&Device::new(), Some(&expired))
        .await;

    assert_eq!(answer.problem(), refused(403, "claim-expired"));
}

#[tokio::test]
async fn a_device_that_nobody_knows_is_refused_without_a_claim() {
    let office = Office::open().await;

    let answer = office.connect().await.enrol(&Device::new(), None).await;

    assert_eq!(answer.problem(), refused(403, "device-unknown"));
}

#[tokio::test]
async fn a_second_device_on_a_spent_claim_is_refused_and_an_alert_stands() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let (first, thief) = (Device::new(), Device::new());
    assert_eq!(
        office
            .connect()
            .await
            .enrol(&first, Some(&claim))
            .await
            .status,
        200
    );

    for _ in 0..2 {
        let answer = office.connect().await.enrol(&thief, Some(&claim)).await;
        assert_eq!(answer.problem(), refused(403, "claim-spent"));
    }

    let mut db = office.store.read().await.unwrap();
    let alerts = alerts::list(&mut db).await.unwrap();
    assert_eq!(alerts.len(), 1);
    assert_eq!(
        (alerts[0].kind.as_str(), alerts[0].times),
        ("claim-spent", 2)
    );
    assert_eq!(alerts[0].devid_hash, thief.id());
    assert_eq!(devices::list(&mut db).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_revoked_device_is_refused_with_and_without_a_claim() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let device = Device::new();
    assert_eq!(
        office
            .connect()
            .await
            .enrol(&device, Some(&claim))
            .await
            .status,
        200
    );
    office.revoke(&device).await;
    let fresh = office.claim().await;

    for claim in [None, Some(&claim), Some(&fresh)] {
        let answer = office.connect().await.enrol(&device, claim).await;
        assert_eq!(answer.problem(), refused(403, "device-revoked"));
    }
}

#[tokio::test]
async fn without_a_gateway_nobody_is_enrolled_and_no_code_is_burnt() {
    let office = Office::open_without_gateways().await;
    let claim = office.claim().await;
    let device = Device::new();

    let answer = office.connect().await.enrol(&device, Some(&claim)).await;
    assert_eq!(answer.problem(), refused(409, "no-gateway"));

    office
        .add_gateway(&crate::rig::Gateway::new("late", "pop1", 1))
        .await;
    let other = Device::new();
    let answer = office.connect().await.enrol(&other, Some(&claim)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_tunnel_key_of_another_device_is_refused() {
    let office = Office::open().await;
    let owner = Device::new();
    let claim = office.claim().await;
    assert_eq!(
        office
            .connect()
            .await
            .enrol(&owner, Some(&claim))
            .await
            .status,
        200
    );
    let mut clone = Device::new();
    clone.tunnel = owner.tunnel.clone();
    let claim = office.claim().await;

    let answer = office.connect().await.enrol(&clone, Some(&claim)).await;

    assert_eq!(answer.problem(), refused(403, "tunnel-key-taken"));
}

#[tokio::test]
async fn a_request_recorded_on_another_connection_is_refused() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let device = Device::new();
    let (mut here, mut there) = (office.connect().await, office.connect().await);
    let challenge = here.challenge().await.unwrap();
    let recorded = device
        .answer(Some(&claim), &challenge, &here.exporter)
        .to_bytes();
    there.challenge().await.unwrap();

    let elsewhere = there.post("/v1/enrol", &recorded).await.unwrap();
    let honest = here.post("/v1/enrol", &recorded).await.unwrap();
    let again = here.post("/v1/enrol", &recorded).await.unwrap();

    assert_eq!(elsewhere.problem(), refused(403, "proof-invalid"));
    assert_eq!(honest.status, 200);
    assert_eq!(again.problem(), refused(403, "proof-invalid"));
}

#[tokio::test]
async fn a_claimed_device_gets_a_bundle_that_its_image_lets_it_believe() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let mut device = Device::new();

    let answer = office.connect().await.enrol(&device, Some(&claim)).await;

    let bundle = device.accept(&office.anchors(), &answer.body).unwrap();
    assert_eq!(bundle.lease.epoch, 1);
    let addresses: Vec<String> = bundle
        .lease
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(addresses, ["10.64.0.16/32", "fd64::10/128"]);
    assert_eq!((bundle.lease.pop.as_str(), bundle.lease.shard), ("pop1", 1));
    assert_eq!(bundle.lease.dns, ["sdns://AQ"]);
    assert_eq!(bundle.gateways.len(), 1);
    assert_eq!(bundle.gateways[0].name, "gw1");
    let mut stranger = Device::new();
    let stolen = stranger
        .accept(&office.anchors(), &answer.body)
        .unwrap_err();
    assert_eq!(stolen, BundleError::NotMine);
}

#[tokio::test]
async fn asking_again_gives_the_same_lease_byte_for_byte() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let mut device = Device::new();
    let mut client = office.connect().await;
    let first = client.enrol(&device, Some(&claim)).await;
    device.accept(&office.anchors(), &first.body).unwrap();
    // Another device makes the log grow, so that the second proof is a different one.
    let other = office.claim().await;
    assert_eq!(client.enrol(&Device::new(), Some(&other)).await.status, 200);

    let with_claim = client.enrol(&device, Some(&claim)).await;
    let without = client.enrol(&device, None).await;

    let lease = |body: &[u8]| LeaseBundle::from_bytes(body).unwrap().lease;
    assert_eq!(lease(&with_claim.body), lease(&first.body));
    assert_eq!(lease(&without.body), lease(&first.body));
    device.accept(&office.anchors(), &without.body).unwrap();
    assert_eq!(office.replay().await.leases, 2);
}

#[tokio::test]
async fn a_new_tunnel_key_gets_the_next_epoch_and_the_same_addresses() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let mut device = Device::new();
    let mut client = office.connect().await;
    let first = client.enrol(&device, Some(&claim)).await;
    let first = device.accept(&office.anchors(), &first.body).unwrap().lease;
    device.tunnel = StaticSecret::random_from_rng(OsRng);

    let second = client.enrol(&device, None).await;

    let second = device
        .accept(&office.anchors(), &second.body)
        .unwrap()
        .lease;
    assert_eq!((first.epoch, second.epoch), (1, 2));
    assert_eq!(second.wg_pub, PublicKey::from(&device.tunnel).to_bytes());
    assert_eq!(second.addresses, first.addresses);
}

#[tokio::test]
async fn no_two_devices_get_the_same_address() {
    let office = Office::open().await;
    let mut seen = std::collections::HashSet::new();
    let mut client = office.connect().await;
    for _ in 0..8 {
        let claim = office.claim().await;
        let mut device = Device::new();
        let answer = client.enrol(&device, Some(&claim)).await;
        let lease = device
            .accept(&office.anchors(), &answer.body)
            .unwrap()
            .lease;
        if seen.is_empty() {
            // The address of a device that is gone is not given out again.
            office.revoke(&device).await;
        }
        for address in lease.addresses {
            assert!(seen.insert(address), "{address} was given out twice");
        }
    }
}

#[tokio::test]
async fn the_pin_that_images_carry_is_that_of_the_key_that_answers() {
    const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
    let office = Office::open().await;
    let client: Client = office.connect().await;

    let certificate = client.tls().peer_certificates().unwrap()[0].to_vec();

    let at = certificate
        .windows(12)
        .position(|window| window == ED25519_SPKI)
        .unwrap();
    let pin = hex::encode(Sha256::digest(&certificate[at..at + 44]));
    let image = std::fs::read_to_string(office.dir.path().join("image/server.spki")).unwrap();
    assert_eq!(image.trim_end(), pin);
    let group = client.tls().negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}
