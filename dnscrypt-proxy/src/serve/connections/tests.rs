use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use netio::poll::Ready;
use tokio::sync::mpsc;

use super::*;

const LIMITS: Limits = Limits {
    in_flight: 4,
    udp_batch: 4,
    tcp_connections: 2,
    tcp_per_source: 2,
    rate: None,
};
const WHOLE: [u8; 5] = [0, 3, b'a', b'b', b'c'];

struct Rig {
    connections: Connections,
    poller: Poller,
    counters: Counters,
    address: SocketAddr,
    now_s: u64,
}

impl Rig {
    fn new() -> Self {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), SILENCE).unwrap();
        let address = listener.local_addr().unwrap();
        let poller = Poller::new().unwrap();
        let connections =
            Connections::new(vec![listener], (LIMITS, Homes::default()), &poller).unwrap();
        Self {
            connections,
            poller,
            counters: Counters::default(),
            address,
            now_s: 100,
        }
    }

    /// A client that has sent something.
    fn client(&self, first: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        stream.write_all(first).unwrap();
        stream
    }

    /// What the poller's next report brings.
    fn turn(&mut self) -> Vec<Arrived> {
        let events = self.poller.wait(Some(SILENCE)).unwrap();
        let tokens: Vec<u32> = events
            .map(|event| match event {
                Ready::Descriptor { token, .. } => token,
                Ready::Woken => panic!("nobody wakes"),
            })
            .collect();
        assert!(!tokens.is_empty(), "nothing came");
        let mut arrived = Vec::new();
        for token in tokens {
            let at = (&self.poller, &self.counters, self.now_s);
            self.connections.ready(token, at, &mut arrived);
        }
        arrived
    }

    fn answer(&mut self, id: Id, packet: &[u8]) {
        let at = (&self.poller, &self.counters, self.now_s);
        self.connections.answer(id, packet, at);
    }

    fn sweep_after(&mut self, seconds: u64) {
        self.now_s += seconds;
        let at = (&self.poller, &self.counters, self.now_s);
        self.connections.sweep(at);
    }

    fn open(&self) -> usize {
        self.connections.slots.len() - self.connections.free.len()
    }
}

#[test]
fn who_takes_too_long_for_a_query_is_closed_however_often_a_byte_comes() {
    let mut rig = Rig::new();
    let mut slow = rig.client(&WHOLE[..2]);
    assert!(rig.turn().is_empty());

    for byte in [b'a', b'b'] {
        rig.sweep_after(4);
        slow.write_all(&[byte]).unwrap();
        assert!(rig.turn().is_empty());
    }
    assert_eq!(rig.open(), 1);
    rig.sweep_after(2);

    assert_eq!(rig.open(), 0);
    assert_eq!(rig.counters.dropped(Dropped::TimedOut), 1);
    assert_eq!(rig.connections.patience(), None);
    assert_eq!(rig.connections.places.taken, 0);
}

#[test]
fn who_waits_for_an_answer_is_not_too_slow_and_who_is_silent_after_it_goes_unblamed() {
    let mut rig = Rig::new();
    let mut client = rig.client(&WHOLE);
    let [query] = <[Arrived; 1]>::try_from(rig.turn()).ok().unwrap();
    assert_eq!(query.packet, b"abc");

    rig.sweep_after(60);
    rig.answer(query.id, b"yes");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[2..], b"yes");
    assert_eq!(rig.open(), 1);
    rig.sweep_after(PATIENCE_S);

    assert_eq!(client.read(&mut answer).unwrap(), 0);
    assert_eq!(rig.counters.dropped(Dropped::TimedOut), 0);
}

#[test]
fn who_does_not_take_its_answer_is_closed_and_who_takes_it_late_has_all_of_it() {
    let mut rig = Rig::new();
    let (_lazy, mut late) = (rig.client(&WHOLE), rig.client(&WHOLE));
    let mut queries = rig.turn();
    while queries.len() < 2 {
        queries.extend(rig.turn());
    }
    let is_late = |query: &Arrived| query.source == late.local_addr().unwrap();
    let late_id = queries.iter().find(|query| is_late(query)).unwrap().id;
    let lazy_id = queries.iter().find(|query| !is_late(query)).unwrap().id;
    let packet = vec![9; usize::from(u16::MAX)];
    // More than the kernel keeps for somebody who reads nothing.
    for id in [late_id, lazy_id] {
        let connection = rig.connections.get(id).unwrap();
        while connection.stream.send(&packet).unwrap() == packet.len() {}
        rig.answer(id, b"the last");
    }

    late.set_nonblocking(true).unwrap();
    let (mut got, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    while !got.ends_with(b"the last") {
        match late.read(&mut buffer) {
            Ok(read) => got.extend_from_slice(&buffer[..read]),
            Err(_) => assert!(rig.turn().is_empty()),
        }
    }
    rig.sweep_after(PATIENCE_S - 1);
    assert_eq!(rig.open(), 2);
    rig.sweep_after(1);

    assert_eq!(rig.open(), 0);
    assert_eq!(rig.counters.dropped(Dropped::TimedOut), 1);
}

#[test]
fn one_too_many_is_closed_and_an_answer_for_one_that_is_gone_reaches_nobody_else() {
    let mut rig = Rig::new();
    let first = rig.client(&WHOLE);
    let gone = rig.turn().remove(0).id;
    drop(first);
    rig.connections.close(gone);
    let mut second = rig.client(&WHOLE);
    let id = rig.turn().remove(0).id;
    assert_eq!(id.slot, gone.slot);

    rig.answer(gone, b"not yours");
    rig.answer(id, b"yours");
    let mut answer = [0; 7];
    second.read_exact(&mut answer).unwrap();
    assert_eq!(&answer[2..], b"yours");

    let _third = rig.client(&WHOLE[..1]);
    assert!(rig.turn().is_empty());
    let mut fourth = rig.client(&WHOLE);
    assert!(rig.turn().is_empty());
    assert_eq!(rig.counters.dropped(Dropped::TooManyConnections), 1);
    assert!(matches!(fourth.read(&mut answer), Ok(0) | Err(_)));
}

#[test]
fn of_queries_that_come_together_one_is_under_way_at_a_time() {
    let mut rig = Rig::new();
    let mut client = rig.client(&WHOLE[..2]);
    assert!(rig.turn().is_empty());
    client.write_all(&WHOLE[2..]).unwrap();
    let first = rig.turn();
    rig.answer(first[0].id, b"1");

    client.write_all(&[WHOLE, WHOLE].concat()).unwrap();
    let second = rig.turn();
    assert_eq!(second.len(), 1);
    rig.answer(second[0].id, b"2");
    client.write_all(&WHOLE).unwrap();
    let mut arrived = rig.turn();
    rig.connections.take_next(&mut arrived);

    assert_eq!(arrived.len(), 1);
    rig.answer(arrived[0].id, b"3");
    assert_eq!(rig.turn().len(), 1, "the fourth");
}

/// A rig in which TLS is spoken at these addresses, or at its own, and what was left there.
fn before_tls(addresses: Option<Vec<SocketAddr>>) -> (Rig, mpsc::Receiver<Begun>) {
    let mut rig = Rig::new();
    let addresses = addresses.unwrap_or_else(|| vec![rig.address]);
    let (door, begun) = TlsDoor::open(addresses);
    rig.connections = rig.connections.before(Some(door));
    (rig, begun)
}

fn is_closed(mut client: TcpStream) -> bool {
    matches!(client.read(&mut [0; 8]), Ok(0))
}

#[test]
fn what_begins_almost_as_tls_or_asks_elsewhere_is_too_long_as_ever() {
    let elsewhere = "127.0.0.1:1".parse().unwrap();
    for (first, addresses) in [
        (&[22, 4, 1][..], None),
        (&[22, 2, 1], None),
        (&[23, 3, 1], None),
        (&[0xff, 0xff], None),
        (&[22, 3, 1], Some(Vec::new())),
        (&[22, 3, 1], Some(vec![elsewhere])),
    ] {
        let (mut rig, mut begun) = before_tls(addresses);
        let client = rig.client(first);

        assert!(rig.turn().is_empty());

        assert_eq!(rig.counters.dropped(Dropped::TooLong), 1, "{first:?}");
        assert!(begun.try_recv().is_err(), "{first:?}");
        assert_eq!(rig.open(), 0);
        assert!(is_closed(client));
    }
}

#[test]
fn who_has_asked_over_dnscrypt_does_not_come_to_speak_tls() {
    let (mut rig, mut begun) = before_tls(None);
    let mut client = rig.client(&WHOLE);
    let [query] = <[Arrived; 1]>::try_from(rig.turn()).ok().unwrap();
    rig.answer(query.id, b"yes");
    client.read_exact(&mut [0; 5]).unwrap();

    client.write_all(&[22, 3, 1]).unwrap();
    assert!(rig.turn().is_empty());

    assert_eq!(rig.counters.dropped(Dropped::TooLong), 1);
    assert!(begun.try_recv().is_err());
    assert!(is_closed(client));
}

#[test]
fn who_says_one_byte_of_tls_and_no_more_has_the_time_of_a_query() {
    let (mut rig, mut begun) = before_tls(None);
    let client = rig.client(&[22]);
    assert!(rig.turn().is_empty());

    rig.sweep_after(PATIENCE_S - 1);
    assert_eq!(rig.open(), 1);
    rig.sweep_after(1);

    assert_eq!(rig.counters.dropped(Dropped::TimedOut), 1);
    assert!(begun.try_recv().is_err());
    assert!(is_closed(client));
}

#[test]
fn more_than_wait_to_be_taken_are_closed_and_queries_go_on() {
    let (mut rig, mut begun) = before_tls(None);
    let mut last = None;
    for _ in 0..10_000 {
        last = Some(rig.client(&[22, 3, 1]));
        assert!(rig.turn().is_empty());
        if rig.counters.dropped(Dropped::TooManyConnections) == 1 {
            break;
        }
    }
    assert_eq!(rig.counters.dropped(Dropped::TooManyConnections), 1);
    assert!(is_closed(last.unwrap()));
    assert_eq!(rig.open(), 0, "those who wait have no place here");

    let _client = rig.client(&WHOLE);
    assert_eq!(rig.turn().len(), 1);
    drop(begun.try_recv().unwrap());
    let _next = rig.client(&[22, 3, 1]);
    assert!(rig.turn().is_empty());

    assert_eq!(rig.counters.dropped(Dropped::TooManyConnections), 1);
}

#[test]
fn a_connection_that_speaks_tls_is_left_with_all_that_was_read_and_is_heard_of_no_more() {
    let (mut rig, mut begun) = before_tls(None);
    let mut client = rig.client(&[22]);
    assert!(rig.turn().is_empty());
    client.write_all(&[3, 1, 2, 0]).unwrap();
    assert!(rig.turn().is_empty());

    let mut left = begun.try_recv().unwrap();
    assert_eq!(left.read, [22, 3, 1, 2, 0]);
    assert_eq!(left.source, client.local_addr().unwrap());
    assert_eq!((rig.open(), rig.connections.places.taken), (0, 0));
    assert_eq!(rig.connections.patience(), None);
    client.write_all(b"more").unwrap();
    let mut more = [0; 4];
    left.stream.read_exact(&mut more).unwrap();
    client.write_all(b"and more").unwrap();
    let at_once = rig.poller.wait(Some(Duration::ZERO)).unwrap();
    assert_eq!(at_once.count(), 0, "it is somebody else's");

    left.stream.write_all(b"hello").unwrap();
    let mut hello = [0; 5];
    client.read_exact(&mut hello).unwrap();
    assert_eq!((&more, &hello), (b"more", b"hello"));
    assert_eq!(rig.counters.all_dropped().count(), 0);
}
