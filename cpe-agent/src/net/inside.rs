//! Sockets to servers of the home's own. Lookups for their zones are asked in clear, so that each socket is held to an interface of the
//! LAN: a route that leads elsewhere, now or later, carries none of them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use dnscrypt_proxy::upstream::SocketFactory;
use netio::netlink::Netlink;
use nix::sys::socket::{setsockopt, sockopt};
use tracing::warn;

use crate::config::InterfaceName;

const LOOPBACK: &str = "lo";

/// Makes them for a router with these interfaces on the home's side.
pub(crate) fn sockets(lan: &[InterfaceName]) -> SocketFactory {
    let (lan, told) = (lan.to_vec(), Told::default());
    SocketFactory::prepared_by(move |socket, server| {
        let held = hold(socket, server, &lan);
        told.tell(server, &held);
        held
    })
}

/// The servers without a way that an engineer has been told of: at most those of the configuration.
#[derive(Default)]
// Contended by lookups for forwarded zones, for a look into a small set.
struct Told(Mutex<BTreeSet<SocketAddr>>);

impl Told {
    /// Says that a server has no way, once until it has one again.
    fn tell(&self, server: SocketAddr, held: &io::Result<()>) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held {
            Ok(()) => drop(told.remove(&server)),
            Err(error) if told.insert(server) => warn!(
                %server, %error,
                "a server of dns.forward cannot be asked: correct its address, or lan.interfaces"
            ),
            Err(_) => {}
        }
    }
}

fn hold(socket: BorrowedFd<'_>, server: SocketAddr, lan: &[InterfaceName]) -> io::Result<()> {
    let mut netlink = Netlink::open().map_err(io::Error::other)?;
    let way = netlink
        .way(server.ip(), 0, None)
        .map_err(io::Error::other)?
        .ok_or(io::ErrorKind::NetworkUnreachable)?;
    let link = netlink.link_name(way.link);
    if link != LOOPBACK && !lan.iter().any(|name| name.as_str() == link) {
        let away = format!("{server} is reached by {link}, which is none of lan.interfaces");
        return Err(io::Error::other(away));
    }
    Ok(setsockopt(
        &socket,
        sockopt::BindToDevice,
        &OsString::from(link),
    )?)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata, Subscriber};

    use super::*;

    /// Counts warnings.
    struct Log(Arc<AtomicUsize>);

    impl Subscriber for Log {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }
        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn that_no_lan_leads_to_a_server_is_a_warning_once_until_one_does_again() {
        let (told, warnings) = (Told::default(), Arc::<AtomicUsize>::default());
        let [one, other] = ["10.0.0.1:53", "10.0.0.2:53"].map(|server| server.parse().unwrap());
        let away = || Err(io::ErrorKind::NetworkUnreachable.into());
        let warned_by = |lookup: &dyn Fn()| {
            tracing::subscriber::with_default(Log(Arc::clone(&warnings)), lookup);
            warnings.swap(0, Ordering::Relaxed)
        };

        assert_eq!(warned_by(&|| told.tell(one, &Ok(()))), 0);
        assert_eq!(warned_by(&|| told.tell(one, &away())), 1);
        assert_eq!(
            warned_by(&|| told.tell(one, &away())),
            0,
            "a lookup is no news"
        );
        assert_eq!(warned_by(&|| told.tell(other, &away())), 1);
        assert_eq!(warned_by(&|| told.tell(one, &Ok(()))), 0);
        assert_eq!(warned_by(&|| told.tell(one, &away())), 1);
    }

    #[test]
    fn a_server_of_the_router_itself_is_asked_and_one_that_no_lan_leads_to_is_not() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = socket.local_addr().unwrap();
        let hold_to = |server: &str| {
            let asking = UdpSocket::bind("0.0.0.0:0").unwrap();
            let held = hold(asking.as_fd(), server.parse().unwrap(), &[]);
            held.map(|()| asking)
        };

        let asking = hold_to(&own.to_string()).unwrap();
        asking.send_to(b"?", own).unwrap();
        assert_eq!(socket.recv(&mut [0; 4]).unwrap(), 1);

        let away = hold_to("198.51.100.1:53").unwrap_err();
        let is_told = away.to_string().contains("is none of lan.interfaces");
        // A machine without a network has no way there at all.
        assert!(
            is_told || away.kind() == io::ErrorKind::NetworkUnreachable,
            "{away}"
        );
    }
}
