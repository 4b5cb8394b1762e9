use std::net::IpAddr;

use super::*;
use crate::offload::ecn::OuterTos;
use crate::offload::segment::Segments;
use crate::packet;
use crate::policy::SourceChecked;

const A: &str = "192.0.2.1:1";
const B: &str = "192.0.2.2:2";
const SHAPE: Shape = Shape {
    pace: Pace::EDGE,
    mtu: 1_420,
    max_waiting: 4,
    tos: OuterTos::Zero,
};

/// Two peers with a session, without anything above them.
struct Two {
    a: Wg,
    b: Wg,
    outbox: Outbox,
    now: Instant,
}

fn key(n: u8) -> StaticSecret {
    StaticSecret::from([n; 32])
}

fn public(n: u8) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&key(n)).to_bytes()
}

fn gate(n: u8, now: Instant) -> Gate {
    Gate::new(key(n), 9, Arc::default(), Duration::ZERO, now)
}

impl Two {
    fn new() -> Self {
        let now = Instant::now();
        let (a, b) = (gate(1, now), gate(2, now));
        let a = a.peer(public(2), None, 5, SHAPE, now);
        let b = b.peer(public(1), None, 6, SHAPE, now);
        Self {
            a,
            b,
            outbox: Outbox::default(),
            now,
        }
    }

    fn connected() -> Self {
        let mut two = Self::new();
        let mut jitter = Jitter(1);
        two.a
            .initiate(B.parse().unwrap(), &mut two.outbox, &mut jitter, two.now)
            .unwrap();
        let initiation = two.sent();
        assert_eq!(two.at_b(&initiation), Ok(None));
        let response = two.sent();
        assert_eq!(two.at_a(&response), Ok(None));
        let keepalive = two.sent();
        assert_eq!(two.at_b(&keepalive), Ok(None));
        two
    }

    fn sent(&mut self) -> Vec<u8> {
        self.outbox.poll().unwrap().payload.to_vec()
    }

    fn at_a(&mut self, datagram: &[u8]) -> Result<Option<Vec<u8>>, Dropped> {
        open(&mut self.a, datagram, B, &mut self.outbox, self.now)
    }

    fn at_b(&mut self, datagram: &[u8]) -> Result<Option<Vec<u8>>, Dropped> {
        if Message::classify(datagram)? == Message::Initiation {
            let initiator = gate(2, self.now).initiator(datagram)?;
            let from = A.parse().unwrap();
            let answered = self.b.accept(&initiator, from, &mut self.outbox, self.now);
            return answered.map(|()| None);
        }
        open(&mut self.b, datagram, A, &mut self.outbox, self.now)
    }

    fn a_sends(&mut self, packet: &[u8]) -> Vec<u8> {
        let sealed = self.a.seal(
            &Segments::plain(packet),
            B.parse().unwrap(),
            &mut self.outbox,
            self.now,
        );
        assert_eq!(sealed, Ok(Sealed::Sent));
        self.sent()
    }
}

fn open(
    wg: &mut Wg,
    datagram: &[u8],
    from: &str,
    outbox: &mut Outbox,
    now: Instant,
) -> Result<Option<Vec<u8>>, Dropped> {
    let mut buf = [0; 2_048];
    let message = Message::classify(datagram)?;
    match wg.open(
        message,
        datagram,
        from.parse().unwrap(),
        &mut buf,
        outbox,
        now,
    )? {
        Heard::Packet(packet) => {
            let len = packet::parse(packet)?.len;
            let packet = packet.get(..len).ok_or(Dropped::Malformed)?;
            Ok(Some(packet.to_vec()))
        }
        Heard::Response | Heard::Cookie | Heard::Keepalive => Ok(None),
    }
}

#[test]
fn authentic_bytes_that_are_no_packet_are_malformed() {
    let mut short_header = packet::tests::ip_packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 40);
    short_header[0] = 0x44;
    let mut beyond = packet::tests::ip_packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 48);
    beyond[3] = 200;
    for inner in [vec![0; 64], vec![0x45; 16], short_header, beyond] {
        let mut two = Two::connected();
        let datagram = two.a_sends(&inner);

        assert_eq!(two.at_b(&datagram), Err(Dropped::Malformed), "{inner:02x?}");
    }
    let mut inner = packet::tests::ip_packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 40);
    let header = packet::Header {
        source: IpAddr::from([10, 0, 0, 1]),
        destination: IpAddr::from([10, 0, 0, 2]),
        len: 4_000,
    };
    let allowed = ["10.0.0.1/32".parse().unwrap()];
    assert_eq!(
        SourceChecked::from_peer(&mut inner, &header, &allowed),
        Err(Dropped::Malformed)
    );
}

#[test]
fn a_session_is_refused_at_180_s_in_both_directions() {
    let mut two = Two::connected();
    let packet = packet::tests::ip_packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 60);
    let datagram = two.a_sends(&packet);
    two.now += Duration::from_secs(180);

    assert_eq!(two.at_b(&datagram), Err(Dropped::NoSession));
    let sealed = two.a.seal(
        &Segments::plain(&packet),
        B.parse().unwrap(),
        &mut two.outbox,
        two.now,
    );
    assert_eq!(sealed, Ok(Sealed::Waiting));
}

#[test]
fn reordered_packets_pass_once_within_the_window() {
    let mut two = Two::connected();
    let packet = packet::tests::ip_packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 60);
    let datagrams: Vec<_> = (0..100).map(|_| two.a_sends(&packet)).collect();

    for datagram in datagrams.iter().rev() {
        assert_eq!(two.at_b(datagram), Ok(Some(packet.clone())));
    }
    for datagram in &datagrams {
        assert_eq!(two.at_b(datagram), Err(Dropped::Replayed));
    }
}

#[test]
fn a_responder_does_not_send_before_the_initiator_proved_its_keys() {
    let mut two = Two::new();
    two.a
        .initiate(B.parse().unwrap(), &mut two.outbox, &mut Jitter(1), two.now)
        .unwrap();
    let initiation = two.sent();
    assert_eq!(two.at_b(&initiation), Ok(None));

    let packet = packet::tests::ip_packet([10, 0, 0, 2].into(), [10, 0, 0, 1].into(), 60);
    let sealed = two.b.seal(
        &Segments::plain(&packet),
        A.parse().unwrap(),
        &mut two.outbox,
        two.now,
    );

    assert_eq!(sealed, Ok(Sealed::Waiting));
}

#[test]
fn who_can_send_nothing_of_what_waited_proves_its_keys_all_the_same() {
    let mut two = Two::new();
    let packet = packet::tests::ip_packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 1_400);
    let to_b = B.parse().unwrap();
    let packets = Segments::plain(&packet);
    let kept = two.a.seal(&packets, to_b, &mut two.outbox, two.now);
    assert_eq!(kept, Ok(Sealed::Waiting));
    let sent = two
        .a
        .initiate(to_b, &mut two.outbox, &mut Jitter(1), two.now);
    assert_eq!(sent, Ok(()));
    let initiation = two.sent();
    two.at_b(&initiation).unwrap();
    let response = two.sent();
    two.a.set_mtu(600);

    two.at_a(&response).unwrap();

    assert_eq!(two.sent().len(), OVERHEAD_BYTES);
}
