use std::net::UdpSocket;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use netio::poll::Ready;

use super::*;
use crate::proto::Transport;
use crate::proto::message::{self, Query};
use crate::serve;

const PATIENCE: Duration = Duration::from_secs(10);
const OPT: usize = 11;

struct Rig {
    forwarder: Forwarder,
    poller: Poller,
    upstream: UdpSocket,
    events: Arc<Events>,
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn rig() -> Rig {
    let (upstream, poller) = (socket(), Poller::new().unwrap());
    rig_with(vec![upstream.local_addr().unwrap()], upstream, poller)
}

fn rig_with(servers: Vec<SocketAddr>, upstream: UdpSocket, poller: Poller) -> Rig {
    let forwarding = Forwarding {
        zones: vec![Zone {
            suffix: Box::from([0]),
            servers,
        }],
        left: vec![RecordType::AAAA],
        events: Arc::default(),
    };
    let mut forwarder = Forwarder::new(&forwarding);
    forwarder.flush(&poller, 0);
    Rig {
        forwarder,
        poller,
        upstream,
        events: forwarding.events,
    }
}

impl Rig {
    /// Asks; what arrives at the resolver, and from where.
    fn ask(&mut self, number: u64) -> (Vec<u8>, SocketAddr) {
        let query = message::query(7, "www.example", RecordType::A, 1232).unwrap();
        let asked = Query::read(&query).unwrap();
        let query = serve::Query {
            message: query,
            source: "192.0.2.9:9".parse().unwrap(),
            transport: Transport::Udp,
            room: 512,
            asking: serve::Asking::Anyhow,
        };
        let ask = Ask {
            number,
            query,
            asked,
        };
        self.forwarder.ask(ask, 0).unwrap();
        self.forwarder.flush(&self.poller, 0);
        let mut datagram = vec![0; 512];
        let (len, from) = self.upstream.recv_from(&mut datagram).unwrap();
        datagram.truncate(len);
        (datagram, from)
    }

    /// Hears what has come, having waited for it so long.
    fn hear(&mut self, wait: Duration) {
        let ready = self.poller.wait(Some(wait)).unwrap();
        let tokens: Vec<_> = ready
            .filter_map(|ready| match ready {
                Ready::Descriptor { token, .. } => Some(token),
                Ready::Woken => None,
            })
            .collect();
        for token in tokens {
            assert!(Forwarder::has(token));
            self.forwarder.receive(token, 0);
        }
    }
}

fn answer(datagram: &[u8]) -> Vec<u8> {
    let mut answer = datagram[..datagram.len() - OPT].to_vec();
    answer[2] |= 0x80;
    answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 1]);
    answer
}

#[test]
fn an_answer_that_is_right_in_all_but_its_sender_never_arrives() {
    let mut rig = rig();
    let (datagram, port) = rig.ask(1);
    let other = socket();

    other.send_to(&answer(&datagram), port).unwrap();
    rig.hear(Duration::ZERO);
    assert_eq!(rig.forwarder.answers(), []);

    rig.upstream.send_to(&answer(&datagram), port).unwrap();
    rig.hear(PATIENCE);
    let answers = rig.forwarder.answers();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, 1);
}

#[test]
fn guesses_from_the_resolvers_own_address_close_the_port_and_leave_the_question_to_tcp() {
    let mut rig = rig();
    let (datagram, port) = rig.ask(1);

    for guess in 1..=questions::MAX_MISMATCHES {
        let mut forged = answer(&datagram);
        forged[0] ^= guess as u8;
        rig.upstream.send_to(&forged, port).unwrap();
        rig.hear(PATIENCE);
    }

    let elsewhere = rig.forwarder.elsewhere();
    assert_eq!(elsewhere.len(), 1);
    assert_eq!(elsewhere[0].query.asking, serve::Asking::OverTcp);
    assert_eq!(rig.events.get(Event::WrongId), 8);
    rig.forwarder.flush(&rig.poller, 0);
    rig.upstream.send_to(&answer(&datagram), port).unwrap();
    rig.hear(Duration::ZERO);
    assert_eq!(rig.forwarder.answers(), []);
    let (_, next) = rig.ask(2);
    assert_ne!(next, port);
}

#[test]
fn a_server_to_which_there_is_no_way_keeps_no_question_from_the_next() {
    let (upstream, poller) = (socket(), Poller::new().unwrap());
    // Without a scope there is no way to a link-local address.
    let nowhere = "[fe80::1]:53".parse().unwrap();
    let mut rig = rig_with(
        vec![nowhere, upstream.local_addr().unwrap()],
        upstream,
        poller,
    );

    let (datagram, port) = rig.ask(1);
    rig.upstream.send_to(&answer(&datagram), port).unwrap();
    rig.hear(PATIENCE);

    assert_eq!(rig.forwarder.answers().len(), 1);
}

#[test]
fn questions_leave_from_many_ports() {
    let mut rig = rig();

    let ports: std::collections::HashSet<u16> =
        (0..200).map(|number| rig.ask(number).1.port()).collect();

    assert_eq!(ports.len(), 16);
}

#[test]
fn types_that_are_left_to_the_handler_are_given_back() {
    let mut rig = rig();
    let query = message::query(7, "www.example", RecordType::AAAA, 1232).unwrap();
    let asked = Query::read(&query).unwrap();
    let query = serve::Query {
        message: query,
        source: "192.0.2.9:9".parse().unwrap(),
        transport: Transport::Udp,
        room: 512,
        asking: serve::Asking::Anyhow,
    };
    let ask = Ask {
        number: 1,
        query,
        asked,
    };

    let back = rig.forwarder.ask(ask, 0).unwrap_err();

    assert_eq!(back.query.asking, serve::Asking::Anyhow);
    assert_eq!(rig.events.get(Event::Asked), 0);
}
