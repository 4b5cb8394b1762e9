use std::time::Duration;

use super::*;
use crate::poll::{Interest, Poller};

fn pair(offload: Offload, host: &str) -> (Udp, Udp) {
    let options = UdpOptions {
        offload,
        ..UdpOptions::default()
    };
    let address = format!("{host}:0").parse().unwrap();
    (
        Udp::bind(address, &options).unwrap(),
        Udp::bind(address, &options).unwrap(),
    )
}

fn receive_all(udp: &Udp, expected: usize) -> Vec<Vec<u8>> {
    let mut poller = Poller::new().unwrap();
    poller.add(udp, 0, Interest::Readable).unwrap();
    let mut buffer = RecvBuffer::new();
    let mut got = Vec::new();
    while got.len() < expected {
        let ready = poller.wait(Some(Duration::from_secs(5))).unwrap().count();
        assert!(ready > 0, "only {} of {expected} datagrams came", got.len());
        while let Some(received) = udp.recv(&mut buffer).unwrap() {
            got.extend(received.datagrams().map(<[u8]>::to_vec));
        }
    }
    got
}

fn run_of(lengths: &[usize]) -> Vec<Vec<u8>> {
    let datagram = |(i, len): (usize, &usize)| vec![u8::try_from(i).unwrap(); *len];
    lengths.iter().enumerate().map(datagram).collect()
}

#[test]
fn what_finds_the_buffer_full_is_counted() {
    let options = UdpOptions {
        buffer_bytes: 64 * 1024,
        ..UdpOptions::default()
    };
    let receiver = Udp::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
    let sender = Udp::bind("127.0.0.1:0".parse().unwrap(), &UdpOptions::default()).unwrap();
    let to = receiver.local_addr().unwrap();
    assert_eq!(receiver.overflowed().unwrap(), 0);

    let sent = (0..400)
        .filter(|_| matches!(sender.send(to, &[7; 1_400], 1_400), Sent::Yes))
        .count();

    let mut buffer = RecvBuffer::new();
    let came =
        std::iter::from_fn(|| Some(receiver.recv(&mut buffer).unwrap()?.datagrams().count()));
    let came: usize = came.sum();
    assert!(came < sent, "{came} of {sent}");
    assert_eq!(receiver.overflowed().unwrap() as usize, sent - came);
}

#[test]
fn a_busy_port_is_named() {
    let taken = Udp::bind("127.0.0.1:0".parse().unwrap(), &UdpOptions::default()).unwrap();
    let address = taken.local_addr().unwrap();

    let second = Udp::bind(address, &UdpOptions::default());

    assert!(matches!(second, Err(UdpError::Busy(a)) if a == address));
}

#[test]
fn an_address_of_another_machine_is_named() {
    let address = "192.0.2.1:0".parse().unwrap();

    let bound = Udp::bind(address, &UdpOptions::default());

    assert!(matches!(bound, Err(UdpError::NoSuchAddress(a)) if a == address));
}

#[test]
fn an_empty_socket_has_nothing_and_does_not_block() {
    let (udp, _) = pair(Offload::Auto, "127.0.0.1");

    let mut buffer = RecvBuffer::new();

    assert!(udp.recv(&mut buffer).unwrap().is_none());
}

#[test]
fn a_run_arrives_as_the_datagrams_it_was_made_of() {
    for (offload, host) in [
        (Offload::Auto, "127.0.0.1"),
        (Offload::Auto, "[::1]"),
        (Offload::Never, "127.0.0.1"),
    ] {
        let (from, to) = pair(offload, host);
        let mut lengths = vec![1_000; 40];
        lengths.push(123);
        let run = run_of(&lengths);

        let sent = from.send(to.local_addr().unwrap(), &run.concat(), 1_000);

        assert!(matches!(sent, Sent::Yes), "{sent:?}");
        assert_eq!(receive_all(&to, 41), run, "{offload:?} {host}");
    }
}

#[test]
fn the_sender_is_reported_with_its_port() {
    for host in ["127.0.0.1", "[::1]"] {
        let (from, to) = pair(Offload::Auto, host);
        let sent = from.send(to.local_addr().unwrap(), b"hello", 5);
        assert!(matches!(sent, Sent::Yes), "{sent:?}");

        let mut buffer = RecvBuffer::new();
        let received = to.recv(&mut buffer).unwrap().unwrap();

        assert_eq!(received.from, from.local_addr().unwrap());
    }
}

#[test]
fn workers_share_a_port_when_asked() {
    let options = UdpOptions {
        reuse_port: true,
        ..UdpOptions::default()
    };
    let first = Udp::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();

    let second = Udp::bind(first.local_addr().unwrap(), &options);

    assert_eq!(
        second.unwrap().local_addr().unwrap(),
        first.local_addr().unwrap()
    );
}

#[test]
fn both_families_have_the_same_port() {
    let six = Udp::bind("[::]:0".parse().unwrap(), &UdpOptions::default()).unwrap();
    let port = six.local_addr().unwrap().port();

    let four = Udp::bind(([0, 0, 0, 0], port).into(), &UdpOptions::default());

    assert_eq!(four.unwrap().local_addr().unwrap().port(), port);
}
