//! A DNSCrypt server in front of a plain resolver, to try other people's clients against.
//!
//! `cargo run --example forwarder -- PROVIDER-KEY-FILE LISTEN PLAIN-RESOLVER` prints its stamp and serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use dnscrypt_proxy::certs::{Certs, Rotation, read_provider_key};
use dnscrypt_proxy::listen::{Homes, Limits, Sockets};
use dnscrypt_proxy::proto::stamp::{DnsCryptStamp, Props};
use dnscrypt_proxy::serve::{Query, Server};
use dnscrypt_proxy::{Counters, clock};
use tokio::net::{TcpListener, UdpSocket};

const PROVIDER: &str = "2.dnscrypt-cert.forwarder.example";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(key), Some(listen), Some(plain)) = (args.next(), args.next(), args.next()) else {
        anyhow::bail!("usage: forwarder PROVIDER-KEY-FILE LISTEN PLAIN-RESOLVER");
    };
    let listen: SocketAddr = listen.parse().context("LISTEN must be IP:PORT")?;
    let plain: SocketAddr = plain.parse().context("PLAIN-RESOLVER must be IP:PORT")?;
    let certs = Certs::signing(
        read_provider_key(key.as_ref())?,
        Rotation::default(),
        clock::system(),
    )?;
    let stamp = DnsCryptStamp {
        props: Props::default(),
        addr: listen,
        provider_key: certs.provider_public(),
        provider_name: PROVIDER.to_owned(),
    };
    println!("{stamp}");
    let server = Server {
        provider_name: PROVIDER.to_owned(),
        keyring: certs.keyring(),
        limits: Limits::SERVER,
        homes: Homes::default(),
        counters: Arc::new(Counters::default()),
        clock: clock::system(),
    };
    let sockets = Sockets {
        udp: vec![UdpSocket::bind(listen).await?],
        tcp: vec![TcpListener::bind(listen).await?],
    };
    let serving = server.serve(sockets, move |query: Query| async move {
        ask(plain, &query.message).await
    });
    tokio::select! {
        stopped = serving => Err(stopped.into()),
        () = certs.keep_fresh() => Ok(()),
    }
}

async fn ask(plain: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.ok()?;
    socket.connect(plain).await.ok()?;
    socket.send(query).await.ok()?;
    let mut answer = vec![0; 65_535];
    let len = tokio::time::timeout(Duration::from_secs(4), socket.recv(&mut answer))
        .await
        .ok()?
        .ok()?;
    answer.truncate(len);
    Some(answer)
}
