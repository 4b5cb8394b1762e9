//! Somebody outside who looks at everything that a server shows, and what they find.

use std::fs;
use std::path::Path;

use provisioning::clock::unix_now;
use provisioning::monitor::book::Book;
use provisioning::monitor::source::Source;
use provisioning::monitor::{Kind, Monitor};
use tempfile::TempDir;
use trust::{Activation, Anchors};

use crate::rig::{self, Device, Gateway, Office};
use crate::witnesses::copy;

fn monitor_with(office: &Office, dir: &Path, anchors: Anchors) -> Monitor {
    let source = Source::new(&format!("https://{}", office.addr)).unwrap();
    Monitor::new(source, anchors, Book::open(dir).unwrap()).unwrap()
}

fn monitor(office: &Office, dir: &Path) -> Monitor {
    monitor_with(office, dir, office.anchors())
}

async fn look(monitor: &mut Monitor) -> Vec<Kind> {
    let found = monitor.look(unix_now()).await.unwrap();
    found.into_iter().map(|finding| finding.kind).collect()
}

async fn enrol(office: &Office) {
    let claim = office.claim().await;
    let mut client = office.connect().await;
    let answer = client.enrol(&Device::new(), Some(&claim)).await;
    assert_eq!(answer.status, 200);
}

/// An office with a gateway and a router, stopped, and two copies of its data directory.
async fn twice() -> [(TempDir, provisioning::datadir::DataDir); 2] {
    let office = Office::open().await;
    enrol(&office).await;
    let (_kept, dir) = office.stop().await;
    [(); 2].map(|()| {
        let scratch = rig::scratch();
        let dir = copy(dir.path(), &scratch);
        (scratch, dir)
    })
}

#[tokio::test]
async fn all_that_is_new_is_told_once_and_who_signed_for_it() {
    let office = Office::open_without_gateways().await;
    let scratch = rig::scratch();
    let mut outside = monitor(&office, scratch.path());
    // The state of the people is the first entry of its log.
    assert_eq!(
        look(&mut outside).await,
        [Kind::Proposed, Kind::Grown, Kind::Decided]
    );
    assert_eq!(look(&mut outside).await, []);

    let gateway = Gateway::new("gw1", "pop1", 1);
    let mut activation = gateway.proposed(&office.dir, &office.store).await;
    assert_eq!(look(&mut outside).await, [Kind::Proposed, Kind::Grown]);
    gateway
        .added(&office.dir, &office.store, &mut activation)
        .await;
    let found = outside.look(unix_now()).await.unwrap();
    let [decided] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(
        decided.sentence,
        "entry 1 of the authority log, the gateway gw1, has its effect: alice proposed, bob approved"
    );

    enrol(&office).await;
    enrol(&office).await;
    assert_eq!(look(&mut outside).await, [Kind::Grown]);
    assert_eq!(look(&mut outside).await, []);
}

#[tokio::test]
async fn what_was_seen_outlives_the_monitor_and_a_crash_between_two_files() {
    let office = Office::open().await;
    let scratch = rig::scratch();
    let first = look(&mut monitor(&office, scratch.path())).await;
    assert!(first.contains(&Kind::Decided));

    let leaves = scratch.path().join("authority.leaves");
    let whole = fs::read(&leaves).unwrap();
    fs::write(&leaves, [whole.as_slice(), &[7; 40]].concat()).unwrap();
    enrol(&office).await;
    assert_eq!(
        look(&mut monitor(&office, scratch.path())).await,
        [Kind::Grown]
    );
    assert!(Book::open(scratch.path()).is_ok());

    fs::write(&leaves, [7; 64]).unwrap();
    let source = Source::new("https://127.0.0.1:1").unwrap();
    let broken = Monitor::new(
        source,
        office.anchors(),
        Book::open(scratch.path()).unwrap(),
    );
    let told = broken.unwrap_err().to_string();
    assert!(told.contains("is not what the head is over"), "{told}");
}

#[tokio::test]
async fn a_second_history_is_found_and_both_heads_are_kept() {
    let [(kept, one), (other_kept, other)] = twice().await;
    let scratch = rig::scratch();
    let office = Office::serve(kept, one).await;
    enrol(&office).await;
    enrol(&office).await;
    let anchors = office.anchors();
    look(&mut monitor(&office, scratch.path())).await;
    let fork = Office::serve(other_kept, other).await;

    // An older head is none that lies; one of another history is, longer or shorter than what was seen.
    assert_eq!(
        look(&mut monitor_with(&fork, scratch.path(), anchors.clone())).await,
        [Kind::Behind]
    );
    for _ in 0..2 {
        enrol(&fork).await;
        let mut outside = monitor_with(&fork, scratch.path(), anchors.clone());
        assert_eq!(look(&mut outside).await, [Kind::Forked]);
    }
    enrol(&fork).await;
    assert_eq!(
        look(&mut monitor_with(&fork, scratch.path(), anchors)).await,
        [Kind::Forked]
    );

    let evidence: Vec<String> = fs::read_dir(scratch.path().join("evidence"))
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    assert_eq!(evidence.len(), 3);
    let seen = fs::read_to_string(scratch.path().join("fleet.checkpoint")).unwrap();
    assert!(evidence.iter().all(|both| both.starts_with(&seen)));
    assert_eq!(look(&mut monitor(&office, scratch.path())).await, []);
}

#[tokio::test]
async fn a_head_that_the_trust_files_quorum_has_not_seen_is_not_taken() {
    let office = Office::open().await;
    let scratch = rig::scratch();
    let policy = fs::read_to_string(office.dir.path().join("image/trust.policy")).unwrap();
    let stranger = trust::Cosigner::from_seed("ngo.example/w1", &[7; 32]).unwrap();
    let more = policy.replace(
        "quorum ",
        &format!("witness w1 {}\nquorum w1\n# ", stranger.vkey()),
    );
    let strict = Anchors::parse(&more).unwrap();

    let mut outside = monitor_with(&office, scratch.path(), strict);
    assert_eq!(
        look(&mut outside).await,
        [Kind::NotCosigned, Kind::NotCosigned]
    );
    drop(outside);

    let other = Office::open().await;
    let mut outside = monitor_with(&office, scratch.path(), other.anchors());
    assert_eq!(look(&mut outside).await, [Kind::Unsigned, Kind::Unsigned]);
}

#[tokio::test]
async fn an_effect_that_too_few_have_signed_for_is_an_alarm_until_they_have() {
    let office = Office::open().await;
    let scratch = rig::scratch();
    let read = "SELECT activation FROM proposal WHERE leaf = 1";
    let write = "UPDATE proposal SET activation = ? WHERE leaf = 1";
    let mut writer = office.store.writer().await.unwrap();
    let mut db = writer.begin().await.unwrap();
    let whole: Vec<u8> = sqlx::query_scalar(read).fetch_one(&mut *db).await.unwrap();
    let mut short = Activation::from_bytes(&whole).unwrap();
    short.approvals.pop();
    let short = short.to_bytes();
    sqlx::query(write)
        .bind(short)
        .execute(&mut *db)
        .await
        .unwrap();
    db.commit().await.unwrap();

    let mut outside = monitor(&office, scratch.path());
    let found = outside.look(unix_now()).await.unwrap();
    let alarms = || found.iter().filter(|finding| finding.kind.is_alarm());
    let told = &alarms().next().unwrap().sentence;
    assert_eq!(alarms().count(), 1);
    assert!(
        told.starts_with(
            "entry 1 of the authority log, the gateway gw1, has its effect for the server"
        ) && told.ends_with("both have not approved it: 1 of them did"),
        "{told}"
    );
    assert_eq!(look(&mut outside).await, [Kind::NotApproved]);

    let mut db = writer.begin().await.unwrap();
    sqlx::query(write)
        .bind(whole)
        .execute(&mut *db)
        .await
        .unwrap();
    db.commit().await.unwrap();
    assert_eq!(look(&mut outside).await, [Kind::Decided]);
}

#[tokio::test]
async fn a_server_that_is_away_is_an_alarm_and_loses_nothing() {
    let office = Office::open().await;
    let scratch = rig::scratch();
    let mut outside = monitor(&office, scratch.path());
    look(&mut outside).await;

    let (_kept, _dir) = office.stop().await;

    assert_eq!(
        look(&mut outside).await,
        [Kind::Unreachable, Kind::Unreachable]
    );
    for wrong in ["", "ftp://198.51.100.1", "198.51.100.1:8443", "https://"] {
        assert!(Source::new(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn one_folder_is_one_monitors() {
    let scratch = rig::scratch();
    let _first = Book::open(scratch.path()).unwrap();

    let told = Book::open(scratch.path()).unwrap_err().to_string();
    assert!(told.contains("another monitor works in"), "{told}");
}
