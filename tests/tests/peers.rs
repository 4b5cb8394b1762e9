//! The programs of other hands can be had on this machine.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use lab::Peers;

#[test]
fn foreign_programs_are_fetched_once_and_have_the_expected_versions() {
    let peers = Peers::of_this_build().unwrap();

    let client = peers.dnscrypt_proxy().unwrap();
    let server = peers.encrypted_dns().unwrap();

    assert!(client.exists() && server.exists());
    assert_eq!(peers.dnscrypt_proxy().unwrap(), client);
}
