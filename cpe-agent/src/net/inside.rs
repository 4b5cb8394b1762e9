//! Sockets to servers of the home's own. Lookups for their zones are asked in clear, so that each socket is held to an interface of the
//! LAN: a route that leads elsewhere, now or later, carries none of them.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use dnscrypt_proxy::upstream::SocketFactory;
use netio::netlink::Netlink;
use nix::sys::socket::{setsockopt, sockopt};

use crate::config::InterfaceName;

const LOOPBACK: &str = "lo";

/// Makes them for a router with these interfaces on the home's side.
pub(crate) fn sockets(lan: &[InterfaceName]) -> SocketFactory {
    let lan = lan.to_vec();
    SocketFactory::prepared_by(move |socket, server| hold(socket, server, &lan))
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

    use super::*;

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
