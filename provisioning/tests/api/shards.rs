//! The stream of a shard: who may read it, and how soon it tells.

use std::time::Duration;

use provisioning::clock::unix_now;
use tokio::time::{Instant, timeout};
use trust::{ShardChange, ShardEntry, sign_channel};

use crate::rig::{Client, Device, Gateway, Office};

async fn office_with(gateway: &Gateway) -> Office {
    let office = Office::open_without_gateways().await;
    office.add_gateway(gateway).await;
    office
}

async fn enrolled(office: &Office) -> Device {
    let device = Device::new();
    let claim = office.claim().await;
    let answer = office.connect().await.enrol(&device, Some(&claim)).await;
    assert_eq!(answer.status, 200);
    device
}

fn judged(office: &Office, entry: &ShardEntry) -> ShardChange {
    let anchors = office.anchors();
    anchors
        .verify_shard_entry(entry, unix_now())
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn a_stream_is_read_only_with_a_signature_over_this_very_connection() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    let (mut here, there) = (office.connect().await, office.connect().await);
    let encode = |signature: [u8; 64]| {
        let public = gateway.key.verifying_key().to_bytes();
        trust::ChannelProof { public, signature }.to_string()
    };
    let replayed = encode(sign_channel(&gateway.key, "gateway", &there.exporter));
    let other_role = encode(sign_channel(&gateway.key, "device", &here.exporter));

    for wrong in [
        "",
        "Culvert-Key",
        "Culvert-Key AAAA",
        "Bearer x",
        &replayed,
        &other_role,
    ] {
        let answer = here.shard_with(wrong, "1").await;
        assert_eq!(answer.problem(), (401, "not-signed".to_owned()), "{wrong}");
    }
    assert_eq!(
        here.get("/v1/shard/1").await.problem(),
        (401, "not-signed".to_owned())
    );
    assert_eq!(here.shard(&gateway, "1").await.status, 200);
}

#[tokio::test]
async fn a_key_that_nobody_added_is_refused() {
    let office = office_with(&Gateway::new("gw1", "pop1", 1)).await;

    let answer = office
        .connect()
        .await
        .shard(&Gateway::new("x", "pop1", 1), "1")
        .await;

    assert_eq!(answer.problem(), (403, "gateway-unknown".to_owned()));
}

#[tokio::test]
async fn a_gateway_reads_only_its_own_shards() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    let other = Gateway::new("gw2", "pop2", 2);
    office.add_gateway(&other).await;
    let mut client = office.connect().await;

    for shard in ["2", "3"] {
        let answer = client.shard(&gateway, shard).await;
        assert_eq!(answer.problem(), (403, "shard-forbidden".to_owned()));
    }
    assert_eq!(client.shard(&other, "2").await.status, 200);
}

#[tokio::test]
async fn a_position_that_is_none_is_refused() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    let mut client = office.connect().await;

    for query in ["1?from=-1", "1?from=x", "1?wait=26"] {
        let answer = client.shard(&gateway, query).await;
        assert_eq!(answer.problem(), (400, "bad-query".to_owned()), "{query}");
    }
    assert_eq!(
        client.shard(&gateway, "x").await.problem(),
        (404, "not-found".to_owned())
    );
    let beyond = client
        .shard(&gateway, "1?from=18446744073709551615")
        .await
        .page();
    assert_eq!((beyond.from, beyond.next), (0, 0));
}

#[tokio::test]
async fn who_has_heard_more_than_there_is_hears_at_once_that_the_stream_begins_anew() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    enrolled(&office).await;
    let mut client = office.connect().await;

    let page = client.shard(&gateway, "1?from=1").await.page();
    assert_eq!((page.from, page.next), (1, 1));
    let asked = client.shard(&gateway, "1?from=2&wait=25");
    let page = timeout(Duration::from_secs(5), asked).await.unwrap().page();
    assert_eq!((page.from, page.next, page.entries.len()), (1, 1, 0));
}

#[tokio::test]
async fn leases_and_revocations_come_in_order_and_the_gateway_believes_them() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    let (first, second) = (enrolled(&office).await, enrolled(&office).await);
    office.revoke(&first).await;

    let page = office.connect().await.shard(&gateway, "1").await.page();

    assert_eq!((page.shard, page.from, page.next), (1, 0, 3));
    let changes: Vec<ShardChange> = page
        .entries
        .iter()
        .map(|entry| judged(&office, entry))
        .collect();
    let [
        ShardChange::Admit { lease: a, .. },
        ShardChange::Admit { lease: b, .. },
        ended,
    ] = &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!((a.devid_hash, b.devid_hash), (first.id(), second.id()));
    let ShardChange::Revoke { revocation, .. } = ended else {
        panic!("{ended:?}");
    };
    assert_eq!((revocation.devid_hash, revocation.epoch), (first.id(), 1));
    let rest = office
        .connect()
        .await
        .shard(&gateway, "1?from=2")
        .await
        .page();
    assert_eq!((rest.from, rest.next), (2, 3));
    assert_eq!(judged(&office, &rest.entries[0]), *ended);
}

async fn waiting(office: &Office, gateway: &Gateway, from: u64) -> Client {
    let mut client = office.connect().await;
    // The first, immediate page proves that the connection works before it is left waiting.
    let page = client
        .shard(gateway, &format!("1?from={from}"))
        .await
        .page();
    assert!(page.entries.is_empty());
    client
}

#[tokio::test]
async fn a_waiting_gateway_hears_of_a_revocation_from_another_process_within_a_second() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    let device = enrolled(&office).await;
    let mut client = waiting(&office, &gateway, 1).await;

    let began = Instant::now();
    let (answer, ()) = tokio::join!(
        client.shard(&gateway, "1?from=1&wait=25"),
        office.revoke(&device)
    );
    let took = began.elapsed();

    let page = answer.page();
    let [entry] = &page.entries[..] else {
        panic!("{page:?}");
    };
    let ShardChange::Revoke { revocation, .. } = judged(&office, entry) else {
        panic!("{entry:?}");
    };
    assert_eq!(revocation.devid_hash, device.id());
    assert!(took < Duration::from_secs(1), "it took {took:?}");
}

#[tokio::test]
async fn a_waiting_gateway_hears_of_a_lease_at_once() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    let mut client = waiting(&office, &gateway, 0).await;

    let (answer, device) = tokio::join!(client.shard(&gateway, "1?wait=25"), enrolled(&office));

    let page = answer.page();
    let ShardChange::Admit { lease, .. } = judged(&office, &page.entries[0]) else {
        panic!("{page:?}");
    };
    assert_eq!(lease.devid_hash, device.id());
}

#[tokio::test]
async fn a_stopping_server_lets_a_waiting_gateway_go() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    let mut client = waiting(&office, &gateway, 0).await;

    let began = Instant::now();
    let waiting = async {
        let answer = client.shard(&gateway, "1?wait=25").await;
        answer.page()
    };
    let closing = async {
        // The poll is under way once the gauge of waiting streams would show it; the order does not matter.
        tokio::task::yield_now().await;
        office.close().await
    };
    let both = async { tokio::join!(waiting, closing) };
    let (page, _) = timeout(Duration::from_secs(20), both).await.unwrap();

    assert!(page.entries.is_empty());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_long_stream_comes_in_pages() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = office_with(&gateway).await;
    let claim = office.claim().await;
    let mut device = Device::new();
    let mut client = office.connect().await;
    assert_eq!(client.enrol(&device, Some(&claim)).await.status, 200);
    for renewal in 0..1004 {
        if renewal % 8 == 0 {
            client = office.connect().await;
        }
        device.tunnel = x25519_dalek::StaticSecret::random_from_rng(rand_core::OsRng);
        assert_eq!(client.enrol(&device, None).await.status, 200);
    }

    let mut client = office.connect().await;
    let first = client.shard(&gateway, "1").await.page();
    let rest = client
        .shard(&gateway, &format!("1?from={}", first.next))
        .await
        .page();

    assert_eq!((first.entries.len(), first.next), (1000, 1000));
    assert_eq!((rest.entries.len(), rest.next), (5, 1005));
    for entry in rest.entries.iter().chain(first.entries.iter().step_by(97)) {
        judged(&office, entry);
    }
}
