//! What `init` makes, and for whom.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use provisioning::clock::unix_now;
use provisioning::datadir::DataDir;
use provisioning::failure::{Blame, blame};
use provisioning::store;

use crate::rig::{genesis, new_data_dir, scratch};

#[tokio::test]
async fn init_overwrites_nothing() {
    let scratch = scratch();
    fs::write(scratch.path().join("note"), "mine").unwrap();
    let dir = DataDir::new(scratch.path());
    let url = "https://127.0.0.1:8443".parse().unwrap();

    let made = dir
        .create(("office", &url), (&genesis(), None), unix_now())
        .await;

    let refused = made.unwrap_err();
    assert!(refused.to_string().contains("is not empty"), "{refused}");
    let note = fs::read_to_string(scratch.path().join("note")).unwrap();
    assert_eq!(note, "mine");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn init_makes_nothing_for_people_who_have_not_signed() {
    let scratch = scratch();
    let dir = DataDir::new(scratch.path().join("data"));
    let url = "https://127.0.0.1:8443".parse().unwrap();
    let mut genesis = genesis();
    genesis.approvals.pop();

    let made = dir
        .create(("office", &url), (&genesis, None), unix_now())
        .await;

    let refused = made.unwrap_err().to_string();
    assert!(refused.contains("have not approved it"), "{refused}");
    assert!(!dir.path().exists());
}

#[tokio::test]
async fn secrets_are_readable_by_their_owner_only_and_refused_otherwise() {
    let scratch = scratch();
    let dir = new_data_dir(&scratch, None).await;
    let keys = ["server.key", "log-fleet.key", "log-authority.key"];

    for secret in keys.into_iter().chain(["cosigner.key", store::FILE]) {
        let mode = fs::metadata(dir.path().join(secret)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);

    let exposed = fs::Permissions::from_mode(0o640);
    fs::set_permissions(dir.path().join("cosigner.key"), exposed).unwrap();
    let refused = dir.log_keys("office").unwrap_err();
    assert!(refused.to_string().contains("chmod 600"), "{refused}");
    assert_eq!(blame(&refused), Blame::Permission);
}

#[tokio::test]
async fn the_image_has_the_policy_with_the_people_and_the_pin_and_nothing_else() {
    let scratch = scratch();
    let dir = new_data_dir(&scratch, None).await;
    let image = dir.path().join("image");

    let files = fs::read_dir(&image).unwrap();
    let mut files: Vec<_> = files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["server.spki", "trust.policy"]);
    let pin = fs::read_to_string(image.join("server.spki")).unwrap();
    assert_eq!(pin.trim_end(), dir.tls_identity().unwrap().spki.to_string());
    let people = dir.anchors().unwrap().people;
    assert_eq!(people.epoch(), 1);
    assert!(people.text().contains("person alice"), "{}", people.text());
}
