//! DNSCrypt with other people's clients and servers.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use lab::{Asking, DnscryptProxy, ForeignServer, Internet, Lab, PAGE_NAME, Peers, resolves};

#[test]
fn the_foreign_servers_and_the_foreign_client_agree_in_this_lab() {
    let lab = Lab::for_test().unwrap();
    let _internet = Internet::start(&lab).unwrap();
    let peers = Peers::of_this_build().unwrap();
    let encrypted_dns =
        ForeignServer::encrypted_dns(&lab, &peers, "203.0.113.10:443".parse().unwrap()).unwrap();
    let dnsdist = ForeignServer::dnsdist(&lab, "203.0.113.10:8443".parse().unwrap()).unwrap();

    for stamp in [&encrypted_dns.stamp, &dnsdist.stamp] {
        let client = DnscryptProxy::start(&lab, &lab.pop, &peers, stamp, Asking::Udp).unwrap();
        resolves(&client.dig(&[PAGE_NAME, "A"]).unwrap()).unwrap();
    }
}
