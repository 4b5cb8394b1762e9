//! What a device may carry: in its lease, changed by an operator, and kept over renewals.

use provisioning::clock::unix_now;
use provisioning::limit::Limited;
use trust::{BitRate, Limits, ShardChange};

use crate::rig::{Device, Gateway, Office};

fn fifty_twenty() -> Limits {
    Limits {
        down: BitRate::new(50_000_000),
        up: BitRate::new(20_000_000),
    }
}

#[tokio::test]
async fn a_revoked_device_is_given_no_limits() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let device = Device::new();
    office.connect().await.enrol(&device, Some(&claim)).await;
    office.revoke(&device).await;

    let refused = office.limit(&device, fifty_twenty()).await.unwrap_err();

    assert!(refused.to_string().contains("is revoked"), "{refused}");
    assert_eq!(office.replay().await.leases, 1);
}

#[tokio::test]
async fn other_limits_are_a_lease_of_the_next_epoch_that_is_otherwise_the_same() {
    let gateway = Gateway::new("gw1", "pop1", 1);
    let office = Office::open_without_gateways().await;
    office.add_gateway(&gateway).await;
    let claim = office.claim().await;
    let mut device = Device::new();
    let first = office.connect().await.enrol(&device, Some(&claim)).await;
    let first = device.accept(&office.anchors(), &first.body).unwrap().lease;

    let limited = office.limit(&device, fifty_twenty()).await.unwrap();

    assert_eq!(limited, Limited::Now { epoch: 2 });
    let page = office.connect().await.shard(&gateway, "1").await.page();
    let told = page.entries.iter().map(|entry| {
        let judged = office.anchors().verify_shard_entry(entry, unix_now());
        judged.unwrap().into_inner()
    });
    let told: Vec<_> = told.collect();
    let [_, ShardChange::Admit { lease, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    let mut expected = first;
    expected.epoch = 2;
    expected.limits = fifty_twenty();
    assert_eq!(*lease, expected);
    let renewed = office.connect().await.enrol(&device, None).await;
    let renewed = device.accept(&office.anchors(), &renewed.body).unwrap();
    assert_eq!(renewed.lease, expected);
    assert_eq!(office.replay().await.leases, 2);
}

#[tokio::test]
async fn limits_are_kept_by_the_lease_for_a_new_tunnel_key() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let mut device = Device::new();
    let first = office.connect().await.enrol(&device, Some(&claim)).await;
    device.accept(&office.anchors(), &first.body).unwrap();
    office.limit(&device, fifty_twenty()).await.unwrap();
    device.tunnel = x25519_dalek::StaticSecret::from([7; 32]);

    let second = office.connect().await.enrol(&device, None).await;

    let second = device.accept(&office.anchors(), &second.body).unwrap();
    assert_eq!(second.lease.epoch, 3);
    assert_eq!(second.lease.limits, fifty_twenty());
}
