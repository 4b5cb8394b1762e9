use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use netio::poll::Ready;

use super::*;

const LIMITS: Limits = Limits {
    in_flight: 4,
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
        let connections = Connections::new(vec![listener], LIMITS, &poller).unwrap();
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
    assert!(rig.connections.per_source.is_empty());
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
