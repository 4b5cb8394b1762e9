//! A DNSCrypt server on loopback that answers everything with nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use dnscrypt_proxy::certs::Certs;
use dnscrypt_proxy::listen::{Homes, Limits, Sockets};
use dnscrypt_proxy::proto::message;
use dnscrypt_proxy::serve::{Query, Server};
use dnscrypt_proxy::{Counters, clock};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// It serves until the task is aborted.
pub(crate) async fn serve(certs: Certs, provider: &str) -> (SocketAddr, JoinHandle<()>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(addr).await.unwrap();
    let server = Server {
        provider_name: provider.to_owned(),
        keyring: certs.keyring(),
        limits: Limits::SERVER,
        homes: Homes::default(),
        counters: Arc::new(Counters::default()),
        clock: clock::system(),
    };
    let sockets = Sockets {
        udp: vec![udp],
        tcp: vec![tcp],
    };
    let task = tokio::spawn(async move {
        let _certs = certs;
        let empty = |query: Query| async move {
            let query = message::Query::read(&query.message).ok()?;
            Some(query.refuse(0, None))
        };
        server.serve(sockets, empty).await;
    });
    (addr, task)
}
