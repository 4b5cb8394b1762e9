//! The logs as anybody reads them: checkpoints and tiles.

use trust::{SignedCheckpoint, Tree, tiles};

use crate::rig::{Client, Device, Office};

async fn checkpoint(client: &mut Client, log: &str) -> SignedCheckpoint {
    let answer = client.get(&format!("/v1/log/{log}/checkpoint")).await;
    SignedCheckpoint::parse(std::str::from_utf8(&answer.body).unwrap()).unwrap()
}

async fn grown_office(leases: u32) -> Office {
    let office = Office::open().await;
    let claim = office.claim().await;
    let mut device = Device::new();
    let mut client = office.connect().await;
    assert_eq!(client.enrol(&device, Some(&claim)).await.status, 200);
    for renewal in 1..leases {
        if renewal % 8 == 0 {
            client = office.connect().await;
        }
        device.tunnel = x25519_dalek::StaticSecret::random_from_rng(rand_core::OsRng);
        assert_eq!(client.enrol(&device, None).await.status, 200);
    }
    office
}

#[tokio::test]
async fn a_log_without_entries_has_a_checkpoint_that_the_policy_accepts() {
    let office = Office::open_without_gateways().await;
    let mut client = office.connect().await;

    let fleet = checkpoint(&mut client, "fleet").await;
    let authority = checkpoint(&mut client, "authority").await;

    assert_eq!(fleet.checkpoint().size, 0);
    office.anchors().fleet.verify_checkpoint(&fleet).unwrap();
    office
        .anchors()
        .authority
        .verify_checkpoint(&authority)
        .unwrap();
    assert!(
        office
            .anchors()
            .fleet
            .verify_checkpoint(&authority)
            .is_err()
    );
}

#[tokio::test]
async fn the_tiles_lead_to_the_root_of_the_checkpoint() {
    let office = grown_office(300).await;
    let mut client = office.connect().await;
    let fleet = checkpoint(&mut client, "fleet").await;
    office.anchors().fleet.verify_checkpoint(&fleet).unwrap();
    assert_eq!(fleet.checkpoint().size, 300);

    let mut tree = Tree::new();
    for bundle in tiles::Tile::entries_between(0, 300) {
        let answer = client.get(&format!("/v1/log/fleet/{bundle}")).await;
        assert_eq!(answer.status, 200, "{bundle}");
        for entry in tiles::parse_entry_bundle(&answer.body).unwrap() {
            tree.append(entry);
        }
    }
    assert_eq!(tree.root(), fleet.checkpoint().root);
    for tile in tiles::Tile::hashes_between(0, 300) {
        let answer = client.get(&format!("/v1/log/fleet/{tile}")).await;
        assert_eq!(answer.body, tile.hashes(&tree).unwrap(), "{tile}");
    }
}

#[tokio::test]
async fn a_tile_beyond_the_log_is_not_there() {
    let office = grown_office(3).await;
    let mut client = office.connect().await;

    for (tile, status) in [
        ("tile/0/000.p/3", 200),
        ("tile/0/000.p/2", 200),
        ("tile/0/000.p/4", 404),
        ("tile/0/000", 404),
        ("tile/0/001.p/1", 404),
        ("tile/1/000.p/1", 404),
        ("tile/63/000.p/1", 404),
        ("tile/entries/000.p/3", 200),
        ("tile/entries/000.p/4", 404),
        ("tile/entries/x999/x999/x999/x999/x999/x999/999", 404),
    ] {
        let answer = client.get(&format!("/v1/log/fleet/{tile}")).await;
        assert_eq!(answer.status, status, "{tile}");
    }
}

#[tokio::test]
async fn the_states_of_the_authority_are_there_by_their_epochs() {
    let office = Office::open_without_gateways().await;
    let mut client = office.connect().await;

    let first = client.get("/v1/authority/states/1").await;
    assert_eq!(first.status, 200);
    let first = trust::Activation::from_bytes(&first.body).unwrap();
    let proposal = trust::Proposal::from_bytes(&first.proposal).unwrap();
    let people = office.anchors().people;
    assert_eq!(proposal.body, people.text().as_bytes());
    for none in ["0", "2", "18446744073709551615", "one", "-1"] {
        let answer = client.get(&format!("/v1/authority/states/{none}")).await;
        assert_eq!(answer.problem(), (404, "not-found".to_owned()), "{none}");
    }
}
