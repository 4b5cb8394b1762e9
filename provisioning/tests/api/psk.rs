//! Pre-shared keys on their way through the server: who may say what, and who hears of it.

use provisioning::clock::unix_now;
use rand_core::OsRng;
use trust::kem::{KemKey, KemStatement};
use trust::{Lease, LeaseBundle, Pair, PskOffer, ShardEntry, Signed, SignedList, key_id};
use x25519_dalek::PublicKey;

use crate::rig::{Answer, Client, DAY_S, Device, Gateway, Office};

const NO_PROOF: (u16, &str) = (403, "proof-invalid");

fn stated(gateway: &Gateway, key: &KemKey) -> Vec<u8> {
    KemStatement::sign(&gateway.key, key, unix_now(), unix_now() + DAY_S).to_bytes()
}

async fn office_with(gateways: &[&Gateway]) -> Office {
    let office = Office::open_without_gateways().await;
    for gateway in gateways {
        office.add_gateway(gateway).await;
    }
    office
}

async fn enrolled(office: &Office) -> (Client, Device, Lease) {
    let (mut client, device) = (office.connect().await, Device::new());
    let answer = client.enrol(&device, Some(&office.claim().await)).await;
    let bundle = LeaseBundle::from_bytes(&answer.body).unwrap();
    let lease = Lease::from_bytes(&bundle.lease).unwrap();
    (client, device, lease)
}

/// An offer for a gateway whose WireGuard key does not matter here.
fn offer(device: &Device, gateway: &Gateway, key: &KemKey) -> Signed {
    let id = key_id(&gateway.key.verifying_key().to_bytes());
    let pair = Pair {
        devid_hash: device.id(),
        wg_pub: PublicKey::from(&device.tunnel).to_bytes(),
        gateway: id,
        gateway_wg_pub: [0; 32],
    };
    let statement = Signed::from_bytes(&stated(gateway, key)).unwrap();
    let statement = KemStatement::verify(&statement, &id, unix_now()).unwrap();
    PskOffer::make(&device.key, &pair, &statement, &mut OsRng)
        .unwrap()
        .offer
}

fn list(items: Vec<Signed>) -> Vec<u8> {
    SignedList { items }.to_bytes()
}

fn offers_in(answer: &Answer) -> Vec<Vec<u8>> {
    let entries = answer.page().entries.into_iter();
    entries
        .filter_map(|entry| match entry {
            ShardEntry::Psk { offer } => Some(offer),
            ShardEntry::Lease { .. } | ShardEntry::Revocation { .. } => None,
        })
        .collect()
}

fn problem(answer: &Answer) -> (u16, String) {
    answer.problem()
}

fn refused((status, code): (u16, &str)) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_key_is_taken_only_from_the_gateway_that_signed_it() {
    let (gateway, other) = (
        Gateway::new("gw1", "pop1", 1),
        Gateway::new("gw2", "pop1", 1),
    );
    let office = office_with(&[&gateway]).await;
    let key = KemKey::generate(&mut OsRng);
    let mut client = office.connect().await;
    let old = KemStatement::sign(&gateway.key, &key, 1, 2).to_bytes();

    let foreign = client.state_key(&gateway, &stated(&other, &key)).await;
    let unknown = client.state_key(&other, &stated(&other, &key)).await;
    let ended = client.state_key(&gateway, &old).await;
    let garbage = client.state_key(&gateway, b"garbage").await;
    let unsigned = client
        .post("/v1/gateway/kem", &stated(&gateway, &key))
        .await;

    assert_eq!(problem(&foreign), refused(NO_PROOF));
    assert_eq!(problem(&unknown), refused((403, "gateway-unknown")));
    assert_eq!(problem(&ended), refused(NO_PROOF));
    assert_eq!(problem(&garbage), refused((400, "malformed")));
    assert_eq!(problem(&unsigned.unwrap()), refused((401, "not-signed")));
}

#[tokio::test]
async fn a_device_gets_the_keys_of_its_gateways_as_they_were_signed_and_none_before_its_lease() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&[&gateway, &Gateway::new("gw2", "pop1", 1)]).await;
    let statement = stated(&gateway, &KemKey::generate(&mut OsRng));
    let mut as_gateway = office.connect().await;
    let taken = as_gateway.state_key(&gateway, &statement).await;
    assert_eq!(taken.status, 200);
    // Nothing is no CBOR.
    assert!(!taken.head.contains("content-type"), "{}", taken.head);

    let stranger = office.connect().await.post("/v1/psk/keys", b"").await;
    let (mut client, _, _) = enrolled(&office).await;
    let answer = client.post("/v1/psk/keys", b"").await.unwrap();

    assert_eq!(problem(&stranger.unwrap()), refused(NO_PROOF));
    let expected = list(vec![Signed::from_bytes(&statement).unwrap()]);
    assert_eq!(answer.body, expected);
}

#[tokio::test]
async fn an_offer_of_another_device_or_to_a_gateway_without_lease_is_refused() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&[&gateway]).await;
    let key = KemKey::generate(&mut OsRng);
    let elsewhere = Gateway::new("gw2", "pop2", 2);

    for who in 0..2 {
        let (mut client, device, _) = enrolled(&office).await;
        let wrong = match who {
            0 => offer(&Device::new(), &gateway, &key),
            _ => offer(&device, &elsewhere, &key),
        };
        let answer = client.post("/v1/psk", &list(vec![wrong])).await.unwrap();
        assert_eq!(problem(&answer), refused(NO_PROOF));
    }
    let (_, device, _) = enrolled(&office).await;
    let own = list(vec![offer(&device, &gateway, &key)]);
    let without_lease = office.connect().await.post("/v1/psk", &own).await;
    assert_eq!(problem(&without_lease.unwrap()), refused(NO_PROOF));
}

#[tokio::test]
async fn an_offer_reaches_its_gateway_alone_after_the_lease_and_a_later_one_takes_its_place() {
    let (gateway, other) = (
        Gateway::new("gw1", "pop1", 1),
        Gateway::new("gw2", "pop1", 1),
    );
    let office = office_with(&[&gateway, &other]).await;
    let key = KemKey::generate(&mut OsRng);
    let (mut client, device, _) = enrolled(&office).await;
    let first = offer(&device, &gateway, &key);
    let sent = client.post("/v1/psk", &list(vec![first.clone()])).await;
    assert_eq!(sent.unwrap().status, 200);
    let mut as_gateway = office.connect().await;

    let page = as_gateway.shard(&gateway, "1").await;

    let [ShardEntry::Lease { .. }, ShardEntry::Psk { offer: got }] = &page.page().entries[..]
    else {
        panic!("a lease, then an offer: {:?}", page.page());
    };
    assert_eq!(*got, first.to_bytes());
    assert!(offers_in(&as_gateway.shard(&other, "1").await).is_empty());
    assert_eq!(client.enrol(&device, None).await.status, 200);
    let second = offer(&device, &gateway, &key);
    let sent = client.post("/v1/psk", &list(vec![second.clone()])).await;
    assert_eq!(sent.unwrap().status, 200);
    assert_eq!(
        offers_in(&as_gateway.shard(&gateway, "1").await),
        vec![second.to_bytes()]
    );
    let next = as_gateway.shard(&gateway, "1?from=2").await;
    assert_eq!((next.page().next, offers_in(&next).len()), (3, 1));
    assert_eq!(office.replay().await.stream_entries, 1);
}

#[tokio::test]
async fn a_lease_allows_one_round_of_offers() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&[&gateway]).await;
    let (mut client, device, _) = enrolled(&office).await;
    let offers = list(vec![offer(
        &device,
        &gateway,
        &KemKey::generate(&mut OsRng),
    )]);

    let first = client.post("/v1/psk", &offers).await.unwrap();
    let again = client.post("/v1/psk", &offers).await.unwrap();

    assert_eq!(first.status, 200);
    assert_eq!(problem(&again), refused(NO_PROOF));
}
