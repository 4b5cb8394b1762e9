use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::netlink::Netlink;
use crate::poll::{Interest, Poller};
use crate::udp::{Udp, UdpOptions};

const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Moves this test's thread into a network namespace of its own, which goes away with it.
fn fresh_namespace() {
    unshare(CloneFlags::CLONE_NEWNET)
        .expect("this test needs root (CAP_SYS_ADMIN) to make a network namespace; run it as root");
}

/// A device of one queue, up, with our address.
fn device(name: &str) -> Tun {
    fresh_namespace();
    let tun = Tun::open_with(name, 1_420, 1, Offload::Never)
        .unwrap()
        .remove(0);
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link(name).unwrap();
    netlink
        .add_address(link, ipnet::IpNet::new(OURS.into(), 24).unwrap())
        .unwrap();
    netlink.bring_up(link, 1_420).unwrap();
    tun
}

/// An IPv4 packet with a UDP datagram, without UDP's checksum.
fn udp_packet(source: Ipv4Addr, destination: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(28 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let words = packet
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&(!folded).to_be_bytes());
    packet.extend(9_u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend((total - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet.splice(0..0, [0; HEADER_BYTES]);
    packet
}

/// The first packet for `THEIRS`; a device that came up also sends packets of the kernel's own.
fn next_for_them(tun: &Tun) -> Vec<u8> {
    let mut poller = Poller::new().unwrap();
    poller.add(tun, 0, Interest::Readable).unwrap();
    let mut buf = vec![0; FRAME_BYTES];
    loop {
        let ready = poller.wait(Some(Duration::from_secs(5))).unwrap().count();
        assert!(ready > 0, "nothing came out of the device");
        while let Some(len) = tun.recv(&mut buf).unwrap() {
            let packet = &buf[HEADER_BYTES..len];
            if packet.get(16..20) == Some(&THEIRS.octets()) {
                return packet.to_vec();
            }
        }
    }
}

#[test]
fn names_queues_and_mtus_that_cannot_be_are_refused_before_anything_is_opened() {
    for name in ["", "a/b", "a b", "..", "sixteen-letters-", "ein-gerät"] {
        assert!(matches!(Tun::open(name, 1_420, 1), Err(TunError::BadName(n)) if n == name));
    }
    for queues in [0, 257] {
        assert!(
            matches!(Tun::open("tun0", 1_420, queues), Err(TunError::BadQueues(n)) if n == queues)
        );
    }
    assert!(matches!(
        Tun::open("tun0", 1_279, 1),
        Err(TunError::BadMtu(1_279))
    ));
}

#[test]
fn a_device_in_use_is_named() {
    fresh_namespace();
    let _held = Tun::open("busy0", 1_420, 1).unwrap();

    let second = Tun::open("busy0", 1_420, 1);

    assert!(matches!(second, Err(TunError::Busy(name)) if name == "busy0"));
}

#[test]
fn a_device_that_is_down_refuses_packets_and_says_so() {
    fresh_namespace();
    let tun = Tun::open("down0", 1_420, 1).unwrap().remove(0);

    let written = tun.send(&udp_packet(THEIRS, OURS, 5_000, b"x")).unwrap();

    assert_eq!(written, Written::Refused);
}

#[test]
fn what_is_no_ip_packet_is_refused() {
    let tun = device("junk0");

    assert_eq!(
        tun.send(&[&[0; HEADER_BYTES][..], &[0xff; 40]].concat())
            .unwrap(),
        Written::Refused
    );
}

#[test]
fn a_packet_written_reaches_a_socket_of_this_machine() {
    let tun = device("in0");
    let socket = UdpSocket::bind((OURS, 5_000)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();

    let written = tun
        .send(&udp_packet(THEIRS, OURS, 5_000, b"from the tunnel"))
        .unwrap();

    let mut buf = [0; 64];
    let (len, from) = socket.recv_from(&mut buf).unwrap();
    assert_eq!(written, Written::Yes);
    assert_eq!(
        (&buf[..len], from),
        (&b"from the tunnel"[..], (THEIRS, 9).into())
    );
}

#[test]
fn a_packet_of_this_machine_is_read_whole_and_then_nothing_is_left() {
    let tun = device("out0");
    let socket = UdpSocket::bind((OURS, 9)).unwrap();

    socket.send_to(b"into the tunnel", (THEIRS, 5_000)).unwrap();

    let packet = next_for_them(&tun);
    assert_eq!(packet[12..16], OURS.octets());
    assert_eq!(&packet[28..], b"into the tunnel");
    let mut rest = vec![0; FRAME_BYTES];
    while let Some(len) = tun.recv(&mut rest).unwrap() {
        // The kernel may have begun to ask for routers, which IPv6 does by itself.
        let left = &rest[HEADER_BYTES..len];
        assert_eq!(left[0] >> 4, 6, "{left:02x?}");
    }
}

#[test]
fn the_mtu_is_the_one_asked_for() {
    let tun = device("mtu0");
    let socket = UdpSocket::bind((OURS, 9)).unwrap();

    socket.send_to(&[0; 4_000], (THEIRS, 5_000)).unwrap();

    // The kernel cuts at the last multiple of 8 that fits (RFC 791).
    assert_eq!(next_for_them(&tun).len(), 20 + (1_420 - 20) / 8 * 8);
}

#[test]
fn every_queue_of_a_device_is_usable() {
    fresh_namespace();
    let queues = Tun::open("many0", 1_420, 3).unwrap();
    let mut netlink = Netlink::open().unwrap();
    let link = netlink.link("many0").unwrap();
    netlink.bring_up(link, 1_420).unwrap();

    let written = queues
        .iter()
        .map(|q| q.send(&udp_packet(THEIRS, OURS, 5_000, b"x")).unwrap());

    assert_eq!(written.collect::<Vec<_>>(), [Written::Yes; 3]);
}

#[test]
fn a_socket_bound_to_a_device_sends_only_there_and_with_its_mark() {
    let tun = device("bound0");
    let options = UdpOptions {
        device: Some("bound0".to_owned()),
        mark: Some(0x4356),
        ..UdpOptions::default()
    };
    let udp = Udp::bind("0.0.0.0:0".parse().unwrap(), &options).unwrap();

    // 198.51.100.1 has no route here; only the device that the socket is bound to can take it.
    let sent = udp.send("198.51.100.1:5000".parse().unwrap(), b"bound", 5);

    assert!(matches!(sent, crate::udp::Sent::Yes), "{sent:?}");
    let mark = nix::sys::socket::getsockopt(&udp, nix::sys::socket::sockopt::Mark).unwrap();
    assert_eq!(mark, 0x4356);
    let missing = UdpOptions {
        device: Some("none0".to_owned()),
        ..options
    };
    assert!(Udp::bind("0.0.0.0:0".parse().unwrap(), &missing).is_err());
    drop(tun);
}

#[test]
fn a_run_over_a_device_without_offload_still_arrives_packet_by_packet() {
    let tun = device("plain0");
    let udp = Udp::bind((OURS, 9).into(), &UdpOptions::default()).unwrap();

    let sent = udp.send((THEIRS, 5_000).into(), &[7; 2_500], 1_000);

    assert!(matches!(sent, crate::udp::Sent::Yes), "{sent:?}");
    let lengths: Vec<_> = (0..3).map(|_| next_for_them(&tun).len() - 28).collect();
    assert_eq!(lengths, [1_000, 1_000, 500]);
}
