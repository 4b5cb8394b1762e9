//! The stub as the agent has it, and nothing else: what it costs a router at most (`cargo xtask bench dns`).
//! Built as the agent is: profile `router`, one static file, no features. `router_stub IP:PORT STAMP`.

use std::process::ExitCode;

use dnscrypt_proxy::DnsCryptStamp;
use dnscrypt_proxy::listen::Sockets;
use dnscrypt_proxy::policy::{OwnResolver, Policy, Rebinding, Rules};
use dnscrypt_proxy::stub::{Stub, StubConfig};
use dnscrypt_proxy::upstream::{Settings, Upstream};
use tokio::net::{TcpListener, UdpSocket};

const USAGE: u8 = 64;
const IO: u8 = 74;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(Ok(stamp))) = (
        arguments.next(),
        arguments.next().map(|text| text.parse::<DnsCryptStamp>()),
    ) else {
        return ExitCode::from(USAGE);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build();
    let served = runtime.and_then(|runtime| runtime.block_on(serve(&listen, stamp)));
    served.map_or(ExitCode::from(IO), |()| ExitCode::SUCCESS)
}

async fn serve(listen: &str, stamp: DnsCryptStamp) -> std::io::Result<()> {
    let sockets = Sockets {
        udp: vec![UdpSocket::bind(listen).await?],
        tcp: vec![TcpListener::bind(listen).await?],
    };
    let upstream = Upstream::new(vec![stamp], Settings::default());
    let policy = Policy::new(rules());
    let _stopped = Stub::with_policy(upstream, policy, StubConfig::default())
        .listen(sockets)
        .await;
    Ok(())
}

/// Those of an agent whose configuration says nothing of them.
fn rules() -> Rules {
    Rules {
        local_domain: "lan".parse().ok(),
        hosts_files: vec!["/tmp/hosts/odhcpd".into()],
        leases_files: vec!["/tmp/dhcp.leases".into()],
        rebinding: Rebinding::Refused,
        browser_doh: OwnResolver::Denied,
        ..Rules::default()
    }
}
